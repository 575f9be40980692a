"""Who a pseudonym is: a table in an organisation's own store, shown beside its log and never part of one."""

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, inspect, select

_METADATA = MetaData()
_PERSONS = Table(
    "registry_persons",
    _METADATA,
    Column("actor", String, primary_key=True),
    Column("name", String),
)


class Directory:
    """The names of an organisation's persons, inside a transaction of its store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _METADATA.create_all(connection)

    def put(self, actor: str, name: str) -> None:
        """Write down who a pseudonym is, in place of what was written before."""
        self.forget(actor)
        self._connection.execute(insert(_PERSONS).values(actor=actor, name=name))

    def forget(self, actor: str) -> None:
        """Strike out who a pseudonym is, when nobody has to know it any longer."""
        self._connection.execute(delete(_PERSONS).where(_PERSONS.c.actor == actor))

    def names(self) -> dict[str, str]:
        """Names by pseudonym."""
        return {row.actor: row.name for row in self._connection.execute(select(_PERSONS))}


def names_in(connection: Connection) -> dict[str, str]:
    """Names by pseudonym, where nothing may be written: none in a store that has no directory."""
    if not inspect(connection).has_table(_PERSONS.name):
        return {}
    return {row.actor: row.name for row in connection.execute(select(_PERSONS))}
