"""`fedseal site`: whoever looks after a site's store sees its runs, and can close one whose server is gone."""

import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message
from support.commands import told
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)
from support.keys import key, make_roster, signed

from fedseal import database
from fedseal.errors import ExitCode
from fedseal.privacy.ledger import Entry, EntryKind, open_terms
from fedseal.privacy.releases import Population
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.privacy.transaction import PERSONAL_MODEL

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STUCK, OTHER = b"S" * 16, b"O" * 16


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    """Three sites, of which each has finished a round without privacy and is stuck in one with, in another run."""
    running = Nodes(make_federation(tmp_path, 3), ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)))
    running.run(header_for(running.federation, run=OTHER))
    running.run(header_for(running.federation, PRIVATE, run=STUCK))
    running.run(header_for(running.federation, PRIVATE, run=STUCK, release_seq=2, attempt=1), until=Stage.MASK)
    return running


def entries(federation: Federation) -> list[Entry]:
    """The ledger of site 1."""
    with federation.site(1).transaction() as transaction:
        return transaction.entries("train")


def record(federation: Federation, run: bytes) -> RunRecord:
    with federation.site(1).transaction() as transaction:
        return transaction.run(run)


def rows(done: "subprocess.CompletedProcess[str]") -> dict[str, list[str]]:
    """The table's rows by run."""
    assert (done.returncode, done.stderr) == (0, "")
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in done.stdout.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in cells}


def test_a_sites_runs_are_listed_with_what_they_hold(fedseal: Run, nodes: Nodes) -> None:
    done = fedseal("site", "runs", nodes.federation.sites[1])
    terms = make_terms(nodes.federation)
    last = entries(nodes.federation)[-1]
    # Everything private that is reserved is the stuck run's; of the other run only attempts are counted.
    share = (last.reserved - 99) / terms
    assert rows(done) == {
        OTHER.hex(): ["1", "0", "open", "train: 99 attempts without privacy"],
        STUCK.hex(): ["2", "1", "open", f"train: {100 * share:.1f} % of the budget"],
    }
    assert "Site site-1 of simulated federation test" in done.stdout


def make_terms(federation: Federation) -> int:
    """The budget of site 1, in units."""
    with federation.site(1).transaction() as transaction:
        return transaction.terms("train").budget


def test_closing_a_run_gives_back_what_it_held_and_nothing_of_another(fedseal: Run, nodes: Nodes) -> None:
    federation = nodes.federation
    before, other = entries(federation), record(federation, OTHER)
    done = fedseal("site", "close-run", federation.sites[1], STUCK.hex())
    assert (done.returncode, done.stderr) == (0, "")
    after = entries(federation)
    assert after[:-1] == before
    released = after[-1]
    assert (released.kind, released.run, released.left) == (EntryKind.RELEASE, STUCK, 0)
    assert released.charged == before[-1].charged
    assert released.reserved == before[-1].reserved - released.amount == 99
    assert record(federation, STUCK) == RunRecord(STUCK, 2, 1, closed=True)
    assert record(federation, OTHER) == other
    assert f"Given back: train: {100 * released.amount / make_terms(federation):.1f} % of the budget." in done.stdout
    assert rows(fedseal("site", "runs", federation.sites[1]))[STUCK.hex()] == ["2", "1", "closed", "nothing"]
    federation.site(1).verify_ledgers()


def test_a_closed_run_is_closed_once_and_never_reopens(fedseal: Run, nodes: Nodes) -> None:
    federation = nodes.federation
    later = nodes.opening(header_for(federation, PRIVATE, run=STUCK, release_seq=3))
    # The twin: the same header is answered where the run was not closed.
    assert nodes.send(2, later).has_content()
    assert federation.charges(2) == 3
    assert fedseal("site", "close-run", federation.sites[1], STUCK.hex()).returncode == 0
    closed = entries(federation)
    again = fedseal("site", "close-run", federation.sites[1], STUCK.hex())
    assert (again.returncode, "closed already" in again.stdout) == (0, True)
    assert nodes.refusal(1, later) is RefusalCode.PROTOCOL
    assert "a closed one never reopens" in nodes.incident(1)
    assert entries(federation) == closed


def test_a_run_that_is_closed_while_the_site_trains_gets_nothing(fedseal: Run, tmp_path: Path) -> None:
    """What was charged before training stays charged; the vector does not leave."""
    federation = make_federation(tmp_path, 3)
    closes: list[int] = []

    class Closing(Script):
        def called(self, message: Message, context: Context) -> int:
            number = super().called(message, context)
            if number == 1:
                closes.append(fedseal("site", "close-run", federation.sites[1], STUCK.hex()).returncode)
            return number

    running = Nodes(federation, ordinary_app(Closing({}, done=True)))
    state, seen = running.run(header_for(federation, PRIVATE, run=STUCK), until=Stage.MASK)
    assert closes == [0]
    assert [r.site for r in state.refused] == [1]
    assert "vector" not in seen[Stage.MASK, 1][1].content
    assert "vector" in seen[Stage.MASK, 2][1].content
    assert [federation.charges(n) for n in (1, 2, 3)] == [1, 1, 1]
    assert federation.kinds(1)[-1] is EntryKind.RELEASE


