"""What entries add to the tables, held in memory until it is written in one go."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.tables import EDGES, NODES

Row = Mapping[str, Any]


class Draft:
    """Nodes, edges and rows that are not written yet, over those that are.

    Nodes are numbered in the order in which entries name them, so that a log gives the same numbers every time.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        rows = connection.execute(select(NODES.c.kind, NODES.c.digest, NODES.c.id))
        self._ids: dict[tuple[str, str], int] = {(kind, digest): number for kind, digest, number in rows}
        self._next = (connection.execute(select(func.max(NODES.c.id))).scalar() or 0) + 1
        self._nodes: list[Row] = []
        self._edges: dict[tuple[int, int, int], int] = {}
        self._rows: dict[Table, dict[tuple[Any, ...], Row]] = {}

    def node(self, kind: NodeKind, digest: str, idx: int, label: str = "") -> int:
        """The number of a node, made by the first entry that names it."""
        number = self._ids.get((kind, digest))
        if number is None:
            number = self._ids[kind, digest] = self._next
            self._next += 1
            row = {"id": number, "kind": kind.value, "digest": digest, "label": label, "first_idx": idx}
            self._nodes.append(row)
        return number

    def known(self, digest: str) -> int | None:
        """A dataset, model or other thing of that digest, if any entry has named one."""
        kinds = (NodeKind.MODEL, NodeKind.DATASET, NodeKind.LABEL_SET, NodeKind.CODE)
        return next((self._ids[kind, digest] for kind in kinds if (kind, digest) in self._ids), None)

    def edge(self, source: int, target: int, kind: EdgeKind, idx: int) -> None:
        """An edge, unless an earlier entry said it already. Nothing influences itself."""
        if source != target:
            self._edges.setdefault((source, target, int(kind)), idx)

    def row(self, table: Table, **values: Any) -> None:
        """A row of a table; one with the same key is replaced."""
        key = tuple(values[column.name] for column in table.primary_key)
        self._rows.setdefault(table, {})[key] = values

    def flush(self) -> None:
        """Write it."""
        if self._nodes:
            self._connection.execute(insert(NODES), self._nodes)
        if self._edges:
            edges = [{"src": s, "dst": d, "kind": k, "idx": idx} for (s, d, k), idx in self._edges.items()]
            self._connection.execute(self._put(EDGES).on_conflict_do_nothing(), edges)
        for table, rows in self._rows.items():
            keys = [column.name for column in table.primary_key]
            put = self._put(table)
            changed = {c.name: put.excluded[c.name] for c in table.columns if not c.primary_key}
            self._connection.execute(put.on_conflict_do_update(index_elements=keys, set_=changed), list(rows.values()))
        self._nodes, self._edges, self._rows = [], {}, {}

    def _put(self, table: Table) -> Any:
        # By the dialect's name: INSERT that meets a row is not in SQL's standard.
        return (postgresql.insert if self._connection.dialect.name == "postgresql" else sqlite.insert)(table)
