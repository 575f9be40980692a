"""How people name things: by an id or the beginning of one, by an alias, by a site's name."""

from collections.abc import Collection

from sqlalchemy import Connection, select

from fedseal.compliance.lineage.answers import Thing
from fedseal.compliance.lineage.kinds import NodeKind
from fedseal.compliance.lineage.tables import MODELS, NODES, PROMOTIONS
from fedseal.errors import ConfigError

SHORTEST = 4
SHOWN = 6


def find(connection: Connection, text: str, kinds: Collection[NodeKind]) -> tuple[int, Thing]:
    """The node that somebody means, and its number.

    Args:
        connection: the tables'.
        text: an id, the beginning of one (at least four characters), an alias, or a name; ``kind:`` before it says
            what it is where several have that beginning.
        kinds: what it may be.

    Raises:
        ConfigError: there is none, or several.
    """
    kind, _, rest = text.partition(":")
    if kind in set(NodeKind) and rest:
        if NodeKind(kind) not in kinds:
            raise ConfigError(f"a {kind} is not what is asked for", next_step=_expected(kinds))
        return find(connection, rest, {NodeKind(kind)})
    if NodeKind.MODEL in kinds:
        text = aliases(connection).get(text, text)
    found = _nodes(connection, text, kinds, whole=True) or _nodes(connection, text, kinds, whole=False)
    if not found:
        raise ConfigError(
            "nothing in this log has that name or an id that begins so",
            next_step=f"{_expected(kinds)} An id needs at least {SHORTEST} characters.",
        )
    if len(found) > 1:
        several = ", ".join(f"{thing.kind}:{thing.digest}" for _, thing in found[:SHOWN])
        raise ConfigError("several ids begin so", next_step=f"Give more of it: {several}")
    return found[0]


def aliases(connection: Connection) -> dict[str, str]:
    """To which model each alias points now."""
    query = select(PROMOTIONS.c.alias, PROMOTIONS.c.subject).where(PROMOTIONS.c.alias.is_not(None))
    return {row.alias: row.subject for row in connection.execute(query.order_by(PROMOTIONS.c.idx))}


def registered(connection: Connection) -> dict[str, str]:
    """As what each model was registered first."""
    found: dict[str, str] = {}
    for row in connection.execute(select(MODELS.c.model, MODELS.c.kind).order_by(MODELS.c.idx)):
        found.setdefault(row.model, row.kind)
    return found


def _nodes(connection: Connection, text: str, kinds: Collection[NodeKind], *, whole: bool) -> list[tuple[int, Thing]]:
    spelled = [text, *(f"{scheme}:{text}" for scheme in ("sha256", "hmac"))]
    query = select(NODES).where(NODES.c.kind.in_([kind.value for kind in kinds]))
    if whole:
        query = query.where(NODES.c.digest.in_(spelled))
    elif len(text.removeprefix("sha256:").removeprefix("hmac:")) >= SHORTEST:
        # A range, not LIKE: the index serves it. No id has a character beyond "~".
        ranges = [NODES.c.digest.between(one, f"{one}~") for one in spelled]
        query = query.where(ranges[0] | ranges[1] | ranges[2])
    else:
        return []
    rows = connection.execute(query.order_by(NODES.c.id).limit(SHOWN + 1)).all()
    named = registered(connection) if any(row.kind == NodeKind.MODEL for row in rows) else {}
    return [
        (row.id, Thing(row.kind, row.digest, row.label or named.get(row.digest, ""), row.first_idx)) for row in rows
    ]


def _expected(kinds: Collection[NodeKind]) -> str:
    return f"Expected: {', '.join(sorted(kind.value for kind in kinds))}."
