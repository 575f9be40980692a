"""The trials' own parts: what strikes is what was planned, and the oracle sees what must never be."""

import hashlib
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from support.trials.keeper import SERVER
from support.trials.kills import KillPlan
from support.trials.light import light_app, train
from support.trials.oracle import Findings, Invariant, Oracle, found_in, read_notes
from support.trials.proxy import CALM, Line, Weather
from support.trials.recorder import canaries, requests_in
from support.trials.results import Results, markdown, row_of
from support.trials.study import Federation, Shape, first_model, make_federation

from fedseal.client.mod import DATA_KEY, STORE_KEY
from fedseal.client.records import CONTROL
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.server.app import app as server_app
from fedseal.simulation.federation import FIRST_NODE
from fedseal.simulation.grid import LocalGrid, Observer, flower_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Path]:
    """A federation on disk after a run of two rounds under plan distributed, and the folder of its notes. Its nodes ran
    in this process.
    """
    folder = tmp_path_factory.mktemp("finished")
    federation = make_federation(folder / "federation", Shape(rounds=2, plan="distributed"))
    order, notes, stores = federation.order(), folder / "notes", federation.files.enrolled.site_stores
    notes.mkdir()
    found: list[bytes] = []
    observer = Observer(lambda *_: None, lambda _: None, lambda model: found.append(safetensors.numpy.save(model)))
    apps = {name: light_app(notes / f"{name}.notes") for name in stores}
    nodes = {
        FIRST_NODE + i: {STORE_KEY: str(store), DATA_KEY: str(federation.data[name])}
        for i, (name, store) in enumerate(stores.items())
    }
    grid = LocalGrid(
        light_app(),
        nodes,
        run_config=dict(order.config),
        observer=observer,
        deliver=lambda _, message, context: apps[list(stores)[context.node_id - FIRST_NODE]](message, context),
    )
    grid.serve(server_app)
    (order.folder / "model.safetensors").write_bytes(found[-1])
    return federation, notes


@pytest.fixture
def looking(finished: tuple[Federation, Path]) -> Iterator[tuple[Oracle, Federation, Path]]:
    """An oracle that has looked once, on files that are put back afterwards."""
    federation, notes = finished
    (run,) = federation.runs.iterdir()
    files = {name: notes / f"{name}.notes" for name in federation.shape.names}
    oracle = Oracle(federation, None, files)
    touched = [*oracle.stores.values(), *files.values(), run / "model.safetensors"]
    before = {path: path.read_bytes() for path in touched}
    for name in oracle.stores:
        oracle.watch(name)
    yield oracle, federation, run
    for path, content in before.items():
        path.write_bytes(content)


def test_what_went_well_is_found_to_be_well(looking: tuple[Oracle, Federation, Path]) -> None:
    oracle, _, run = looking
    oracle.everything([run])
    assert oracle.findings.breaches == []
    assert {Invariant.SUM, Invariant.ANSWER, Invariant.CHARGE, Invariant.ENTRY} <= set(oracle.findings.checks)


def change(store: Path, statement: str) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def lose_a_charge(oracle: Oracle, run: Path) -> None:
    newest = "SELECT max(counter) FROM entries WHERE kind = 2"
    change(oracle.stores["ward-01"], f"DELETE FROM entries WHERE kind = 2 AND counter = ({newest})")  # noqa: S608


def lose_an_entry_of_the_federation(oracle: Oracle, run: Path) -> None:
    change(oracle.stores["server"], "DELETE FROM log_leaves WHERE position = (SELECT max(position) FROM log_leaves)")


def lose_an_entry_of_a_site(oracle: Oracle, run: Path) -> None:
    change(oracle.stores["ward-02"], "DELETE FROM log_leaves WHERE position = (SELECT max(position) FROM log_leaves)")


def answer_twice(oracle: Oracle, run: Path) -> None:
    path = oracle.notes["ward-03"]
    note = next(note for note in read_notes(path) if note.stage is not None)
    with path.open("a", encoding="ascii") as file:
        file.write(f"{note.request} {hashlib.sha256(b'another').hexdigest()} {note.stage} {note.session}\n")


def send_what_was_not_charged(oracle: Oracle, run: Path) -> None:
    with oracle.notes["ward-03"].open("a", encoding="ascii") as file:
        file.write(f"{'00' * 32} {'11' * 32} 2 {'22' * 32}\n")


def have_no_model(oracle: Oracle, run: Path) -> None:
    (run / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("defect", "invariant"),
    [
        (lose_a_charge, Invariant.CHARGE),
        (lose_an_entry_of_the_federation, Invariant.ENTRY),
        (lose_an_entry_of_a_site, Invariant.ENTRY),
        (answer_twice, Invariant.ANSWER),
        (send_what_was_not_charged, Invariant.CHARGE),
        (have_no_model, Invariant.SUM),
    ],
)
def test_the_oracle_sees(
    looking: tuple[Oracle, Federation, Path], defect: Callable[[Oracle, Path], None], invariant: Invariant
) -> None:
    oracle, _, run = looking
    defect(oracle, run)
    oracle.everything([run])
    assert invariant in {found for found, _ in oracle.findings.breaches}


