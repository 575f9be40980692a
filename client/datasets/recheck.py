"""Before every round: is the data still the version that was registered?

Knows neither pandas nor torch: a process that only answers a message stays small. A site that has registered nothing
is asked nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from fedseal.client.datasets.files import FileState, States, differences, file_states, renewed
from fedseal.compliance.data.facts import Status
from fedseal.compliance.data.registry import DatasetVersion, in_use, version
from fedseal.compliance.data.tables import FILES, PLACES
from fedseal.errors import DataError, PolicyRefused
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import Transaction

_REGISTER = "To use it as it is now, register it as a new version: fedseal data register {folder} ..."


@dataclass(frozen=True, slots=True)
class Expected:
    """What a folder has to hold: its version, and its files as they looked when they were last read."""

    folder: Path
    version: DatasetVersion
    files: States


def check_registered(transaction: Transaction, folder: Path | None) -> DatasetVersion | None:
    """The registered version that a folder holds; None at a site that has registered no data.

    Args:
        transaction: on the site's store. `recheck` does the same without holding one while files are read.
        folder: the site's data folder; None if its node names none.

    Raises:
        DataError: a file is not what was registered, or the folder is not registered: the site must not compute on it.
        PolicyRefused: the version that the folder holds is not in use any more.
    """
    expected = expected_of(transaction.connection, folder)
    if expected is None:
        return None
    remember(transaction.connection, expected, compared(expected))
    return expected.version


def recheck(store: SiteStore, folder: Path | None) -> DatasetVersion | None:
    """`check_registered` for a running site: a file that has to be read again is read outside a transaction.

    Raises:
        DataError, PolicyRefused: as `check_registered`.
    """
    with store.transaction() as transaction:
        expected = expected_of(transaction.connection, folder)
    if expected is None:
        return None
    fresh = compared(expected)
    if fresh:
        with store.transaction() as transaction:
            remember(transaction.connection, expected, fresh)
    return expected.version


def expected_of(connection: Connection, folder: Path | None) -> Expected | None:
    """What a folder has to hold; None at a site that has registered no data.

    Raises:
        DataError: the site has registered data, and this folder is none of it.
        PolicyRefused: its version is not in use any more.
    """
    if not in_use(connection):
        return None
    if folder is None:
        raise DataError(
            "this site has registered its data, and its node names no data folder",
            next_step="Name it as `fedseal-data` in node_config.",
        )
    place = folder.resolve()
    number = connection.execute(select(PLACES.c.version).where(PLACES.c.folder == str(place))).scalar()
    if number is None:
        raise DataError(
            f"this site has registered its data, and {folder} is none of it",
            next_step=_REGISTER.format(folder=folder),
        )
    found = version(connection, number)
    if found.status is not Status.CURRENT:
        raise PolicyRefused(
            f"version {found.number} of dataset {found.facts.name!r}, which {folder} holds, is {found.status.value}",
            next_step=_REGISTER.format(folder=folder),
        )
    return Expected(place, found, files_of(connection, place))


def compared(expected: Expected) -> dict[str, FileState]:
    """Look at the folder's files; those that had to be read again and are still the same.

    Raises:
        DataError: something has changed. Files are named, nothing in them is quoted.
    """
    found = file_states(expected.folder, expected.files)
    changed = differences(expected.files, found)
    if changed:
        what = expected.version
        raise DataError(
            f"the data is not version {what.number} of dataset {what.facts.name!r} any more: {'; '.join(changed[:5])}"
            f"{'; ...' if len(changed) > 5 else ''}",
            next_step="Whoever looks after this site's data has to say which it is. "
            + _REGISTER.format(folder=expected.folder)
            + " Otherwise put the registered files back; this site answers again at once.",
        )
    return renewed(expected.files, found)


def files_of(connection: Connection, place: Path) -> dict[str, FileState]:
    """A registered folder's files."""
    rows = connection.execute(select(FILES).where(FILES.c.folder == str(place)))
    return {r.path: FileState(r.path, r.size, r.mtime_ns, r.ctime_ns, r.inode, r.sha256, r.hashed_ns) for r in rows}


def remember(connection: Connection, expected: Expected, fresh: States) -> None:
    """Keep how files look now, so that they are not read again; not if the folder was registered anew meanwhile."""
    query = select(PLACES.c.version).where(PLACES.c.folder == str(expected.folder))
    if fresh and connection.execute(query).scalar() == expected.version.number:
        _put(connection, expected.folder, fresh)


def bind(connection: Connection, place: Path, number: int, files: States) -> None:
    """A folder holds a version from now on, in these files."""
    statement = upsert(PLACES).values(folder=str(place), version=number)
    connection.execute(statement.on_conflict_do_update(index_elements=["folder"], set_={"version": number}))
    connection.execute(delete(FILES).where(FILES.c.folder == str(place)))
    _put(connection, place, files)


def _put(connection: Connection, place: Path, files: States) -> None:
    for state in files.values():
        looks = {
            "size": state.size,
            "mtime_ns": state.mtime_ns,
            "ctime_ns": state.ctime_ns,
            "inode": state.inode,
            "sha256": state.sha256,
            "hashed_ns": state.hashed_ns,
        }
        statement = upsert(FILES).values(folder=str(place), path=state.path, **looks)
        connection.execute(statement.on_conflict_do_update(index_elements=["folder", "path"], set_=looks))
