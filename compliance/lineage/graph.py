"""A model's lineage with each run as one node: what a picture or another program is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from fedseal.compliance.lineage.answers import Thing
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.names import registered
from fedseal.compliance.lineage.parts import parts_of, runs_of
from fedseal.compliance.lineage.reach import ANCESTORS, rows
from fedseal.compliance.lineage.tables import EDGES, NODES, ROUNDS, RUNS

Key = tuple[str, str]

_INSIDE = select(ANCESTORS.c.node)
_NODES = select(NODES).where(NODES.c.id.in_(_INSIDE))
_ROUNDS = select(ROUNDS.c.run, ROUNDS.c.node, ROUNDS.c.aggregate, ROUNDS.c.model_out).where(ROUNDS.c.node.in_(_INSIDE))


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A thing or a run. ``note``: what there is to say of it; ``sites``: whose it is, or who took part."""

    kind: str
    digest: str
    note: str
    sites: tuple[str, ...]
    idx: int


@dataclass(frozen=True, slots=True, order=True)
class GraphEdge:
    """``source`` influenced ``target``: places among the nodes. ``chosen``: only by guiding a choice.

    ``kind`` is that of the first of its edges.
    """

    source: int
    target: int
    kind: EdgeKind
    chosen: bool


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Nodes by the entry that names them first; the model whose lineage it is, is the last."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]


def graph_of(connection: Connection, model: int, thing: Thing) -> LineageGraph:
    """The lineage of a model. Of the models on the way those are kept that are registered or that a run began with.

    Args:
        connection: the tables'.
        model: the model's node.
        thing: the same.
    """
    inside = {row.id: row for row in rows(connection, _NODES, model)}
    made: dict[int, str] = {}
    at: dict[int, Key] = {}
    for summed in rows(connection, _ROUNDS, model):
        at[summed.node] = at[summed.aggregate] = (NodeKind.RUN, summed.run)
        if summed.model_out is not None:
            made[summed.model_out] = summed.run
    nodes = _parts_and_runs(connection, model)
    at |= {number: (row.kind, row.digest) for number, row in inside.items() if (row.kind, row.digest) in nodes}
    names = registered(connection)
    started = set(connection.execute(select(RUNS.c.model_in)).scalars())
    for number, row in inside.items():
        if row.kind == NodeKind.MODEL and number != model:
            if row.digest in names or number in started or number not in made:
                at[number] = (row.kind, row.digest)
                nodes[at[number]] = GraphNode(row.kind, row.digest, names.get(row.digest, ""), (), row.first_idx)
            else:
                at[number] = (NodeKind.RUN, made[number])
    last: Key = (thing.kind, thing.digest)
    at[model] = last
    nodes[last] = GraphNode(thing.kind, thing.digest, thing.label, (), thing.idx)
    order = sorted(nodes, key=lambda key: (key == last, nodes[key].idx, key))
    into = select(EDGES).where(EDGES.c.dst.in_(_INSIDE.union(select(NODES.c.id).where(NODES.c.id == model))))
    edges = _collapsed(rows(connection, into.order_by(EDGES.c.idx), model), at, made, order)
    return LineageGraph(tuple(nodes[key] for key in order), edges)


def _parts_and_runs(connection: Connection, model: int) -> dict[Key, GraphNode]:
    """Data, labels, code and settings; and runs, with all that happened in them."""
    found: dict[Key, GraphNode] = {}
    for part in parts_of(connection, model):
        said = [part.thing.label, *(notice.notice for notice in part.notices)]
        note = ", ".join(filter(None, said))
        key = (part.thing.kind, part.thing.digest)
        found[key] = GraphNode(*key, note, part.sites, part.thing.idx)
    for run in runs_of(connection, model)[0]:
        rounds = f"{run.rounds} round{'' if run.rounds == 1 else 's'}"
        note = f"{run.study}, {rounds}, plan {run.plan}" if run.study else rounds
        found[NodeKind.RUN, run.run] = GraphNode(NodeKind.RUN, run.run, note, run.sites, run.idx)
    return found


def _collapsed(
    found: Sequence[Row[Any]], at: Mapping[int, Key], made: Mapping[int, str], order: list[Key]
) -> tuple[GraphEdge, ...]:
    """Edges between what is shown, once each."""
    place = {key: number for number, key in enumerate(order)}
    kept: dict[tuple[int, int], GraphEdge] = {}

    for row in found:
        source, target = at.get(row.src), at.get(row.dst)
        if source is None or target is None or source == target or row.kind > EdgeKind.PARENT:
            continue
        if row.kind == EdgeKind.PARENT and row.dst in made:
            # The way through the run says the same.
            continue
        if target == (NodeKind.RUN, made.get(row.src)):
            # Chosen as the run's last model, and gone on with before that.
            continue
        ends = (place[source], place[target])
        before = kept.get(ends)
        chosen = row.kind == EdgeKind.SELECTED_WITH and (before is None or before.chosen)
        kept[ends] = GraphEdge(*ends, EdgeKind(row.kind) if before is None else before.kind, chosen)
    return tuple(sorted(kept.values()))
