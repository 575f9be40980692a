"""The kernel's calls that keep a process apart, which Python has no functions for: namespaces, Landlock, seccomp.

Each raises OSError where the kernel refuses. Nothing here is a policy: that is in `confinement`.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path


class Namespace(IntFlag):
    """What a process can have of its own: linux/sched.h."""

    MOUNTS = 0x00020000
    IPC = 0x08000000
    USERS = 0x10000000
    PROCESSES = 0x20000000
    NETWORK = 0x40000000


class Access(IntFlag):
    """What Landlock may allow below a folder: linux/landlock.h. The last two are of its versions 3 and 5."""

    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_FOLDER = 1 << 3
    REMOVE_FOLDER = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_FOLDER = 1 << 7
    MAKE_FILE = 1 << 8
    MAKE_SOCKET = 1 << 9
    REFER = 1 << 13
    TRUNCATE = 1 << 14


READ = Access.READ_FILE | Access.READ_FOLDER
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.REMOVE_FOLDER
    | Access.REMOVE_FILE
    | Access.MAKE_FOLDER
    | Access.MAKE_FILE
    | Access.TRUNCATE
)
# Of these a file can have some; the others are a folder's.
_FILE = Access.READ_FILE | Access.WRITE_FILE | Access.TRUNCATE
# How many kinds of access each version knows, from the first.
_KINDS = (13, 14, 15, 15, 16)
_SCOPES = 0b11

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 14, 1 << 18
_MNT_DETACH = 2
_TSYNC = 1
_CAPABILITIES_3 = 0x20080522
_O_PATH = 0o10000000


def unshare(what: Namespace) -> None:
    """Have new namespaces from now on; of processes, those made from now on."""
    _check(_libc().unshare(ctypes.c_int(int(what))))


def map_oneself(user: int, group: int) -> None:
    """In a new namespace of users, be who one was outside, and nobody else."""
    # A single group may be mapped only by who cannot drop groups: a file may deny something to a group.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def mount_scratch(folder: Path, megabytes: int) -> None:
    """A file system of bounded size in memory, seen by this process alone; the mounts are to be its own."""
    libc = _libc()
    _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    options = f"size={megabytes}m,mode=0700".encode()
    _check(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_MS_NOSUID | _MS_NODEV), options))


def unmount(folder: Path) -> None:
    """Let go of what is mounted there."""
    _check(_libc().umount2(os.fsencode(folder), ctypes.c_int(_MNT_DETACH)))


def landlock_version() -> int:
    """Which version of Landlock the kernel has; 0 if none, or if it is switched off."""
    found: int = _libc().syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(found, 0)


def landlock(rules: Iterable[tuple[Path, Access]]) -> int:
    """From now on reach files below these places only, and no TCP port; needs `no_new_privileges`.

    Args:
        rules: what is allowed below which place; places that are not there are left out.

    Returns:
        The version that does it.
    """
    version = landlock_version()
    if version < 1:
        raise OSError("the kernel has no Landlock")
    handled = (1 << _KINDS[min(version, len(_KINDS)) - 1]) - 1
    attributes = struct.pack("=QQQ", handled, 0b11, _SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    libc = _libc()
    ruleset = _check(
        libc.syscall(ctypes.c_long(_CREATE_RULESET), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    )
    try:
        for place, access in rules:
            _allow(ruleset, place, int(access) & handled)
        _check(libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)))
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, place: Path, access: int) -> None:
    try:
        opened = os.open(place, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = access if place.is_dir() else access & int(_FILE)
        rule = struct.pack("=Qi", allowed, opened)
        _check(
            _libc().syscall(ctypes.c_long(_ADD_RULE), ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
        )
    finally:
        os.close(opened)


def seccomp(machine: str, program: bytes) -> None:
    """Have all threads of this process filtered; needs `no_new_privileges`.

    Args:
        machine: as `os.uname` calls it.
        program: see `fedseal.client.isolation.seccomp`.
    """

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    made = Program(len(program) // 8, program)
    _check(
        _libc().syscall(ctypes.c_long(_SECCOMP[machine]), ctypes.c_uint(1), ctypes.c_uint(_TSYNC), ctypes.byref(made))
    )


def no_new_privileges() -> None:
    """No program that is started has more rights than this process."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def end_with_parent(signal: int) -> None:
    """Get a signal when the thread ends that made this process."""
    _prctl(PR_SET_PDEATHSIG, signal)


def drop_capabilities(machine: str) -> None:
    """Give up every right of a superuser, for good."""
    libc = _libc()
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    _check(libc.syscall(ctypes.c_long(_CAPSET[machine]), header, bytes(24)))


def _prctl(option: int, value: int) -> None:
    _check(_libc().prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    """What a call returned; OSError if it failed."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
