"""The filter's program, run by an interpreter of the tests: what it says of a call, on both machines."""

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.client.isolation.seccomp import ALLOW, ERRNO, KILL, MACHINES, NEWEST, Machine, program

PID = 4711
DENIED, MISSING = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10


def verdict(machine: Machine, number: int, first: int = 0, *, audit: int | None = None) -> int:
    """What the kernel would do: Documentation/networking/filter.rst has the instructions, linux/seccomp.h the data."""
    data = struct.pack("=iIQ6Q", number, machine.audit if audit is None else audit, 0, first, *[0] * 5)
    steps = [struct.unpack("=HBBI", raw) for raw in chunks(program(machine, PID))]
    at, accumulator = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(code)


def chunks(raw: bytes) -> list[bytes]:
    return [raw[i : i + 8] for i in range(0, len(raw), 8)]


@pytest.mark.parametrize("name", MACHINES)
def test_each_denied_call_is_denied(name: str) -> None:
    machine = MACHINES[name]
    assert {verdict(machine, number) for number in machine.denied.values()} == {DENIED}
    assert len(set(machine.denied.values())) == len(machine.denied)
    # The kernel takes 4096 instructions, and a jump of 255.
    assert len(program(machine, PID)) // 8 < 4096


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(MACHINES)), st.integers(0, NEWEST - 1), st.integers(0, 2**64 - 1))
def test_every_other_call_is_allowed(name: str, number: int, first: int) -> None:
    machine = MACHINES[name]
    special = {machine.socket, machine.clone, machine.clone3, machine.tgkill}
    if number not in special and number not in machine.denied.values():
        assert verdict(machine, number, first) == ALLOW


@pytest.mark.parametrize("name", MACHINES)
def test_calls_that_depend_on_what_is_asked(name: str) -> None:
    machine = MACHINES[name]
    assert verdict(machine, machine.socket, AF_UNIX) == DENIED
    assert {verdict(machine, machine.socket, f) for f in (AF_INET, AF_INET6, 16, 17, 40)} == {KILL}
    # What the C library asks for a thread, and for fork().
    assert verdict(machine, machine.clone, 0x3D0F00) == ALLOW
    assert verdict(machine, machine.clone, 0x1200011) == DENIED
    assert verdict(machine, machine.clone3) == MISSING
    assert (verdict(machine, machine.tgkill, PID), verdict(machine, machine.tgkill, 1)) == (ALLOW, DENIED)


@pytest.mark.parametrize("name", MACHINES)
def test_other_machines_and_newer_calls(name: str) -> None:
    machine = MACHINES[name]
    # What a 32-bit program of the same processor would ask.
    assert verdict(machine, 0, audit=0x40000003) == KILL
    assert {verdict(machine, number) for number in (NEWEST, 1000, 0x40000000 + 41, 0x7FFFFFFF, -1)} == {MISSING}


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("x86_64", Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")),
        ("aarch64", Path("/usr/include/asm-generic/unistd.h")),
    ],
)
def test_the_numbers_are_those_of_the_kernels_headers(name: str, header: Path) -> None:
    if not header.exists():
        pytest.skip("needs the kernel's headers")
    machine = MACHINES[name]
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(encoding="utf-8"), re.MULTILINE)
    numbers = {call: int(number) for call, number in found}
    for call, number in machine.denied.items():
        # A header may be older than the list.
        assert numbers.get(call, number) == number, call
    assert [numbers[c] for c in ("socket", "clone", "clone3", "tgkill")] == [
        machine.socket,
        machine.clone,
        machine.clone3,
        machine.tgkill,
    ]
    assert len(numbers.keys() & machine.denied.keys()) > 60
