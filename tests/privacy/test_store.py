"""A site's store: made once, readable by its owner only, all or nothing, and it notices when others write in it."""

import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from support.books import TERMS, gaussian, release, run_id
from support.keys import SERVER, key, make_roster, signed
from support.rounds import make_header, ring_layout

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy import store as store_module
from fedseal.privacy.plan import encode_plan
from fedseal.privacy.randomness import KeyedRandomness, SystemRandomness
from fedseal.privacy.roster import SignedRoster, sign_roster
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.secagg.client_states import Advertised, Done
from fedseal.privacy.secagg.messages import Advertisement, Signed
from fedseal.privacy.secret import Secret
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.privacy.transaction import (
    LONGEST_INCIDENT,
    MOST_INCIDENTS,
    StoredReply,
    Transaction,
    insert_entry,
    request_digest,
)
from fedseal.wire import encode

ROSTER = make_roster(3, simulated=False)
SIMULATED = make_roster(3, simulated=True)
TEST_TERMS = replace(TERMS, population="test")
PLAN = encode_plan(gaussian())


def enrolment(**changes: Any) -> Enrolment:
    """Site 1 of a real federation."""
    made = Enrolment(1, key("site-1"), signed(ROSTER), ROSTER.digest(), "version = 1\n", (TERMS, TEST_TERMS))
    return replace(made, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site-1.sqlite"


@pytest.fixture
def store(path: Path) -> SiteStore:
    return SiteStore.create(path, enrolment())


def spend(store: SiteStore, charges: int = 2, run: int = 1) -> None:
    """A run that reserves and charges."""
    with store.transaction() as transaction:
        ledger, entry = transaction.ledger("train", run_id(run), PLAN).reserve(run_id(run), gaussian())
        transaction.append("train", entry)
        for attempt in range(charges):
            ledger, entry, _ = ledger.charge(release(run_id(run), attempt), gaussian())
            transaction.append("train", entry)


# Making and opening


def test_a_store_knows_what_it_was_made_from(path: Path, store: SiteStore) -> None:
    for opened in (store, SiteStore.open(path)):
        identity = opened.identity
        assert (identity.number, identity.name, identity.policy) == (1, "site-1", "version = 1\n")
        assert identity.roster == ROSTER
        assert identity.key.public == key("site-1").public
        assert (identity.seed, identity.simulated) == (None, False)
        with opened.transaction() as transaction:
            assert transaction.populations() == ["test", "train"]
            assert transaction.terms("train") == TERMS
            assert len(transaction.entries("test")) == 1
            with pytest.raises(ConfigError, match="no ledger for population 'others'"):
                transaction.terms("others")
        opened.verify_ledgers()


def test_a_population_without_a_ledger_is_a_config_error(store: SiteStore) -> None:
    """Nothing is damaged: the data owner opened no ledger for these persons."""
    with (
        store.transaction() as transaction,
        pytest.raises(ConfigError, match="no ledger for population 'others'") as caught,
    ):
        transaction.ledger("others", run_id(1), PLAN)
    assert "when the site is enrolled" in caught.value.next_step


def forged() -> SignedRoster:
    """Another roster under the root's signature of this one."""
    return SignedRoster(encode(replace(ROSTER, epoch=2)), signed(ROSTER).signature)


def self_made() -> SignedRoster:
    """A roster with another root."""
    return sign_roster(replace(ROSTER, root_key=SERVER.public), SERVER)


def made_with(roster: SignedRoster, pinned: bytes) -> dict[str, Any]:
    return {"roster": roster, "pinned": pinned}


WRONG_ENROLMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "another site's key": ({"key": key("site-2")}, "does not list this site with this key"),
    "another site's number": ({"number": 2}, "does not list this site with this key"),
    "a number that is not there": ({"number": 9}, "does not list this site with this key"),
    "a seed outside a simulation": ({"seed": 1}, "a seed belongs to a simulated federation"),
    "a simulation without a seed": (made_with(signed(SIMULATED), SIMULATED.digest()), "a seed belongs to a simulated"),
    "another roster than the pinned one": ({"pinned": SIMULATED.digest()}, "not the one this site has pinned"),
    "nothing pinned": ({"pinned": b""}, "not the one this site has pinned"),
    "a forged roster": ({"roster": forged()}, "not the one this site has pinned"),
    "a forged roster, pinned": (made_with(forged(), replace(ROSTER, epoch=2).digest()), "signature does not hold"),
    "garbage, pinned": (made_with(SignedRoster(b"garbage", bytes(64)), request_digest(b"garbage")), "cannot be read"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_ENROLMENTS.values(), ids=WRONG_ENROLMENTS)
def test_a_wrong_enrolment_makes_no_store(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SiteStore.create(path, enrolment(**changes))
    assert not path.exists()


def test_whose_root_signed_the_pinned_roster_is_the_pinners_choice(path: Path) -> None:
    """The pin, compared over another channel, is what names the root."""
    roster = replace(ROSTER, root_key=SERVER.public)
    assert SiteStore.create(path, enrolment(roster=self_made(), pinned=roster.digest())).identity.roster == roster


def test_a_store_is_made_once(path: Path, store: SiteStore) -> None:
    spend(store)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        SiteStore.create(path, enrolment())
    assert path.read_bytes() == before
    assert files(path.parent) == {path.name}


def files(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {f.name for f in folder.iterdir()}


def break_off(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Let the making of a store end early: before, in the middle of or after writing it."""
    fill = SiteStore._fill

    def failing(*arguments: Any) -> None:
        if where == "after":
            fill(*arguments)
        raise OSError("no space left")

    def failing_at_the_second(connection: Any, population: str, *rest: Any) -> None:
        insert_entry(connection, population, *rest)
        if population == "test":
            raise OSError("no space left")

    if where == "middle":
        monkeypatch.setattr(store_module, "insert_entry", failing_at_the_second)
    else:
        monkeypatch.setattr(SiteStore, "_fill", staticmethod(failing))


@pytest.mark.parametrize("where", ["before", "middle", "after"])
def test_a_store_that_was_begun_and_not_finished_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as broken:
        break_off(broken, where)
        with pytest.raises(OSError, match="no space left"):
            SiteStore.create(path, enrolment())
        assert not files(path.parent)
    SiteStore.create(path, enrolment()).verify_ledgers()
    assert files(path.parent) == {path.name}


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from fedseal.privacy import store
from support.keys import key, make_roster, signed
roster = make_roster(3, simulated=False)
fill = store.SiteStore._fill
def fill_and_die(*arguments):
    fill(*arguments)
    os.kill(os.getpid(), 9)
store.SiteStore._fill = staticmethod(fill_and_die)
store.SiteStore.create(Path(sys.argv[1]), store.Enrolment(1, key("site-1"), signed(roster), roster.digest(), "", ()))
"""


def test_what_a_killed_process_left_does_not_stand_in_the_way(path: Path) -> None:
    """It never got the store's own name, and it is its owner's alone."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), *sys.path], check=False).returncode == -9
    left = files(path.parent)
    assert left
    assert path.name not in left
    assert {stat.S_IMODE((path.parent / name).stat().st_mode) for name in left} == {0o600}
    SiteStore.create(path, enrolment()).verify_ledgers()
    assert files(path.parent) == {*left, path.name}


@pytest.mark.parametrize("kind", ["a store", "text", "a folder", "a link to nowhere"])
def test_what_came_first_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Also if it came while this store was being made."""
    fill = SiteStore._fill
    comes: dict[str, Callable[[], object]] = {
        "a store": lambda: fill(path, enrolment()),
        "text": lambda: path.write_text("mine"),
        "a folder": lambda: path.mkdir(),
        "a link to nowhere": lambda: path.symlink_to(path.parent / "nowhere"),
    }

    def meanwhile(*arguments: Any) -> None:
        fill(*arguments)
        comes[kind]()

    monkeypatch.setattr(SiteStore, "_fill", staticmethod(meanwhile))
    with pytest.raises(ConfigError, match="exists already"):
        SiteStore.create(path, enrolment())
    assert files(path.parent) == {path.name}
    monkeypatch.undo()
    before = path.lstat()
    with pytest.raises(ConfigError, match="exists already"):
        SiteStore.create(path, enrolment())
    after = path.lstat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def test_what_is_no_store_is_not_opened(tmp_path: Path) -> None:
    empty, text, other = tmp_path / "empty", tmp_path / "text", tmp_path / "other"
    empty.touch()
    text.write_text("not a database\n" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE unrelated (x)")
    with pytest.raises(ConfigError, match="no site store at") as caught:
        SiteStore.open(tmp_path / "absent")
    assert "fedseal-store" in caught.value.next_step
    assert not (tmp_path / "absent").exists()
    for path in (tmp_path, empty, other, text):
        with pytest.raises(ConfigError, match=r"no site store at|is not a site store"):
            SiteStore.open(path)


def edit(path: Path, statement: str, *values: object) -> None:
    """Change the file by hand."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


EDITS: dict[str, tuple[str, tuple[object, ...], str]] = {
    "another format": ("UPDATE meta SET value = ? WHERE key = 'format'", (b"3",), "another format than 2"),
    "no format": ("DELETE FROM meta WHERE key = 'format'", (), "another format than 2"),
    "a seed": ("UPDATE meta SET value = ? WHERE key = 'seed'", (b"1",), "contradicts its own roster"),
    "a stranger's number": ("UPDATE meta SET value = ? WHERE key = 'number'", (b"9",), "contradicts its own roster"),
    "another site's number": ("UPDATE meta SET value = ? WHERE key = 'number'", (b"2",), "contradicts its own roster"),
    "another pin": ("UPDATE meta SET value = ? WHERE key = 'pinned'", (bytes(32),), "not the one this site has pinned"),
}


@pytest.mark.parametrize(("statement", "values", "message"), EDITS.values(), ids=EDITS)
def test_a_store_that_contradicts_itself_is_not_opened(
    path: Path, store: SiteStore, statement: str, values: tuple[object, ...], message: str
) -> None:
    edit(path, statement, *values)
    with pytest.raises(ConfigError, match=message):
        SiteStore.open(path)


def test_the_file_is_its_owners_alone(path: Path, store: SiteStore) -> None:
    with store.transaction() as transaction:
        transaction.record_incident("TASK", "text")
        files = list(path.parent.glob("site-1.sqlite*"))
        assert len(files) > 1  # the write-ahead log too
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_randomness_comes_from_the_system_unless_the_site_is_simulated(path: Path, tmp_path: Path) -> None:
    real = SiteStore.create(path, enrolment()).identity
    assert isinstance(real.randomness(), SystemRandomness)
    assert real.randomness().stream("noise", 1).raw(16) != real.randomness().stream("noise", 1).raw(16)
    changes = made_with(signed(SIMULATED), SIMULATED.digest()) | {"seed": 5}
    simulated = SiteStore.create(tmp_path / "simulated.sqlite", enrolment(**changes)).identity
    assert isinstance(simulated.randomness(), KeyedRandomness)
    expected = KeyedRandomness(5, "site", 1).stream("noise", 1).raw(16)
    assert simulated.randomness().stream("noise", 1).raw(16) == expected


def test_no_key_shows_when_a_store_is_printed(store: SiteStore) -> None:
    seed = key("site-1").seed.reveal()
    for shown in (repr(store), str(store), repr(store.identity), repr(enrolment()), repr(vars(store))):
        assert "site" in shown.lower()
        assert repr(seed)[2:-1] not in shown
        assert seed.hex() not in shown


def test_no_secret_shows_when_a_statement_fails(path: Path, store: SiteStore) -> None:
    """Exceptions are logged and kept as incidents."""
    secret = key("site-1").seed.reveal()
    state = Advertised(b"header", *(Secret(secret),) * 3, Signed(0, 1, bytes(32), b"", bytes(64)))
    failures: list[BaseException] = []
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: meta\.key") as made_twice:
        SiteStore._fill(path, enrolment())
    failures.append(made_twice.value)
    with pytest.raises(OperationalError, match="no such table") as no_table, store.transaction() as transaction:
        transaction._connection.exec_driver_sql("DROP TABLE sessions")
        transaction.put_state(b"s" * 32, run_id(1), state)
    failures.append(no_table.value)
    for failure in failures:
        shown = "".join(traceback.format_exception(failure)) + repr(failure) + str(failure)
        assert "SQL parameters hidden" in shown
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


# Transactions


def test_an_exception_undoes_everything(path: Path, store: SiteStore) -> None:
    spend(store)

    def everything(transaction: Transaction) -> None:
        ledger, entry = transaction.ledger("train", run_id(2), PLAN).reserve(run_id(2), gaussian())
        transaction.append("train", entry)
        transaction.append("train", ledger.charge(release(run_id(2)), gaussian())[1])
        transaction.put_run(RunRecord(run_id(2), 3, 1))
        transaction.put_state(b"s" * 32, run_id(2), Done(b"d" * 32))
        transaction.put_reply(b"s" * 32, 0, StoredReply(b"q", b"a", np.zeros(3, dtype="<u4")))
        transaction.put_counters({2: 7})
        transaction.record_incident("TASK", "text")
        assert transaction.pin_terms(run_id(2), "update", b"t" * 32)

    def picture(transaction: Transaction) -> list[Any]:
        return [
            transaction.entries("train"),
            transaction.charges(),
            transaction.run(run_id(2)),
            transaction.state(b"s" * 32),
            transaction.reply(b"s" * 32, 0),
            transaction.known_counters(),
            transaction.incidents(),
        ]

    with store.transaction() as transaction:
        before = picture(transaction)
    with pytest.raises(RuntimeError, match="power cut"), store.transaction() as transaction:
        everything(transaction)
        assert all(now != then for now, then in zip(picture(transaction), before, strict=True))
        raise RuntimeError("power cut")
    with SiteStore.open(path).transaction() as transaction:
        assert picture(transaction) == before
    store.verify_ledgers()
    with store.transaction() as transaction:
        # The pin was undone too.
        assert transaction.pin_terms(run_id(2), "update", b"other")


CHILD = """
import sys, time
from pathlib import Path
from fedseal.privacy.store import SiteStore
store = SiteStore.open(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
with store.transaction() as transaction:
    print(transaction.known_counters(), flush=True)
    transaction.put_counters({2: 9})
"""


def test_a_second_process_waits_until_the_first_is_done(path: Path, store: SiteStore) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with store.transaction() as transaction:
            child.stdin.write("go\n")
            child.stdin.flush()
            time.sleep(0.5)
            transaction.put_counters({2: 4})
            assert child.poll() is None
            assert transaction.known_counters() == {2: 4}
        # Had the second been inside at the same time, it would not have seen what the first wrote last.
        assert child.stdout.readline() == "{2: 4}\n"
        assert child.wait(30) == 0
    with store.transaction() as transaction:
        assert transaction.known_counters() == {2: 9}


# Runs, sessions, answers, peers


def test_a_run_that_was_never_seen_is_new(store: SiteStore) -> None:
    with store.transaction() as transaction:
        assert transaction.run(run_id(1)) == RunRecord(run_id(1), 0, 0, False)
        transaction.put_run(RunRecord(run_id(1), 3, 2, True))
    with store.transaction() as transaction:
        assert transaction.run(run_id(1)) == RunRecord(run_id(1), 3, 2, True)
        assert transaction.run(run_id(2)) == RunRecord(run_id(2))


def test_a_stage_is_answered_once(store: SiteStore) -> None:
    vectors = [None, np.array([1, 2**32 - 1], dtype="<u4"), np.array([1, 2**64 - 1], dtype="<u8")]
    with store.transaction() as transaction:
        for stage, vector in enumerate(vectors):
            assert transaction.reply(b"s" * 32, stage) is None
            transaction.put_reply(b"s" * 32, stage, StoredReply(b"request", b"control", vector))
    with store.transaction() as transaction:
        for stage, vector in enumerate(vectors):
            found = transaction.reply(b"s" * 32, stage)
            assert found is not None
            assert (found.request, found.control) == (b"request", b"control")
            if vector is None or found.vector is None:
                assert vector is found.vector
            else:
                assert found.vector.dtype == vector.dtype
                assert np.array_equal(found.vector, vector)
            with pytest.raises(LocalError, match="answered already"):
                transaction.put_reply(b"s" * 32, stage, StoredReply(b"other", b"control", vector))


def test_a_newer_release_of_a_run_forgets_the_sessions_of_that_run_only(store: SiteStore) -> None:
    sessions = {b"a" * 32: run_id(1), b"b" * 32: run_id(1), b"c" * 32: run_id(2)}
    with store.transaction() as transaction:
        for session, run in sessions.items():
            transaction.put_state(session, run, Done(session))
            transaction.put_reply(session, 0, StoredReply(b"q", b"a", None))
        transaction.put_state(b"a" * 32, run_id(1), Done(b"x" * 32))
        assert transaction.state(b"a" * 32) == Done(b"x" * 32)
        transaction.put_run(RunRecord(run_id(1), 2))
        for session, run in sessions.items():
            kept = run == run_id(2)
            assert (transaction.state(session) is not None) is kept
            assert (transaction.reply(session, 0) is not None) is kept


def test_what_is_known_of_peers_only_grows(store: SiteStore) -> None:
    with store.transaction() as transaction:
        for counters in ({2: 5, 3: 0}, {3: 1}, {}, {2: 5}, {2: 4, 3: 0}):
            transaction.put_counters(counters)
        assert transaction.known_counters() == {2: 5, 3: 1}


def test_every_number_that_the_wire_admits_can_be_remembered(store: SiteStore) -> None:
    """A peer signs whatever counter it likes: it is refused when it is read, or it can be remembered."""
    most = (1 << 62) - 1
    keys = Advertisement(bytes(32), bytes(32), bytes(32), most)
    with pytest.raises(ValueError, match="no ledger reaches"):
        replace(keys, ledger_counter=most + 1)
    last = make_header(ROSTER, [1, 2, 3], ring_layout(4, 3), release_seq=(1 << 63) - 1, attempt=(1 << 16) - 1)
    with pytest.raises(ValueError, match="no run reaches"):
        replace(last, release_seq=1 << 63)
    with store.transaction() as transaction:
        # A confirmation proves one charge more than was advertised.
        transaction.put_counters({2: most, 3: most + 1})
        transaction.put_run(RunRecord(run_id(1), last.release_seq, last.attempt))
        assert transaction.known_counters() == {2: most, 3: most + 1}
        assert transaction.run(run_id(1)) == RunRecord(run_id(1), last.release_seq, last.attempt)


# Pinned terms


def test_the_first_terms_of_a_release_are_pinned_for_its_run(path: Path, store: SiteStore) -> None:
    with store.transaction() as transaction:
        assert transaction.pin_terms(run_id(1), "update", b"a" * 32)
        assert transaction.pin_terms(run_id(1), "update", b"a" * 32)
        assert not transaction.pin_terms(run_id(1), "update", b"b" * 32)
    with SiteStore.open(path).transaction() as transaction:
        # Being asked with others did not replace them, nor does a newer release or the end of the run.
        transaction.put_run(RunRecord(run_id(1), 9, closed=True))
        assert not transaction.pin_terms(run_id(1), "update", b"b" * 32)
        assert transaction.pin_terms(run_id(1), "update", b"a" * 32)


def test_releases_and_runs_have_terms_of_their_own(store: SiteStore) -> None:
    pins = [(run_id(1), "update", b"a"), (run_id(1), "moments", b"b"), (run_id(2), "update", b"c")]
    with store.transaction() as transaction:
        assert all(transaction.pin_terms(*pin) for pin in pins)
        assert all(transaction.pin_terms(*pin) for pin in pins)
        assert not any(transaction.pin_terms(run, name, b"x") for run, name, _ in pins)


# Incidents


def test_incidents_are_kept_in_order(store: SiteStore) -> None:
    with store.transaction() as transaction:
        transaction.record_incident("TASK", "first")
        transaction.record_incident("POLICY", "second")
    with store.transaction() as transaction:
        assert transaction.incidents() == [("TASK", "first"), ("POLICY", "second")]


def test_the_last_incidents_are_kept(path: Path, store: SiteStore) -> None:
    with store.transaction() as transaction:
        for number in range(MOST_INCIDENTS + 3):
            transaction.record_incident("TASK", f"{number}")
    with SiteStore.open(path).transaction() as transaction:
        transaction.record_incident("POLICY", "last")
        kept = transaction.incidents()
    assert len(kept) == MOST_INCIDENTS == 200
    assert kept == [("TASK", f"{n}") for n in range(4, MOST_INCIDENTS + 3)] + [("POLICY", "last")]


@pytest.mark.parametrize("character", ["x", "é", "\U0001f512", "\ud800", "\0"])
def test_no_incident_fills_the_disk(store: SiteStore, character: str) -> None:
    """An error's text may hold anything that code puts into it."""
    with store.transaction() as transaction:
        transaction.record_incident("TASK", "begin" + character * 3 * LONGEST_INCIDENT + "end")
        transaction.record_incident("TASK", character * 10)
        long, short = (text for _, text in transaction.incidents())
    assert LONGEST_INCIDENT == 8000
    # The end of a traceback says what happened.
    assert long.endswith("end")
    assert "begin" not in long
    assert LONGEST_INCIDENT - 10 <= len(long) <= LONGEST_INCIDENT
    assert short == (character * 10).encode("utf-8", "backslashreplace").decode()
