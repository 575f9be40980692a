"""The study's process: ``python -m fedseal.client.isolation.child``, started by `process.StudyProcess`.

Two processes, in truth. The first leaves the node's namespaces, makes the second, and then only watches: it ends the
second when the node is gone or memory runs over. The second is the study's; it cannot reach the first.

Imports nothing large before the second process is confined, and no thread is made before.
"""

import contextlib
import os
import resource
import select
import signal
import sys
from pathlib import Path

from fedseal.client.isolation import linux
from fedseal.client.isolation.confinement import MEGABYTE, Separated, close_calls, confine, separate
from fedseal.client.isolation.messages import Launch
from fedseal.wire import decode

# Exit codes of the first process; one that a signal ended is 128 and the signal's number.
OUT_OF_MEMORY = 71
SIGNALLED = 128
# Seconds between two looks at the memory.
LOOK = 0.5


def main() -> None:
    """Read what there is to do from standard input, and keep watch; its end is the end of the node."""
    length = int.from_bytes(_read(4), "big")
    launch = decode(_read(length), Launch)
    separated = separate()
    study = os.fork()
    if study == 0:
        _study(launch, separated)
    code = watch(study, launch.memory_mb * MEGABYTE)
    clear(launch)
    sys.exit(code)


def _study(launch: Launch, separated: Separated) -> None:
    """The second process; it never comes back."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, sys.stdin.fileno())
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        holds = confine(launch, separated)
        from fedseal.client.isolation.service import serve

        serve(launch, holds, lambda: close_calls(separated))
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(code)


def watch(study: int, memory: int) -> int:
    """Wait for the end of the study's process, or bring it about.

    Args:
        study: its number.
        memory: bytes that it may hold.

    Returns:
        The exit code that says how it ended.
    """
    watched = [sys.stdin.fileno(), *_seen_to_end(study)]
    while True:
        ready, _, _ = select.select(watched, [], [], LOOK)
        found, status = os.waitpid(study, os.WNOHANG)
        if found:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 1):
            _end(study)
            return 0
        if held(study) > memory:
            _end(study)
            return OUT_OF_MEMORY


def _seen_to_end(process: int) -> list[int]:
    """What can be read from once a process has ended; nothing on systems that have no such thing."""
    if sys.platform != "linux":
        return []
    try:
        return [os.pidfd_open(process)]
    except OSError:
        return []


def clear(launch: Launch) -> None:
    """Leave nothing behind, also where the node cannot see to it any more."""
    socket, scratch = Path(launch.socket), Path(launch.scratch)
    if sys.platform == "linux":
        # Nothing is mounted where there are no namespaces.
        with contextlib.suppress(OSError):
            linux.unmount(scratch)
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        scratch.rmdir()
        socket.parent.rmdir()


def held(process: int) -> int:
    """Bytes of memory that a process holds; 0 where that cannot be known."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def _read(length: int) -> bytes:
    found = b""
    while len(found) < length:
        part = os.read(sys.stdin.fileno(), length - len(found))
        if not part:
            sys.exit(0)
        found += part
    return found


if __name__ == "__main__":
    main()
