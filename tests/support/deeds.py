"""What a study's code must not get away with, a function each: it does the deed, or raises what stopped it.

`python -m support.deeds PLACES DEED...` tries them in a process that is kept from nothing, and prints what came of
each: the twin, which shows that the deed can be done here.
"""

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Places:
    """Where deeds are done."""

    secret: str
    folder: str
    study: str
    data: str
    node: int
    descriptor: int
    port: int


def read_the_data(places: Places) -> None:
    (Path(places.data) / "persons.csv").read_bytes()


def read_a_secret(places: Places) -> None:
    Path(places.secret).read_bytes()


def list_its_folder(places: Places) -> None:
    list(Path(places.folder).iterdir())


def write_beside_it(places: Places) -> None:
    (Path(places.folder) / "new").write_text("x", encoding="ascii")


def write_in_the_study(places: Places) -> None:
    (Path(places.study) / "task.py").write_text("x", encoding="ascii")


def write_in_the_data(places: Places) -> None:
    (Path(places.data) / "persons.csv").open("a").close()


def remove_the_secret(places: Places) -> None:
    moved = Path(places.secret).rename(places.secret + ".moved")
    moved.rename(places.secret)


def open_it_to_all(places: Places) -> None:
    Path(places.secret).chmod(0o600)


def date_it(places: Places) -> None:
    os.utime(places.secret, (1, 1))


def start_a_program(places: Places) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def fork(places: Places) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def signal_the_node(places: Places) -> None:
    os.kill(places.node, 0)


def read_the_nodes_memory(places: Places) -> None:
    maps = Path(f"/proc/{places.node}/maps").read_text(encoding="ascii")
    with Path(f"/proc/{places.node}/mem").open("rb") as memory:
        memory.seek(int(maps.split("-")[0], 16))
        memory.read(16)


def see_its_environment(places: Places) -> None:
    Path(f"/proc/{places.node}/environ").read_bytes()


def use_a_variable_of_the_nodes(places: Places) -> None:
    os.environ["FEDSEAL_TEST_SECRET"]


def use_a_file_the_node_has_open(places: Places) -> None:
    os.fstat(places.descriptor)


def local_socket(places: Places) -> None:
    socket.socket(socket.AF_UNIX).close()


def shared_memory(places: Places) -> None:
    os.close(os.memfd_create("deed"))


def new_namespace(places: Places) -> None:
    call("unshare", 0x10000000)


def trace(places: Places) -> None:
    call("ptrace", 0, 0, 0, 0)


def change_the_clock(places: Places) -> None:
    call("adjtimex", ctypes.create_string_buffer(512))


def network_socket(places: Places) -> None:
    with socket.create_connection(("127.0.0.1", places.port), timeout=5):
        pass


def write_scratch(places: Places) -> None:
    path = Path(os.environ["TMPDIR"]) / "file"
    path.write_bytes(b"x" * 1000)
    path.unlink()


def fill_scratch(places: Places) -> None:
    for number in range(20):
        (Path(os.environ["TMPDIR"]) / f"file-{number}").write_bytes(bytes(1 << 20))
    for number in range(20):
        (Path(os.environ["TMPDIR"]) / f"file-{number}").unlink()


def take_memory(places: Places) -> None:
    np.ones(1 << 26)


def dump_core(places: Places) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))


def start_a_thread(places: Places) -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


DEEDS: dict[str, Callable[[Places], None]] = {
    deed.__name__: deed
    for deed in (
        read_the_data,
        read_a_secret,
        list_its_folder,
        write_beside_it,
        write_in_the_study,
        write_in_the_data,
        remove_the_secret,
        open_it_to_all,
        date_it,
        start_a_program,
        fork,
        signal_the_node,
        read_the_nodes_memory,
        see_its_environment,
        use_a_variable_of_the_nodes,
        use_a_file_the_node_has_open,
        local_socket,
        shared_memory,
        new_namespace,
        trace,
        change_the_clock,
        network_socket,
        write_scratch,
        fill_scratch,
        take_memory,
        dump_core,
        start_a_thread,
    )
}


def tried(places: Places, names: list[str]) -> dict[str, str]:
    """What came of each deed: ``done``, or what stopped it."""
    found = {}
    for name in names:
        try:
            DEEDS[name](places)
            found[name] = "done"
        except (OSError, MemoryError, KeyError, ValueError, subprocess.SubprocessError) as error:
            found[name] = type(error).__name__
    return found


def as_text(places: Places) -> str:
    return json.dumps(asdict(places))


if __name__ == "__main__":
    print(json.dumps(tried(Places(**json.loads(sys.argv[1])), sys.argv[2:])))
