"""Errors say whose fault it is and what to do next; none of them carries a person's data.

FedsealError
├── OperatorError          a file or a command of the person at the keyboard
│   ├── ConfigError        a study, site or command option that cannot be read
│   └── DataError          a table that does not hold what the study declares
├── PolicyRefused          the site's own rules forbid what was asked
├── BudgetExceeded         the site's privacy ledger cannot afford what was asked
├── PeerError              the other side (a site or the server) broke the protocol
│   └── LogContradicted    the server rewrote its log, or showed two
├── RoundAborted           too few sites finished; nothing was released
└── LocalError             our own caller broke a rule of ours: a bug

Every class has one exit code (documented in docs/exit-codes.md); `fedseal` prints `explain()` and exits with it.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What `fedseal` returns to the shell."""

    OK = 0
    GATE = 1
    USAGE = 2
    CONFIG = 3
    DATA = 4
    BUDGET = 5
    POLICY = 6
    PEER = 7
    ABORTED = 8
    FALSIFIED = 9
    INCOMPLETE = 10
    INTERNAL = 70
    INTERRUPTED = 130


class FedsealError(Exception):
    """Root of all errors this package raises on purpose.

    Args:
        message: what happened, in one sentence, without data of any person.
        next_step: what the reader can do about it; empty when there is nothing.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    fault: ClassVar[str] = "fedseal"

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        if next_step:
            # So that it also stands below a traceback that is kept, as in a site's incidents.
            self.add_note(f"next: {next_step}")

    def explain(self) -> str:
        """The message and, on a second line, the next step."""
        return f"{self.message}\n{self.next_step}" if self.next_step else self.message


class OperatorError(FedsealError):
    """A file or a command of the person at the keyboard."""

    exit_code = ExitCode.USAGE
    fault = "operator"


class ConfigError(OperatorError):
    """A study, a site's file or an option cannot be read or does not make sense."""

    exit_code = ExitCode.CONFIG


class DataError(OperatorError):
    """A table does not hold what the study declares. Never quotes a value of the table."""

    exit_code = ExitCode.DATA


class PolicyRefused(FedsealError):  # noqa: N818 - a refusal is an answer, not an accident
    """The site's own policy forbids what was asked."""

    exit_code = ExitCode.POLICY
    fault = "policy"


class BudgetExceeded(FedsealError):  # noqa: N818
    """The site's privacy ledger cannot afford what was asked; nothing was charged and nothing left."""

    exit_code = ExitCode.BUDGET
    fault = "budget"


class PeerError(FedsealError):
    """The other side broke the protocol.

    Args:
        message: what was wrong.
        peer: who sent it: ``"server"`` or ``"site 3"``.
        blamed: the site whose fault it is, where that is known and is not the sender itself.
    """

    exit_code = ExitCode.PEER
    fault = "peer"

    def __init__(self, message: str, *, peer: str, blamed: int | None = None, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.peer = peer
        self.blamed = blamed


class LogContradicted(PeerError):  # noqa: N818 - what was seen, not what went wrong
    """The server showed a log that contradicts what this site had cosigned; the site has stopped."""


class RoundAborted(FedsealError):  # noqa: N818
    """Too few sites finished a stage. Nothing was unmasked and nothing was released."""

    exit_code = ExitCode.ABORTED
    fault = "peer"


class LocalError(FedsealError):
    """Our own caller broke a rule of ours: a bug, please report it."""
