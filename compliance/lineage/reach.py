"""Walks along the edges, done by the database: what a thing has reached, and what has reached it.

Two flags go along with every node: whether the way there led through a choice (`EdgeKind.SELECTED_WITH`) only, and
nothing else. A node that is reached both ways counts as reached without.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import CTE, BigInteger, BindParameter, Connection, Select, bindparam, case, cast, func, literal, select

from fedseal.compliance.lineage.kinds import AMONG_DATA, LAST_INFLUENCE, TOWARDS_ROUNDS, EdgeKind
from fedseal.compliance.lineage.tables import EDGES

_start: BindParameter[Any] = bindparam("start", type_=BigInteger)


def _walk(*, back: bool) -> CTE:
    """Every node on a way from ``start`` along influence, or against it, with a flag: 1 where a choice lay on the way.

    ``start`` itself is not among them, unless a circle leads back to it.
    """
    near, far = (EDGES.c.dst, EDGES.c.src) if back else (EDGES.c.src, EDGES.c.dst)
    chosen = EDGES.c.kind == EdgeKind.SELECTED_WITH
    name = "ancestors" if back else "reached"
    first = select(far.label("node"), case((chosen, 1), else_=0).label("chosen"))
    walk = first.where(near == _start, EDGES.c.kind <= LAST_INFLUENCE).cte(name, recursive=True)
    step = select(far, case((chosen, 1), else_=walk.c.chosen)).select_from(walk.join(EDGES, near == walk.c.node))
    return walk.union(step.where(EDGES.c.kind <= LAST_INFLUENCE))


def _along(name: str, kinds: Iterable[EdgeKind]) -> CTE:
    """``start``, and every node on a way from it along edges of these kinds."""
    # Cast for PostgreSQL, which takes a parameter in a list of columns for text.
    start = select(literal(0).label("steps"), cast(_start, BigInteger).label("node")).subquery(f"{name}_start")
    walk = select(start.c.node).cte(name, recursive=True)
    step = select(EDGES.c.dst).select_from(walk.join(EDGES, EDGES.c.src == walk.c.node))
    return walk.union(step.where(EDGES.c.kind.in_([int(kind) for kind in kinds])))


def _once(walk: CTE) -> CTE:
    return select(walk.c.node, func.min(walk.c.chosen).label("chosen")).group_by(walk.c.node).cte(f"{walk.name}_once")


# Columns ``node`` and ``chosen``; the last two have ``node`` alone. Ancestors stand there once each. What was reached
# may stand there with both flags: who reads it takes the smaller, which is quicker than to let the database do it.
REACHED = _walk(back=False)
ANCESTORS = _once(_walk(back=True))
# A round is an end.
TOWARDS = _along("towards", TOWARDS_ROUNDS)
CARRIED = _along("carried", AMONG_DATA)


def rows(connection: Connection, query: Select[Any], start: int) -> Sequence[Any]:
    """The rows of a query over one of these, from a node."""
    return connection.execute(query, {"start": start}).all()
