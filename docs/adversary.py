"""Write docs/adversary.md from the attacks of the adversary suite: `python docs/adversary.py`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TESTS = DOCS.parent / "tests"
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from adversary.attack import Attack, Fault, Level
from adversary.attacks import ATTACKS
from adversary.removal import Check

HEAD = """# The adversary suite

Written by `docs/adversary.py` from `tests/adversary/`; a test compares. {attacks} attacks on {checks} checks.

Each attack is played three times. **Against this build**: it gets nothing; what refuses it says whose fault it was, and
leaves state and store as they were. **Against a build without its checks**: it succeeds, and the attacker holds what it
wanted, computed from what it was sent and bit-exact where it is a vector. **Against builds in which one of
several checks is left**: it fails, so none of them is for show.

A check is a condition in the code, by the function it stands in. "X instead of Y": where it is no question, the build
has X and its twin has Y. "A table without X": the transition that does not exist. The last column says who is blamed:
who sent what was refused, or the site that is named; nobody where nothing has to be refused, because the attacker
computes in vain.

The colluding sites' keys are the attacker's, and so is the server's. Graphs are small and made for few bits of
secrecy, so that what takes 2⁴⁰ tries on a real one can be tried.
"""


REASONS = {
    "Refused": "nobody: the owner's policy",
    "BudgetExceeded": "nobody: the ledger's budget",
    "TOO_FEW": "nobody: the round ends",
    "OUT_OF_RANGE": "nobody: the round ends",
}


def page() -> str:
    """The whole page."""
    checks = len({a.check for a in ATTACKS})
    return "\n".join([HEAD.format(attacks=len(ATTACKS), checks=checks), *sections()])


def sections() -> Iterator[str]:
    """One table for each thing that is attacked."""
    for level in Level:
        yield f"## On {level.value}\n"
        yield "| attack | wants | what stands against it | blamed |"
        yield "|---|---|---|---|"
        yield from (row(a) for a in ATTACKS if a.level is level)
        yield ""


def row(attack: Attack) -> str:
    """One attack."""
    return f"| {attack.name} | {attack.gain} | {listed(attack.checks)} | {blame(attack.fault)} |"


def listed(checks: Iterable[Check]) -> str:
    """The checks, each with its function."""
    return "<br>".join(f"`{c.where}`: {asked(c)}" for c in checks)


def asked(check: Check) -> str:
    """What a check asks, or what the twin does instead."""
    what, instead = check.what.replace("|", "\\|"), check.instead.replace("|", "\\|")
    if check.where.endswith("TRANSITIONS"):
        return f"a table without `{what}`"
    return f"`{what}` instead of `{instead}`" if instead else f"`{what}`"


def blame(fault: Fault | None) -> str:
    """Who notices, and whose fault it is."""
    if fault is None:
        return "nobody: it comes to nothing"
    if fault.blamed is not None:
        return f"site {fault.blamed}, by {fault.by}"
    return f"the {fault.peer}, by {fault.by}" if fault.peer == "server" else peer(fault)


def peer(fault: Fault) -> str:
    """A refusal that does not blame the server."""
    if fault.peer:
        return f"{fault.peer}, by {fault.by}"
    return f"{REASONS[fault.error]}, by {fault.by}"


if __name__ == "__main__":
    (DOCS / "adversary.md").write_text(page(), encoding="utf-8")