def test_a_run_that_the_site_does_not_know_is_named_as_such(fedseal: Run, nodes: Nodes) -> None:
    before = entries(nodes.federation)
    done = fedseal("site", "close-run", nodes.federation.sites[1], "ab" * 16)
    told(done, ExitCode.CONFIG, "no run of that number", "fedseal site runs")
    assert entries(nodes.federation) == before
    assert "ab" * 16 not in rows(fedseal("site", "runs", nodes.federation.sites[1]))


@pytest.mark.quick("abc")
@pytest.mark.parametrize("run", ["", "abc", "zz" * 16, "ab" * 15, "ab" * 17, " " + "a" * 31])
def test_what_is_no_run_is_refused(fedseal: Run, nodes: Nodes, run: str) -> None:
    told(fedseal("site", "close-run", nodes.federation.sites[1], run), ExitCode.CONFIG, "32 hexadecimal digits")


@pytest.mark.parametrize("command", [("runs",), ("close-run", STUCK.hex())], ids=lambda c: c[0])
def test_what_is_no_site_store_is_named(fedseal: Run, nodes: Nodes, tmp_path: Path, command: tuple[str, ...]) -> None:
    name, *rest = command
    text = tmp_path / "notes.txt"
    text.write_text("no database", encoding="utf-8")
    told(fedseal("site", name, tmp_path / "missing", *rest), ExitCode.CONFIG, "no site store at", "fedseal-store")
    told(fedseal("site", name, text, *rest), ExitCode.CONFIG, "notes.txt is not a site store")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    told(fedseal("site", name, tmp_path / "other.sqlite", *rest), ExitCode.CONFIG, "other.sqlite is not a site store")
    told(fedseal("site", name, nodes.federation.server, *rest), ExitCode.CONFIG, "server.sqlite is not a site store")


def test_a_store_of_no_simulation_and_without_runs_says_so(fedseal: Run, tmp_path: Path) -> None:
    roster = make_roster(2, simulated=False)
    terms = tuple(open_terms(p.value, epsilon=3.0, delta=1e-5, order=7.25) for p in Population)
    made = Enrolment(1, key("site-1"), signed(roster), roster.digest(), "", terms)
    store = SiteStore.create(tmp_path / "site.sqlite", made)
    done = fedseal("site", "runs", store.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Site site-1 of federation test", "It has answered for no run."]


@pytest.mark.quick("runs")
@pytest.mark.parametrize("command", [("runs",), ("close-run", STUCK.hex())], ids=lambda c: c[0])
def test_a_store_that_another_program_holds_is_waited_for_and_then_named(
    fedseal: Run, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    name, *rest = command
    store, before = nodes.federation.sites[1], entries(nodes.federation)
    monkeypatch.setattr(database, "PATIENCE", 300)
    with closing(sqlite3.connect(store, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        told(fedseal("site", name, store, *rest), ExitCode.CONFIG, "another program is using", "has not let go of it")
        # The twin: whoever lets go in time is only waited for.
        monkeypatch.setattr(database, "PATIENCE", 30_000)
        timer = threading.Timer(0.5, lambda: holder.execute("ROLLBACK"))
        timer.start()
        assert fedseal("site", name, store, *rest).returncode == 0
        timer.join()
    assert (entries(nodes.federation) == before) is (name == "runs")


@pytest.mark.parametrize("command", [("runs",), ("close-run", STUCK.hex())], ids=lambda c: c[0])
def test_a_damaged_ledger_is_the_operators_to_mend(fedseal: Run, nodes: Nodes, command: tuple[str, ...]) -> None:
    name, *rest = command
    store = nodes.federation.sites[1]
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("DELETE FROM entries WHERE counter = 2")
    done = fedseal("site", name, store, *rest)
    told(done, ExitCode.CONFIG, str(store), "Restore it")
    assert "fault of fedseal's own" not in done.stderr
    assert record(nodes.federation, STUCK) == replace(record(nodes.federation, STUCK), closed=False)


# What stays at a site.


def test_a_sites_own_model_is_written_where_only_it_can_be_read(fedseal: Run, tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    with federation.site(1).transaction() as transaction:
        transaction.remember(STUCK, PERSONAL_MODEL, b"of its own", 3)
        transaction.put_run(RunRecord(STUCK, 3, 0))
        transaction.close_run(STUCK)
    store, out = str(federation.sites[1]), tmp_path / "own.safetensors"
    done = fedseal("site", "own-model", store, STUCK.hex(), str(out))
    assert done.returncode == ExitCode.OK
    assert out.read_bytes() == b"of its own"
    told(fedseal("site", "own-model", store, STUCK.hex(), str(out)), ExitCode.CONFIG, "exists")
    nothing = fedseal("site", "own-model", store, OTHER.hex(), str(tmp_path / "none"))
    told(nothing, ExitCode.CONFIG, "keeps nothing of its own")


def test_an_old_store_is_brought_to_todays_format(tmp_path: Path, fedseal: Run) -> None:
    with zipfile.ZipFile(Path(__file__).parents[1] / "vectors" / "stores-format-1.zip") as archive:
        old = Path(archive.extract("site-1.sqlite", tmp_path))
    done = fedseal("site", "upgrade", str(old))
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"As it was before: {old}.format-1" in done.stdout
    assert fedseal("site", "upgrade", str(old)).stdout == done.stdout
    absent = fedseal("site", "upgrade", str(tmp_path / "absent"))
    assert absent.returncode == ExitCode.CONFIG
    assert "no site store at" in absent.stderr
