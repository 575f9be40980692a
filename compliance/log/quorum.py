"""Who has to have cosigned a checkpoint: trust policies of C2SP (c2sp.org/tlog-policy)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedseal.compliance.log.checkpoint import Checkpoint, read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Algorithm, SignatureError, VerifierKey, parse_vkey, signers
from fedseal.errors import LocalError

NONE = "none"
SITES = "sites"
# Before the last part of the name of a witness that has signed entries and cosigns no more.
FORMER = "former"
MAX_POLICY = 1 << 20
_SPACE = re.compile("[ \t]+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness under the name that it has in the policy."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Counts as one that has witnessed when ``threshold`` of its members have: witnesses, or groups before it."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A log whose checkpoints are accepted."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """``quorum`` names a witness or a group, or is ``none``."""

    logs: tuple[LogEntry, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def satisfied(self, cosigned: frozenset[str]) -> bool:
        """Whether cosignatures by the witnesses of these names are a quorum."""
        reached = {NONE, *(w.name for w in self.witnesses if w.name in cosigned)}
        for group in self.groups:
            if sum(member in reached for member in group.members) >= group.threshold:
                reached.add(group.name)
        return self.quorum in reached


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says about a signed checkpoint. ``cosigned``: names, in the policy, of those who cosigned it."""

    checkpoint: Checkpoint
    log: VerifierKey
    cosigned: tuple[str, ...]
    final: bool


def quorum_size(n: int, f: int) -> int:
    """How many of ``n`` witnesses, of whom ``f`` may lie, make two quorums share an honest one: floor((n+f)/2) + 1.

    Raises:
        LocalError: there is no such number of witnesses.
    """
    if not 0 <= f < n:
        raise LocalError("a quorum needs an honest witness")
    return (n + f) // 2 + 1


def federation_policy(log: VerifierKey, witnesses: Sequence[VerifierKey], lying: int) -> Policy:
    """The policy of a federation whose sites all witness ``log``, and of whom ``lying`` may not be honest."""
    named = tuple(Witness(key.name, key) for key in witnesses)
    sites = Group(SITES, quorum_size(len(named), lying), tuple(w.name for w in named))
    return Policy((LogEntry(log),), named, (sites,), SITES)


def evaluate(policy: Policy, note: str | bytes) -> Verdict:
    """Verify a signed checkpoint. One that lacks a quorum gets a verdict that is not final, not an error.

    Raises:
        MalformedError: it is no checkpoint.
        SignatureError: none of the logs has signed it under its own name, or a signature of a known key does not hold.
    """
    checkpoint, parsed = read_checkpoint(note)
    known = [entry.key for entry in policy.logs if entry.key.name == checkpoint.origin]
    signed = signers(parsed, known)
    if not signed:
        raise SignatureError("no log of the policy has signed the checkpoint")
    keys = set(signers(parsed, [w.key for w in policy.witnesses]))
    cosigned = tuple(w.name for w in policy.witnesses if w.key in keys)
    return Verdict(checkpoint, signed[0], cosigned, policy.satisfied(frozenset(cosigned)))


def format_policy(policy: Policy) -> str:
    """The policy's file."""
    lines = [f"log {entry.key} {entry.url}".rstrip() for entry in policy.logs]
    lines += [f"witness {w.name} {w.key} {w.url}".rstrip() for w in policy.witnesses]
    lines += [f"group {g.name} {g.threshold} {' '.join(g.members)}" for g in policy.groups]
    return "\n".join([*lines, f"quorum {policy.quorum}"]) + "\n"


def parse_policy(raw: str | bytes) -> Policy:
    """Read a policy's file.

    Raises:
        MalformedError: it is none; the message has the line's number.
    """
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    if len(text) > MAX_POLICY or _CONTROL.search(text):
        raise MalformedError("a policy that is too long or has control characters")
    draft = _Draft()
    for number, line in enumerate(text.split("\n"), start=1):
        words = _SPACE.split(line.strip(" \t"))
        if words == [""] or words[0].startswith("#"):
            continue
        try:
            draft.read(words)
        except MalformedError as error:
            raise MalformedError(f"line {number} of the policy: {error.message}") from None
    return draft.finished()


class _Draft:
    """A policy that is being read."""

    def __init__(self) -> None:
        self.logs: list[LogEntry] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self.names: set[str] = set()
        self.members: set[str] = set()

    def read(self, words: list[str]) -> None:
        """One line."""
        match words:
            case ["log", vkey, *url] if len(url) < 2:
                self._log(parse_vkey(vkey), "".join(url))
            case ["witness", name, vkey, *url] if len(url) < 2:
                self._witness(Witness(name, parse_vkey(vkey), "".join(url)))
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, tuple(members))
            case ["quorum", name]:
                self._quorum(name)
            case _:
                raise MalformedError("not a line of a policy")

    def finished(self) -> Policy:
        """The policy, once all lines are read."""
        if self.quorum is None:
            raise MalformedError("a policy without a quorum")
        return Policy(tuple(self.logs), tuple(self.witnesses), tuple(self.groups), self.quorum)

    def _log(self, key: VerifierKey, url: str) -> None:
        if key.algorithm is not Algorithm.ED25519:
            raise MalformedError("a log's key has another type")
        if any(entry.key.public == key.public for entry in self.logs):
            raise MalformedError("two logs with one key")
        self.logs.append(LogEntry(key, url))

    def _witness(self, witness: Witness) -> None:
        if witness.key.algorithm is not Algorithm.COSIGNATURE:
            raise MalformedError("a witness' key has another type")
        if any(other.key.public == witness.key.public for other in self.witnesses):
            raise MalformedError("two witnesses with one key")
        self._define(witness.name)
        self.witnesses.append(witness)

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        if any(member not in self.names for member in members):
            raise MalformedError("a member that no line before has defined")
        if len(set(members)) != len(members) or self.members & set(members):
            raise MalformedError("a member that is in a group already")
        wanted = {"any": 1, "all": len(members)}.get(threshold)
        if wanted is None:
            wanted = int(threshold) if re.fullmatch("[1-9][0-9]{0,8}", threshold, re.ASCII) else 0
        if not 1 <= wanted <= len(members):
            raise MalformedError("a threshold that the group cannot reach")
        self._define(name)
        self.members |= set(members)
        self.groups.append(Group(name, wanted, members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise MalformedError("a second quorum")
        if name != NONE and name not in self.names:
            raise MalformedError("a quorum that no line before has defined")
        self.quorum = name

    def _define(self, name: str) -> None:
        if name == NONE or name in self.names:
            raise MalformedError("a name that is taken")
        self.names.add(name)
