"""What the study's process gives up before it loads anything of the study, and what of that held here.

Two steps. `separate` and `confine` come before any thread; `close_calls` comes last, once the process listens on its
socket, because from then on it may open none.
"""

import os
import platform
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from fedseal.client.isolation import linux, seccomp
from fedseal.client.isolation.linux import Namespace
from fedseal.client.isolation.messages import Hold, Launch
from fedseal.client.isolation.settings import Barrier

MEGABYTE = 1 << 20
NOT_LINUX = "only Linux has it"
_ALL = Namespace.USERS | Namespace.NETWORK | Namespace.PROCESSES | Namespace.MOUNTS | Namespace.IPC
# What Python and its libraries read of the system beside their own folders; /etc as a whole may hold keys.
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/mime.types",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
)
WRITABLE = ("/dev/null",)


@dataclass(frozen=True, slots=True)
class Separated:
    """Which namespaces a process has of its own, and what the kernel said where it has none."""

    own: Namespace
    refused: str = ""


def separate() -> Separated:
    """Leave the namespaces of the node; processes that are made from now on are in one of their own, too.

    A superuser in a container may have all but one of users.
    """
    if sys.platform != "linux":
        return Separated(Namespace(0), NOT_LINUX)
    user, group, refused = os.getuid(), os.getgid(), ""
    for wanted in (_ALL, _ALL & ~Namespace.USERS):
        try:
            linux.unshare(wanted)
        except OSError as error:
            refused = refused or f"the kernel gives no namespaces: {error.strerror}"
            continue
        if wanted & Namespace.USERS:
            linux.map_oneself(user, group)
        return Separated(wanted)
    return Separated(Namespace(0), refused)


def confine(launch: Launch, separated: Separated) -> tuple[Hold, ...]:
    """Give up files, rights and memory beyond what was given. Before any thread is made.

    Returns:
        What holds of files, privileges and memory.
    """
    _limit(launch, separated)
    if sys.platform != "linux":
        return tuple(Hold(b.value, "", NOT_LINUX) for b in (Barrier.FILES, Barrier.PRIVILEGES, Barrier.MEMORY))
    machine = platform.machine()
    linux.end_with_parent(signal.SIGKILL)
    scratch = _scratch(launch, separated)
    linux.no_new_privileges()
    rights = ["no new privileges"]
    if machine in seccomp.MACHINES:
        linux.drop_capabilities(machine)
        rights.append("no capabilities")
    if separated.own & Namespace.USERS:
        rights.append("user namespace")
    memory = "data limit, looked at twice a second"
    return (
        _files(launch, scratch=scratch),
        Hold(Barrier.PRIVILEGES.value, ", ".join(rights), ""),
        Hold(Barrier.MEMORY.value, memory, ""),
    )


def close_calls(separated: Separated) -> tuple[Hold, ...]:
    """Give up calls of the kernel, in all threads.

    Returns:
        What holds of the network, processes and calls.
    """
    filtered, why = "", NOT_LINUX
    machine = platform.machine()
    if sys.platform == "linux":
        try:
            if machine not in seccomp.MACHINES:
                raise OSError(f"numbers of calls are not known for {machine}")
            linux.seccomp(machine, seccomp.program(seccomp.MACHINES[machine], os.getpid()))
            filtered = "seccomp"
        except OSError as error:
            why = f"seccomp: {error.strerror or error}"
    network = [name for name, held in (("namespace", separated.own & Namespace.NETWORK), (filtered, filtered)) if held]
    processes = [
        name for name, held in (("namespace", separated.own & Namespace.PROCESSES), (filtered, filtered)) if held
    ]
    missing = "; ".join(part for part in (separated.refused, "" if filtered else why) if part)
    unix = "" if filtered else "; sockets of this machine can be reached"
    return (
        Hold(Barrier.NETWORK.value, ", ".join(network), missing + unix),
        # A namespace hides other processes; without the filter new programs can still be started in it.
        Hold(Barrier.PROCESSES.value, ", ".join(processes) if filtered else "", missing),
        Hold(Barrier.CALLS.value, filtered, "" if filtered else why),
    )


def _limit(launch: Launch, separated: Separated) -> None:
    """Limits that every system has. No dump of memory is ever written."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, launch.open_files),
        (resource.RLIMIT_FSIZE, launch.scratch_mb * MEGABYTE),
    ]
    if separated.own & Namespace.USERS:
        # Elsewhere it would count all that the user runs.
        limits.append((resource.RLIMIT_NPROC, launch.threads))
    if sys.platform == "linux":
        limits.append((resource.RLIMIT_DATA, launch.memory_mb * MEGABYTE))
    for which, limit in limits:
        most = resource.getrlimit(which)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(which, (limit, limit))


def _scratch(launch: Launch, separated: Separated) -> bool:
    """A place to write that is bounded and gone with the process; without one nothing is written at all."""
    if not separated.own & Namespace.MOUNTS:
        return False
    try:
        linux.mount_scratch(Path(launch.scratch), launch.scratch_mb)
    except OSError:
        return False
    return True


def _files(launch: Launch, *, scratch: bool) -> Hold:
    rules = [(Path(place), linux.READ) for place in (*SYSTEM, *launch.readable)]
    rules += [(Path(place), linux.READ | linux.Access.WRITE_FILE) for place in WRITABLE]
    rules.append((Path(launch.socket).parent, linux.Access.MAKE_SOCKET))
    if scratch:
        rules.append((Path(launch.scratch), linux.WRITE))
    try:
        version = linux.landlock(rules)
    except OSError as error:
        return Hold(Barrier.FILES.value, "", f"Landlock: {error.strerror or error}")
    writes = f"writes {launch.scratch_mb} MB of memory" if scratch else "writes nothing"
    return Hold(Barrier.FILES.value, f"Landlock {version}, {writes}", "")
