"""A server's backup: whole or not there, compared before anything is touched, and what sites say to one that is old."""

import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from support.enrolled import settled
from support.federated import copied, run, trained
from support.flower import Federation
from support.keys import SERVER

from fedseal.compliance.audit.recover import recover
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.log.export import export
from fedseal.compliance.log.exported import ExportedLog
from fedseal.compliance.log.store import Log
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.store import SiteStore
from fedseal.server import backup as backing
from fedseal.server import restore as restoring
from fedseal.server.archive import MANIFEST, read_archive
from fedseal.server.backup import back_up
from fedseal.server.lock import alone
from fedseal.server.restore import restore
from fedseal.server.server_config import parse_server, read_server, restore_note
from fedseal.server.store import ServerStore

ORIGIN = "test/server"


@dataclass(frozen=True)
class Seat:
    """A server's file, and the federation whose store it names."""

    config: Path
    federation: Federation

    @property
    def runs(self) -> Path:
        return self.config.parent / "runs"

    def entries(self) -> int:
        with ServerStore.open(self.federation.server).engine.begin() as connection:
            return Log(connection, ORIGIN).size


def seated(federation: Federation) -> Seat:
    folder = federation.folder
    for name, mode in (("tls.pem", 0o644), ("tls.key", 0o600), ("a.pub", 0o644)):
        (folder / name).write_text(f"{name} of the server\n")
        (folder / name).chmod(mode)
    made = folder / "runs" / "20260101-000000-study-abcdef"
    made.mkdir(parents=True)
    (made / "order.json").write_text(json.dumps({"schema_version": 1, "run_config": {}}))
    (made / "events.jsonl").write_text('{"event": "started"}\n{"event": "fini')
    (made / "model.safetensors").write_bytes(b"model")
    config = folder / "server.toml"
    config.write_text(
        '[listen]\nhost = "127.0.0.1"\nport = 0\ncertificate = "tls.pem"\nkey = "tls.key"\n'
        f'[server]\nstore = "{federation.server.name}"\nruns = "runs"\n[nodes]\na = "a.pub"\n'
    )
    return Seat(config, federation)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return trained(tmp_path_factory.mktemp("once"))


@pytest.fixture
def seat(once: Federation, tmp_path: Path) -> Seat:
    return seated(copied(once, tmp_path / "seat"))


def state(seat: Seat) -> dict[str, bytes]:
    """Every file, but SQLite's own beside a store and the lock."""
    folder = seat.config.parent
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm", ".server.lock"))]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def rows(store: Path) -> list[str]:
    connection = sqlite3.connect(store)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_backup_holds_all_that_a_server_needs_readable_by_its_owner_only(seat: Seat, tmp_path: Path) -> None:
    before = rows(seat.federation.server)
    made = back_up(seat.config, tmp_path / "kept")
    assert read_archive(tmp_path / "kept") == made.archive
    names = {kept.path for kept in made.archive.files}
    run = "runs/20260101-000000-study-abcdef"
    named = {"named/listen.certificate", "named/listen.key", "named/nodes.a"}
    files = {f"{run}/order.json", f"{run}/events.jsonl", f"{run}/model.safetensors"}
    assert names == {"server.toml", "server.sqlite"} | named | files
    assert rows(tmp_path / "kept" / "server.sqlite") == before
    # A line that was being written is not kept by half.
    assert (tmp_path / "kept" / run / "events.jsonl").read_text() == '{"event": "started"}\n'
    assert made.archive.entries == seat.entries() > 0
    for path in (tmp_path / "kept", *(tmp_path / "kept").rglob("*")):
        assert not path.stat().st_mode & 0o077, path


