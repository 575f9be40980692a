"""What the database answers on random graphs is what a plain search over a list of edges answers."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import insert
from support.histories import memory

from fedseal.compliance.lineage.answers import Thing
from fedseal.compliance.lineage.impact import CAUSES, impact
from fedseal.compliance.lineage.kinds import TOWARDS_ROUNDS, EdgeKind, NodeKind
from fedseal.compliance.lineage.parts import LISTED, models_of, parts_of
from fedseal.compliance.lineage.tables import EDGES, METADATA, NODES, ROUNDS

K, E = NodeKind, EdgeKind
JOINS: tuple[tuple[NodeKind, NodeKind, EdgeKind], ...] = (
    (K.DATASET, K.ROUND, E.DATA),
    (K.POPULATION, K.ROUND, E.DATA),
    (K.LABEL_SET, K.ROUND, E.LABELS),
    (K.CODE, K.RUN, E.CODE),
    (K.CODE, K.ROUND, E.CODE),
    (K.CONFIG, K.RUN, E.SETTING),
    (K.RUN, K.ROUND, E.ROUND_OF),
    (K.MODEL, K.RUN, E.START),
    (K.MODEL, K.ROUND, E.INPUT),
    (K.ROUND, K.AGGREGATE, E.SUM),
    (K.AGGREGATE, K.MODEL, E.RESULT),
    (K.AGGREGATE, K.ROUND, E.STATISTICS),
    (K.AGGREGATE, K.MODEL, E.SELECTED_WITH),
    (K.DATASET, K.RUN, E.SELECTED_WITH),
    (K.MODEL, K.RUN, E.SELECTED_WITH),
    (K.GUIDELINE, K.LABEL_SET, E.GUIDELINE),
    (K.DATASET, K.LABEL_SET, E.LABELLED),
    (K.DATASET, K.DATASET, E.DERIVED),
    (K.CODE, K.DATASET, E.PREPROCESSING),
    (K.SITE, K.POPULATION, E.HOLDS),
    (K.POPULATION, K.DATASET, E.HOLDS),
    (K.MODEL, K.MODEL, E.PARENT),
    (K.DATASET, K.DATASET, E.REPLACED),
    (K.LABEL_SET, K.LABEL_SET, E.REPLACED),
)
Edge = tuple[int, int, EdgeKind]


@dataclass
class Made:
    """A random graph: kinds by node, edges, and what is known of rounds."""

    kinds: list[NodeKind]
    edges: dict[Edge, int] = field(default_factory=dict)
    rounds: dict[int, tuple[str, int, str, int | None, bool]] = field(default_factory=dict)

    def reach(self, start: Iterable[int], follow: Callable[[EdgeKind], bool], *, back: bool = False) -> set[int]:
        """Where a search from some nodes gets, one edge at least."""
        joined: dict[int, list[int]] = {}
        for source, target, kind in self.edges:
            if follow(kind):
                near, far = (target, source) if back else (source, target)
                joined.setdefault(near, []).append(far)
        found: set[int] = set()
        stack = list(start)
        while stack:
            for far in joined.get(stack.pop(), []):
                if far not in found:
                    found.add(far)
                    stack.append(far)
        return found


def random_graph(seed: int) -> Made:
    """Mostly from old to new, as a log has it; here and there a circle."""
    rng = random.Random(f"lineage {seed}")
    kinds = [rng.choice(list(NodeKind)[:12]) for _ in range(rng.randrange(8, 45))]
    made = Made(kinds)
    for _ in range(rng.randrange(10, 140)):
        source_kind, target_kind, kind = rng.choice(JOINS)
        sources = [n for n, k in enumerate(kinds) if k is source_kind]
        targets = [n for n, k in enumerate(kinds) if k is target_kind]
        if not sources or not targets:
            continue
        source, target = rng.choice(sources), rng.choice(targets)
        if kind is E.PARENT and source > target:
            source, target = target, source
        if source != target:
            made.edges[source, target, kind] = rng.randrange(1000)
    models = [n for n, k in enumerate(kinds) if k is K.MODEL]
    sequence = 0
    for number, kind_of in enumerate(kinds):
        if kind_of is K.ROUND:
            sequence += 1
            release = rng.choice(["update", "update", "moments", "evaluation"])
            out = rng.choice(models) if models and rng.random() < 0.6 else None
            if out is not None:
                models.remove(out)
            made.rounds[number] = (rng.choice("ab"), sequence, release, out, rng.random() < 0.2)
    return made


def influence(kind: EdgeKind) -> bool:
    return kind <= E.PARENT


def firm(kind: EdgeKind) -> bool:
    return kind <= E.PARENT and kind is not E.SELECTED_WITH


Answer = dict[int, tuple[bool, int, bool, int | None]]


def impact_by_search(made: Made, start: int) -> Answer:
    """Of every model: chosen, direct rounds, inherited, newest clean ancestor."""
    everything, surely = made.reach([start], influence), made.reach([start], firm)
    towards = made.reach([start], lambda kind: kind in TOWARDS_ROUNDS)
    direct = [made.rounds[n] for n in towards if n in made.rounds]
    found: Answer = {}
    for model in everything - {start}:
        if made.kinds[model] is not K.MODEL:
            continue
        own = next(((run, at) for run, at, _, out, _ in made.rounds.values() if out == model), None)
        rounds = 0
        if own is not None:
            rounds = sum(
                run == own[0] and at <= own[1] and release != "evaluation" and not superseded
                for run, at, release, _, superseded in direct
            )
        older = made.reach([model], lambda kind: kind is E.PARENT, back=True)
        clean = max((n for n in older if n not in everything and n != start), default=None)
        found[model] = (model not in surely, rounds, rounds == 0, clean)
    return found


def parts_by_search(made: Made, model: int) -> dict[int, bool]:
    """What has reached a model, and whether through choices only."""
    everything, surely = made.reach([model], influence, back=True), made.reach([model], firm, back=True)
    return {n: n not in surely for n in everything if made.kinds[n] in LISTED or made.kinds[n] is K.MODEL}


def agree(seed: int) -> int:
    """Whether the tables give the same; how many models were compared."""
    made = random_graph(seed)
    compared = 0
    with memory().begin() as connection:
        METADATA.create_all(connection)
        nodes = [
            {"id": n + 1, "kind": k.value, "digest": f"n{n}", "label": "", "first_idx": n}
            for n, k in enumerate(made.kinds)
        ]
        connection.execute(insert(NODES), nodes)
        if made.edges:
            edges = [{"src": s + 1, "dst": t + 1, "kind": int(k), "idx": i} for (s, t, k), i in made.edges.items()]
            connection.execute(insert(EDGES), edges)
        for number, (run, at, release, out, superseded) in made.rounds.items():
            row = {"run": run, "sequence": at, "release": release, "node": number + 1, "superseded": superseded}
            connection.execute(insert(ROUNDS), {**row, "model_out": None if out is None else out + 1})
        for start in random.Random(seed).sample(range(len(made.kinds)), 8):
            kind = made.kinds[start]
            thing = Thing(kind.value, f"n{start}", "", start)
            if kind in CAUSES:
                answer = impact(connection, start + 1, thing, bounded=False)
                found = {
                    int(one.model.digest[1:]): (
                        one.chosen,
                        one.direct_rounds,
                        one.inherited,
                        None if one.clean is None else int(one.clean.digest[1:]),
                    )
                    for one in answer.models
                }
                assert found == impact_by_search(made, start), (seed, start)
                compared += len(found)
            if kind is K.MODEL:
                parts = {int(p.thing.digest[1:]): p.chosen for p in parts_of(connection, start + 1)}
                models = {int(thing.digest[1:]) for _, thing in models_of(connection, start + 1)}
                expected = parts_by_search(made, start)
                assert parts == {n: c for n, c in expected.items() if made.kinds[n] is not K.MODEL}
                assert models == {n for n in expected if made.kinds[n] is K.MODEL} - {start}
    return compared


def test_random_graphs_agree_with_a_search() -> None:
    assert sum(agree(seed) for seed in range(100)) > 300


@pytest.mark.slow
def test_a_thousand_random_graphs_agree_with_a_search() -> None:
    assert sum(agree(seed) for seed in range(1000)) > 3000


def test_the_search_would_notice_an_edge_too_many() -> None:
    made = Made([K.DATASET, K.ROUND, K.AGGREGATE, K.MODEL, K.MODEL], rounds={1: ("a", 1, "update", 3, False)})
    made.edges = {(0, 1, E.DATA): 0, (1, 2, E.SUM): 1, (2, 3, E.RESULT): 2}
    assert impact_by_search(made, 0) == {3: (False, 1, False, None)}
    made.edges[3, 4, E.PARENT] = 3
    assert impact_by_search(made, 0) == {3: (False, 1, False, None), 4: (False, 0, True, None)}