def test_the_oracle_sees_a_store_of_before(looking: tuple[Oracle, Federation, Path], tmp_path: Path) -> None:
    oracle, federation, _ = looking
    fresh = make_federation(tmp_path / "fresh", federation.shape)
    shutil.copy(fresh.files.enrolled.site_stores["ward-01"], oracle.stores["ward-01"])
    oracle.watch("ward-01")
    assert {found for found, _ in oracle.findings.breaches} == {Invariant.CHARGE, Invariant.ENTRY}


def test_the_oracle_sees_another_model(looking: tuple[Oracle, Federation, Path]) -> None:
    oracle, _, run = looking
    expected = (run / "model.safetensors").read_bytes()
    oracle.model(run, expected)
    assert not oracle.findings.breaches
    oracle.model(run, expected[:-1] + bytes([expected[-1] ^ 1]))
    assert [found for found, _ in oracle.findings.breaches] == [Invariant.SUM]


def test_canaries_are_in_what_a_site_computes_and_reads(tmp_path: Path) -> None:
    federation = make_federation(tmp_path / "federation", Shape())
    patterns = canaries(federation)
    assert all(len(pattern) >= 8 for pattern in patterns.values())
    facts = ConfigRecord({"release": "update", "plan": encode_plan(NoPrivacy(releases=1, retries=0))})
    arrays = ArrayRecord({name: Array(array) for name, array in first_model(0).items()})
    with flower_task(1):
        message = Message(RecordDict({CONTROL: facts, "arrays": arrays}), dst_node_id=1, message_type="train")
        reply = train(message, Context(1, 1, {DATA_KEY: str(federation.data["ward-02"])}, RecordDict(), {}))
    bare = [array.data for array in reply.content.array_records["arrays"].values()]
    found = set(found_in(bare, patterns))
    assert {f"ward-02, update {place}" for place in range(0, 12, 2)} <= found
    table = (federation.data["ward-01"] / "table.csv").read_bytes()
    assert {"ward-01, name 0", "ward-01, text 3.1"} <= set(found_in([table], patterns))


def test_kills_follow_from_their_seed() -> None:
    names = ["a", "b", "c"]
    kills = KillPlan(400, seed=7).draws(names)
    assert kills == KillPlan(400, seed=7).draws(names) != KillPlan(400, seed=8).draws(names)
    assert 100 < sum(kill.victim == SERVER for kill in kills) < 180
    assert {kill.victim for kill in kills} == {SERVER, *names}
    assert all(0.1 <= kill.pause <= 4 for kill in kills)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of somebody who sends back what comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                return

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def talk(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while more := connection.recv(1 << 16):
            found += more
        return found


def ended(connection: socket.socket) -> bool:
    """Whether the other side has ended it, in whichever way."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_calm_line_carries_all(echo: int) -> None:
    data = bytes(range(256)) * 1000
    with Line(echo) as line:
        assert talk(line.port, data) == data
        line.set(Weather(delay=0.01, rate=50_000_000))
        assert talk(line.port, data) == data
        assert line.broken == 0


def test_a_line_that_is_cut_ends_what_there_is_and_what_comes(echo: int) -> None:
    with Line(echo) as line:
        with socket.create_connection(("127.0.0.1", line.port), timeout=5) as connection:
            connection.sendall(b"a")
            assert connection.recv(1) == b"a"
            line.set(Weather(cut=True))
            assert ended(connection)
        with socket.create_connection(("127.0.0.1", line.port), timeout=5) as connection:
            assert ended(connection)
        line.set(CALM)
        assert talk(line.port, b"c") == b"c"


@pytest.mark.parametrize("weather", [Weather(drop_after=1000), Weather(half_after=1000)])
def test_a_line_breaks_in_the_middle(echo: int, weather: Weather) -> None:
    with Line(echo) as line:
        line.set(weather)
        found = b""
        with suppress(ConnectionError):
            found = talk(line.port, bytes(100_000))
        assert len(found) < 100_000
        assert line.broken >= 1


def test_what_a_silent_line_held_comes_later(echo: int) -> None:
    with Line(echo) as line:
        line.set(Weather(silent=True))
        with socket.create_connection(("127.0.0.1", line.port), timeout=0.3) as connection:
            connection.sendall(b"a")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            line.set(CALM)
            connection.settimeout(5)
            assert connection.recv(1) == b"a"


@given(st.lists(st.binary(max_size=200), max_size=5), st.integers(0, 40))
def test_requests_are_read_back_whole(bodies: list[bytes], cut: int) -> None:
    parts = [b"POST /v1/x HTTP/1.1\r\nHost: y\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    found = list(requests_in(b"".join(parts)))
    assert [request.body for request in found] == bodies
    assert all(request.path == "/v1/x" and request.headers["host"] == "y" for request in found)
    if parts:
        # A request whose end is missing is none.
        assert len(list(requests_in(b"".join(parts)[: -1 - cut]))) < len(bodies)


def test_rows_are_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "results" / "faults.json"
    results = Results(path)
    findings = Findings()
    findings.check(Invariant.SUM, True, "")
    findings.check(Invariant.SUM, False, "wrong")
    row = row_of("kill -9", 3, "all runs finished", findings, {"n": 1})
    results.add([{"part": "kills", "name": "a", **row}])
    results.add([{"part": "kills", "name": "b", **row}])
    again = Results(path)
    assert again.rows == results.rows
    assert again.has("kills", "a")
    assert not again.has("kills", "c")
    assert "| kill -9 | 6 | all runs finished | 4 | 2 |" in markdown(again.rows)
    again.forget(["kills"])
    assert Results(path).rows == []
