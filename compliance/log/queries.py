"""The statements that logs are kept with, built once: SQLAlchemy then compiles and keys each of them once, too."""

from typing import Any

from sqlalchemy import BindParameter, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fedseal.compliance.log.tables import CHECKPOINTS, COSIGNATURES, HEADS, LEAVES, TILES

_log: BindParameter[Any] = bindparam("in_log")
_size: BindParameter[Any] = bindparam("at_size")
_origin: BindParameter[Any] = bindparam("of_origin")
_first: BindParameter[Any] = bindparam("first")
_last: BindParameter[Any] = bindparam("last")

HEAD = select(HEADS).where(HEADS.c.origin == _origin)
# SQLite has no such lock and needs none: its transactions here are exclusive (fedseal.database).
HEAD_LOCKED = HEAD.with_for_update()
MOVE_HEAD = update(HEADS).where(HEADS.c.log == _log).values(size=bindparam("size"), frontier=bindparam("frontier"))
MOVE_WITNESS = (
    update(HEADS)
    .where(HEADS.c.log == _log)
    .values(witnessed_size=bindparam("witnessed_size"), witnessed_root=bindparam("witnessed_root"))
)

ADD_LEAVES = insert(LEAVES)
LEAVES_BETWEEN = (
    select(LEAVES.c.leaf).where(LEAVES.c.position >= _first, LEAVES.c.position < _last).order_by(LEAVES.c.position)
)

_in_level = (TILES.c.log == _log, TILES.c.level == bindparam("in_level"))
TILES_BETWEEN = (
    select(TILES.c.hashes).where(*_in_level, TILES.c.tile >= _first, TILES.c.tile <= _last).order_by(TILES.c.tile)
)
ADD_TILE = insert(TILES)
REPLACE_TILE = update(TILES).where(*_in_level, TILES.c.tile == _first).values(hashes=bindparam("hashes"))

_of_log = CHECKPOINTS.c.log == _log
ADD_CHECKPOINT = insert(CHECKPOINTS)
CHECKPOINT = select(CHECKPOINTS).where(_of_log, CHECKPOINTS.c.size == _size)
CHECKPOINT_SIZES = select(CHECKPOINTS.c.size).where(_of_log).order_by(CHECKPOINTS.c.size.desc())
CHECKPOINTS_KEPT = select(CHECKPOINTS).where(_of_log).order_by(CHECKPOINTS.c.size)
NEWEST_CHECKPOINT = select(CHECKPOINTS).where(_of_log).order_by(CHECKPOINTS.c.size.desc()).limit(1)
ADD_COSIGNATURE = insert(COSIGNATURES)
COSIGNATURE_LINES = (
    select(COSIGNATURES.c.line)
    .where(COSIGNATURES.c.log == _log, COSIGNATURES.c.size == _size)
    .order_by(COSIGNATURES.c.name, COSIGNATURES.c.identifier)
)

# By the dialect's name: making what another transaction may be making is not in SQL's standard.
ADD_HEAD = {
    "postgresql": postgresql.insert(HEADS).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(HEADS).on_conflict_do_nothing(),
}
