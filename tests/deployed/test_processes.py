"""Programs that never outlive their starter, tried with small ones of our own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedseal.errors import ConfigError
from fedseal.simulation.deployed.processes import Program, Programs, deferred_interrupts, free_ports, group_lives

ENVIRONMENT = dict(os.environ)
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
# A program with a child of its own that ignores interrupts, as a study's own code might.
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).wait()"

# And one whose child leads a session of its own, as a SuperLink's SuperExec does.
DETACHED = (
    "import subprocess, sys; "
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True); "
    "print('child', child.pid, flush=True); child.wait()"
)


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_up(program: Program) -> Callable[[], bool]:
    return lambda: "up" in program.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [SLEEPS, STUBBORN, PARENT], ids=["sleeps", "stubborn", "parent"])
def test_nothing_is_left_when_the_block_ends(tmp_path: Path, code: str) -> None:
    with Programs(tmp_path, grace=0.5) as programs:
        program = programs.start("one", command(code), environment=ENVIRONMENT)
        programs.wait_until(is_up(program), [program], within=20, what="up")
        assert group_lives(program.process.pid)
    assert not group_lives(program.process.pid)


def test_a_process_that_has_ended_and_is_merely_listed_is_not_left() -> None:
    with subprocess.Popen(command("input()"), stdin=subprocess.PIPE, start_new_session=True) as process:
        assert group_lives(process.pid)
        process.kill()
        # Ended, and its exit code not fetched yet.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not group_lives(process.pid)


def number_of_child(log: Path) -> int:
    found = re.search(r"child (\d+)\n", log.read_text(encoding="utf-8"))
    assert found is not None
    return int(found.group(1))


def test_a_child_in_a_session_of_its_own_is_stopped_too(tmp_path: Path) -> None:
    with Programs(tmp_path, grace=0.5) as programs:
        program = programs.start("one", command(DETACHED), environment=ENVIRONMENT)
        programs.wait_until(is_up(program), [program], within=20, what="up")
        child = number_of_child(program.log)
        assert group_lives(child)
    assert not group_lives(child)


def test_nothing_is_left_when_the_block_fails(tmp_path: Path) -> None:
    started: list[Program] = []
    with pytest.raises(ZeroDivisionError), Programs(tmp_path, grace=0.5) as programs:
        started += [programs.start(name, command(SLEEPS), environment=ENVIRONMENT) for name in ("one", "two")]
        raise ZeroDivisionError
    assert not any(group_lives(p.process.pid) for p in started)


def test_a_program_that_ends_early_is_named_with_its_log_and_not_its_words(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        program = programs.start("node 1", command("print('a diagnosis'); exit(3)"), environment=ENVIRONMENT)
        with pytest.raises(ConfigError) as caught:
            programs.wait_until(lambda: False, [program], within=20, what="connected")
    assert caught.value.message == "node 1 ended with code 3 before connected"
    assert str(tmp_path / "node-1.log") in caught.value.next_step
    assert "diagnosis" not in caught.value.explain()
    assert "diagnosis" in (tmp_path / "node-1.log").read_text(encoding="utf-8")


def test_a_program_that_never_gets_ready_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with Programs(tmp_path, grace=0.5) as programs:
        program = programs.start("one", command(SLEEPS), environment=ENVIRONMENT)
        with pytest.raises(ConfigError, match="after 0 seconds not ready"):
            programs.wait_until(lambda: False, [program], within=0.2, what="ready")


def test_a_program_that_fails_or_takes_too_long_is_an_error(tmp_path: Path) -> None:
    with Programs(tmp_path, grace=0.5) as programs:
        programs.wait_for_end([programs.start("good", command("pass"), environment=ENVIRONMENT)], within=20)
        with pytest.raises(ConfigError, match="bad ended with code 5"):
            programs.wait_for_end([programs.start("bad", command("exit(5)"), environment=ENVIRONMENT)], within=20)
        with pytest.raises(ConfigError, match="slow has not finished"):
            programs.wait_for_end([programs.start("slow", command(SLEEPS), environment=ENVIRONMENT)], within=0.2)


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs, pytest.raises(ConfigError, match="cannot be started"):
        programs.start("one", [str(tmp_path / "missing")], environment=ENVIRONMENT)


LAUNCHER = """
import sys, time
from pathlib import Path
from fedseal.simulation.deployed.processes import Programs
with Programs(Path(sys.argv[1]), grace=0.5) as programs:
    one = programs.start("one", [sys.executable, "-c", sys.argv[2]], environment={"PATH": ""})
    programs.wait_until(lambda: "up" in one.log.read_text(), [one], within=20, what="up")
    print(one.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("code", [STUBBORN, DETACHED], ids=["stubborn", "detached"])
def test_nothing_is_left_when_the_launcher_is_killed(tmp_path: Path, code: str, number: signal.Signals) -> None:
    """By force, too: then the guard stops what is left."""
    arguments = [sys.executable, "-c", LAUNCHER, str(tmp_path), code]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as launcher:
        assert launcher.stdout is not None
        groups = {int(launcher.stdout.readline())}
        if code == DETACHED:
            groups.add(number_of_child(tmp_path / "one.log"))
        assert all(map(group_lives, groups))
        launcher.send_signal(number)
        launcher.wait(timeout=20)
    end = time.monotonic() + 20
    while any(map(group_lives, groups)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(group_lives, groups))


def test_an_interrupt_waits_for_the_end_of_a_block_and_is_not_lost() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