def test_a_backup_that_is_put_back_elsewhere_is_the_same_server(seat: Seat, tmp_path: Path) -> None:
    back_up(seat.config, tmp_path / "kept")
    before, dump = state(seat), rows(seat.federation.server)
    new = tmp_path / "new" / "server.toml"
    result = restore(tmp_path / "kept", new, replace_newer=False)
    assert result.aside == ()
    there = Seat(new, Federation(new.parent, seat.federation.roster, {}, new.parent / "server.sqlite"))
    after = state(there)
    for name in ("server.toml", "tls.pem", "tls.key", "a.pub", "runs/20260101-000000-study-abcdef/model.safetensors"):
        assert after[name] == before[name]
    assert rows(new.parent / "server.sqlite") == dump
    assert (new.parent / "tls.key").stat().st_mode & 0o777 == 0o600
    assert (new.parent / "server.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_whole_while_the_server_writes(seat: Seat, tmp_path: Path) -> None:
    ended = threading.Event()
    store = ServerStore.open(seat.federation.server)
    store.open_run(b"R" * 16)

    def write() -> None:
        while not ended.is_set():
            number = store.next_sequence(b"R" * 16)
            store.record_attempt(b"R" * 16, number, 0, release="update", fl_round=1, status="open")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(seat.config, tmp_path / f"kept-{number}")
    finally:
        ended.set()
        writer.join()
    for number in range(5):
        copy = ServerStore.open(tmp_path / f"kept-{number}" / "server.sqlite")
        sequences = [seq for seq, *_ in copy.attempts(b"R" * 16)]
        assert sequences == list(range(1, len(sequences) + 1))


def test_a_server_that_was_enrolled_by_commands_starts_from_its_backup(tmp_path: Path) -> None:
    seats = settled(tmp_path / "seats", "a", "b", "c")
    made = back_up(seats.server_folder / "server.toml", tmp_path / "kept")
    assert {"named/listen.certificate", "named/listen.key"} <= {kept.path for kept in made.archive.files}
    restore(tmp_path / "kept", tmp_path / "new" / "server.toml", replace_newer=False)
    found = read_server(tmp_path / "new" / "server.toml")
    assert sorted(found.nodes) == ["a", "b", "c"]
    assert found.check_now(datetime.now(UTC)) is None
    # Without the certificate's key it would not.
    (tmp_path / "new" / found.listener.key.name).unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        read_server(tmp_path / "new" / "server.toml")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda kept: (kept / "named" / "listen.key").write_text("another\n"), "is not what was kept"),
        (lambda kept: (kept / "server.sqlite").write_bytes(b""), "is not what was kept"),
        (lambda kept: (kept / "named" / "nodes.a").unlink(), "is missing"),
        (lambda kept: (kept / "extra").write_text(""), "is in no manifest"),
        (lambda kept: (kept / MANIFEST).unlink(), "is no backup"),
        (lambda kept: (kept / MANIFEST).write_text("{"), "is no backup"),
        (lambda kept: (kept / MANIFEST).write_text("{}"), "is missing"),
    ],
)
def test_a_backup_that_is_not_as_it_was_made_changes_nothing(
    seat: Seat, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    kept = tmp_path / "kept"
    back_up(seat.config, kept)
    before = state(seat)
    damage(kept)
    with pytest.raises(ConfigError, match=says):
        restore(kept, seat.config, replace_newer=True)
    assert state(seat) == before


def test_a_manifest_leads_to_no_file_outside_the_backup(seat: Seat, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    back_up(seat.config, kept)
    (tmp_path / "outside").write_text("secret\n")
    (kept / "named" / "nodes.a").unlink()
    (kept / "named" / "nodes.a").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="is no file of a backup"):
        read_archive(kept)


def test_a_server_that_works_is_not_put_back(seat: Seat, tmp_path: Path) -> None:
    back_up(seat.config, tmp_path / "kept")
    with alone(seat.runs):
        before = state(seat)
        with pytest.raises(ConfigError, match=f"a server works there .process {os.getpid()}."):
            restore(tmp_path / "kept", seat.config, replace_newer=True)
        assert state(seat) == before


def test_what_is_newer_is_not_replaced_unless_told_and_then_kept_aside(seat: Seat, tmp_path: Path) -> None:
    back_up(seat.config, tmp_path / "kept")
    old = seat.entries()
    run(seat.federation, rounds=1)
    newer, dump = seat.entries(), rows(seat.federation.server)
    with pytest.raises(ConfigError, match=f"has {newer} entries in its log, and the backup {old}"):
        restore(tmp_path / "kept", seat.config, replace_newer=False)
    assert rows(seat.federation.server) == dump
    result = restore(tmp_path / "kept", seat.config, replace_newer=True)
    assert seat.entries() == old
    (aside,) = [path for path in result.aside if path.name.startswith(f"{seat.federation.server.name}.before")]
    assert rows(aside) == dump


def test_a_damaged_store_is_replaced_and_kept(seat: Seat, tmp_path: Path) -> None:
    back_up(seat.config, tmp_path / "kept")
    for end in ("-wal", "-shm"):
        seat.federation.server.with_name(seat.federation.server.name + end).unlink(missing_ok=True)
    seat.federation.server.write_bytes(b"not a database")
    with pytest.raises(ConfigError):
        back_up(seat.config, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    result = restore(tmp_path / "kept", seat.config, replace_newer=False)
    assert any(path.read_bytes() == b"not a database" for path in result.aside if path.is_file())
    assert seat.entries() > 0


def test_sites_notice_an_old_log_and_a_sites_export_makes_it_whole(seat: Seat, tmp_path: Path) -> None:
    federation = seat.federation
    back_up(seat.config, tmp_path / "kept")
    run(federation, rounds=1)
    newer = seat.entries()
    restore(tmp_path / "kept", seat.config, replace_newer=True)
    assert seat.entries() < newer
    with pytest.raises(LocalError, match="rolled back"):
        run(federation, rounds=1)
    # A site hands out its copy of the log: no key, no ledger, nothing of its data is in it.
    with SiteStore.open(federation.sites[2], reading=True).transaction() as transaction:
        export(Log(transaction.connection, ORIGIN), tmp_path / "export")
    with ServerStore.open(federation.server).engine.begin() as connection:
        recover(connection, SERVER, federation.roster, ExportedLog(tmp_path / "export"), None)
    run(federation, rounds=1)
    with open_log(federation.server) as copy:
        assert verify_copy(copy).code is AuditCode.OK


def killed_after(count: int, module: ModuleType, call: Callable[[], object]) -> None:
    """Let a process of its own end by force where it has waited for the disk so many times."""
    before, left = module.on_disk, count

    def on_disk(path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        before(path)

    number = os.fork()
    if number == 0:
        module.on_disk = on_disk  # type: ignore[attr-defined]
        try:
            call()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("count", [0, 2])
def test_a_backup_that_is_killed_is_not_there_and_the_next_one_clears_it(
    seat: Seat, tmp_path: Path, count: int
) -> None:
    kept = tmp_path / "kept"
    killed_after(count, backing, lambda: back_up(seat.config, kept))
    assert not kept.exists()
    assert list(tmp_path.glob(".kept.*.partial"))
    back_up(seat.config, kept)
    assert not list(tmp_path.glob(".kept.*.partial"))
    read_archive(kept)


@pytest.mark.parametrize("count", [0, 2, 6])
def test_a_restore_that_is_killed_is_seen_and_made_again(seat: Seat, tmp_path: Path, count: int) -> None:
    kept = tmp_path / "kept"
    back_up(seat.config, kept)
    dump = rows(seat.federation.server)
    (seat.config.parent / "tls.key").write_text("damaged\n")
    killed_after(count, restoring, lambda: restore(kept, seat.config, replace_newer=False))
    with pytest.raises(ConfigError, match="has not ended") as caught:
        parse_server(seat.config)
    assert f"fedseal server restore {kept} --config" in caught.value.next_step
    restore(kept, seat.config, replace_newer=False)
    parse_server(seat.config)
    assert not restore_note(seat.config).exists()
    assert rows(seat.federation.server) == dump
    assert (seat.config.parent / "tls.key").read_text() == "tls.key of the server\n"


def test_without_the_note_a_half_put_back_server_would_start(
    seat: Seat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: what the note is for."""
    kept = tmp_path / "kept"
    back_up(seat.config, kept)

    def fail(*_: object) -> list[Path]:
        raise OSError("no room")

    monkeypatch.setattr(restoring, "_put_runs", fail)
    with pytest.raises(ConfigError, match="has not ended"):
        restore(kept, seat.config, replace_newer=False)
    with pytest.raises(ConfigError, match="has not ended"):
        parse_server(seat.config)
    restore_note(seat.config).unlink()
    parse_server(seat.config)
    assert not seat.federation.server.exists()


def test_no_room_for_a_backup_leaves_nothing(seat: Seat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    monkeypatch.setattr("fedseal.server.backup._copy_database", full)
    with pytest.raises(ConfigError, match="No space left"):
        back_up(seat.config, tmp_path / "kept")
    assert [p.name for p in tmp_path.iterdir()] == ["seat"]


def test_time_is_not_what_a_backup_is_compared_by(seat: Seat, tmp_path: Path) -> None:
    """A backup of the same log is put back whatever the clock says."""
    back_up(seat.config, tmp_path / "kept")
    os.utime(seat.federation.server, (time.time() + 1e6, time.time() + 1e6))
    restore(tmp_path / "kept", seat.config, replace_newer=False)
