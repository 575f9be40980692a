"""A server's store as an earlier fedseal left it: opened, gone on with, its log verified; and what a step will do.

`tests/vectors/stores-format-1.zip` says in `tests/client/test_old_store.py` what it is; in its server's store stands a
federation's log.
"""

import zipfile
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.federated import run
from support.flower import Federation
from support.keys import make_roster

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.log.store import Log
from fedseal.errors import ConfigError
from fedseal.migration import Format
from fedseal.server import store as stores
from fedseal.server.store import SERVER_STORE, ServerStore

STORES = Path(__file__).parents[1] / "vectors" / "stores-format-1.zip"


@pytest.fixture
def old(tmp_path: Path) -> Federation:
    with zipfile.ZipFile(STORES) as archive:
        archive.extractall(tmp_path)
    sites = {number: tmp_path / f"site-{number}.sqlite" for number in (1, 2, 3)}
    return Federation(tmp_path, make_roster(3), sites, tmp_path / "server.sqlite")


def entries(federation: Federation) -> int:
    with ServerStore.open(federation.server).engine.begin() as connection:
        return Log(connection, "test/server").size


def test_a_store_of_format_1_goes_on_and_its_log_holds(old: Federation) -> None:
    before = entries(old)
    assert before > 0
    run(old, rounds=1)
    assert entries(old) > before
    with open_log(old.server) as copy:
        assert verify_copy(copy).code is AuditCode.OK


def test_a_step_is_taken_with_a_copy_kept_and_nothing_lost(old: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    before = entries(old)

    def add_a_column(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN title TEXT")

    monkeypatch.setattr(stores, "SERVER_STORE", Format(SERVER_STORE.what, (*SERVER_STORE.steps, add_a_column)))
    run(old, rounds=1)
    assert entries(old) > before
    kept = old.server.with_name(f"{old.server.name}.format-{SERVER_STORE.newest}")
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.undo()
    # Today's fedseal refuses the later format, and reads the copy.
    with pytest.raises(ConfigError, match="another format"):
        ServerStore.open(old.server)
    ServerStore.open(kept)
    with open_log(old.server) as copy:
        assert verify_copy(copy).code is AuditCode.OK
