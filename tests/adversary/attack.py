"""What an attack is: who wants what, what stands against it, and who is to blame when it is refused."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from adversary.removal import Check

from fedseal.errors import FedsealError, PeerError


class Level(Enum):
    """What is attacked."""

    SITE = "a site's state machine"
    STORE = "a site with its policy, ledger and store"
    SERVER = "the server, by a malicious site"
    WIRE = "the encoding"


@dataclass(frozen=True, slots=True)
class Fault:
    """How an attack ends: who notices it, as what, and whose fault that says it is.

    ``error`` is a class of `fedseal.errors` or the reason of an abort; ``peer`` who sent what was refused; ``blamed``
    the site that is named.
    """

    by: str
    error: str = PeerError.__name__
    peer: str = ""
    blamed: int | None = None

    @classmethod
    def of(cls, by: str, error: FedsealError) -> "Fault":
        """An error as it came."""
        return cls(by, type(error).__name__, getattr(error, "peer", ""), getattr(error, "blamed", None))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal that was met, its text, and whether it left everything as it was."""

    fault: Fault
    text: str
    unchanged: bool


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack.

    Args:
        name: what the attacker does.
        gain: what it has if it succeeds; the script computes whether it does.
        level: what is attacked.
        check: what stands against it.
        play: makes the field and the script.
        fault: how it ends; None where nothing is refused and the attacker ends with nothing.
        says: words of the refusal.
        also: what else has to go before it succeeds: each of them stops it alone.
    """

    name: str
    gain: str
    level: Level
    check: Check
    play: Callable[["list[Refusal]"], bool]
    fault: Fault | None
    says: str = ""
    also: tuple[Check, ...] = field(default=())

    @property
    def checks(self) -> tuple[Check, ...]:
        """All that stands against it."""
        return (self.check, *self.also)
