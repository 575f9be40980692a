"""A server's log that was restored from an old backup goes on after what sites hold, and only after that."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update
from support.federated import copied, run
from support.flower import Federation
from support.keys import SERVER

from fedseal.compliance.audit import recover as module
from fedseal.compliance.audit.recover import Recovered, recover
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode, Verdict
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.journal.tables import AUTHORS, TYPES, WITNESSES
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import CHECKPOINTS, COSIGNATURES, HEADS, LEAVES, TILES
from fedseal.errors import LocalError, PeerError
from fedseal.privacy.store import SiteStore
from fedseal.server.store import ServerStore

ORIGIN = "test/server"
Rows = dict[str, list[tuple[object, ...]]]


@contextmanager
def both(federation: Federation, site: int = 1) -> Iterator[tuple[Connection, Log]]:
    """A transaction of the server, and a site's mirror."""
    store = SiteStore.open(federation.sites[site], reading=True)
    with store.transaction() as theirs, ServerStore.open(federation.server).engine.begin() as connection:
        yield connection, Log(theirs.connection, ORIGIN)


def recovered(federation: Federation, site: int = 1) -> Recovered:
    with both(federation, site) as (connection, mirror):
        return recover(connection, SERVER, federation.roster, mirror, site)


def rows(federation: Federation) -> Rows:
    """What a server's log and its indices hold."""
    tables = (HEADS, LEAVES, TILES, CHECKPOINTS, AUTHORS, TYPES)
    with ServerStore.open(federation.server).engine.begin() as connection:
        return {t.name: sorted(map(tuple, connection.execute(select(t)))) for t in tables}


def empty(federation: Federation) -> None:
    """Lose the whole log, as a server whose log's database is new."""
    with ServerStore.open(federation.server).engine.begin() as connection:
        for table in (HEADS, LEAVES, TILES, CHECKPOINTS, COSIGNATURES, AUTHORS, TYPES, WITNESSES):
            connection.execute(delete(table))


@pytest.fixture
def restored(twice: Federation, tmp_path: Path) -> Federation:
    """After two runs the server's store is that of a backup from in between."""
    federation = copied(twice, tmp_path / "restored")
    shutil.copy(federation.folder / "backup", federation.server)
    return federation


def test_a_restored_backup_is_brought_up_to_what_a_site_has_seen(twice: Federation, restored: Federation) -> None:
    whole, short = rows(twice), rows(restored)
    assert 0 < len(short["log_leaves"]) < len(whole["log_leaves"])
    result = recovered(restored)
    assert (result.before, result.after) == (len(short["log_leaves"]), len(whole["log_leaves"]))
    after = rows(restored)
    # A site was not shown every checkpoint; all else is as it was.
    assert set(after.pop("log_checkpoints")) <= set(whole.pop("log_checkpoints"))
    assert after == whole
    with open_log(restored.server) as copy:
        assert verify_copy(copy).findings == []
    # Again, nothing is left to do.
    assert recovered(restored, 2) == Recovered(result.after, result.after)


def test_the_server_goes_on_afterwards_and_could_not_before(restored: Federation) -> None:
    with pytest.raises(LocalError, match="rolled back"):
        run(restored)
    recovered(restored)
    run(restored)
    with open_log(restored.server) as copy:
        verdict = verify_copy(copy)
        assert verdict.code is AuditCode.OK
        assert verdict.types["run.created/v1"] == 3


def test_a_log_that_was_lost_whole_comes_back(federation: Federation) -> None:
    before = rows(federation)
    empty(federation)
    assert recovered(federation).before == 0
    after = rows(federation)
    assert {name: after[name] for name in ("log_leaves", "log_authors", "log_types")} == {
        name: before[name] for name in ("log_leaves", "log_authors", "log_types")
    }
    run(federation)
    with open_log(federation.server) as copy:
        assert verify_copy(copy).code is AuditCode.OK


def test_two_histories_are_not_mended(federation: Federation, twice: Federation) -> None:
    before = rows(federation)
    with pytest.raises(PeerError, match="two histories"), both(twice) as (_, mirror):
        store = ServerStore.open(federation.server)
        with store.engine.begin() as connection:
            recover(connection, SERVER, federation.roster, mirror, 1)
    assert rows(federation) == before


def damage(path: Path) -> None:
    """Change an entry in a site's mirror, as somebody with a text editor would."""
    store = SiteStore.open(path)
    with store.transaction() as transaction:
        found = next(
            row for row in transaction.connection.execute(select(LEAVES)) if b'"type":"run.finished/v1"' in row.leaf
        )
        changed = found.leaf.replace(b'"rounds":2', b'"rounds":3')
        transaction.connection.execute(update(LEAVES).where(LEAVES.c.position == found.position).values(leaf=changed))


def test_a_mirror_that_does_not_hold_is_refused(federation: Federation) -> None:
    damage(federation.sites[1])
    empty(federation)
    with pytest.raises(PeerError, match="does not hold"):
        recovered(federation)
    assert rows(federation)["log_leaves"] == []
    # Another site's is taken.
    assert recovered(federation, 2).after > 0


def test_without_the_check_a_damaged_mirror_would_be_taken(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(federation.sites[1])
    empty(federation)
    monkeypatch.setattr(module, "verify", lambda *_, **__: Verdict())
    with pytest.raises(PeerError, match="contradicts the mirrored leaves"):
        # The log itself still refuses a checkpoint that is not that of its leaves.
        recovered(federation)


def test_copies_are_apart(honest: Federation, federation: Federation, tmp_path: Path) -> None:
    """The fixture's own promise: what is done to a copy is not done to the original."""
    empty(federation)
    assert rows(honest)["log_leaves"]
    assert rows(copied(honest, tmp_path / "another"))["log_leaves"]
