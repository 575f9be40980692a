"""Whom an auditor trusts: a C2SP tlog-policy file, read strictly.

In fedseal a party has one Ed25519 identity key, so the keys of the policy are also the keys of the events' authors.
"""

from dataclasses import dataclass, field

from fedseal_verify.errors import MalformedError
from fedseal_verify.note import LOG, WITNESS, Key, decimal, parse_vkey

MAX_POLICY_BYTES = 1 << 20
MAX_GROUPS = 256
_ALLOWED = frozenset({0x09, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)})


@dataclass(frozen=True)
class Group:
    """Witnesses or groups of which ``threshold`` have to cosign."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Author:
    """A key that may sign events, with the name the policy gives it."""

    name: str
    key: Key


@dataclass
class Policy:
    """Keys of logs, witnesses and groups by name, and the quorum (None: no witness is asked for)."""

    logs: list[Key] = field(default_factory=list)
    witnesses: dict[str, Key] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str | None = None

    def keys_of(self, origin: str) -> list[Key]:
        """The keys of the log with this origin; empty for a log the policy does not know."""
        return [key for key in self.logs if key.name == origin]

    def satisfied(self, cosigned: set[str]) -> bool:
        """Whether the witnesses in ``cosigned`` make the quorum."""
        return self.quorum is None or self._holds(self.quorum, cosigned)

    def _holds(self, name: str, cosigned: set[str]) -> bool:
        if name in self.witnesses:
            return name in cosigned
        group = self.groups[name]
        return sum(self._holds(member, cosigned) for member in group.members) >= group.threshold

    def authors(self) -> dict[str, Author]:
        """Who may sign events, by the key id that events use."""
        named = [*((f"log {key.name}", key) for key in self.logs), *self.witnesses.items()]
        return {key.event_id: Author(name, key) for name, key in named}

    def remarks(self) -> list[str]:
        """What a quorum like this does not give, for the reader of a report."""
        if self.quorum is None:
            return ["the policy asks for no witness: whoever holds the log's key can rewrite the log"]
        return [
            f"group {name}: {group.threshold} of {len(group.members)} is no majority, two quorums may share nobody"
            for name, group in self.groups.items()
            if 2 * group.threshold <= len(group.members)
        ]


def parse_policy(data: bytes) -> Policy:
    """Read a tlog-policy file.

    Raises:
        MalformedError: with the line and the rule it breaks.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise MalformedError("the policy is larger than 1 MiB")
    if not _ALLOWED.issuperset(data):
        raise MalformedError("the policy holds control characters other than tab and newline")
    reader = _Reader()
    # Names are opaque octets in this format.
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if not words or words[0].startswith("#"):
            continue
        try:
            reader.read(words)
        except MalformedError as error:
            raise MalformedError(f"line {number} of the policy: {error}") from None
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self._policy = Policy()
        self._authors: dict[str, str] = {}
        self._used: set[str] = set()
        self._has_quorum = False

    def read(self, words: list[str]) -> None:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                self._log(vkey)
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._witness(name, vkey)
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                self._quorum(name)
            case _:
                raise MalformedError("neither log, witness, group nor quorum as tlog-policy writes them")

    def _log(self, vkey: str) -> None:
        key = parse_vkey(vkey)
        if key.algorithm != LOG:
            raise MalformedError("a log's key has algorithm 0x01")
        self._new_key(key)
        self._policy.logs.append(key)

    def _witness(self, name: str, vkey: str) -> None:
        key = parse_vkey(vkey)
        if key.algorithm != WITNESS:
            raise MalformedError("a witness's key has algorithm 0x04")
        self._new_name(name)
        self._new_key(key)
        self._policy.witnesses[name] = key

    def _new_key(self, key: Key) -> None:
        # One party must not count twice, nor a log witness itself; equal 8 digits would leave an author in doubt.
        if key.event_id in self._authors:
            raise MalformedError(f"{key.name} and {self._authors[key.event_id]} have one key ({key.event_id})")
        self._authors[key.event_id] = key.name

    def _new_name(self, name: str) -> None:
        if name == "none" or name in self._policy.witnesses or name in self._policy.groups:
            raise MalformedError(f"the name {name} is taken")

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._new_name(name)
        if len(self._policy.groups) == MAX_GROUPS:
            raise MalformedError(f"more than {MAX_GROUPS} groups")
        for member in members:
            if member not in self._policy.witnesses and member not in self._policy.groups:
                raise MalformedError(f"{member} is not defined above")
            if member in self._used:
                raise MalformedError(f"{member} is a member of a group already")
            self._used.add(member)
        named = {"any": 1, "all": len(members)}
        needed = named[threshold] if threshold in named else decimal(threshold, "the threshold")
        if not 1 <= needed <= len(members):
            raise MalformedError(f"{needed} of {len(members)} cannot be asked for")
        self._policy.groups[name] = Group(needed, tuple(members))

    def _quorum(self, name: str) -> None:
        if self._has_quorum:
            raise MalformedError("a second quorum")
        if name != "none" and name not in self._policy.witnesses and name not in self._policy.groups:
            raise MalformedError(f"{name} is not defined above")
        self._has_quorum = True
        self._policy.quorum = None if name == "none" else name

    def finish(self) -> Policy:
        if not self._has_quorum:
            raise MalformedError("the policy has no quorum line")
        if not self._policy.logs:
            raise MalformedError("the policy names no log")
        return self._policy
