"""Which calls of the kernel the study's code may not make, as a classic BPF program for seccomp.

A list of what is denied: libraries for training make too many calls to list what is allowed. Numbers newer than those
known here do not exist for it. Numbers are those of Linux's `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h`
(AArch64).
"""

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AF_UNIX = 1
CLONE_THREAD = 0x10000
# Programs for the x32 interface have this bit in a call's number.
X32 = 0x40000000
# Calls from this number on are newer than this list.
NEWEST = 463

# struct seccomp_data: the call's number, the machine, the instruction's address, six arguments of 64 bits.
NUMBER, MACHINE, FIRST = 0, 4, 16
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor's numbers. ``kinds`` are calls that depend on their first argument."""

    audit: int
    socket: int
    clone: int
    clone3: int
    tgkill: int
    denied: Mapping[str, int] = field(repr=False)


# The same number on every machine.
_EVERYWHERE = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "fchmodat2": 452,
}
# By name: x86-64, AArch64; None where a machine has no such call.
_DENIED: dict[str, tuple[int, int | None]] = {
    # A way out, or in.
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # Other programs and other processes.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    # Who may do what with a file, which Landlock does not look at.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # Memory that outlives or is shared beyond a process, and is not counted as its own.
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    # The kernel itself.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "fanotify_init": (300, 262),
    "vhangup": (153, 58),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}

MACHINES = {
    "x86_64": Machine(0xC000003E, 41, 56, 435, 234, {name: both[0] for name, both in _DENIED.items()} | _EVERYWHERE),
    "aarch64": Machine(
        0xC00000B7,
        198,
        220,
        435,
        131,
        {name: both[1] for name, both in _DENIED.items() if both[1] is not None} | _EVERYWHERE,
    ),
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction; ``yes`` and ``no`` are how many are skipped."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


def program(machine: Machine, pid: int) -> bytes:
    """The filter of a process, as the kernel takes it: instructions of eight bytes.

    A socket of another family than AF_UNIX ends the process; every other denied call fails with EPERM. A thread may be
    made, a process may not. Signals reach the process itself only.

    Args:
        machine: whose numbers.
        pid: the process's own number, in its own namespace.
    """
    denied, missing = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
    steps = [
        _Step(LOAD, MACHINE),
        _Step(EQUAL, machine.audit, 1, 0),
        _Step(RETURN, KILL),
        _Step(LOAD, NUMBER),
        # Newer calls, and all those of x32: as if there were none.
        _Step(AT_LEAST, NEWEST, 0, 1),
        _Step(RETURN, missing),
        # The C library falls back to clone(), whose flags can be looked at.
        _Step(EQUAL, machine.clone3, 0, 1),
        _Step(RETURN, missing),
        _Step(EQUAL, machine.socket, 0, 4),
        _Step(LOAD, FIRST),
        _Step(EQUAL, AF_UNIX, 0, 1),
        _Step(RETURN, denied),
        _Step(RETURN, KILL),
        _Step(EQUAL, machine.clone, 0, 4),
        _Step(LOAD, FIRST),
        _Step(ANY_BIT, CLONE_THREAD, 0, 1),
        _Step(RETURN, ALLOW),
        _Step(RETURN, denied),
        _Step(EQUAL, machine.tgkill, 0, 4),
        _Step(LOAD, FIRST),
        _Step(EQUAL, pid, 0, 1),
        _Step(RETURN, ALLOW),
        _Step(RETURN, denied),
    ]
    for number in sorted(machine.denied.values()):
        steps += [_Step(EQUAL, number, 0, 1), _Step(RETURN, denied)]
    steps.append(_Step(RETURN, ALLOW))
    return b"".join(struct.pack("=HBBI", s.code, s.yes, s.no, s.value) for s in steps)
