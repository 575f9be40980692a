"""A study's code that reads, writes, sends or starts what it must not, and the twin of each: without confinement it
can."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deeds import DEEDS, Places, as_text, tried
from support.strangers import asking, landlocked, stranger

from fedseal.client.isolation.process import StoppedError
from fedseal.client.isolation.supervision import failure
from fedseal.client.release import TaskError

pytestmark = pytest.mark.skipif(not landlocked(), reason="needs a Linux with namespaces, Landlock and seccomp")

# What a study may do.
FINE = {"read_the_data", "write_scratch", "start_a_thread"}
# What ends its process: see below.
ENDS = {"network_socket"}


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    for name in ("study", "data", "keys"):
        (tmp_path / name).mkdir()
    (tmp_path / "study" / "task.py").write_text("pass\n", encoding="ascii")
    (tmp_path / "data" / "persons.csv").write_text("a\n1\n", encoding="ascii")
    secret = tmp_path / "keys" / "secret"
    secret.write_text("key", encoding="ascii")
    secret.chmod(0o600)
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Places(
            str(secret),
            str(secret.parent),
            str(tmp_path / "study"),
            str(tmp_path / "data"),
            os.getpid(),
            descriptor,
            server.getsockname()[1],
        )
    os.close(descriptor)


@pytest.fixture(autouse=True)
def secret_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSEAL_TEST_SECRET", "key")


def test_no_deed_is_done_in_the_studys_process(places: Places) -> None:
    names = [name for name in DEEDS if name not in ENDS]
    with stranger(Path(places.study), Path(places.data), memory_mb=448, scratch_mb=8) as process:
        found = json.loads(
            failure(asking(process, "deeds", places=as_text(places), names=names)).message,
        )
    done = {name for name, what in found.items() if what == "done"}
    assert done == FINE, found
    assert found["take_memory"] in {"MemoryError", "_ArrayMemoryError"}


def test_nor_where_the_kernel_gives_no_namespaces(places: Places) -> None:
    """As in many containers: Landlock and seccomp hold alone, and there is no place to write."""
    names = [name for name in DEEDS if name not in ENDS]
    program = "support.stranger_in_a_container"
    with stranger(Path(places.study), Path(places.data), program=program, memory_mb=448) as process:
        held = {hold.barrier: hold.by for hold in process.holds}
        found = json.loads(failure(asking(process, "deeds", places=as_text(places), names=names)).message)
    assert {name for name, what in found.items() if what == "done"} == FINE - {"write_scratch"}, found
    assert (held["network"], held["processes"]) == ("seccomp", "seccomp")
    assert held["files"].endswith("writes nothing")


def test_a_socket_ends_the_process(places: Places) -> None:
    with stranger(Path(places.study), Path(places.data)) as process, pytest.raises(StoppedError, match="a socket"):
        asking(process, "deeds", places=as_text(places), names=["network_socket"])


def test_the_twin_without_confinement_every_deed_can_be_done(places: Places, tmp_path: Path) -> None:
    names = [name for name in DEEDS if name != "read_the_nodes_memory"]
    done = subprocess.run(
        [sys.executable, "-m", "support.deeds", as_text(places), *names],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        close_fds=False,
        check=True,
    )
    assert set(json.loads(done.stdout).values()) == {"done"}, done.stdout
    # And the node's memory, by its own process.
    assert tried(places, ["read_the_nodes_memory"]) == {"read_the_nodes_memory": "done"}


def test_what_the_study_says_of_a_failure_stays_text(places: Places) -> None:
    with stranger(Path(places.study), Path(places.data)) as process:
        failed = asking(process, "raise")
    error = failure(failed)
    assert isinstance(error, TaskError)
    assert "ValueError" in error.message
    assert any("stranger.py" in note for note in error.__notes__)
