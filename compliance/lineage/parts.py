"""What a model was made of: the nodes that have reached it, and what the log says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.lineage.answers import Notice, Part, RunPart, Thing
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind, Taking
from fedseal.compliance.lineage.names import registered
from fedseal.compliance.lineage.reach import ANCESTORS, rows
from fedseal.compliance.lineage.runs import STATISTICS
from fedseal.compliance.lineage.tables import EDGES, NODES, NOTICES, PARTICIPATION, ROUNDS, RUNS

# What is listed as a part. Models and runs have lists of their own; rounds and sums are counted.
LISTED = (
    NodeKind.DATASET,
    NodeKind.POPULATION,
    NodeKind.SITE,
    NodeKind.LABEL_SET,
    NodeKind.GUIDELINE,
    NodeKind.CODE,
    NodeKind.ENVIRONMENT,
    NodeKind.CONFIG,
)
_INTO_ROUNDS = (EdgeKind.DATA, EdgeKind.LABELS, EdgeKind.CODE)

_NODES = select(NODES, ANCESTORS.c.chosen).select_from(ANCESTORS.join(NODES, NODES.c.id == ANCESTORS.c.node))
_PARTS = _NODES.where(NODES.c.kind.in_([kind.value for kind in LISTED])).order_by(NODES.c.first_idx, NODES.c.id)
_COUNTED = (
    select(EDGES.c.src, func.count().label("rounds"), func.min(EDGES.c.idx).label("idx"))
    .select_from(ANCESTORS.join(ROUNDS, ROUNDS.c.node == ANCESTORS.c.node).join(EDGES, EDGES.c.dst == ROUNDS.c.node))
    .where(EDGES.c.kind.in_([int(kind) for kind in _INTO_ROUNDS]))
    .group_by(EDGES.c.src)
)
_ROUNDS = select(ROUNDS).select_from(ANCESTORS.join(ROUNDS, ROUNDS.c.node == ANCESTORS.c.node))
_TAKEN = (
    select(PARTICIPATION.c.run, PARTICIPATION.c.site, PARTICIPATION.c.status, func.count().label("times"))
    .select_from(ANCESTORS.join(ROUNDS, ROUNDS.c.node == ANCESTORS.c.node))
    .join(
        PARTICIPATION,
        (PARTICIPATION.c.run == ROUNDS.c.run)
        & (PARTICIPATION.c.sequence == ROUNDS.c.sequence)
        & (PARTICIPATION.c.attempt == ROUNDS.c.attempt),
    )
    .where(PARTICIPATION.c.status.in_([Taking.SUMMED.value, Taking.UNSIGNED.value]))
    .group_by(PARTICIPATION.c.run, PARTICIPATION.c.site, PARTICIPATION.c.status)
)


def parts_of(connection: Connection, model: int) -> tuple[Part, ...]:
    """What has reached a model, apart from runs and models, by the entry that names it first."""
    counted = {row.src: row for row in rows(connection, _COUNTED, model)}
    holders = _holders(connection)
    said = _notices(connection)
    found = []
    for row in rows(connection, _PARTS, model):
        count = counted.get(row.id)
        thing = Thing(row.kind, row.digest, row.label, row.first_idx)
        sites = holders.get(row.id, ())
        notices = tuple(said.get(row.digest, ()))
        found.append(
            Part(
                thing,
                0 if count is None else count.rounds,
                bool(row.chosen),
                sites,
                notices,
                row.first_idx if count is None else count.idx,
            )
        )
    return tuple(found)


def runs_of(connection: Connection, model: int) -> tuple[tuple[RunPart, ...], int]:
    """The runs on the way to a model, and how often a site was counted in without its word."""
    sites: dict[str, set[str]] = {}
    unsigned = 0
    for row in rows(connection, _TAKEN, model):
        sites.setdefault(row.run, set()).add(row.site)
        unsigned += row.times if row.status == Taking.UNSIGNED else 0
    counts: dict[str, list[str]] = {}
    for row in rows(connection, _ROUNDS, model):
        counts.setdefault(row.run, []).append(row.release)
    created = {row.run: row for row in connection.execute(select(RUNS))}
    things = {row.digest: row for row in rows(connection, _NODES.where(NODES.c.kind == NodeKind.RUN), model)}
    found = []
    for run in sorted(things, key=lambda run: (things[run].first_idx, run)):
        releases, row = counts.get(run, []), created.get(run)
        found.append(
            RunPart(
                run,
                "" if row is None else row.study,
                "" if row is None else row.plan,
                releases.count(ReleaseName.UPDATE),
                sum(releases.count(release) for release in STATISTICS),
                releases.count(ReleaseName.EVALUATION),
                tuple(sorted(sites.get(run, ()))),
                things[run].first_idx if row is None else row.idx,
            )
        )
    return tuple(found), unsigned


def models_of(connection: Connection, model: int) -> tuple[tuple[int, Thing], ...]:
    """The models that have reached a model, with their nodes, by the entry that names them first; itself left out."""
    named = registered(connection)
    query = _NODES.where(NODES.c.kind == NodeKind.MODEL).order_by(NODES.c.first_idx, NODES.c.id)
    return tuple(
        (row.id, Thing(row.kind, row.digest, named.get(row.digest, ""), row.first_idx))
        for row in rows(connection, query, model)
        if row.id != model
    )


def notices_of(connection: Connection, digest: str) -> tuple[Notice, ...]:
    """What was said of a dataset or label set later."""
    return tuple(_notices(connection).get(digest, ()))


def _notices(connection: Connection) -> Mapping[str, Sequence[Notice]]:
    found: dict[str, list[Notice]] = {}
    for row in connection.execute(select(NOTICES).order_by(NOTICES.c.idx)):
        found.setdefault(row.subject, []).append(Notice(row.notice, row.reason, row.by, row.idx))
    return found


def _holders(connection: Connection) -> dict[int, tuple[str, ...]]:
    """Whose a population or a dataset is, by its node."""
    site, edge, inner = NODES.alias("site"), EDGES.alias("held"), EDGES.alias("holds")
    held = (
        select(edge.c.dst, site.c.digest)
        .select_from(edge.join(site, site.c.id == edge.c.src))
        .where(edge.c.kind == EdgeKind.HOLDS, site.c.kind == NodeKind.SITE)
    )
    below = (
        select(inner.c.dst, site.c.digest)
        .select_from(inner.join(edge, edge.c.dst == inner.c.src).join(site, site.c.id == edge.c.src))
        .where(inner.c.kind == EdgeKind.HOLDS, edge.c.kind == EdgeKind.HOLDS, site.c.kind == NodeKind.SITE)
    )
    found: dict[int, set[str]] = {}
    for query in (held, below):
        row: Any
        for row in connection.execute(query):
            found.setdefault(row.dst, set()).add(row.digest)
    return {number: tuple(sorted(names)) for number, names in found.items()}
