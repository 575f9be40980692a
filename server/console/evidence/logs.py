"""The federation's log as pages: a list that can be narrowed down, and one entry with what proves it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fedseal.compliance.audit.evidence import author_of, proof_of
from fedseal.compliance.audit.parties import with_persons
from fedseal.compliance.events.fields import sha256
from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.proof import Proof, check_proof
from fedseal.compliance.log.reading import ReadableLog
from fedseal.errors import ConfigError, PeerError
from fedseal.merkle import leaf_hash
from fedseal.server.console.evidence.fields import Field, fields_of
from fedseal.server.console.evidence.place import View
from fedseal.server.console.evidence.words import line, meaning, title

PAGE = 50
# So many entries are looked through for one page that is narrowed down; then a link goes on.
LOOKED_THROUGH = 20_000
_STRIDE = 1000
_LARGEST_SHOWN = 16_384


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list is narrowed down to: a type without its version, an author's organisation, a run. Empty: all."""

    type: str = ""
    org: str = ""
    run: str = ""

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.type or self.org or self.run)


@dataclass(frozen=True, slots=True)
class EntryLine:
    """An entry in a list. ``wrong``: why it cannot be read; the rest is empty then."""

    index: int
    time: str
    org: str
    actor: str
    type: str
    title: str
    said: str
    run: str | None
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class LogList:
    """One page of the log, newest first.

    ``older`` and ``newer`` are where the neighbouring pages begin, None where there is nothing (a narrowed list knows
    no newer one). ``looked_back_to``: down to which index was looked; ``final``: how many entries a quorum cosigned.
    """

    origin: str
    size: int
    final: int
    lines: tuple[EntryLine, ...]
    older: int | None
    newer: int | None
    looked_back_to: int


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry's way to a signed checkpoint: sizes, hashes from the leaf up, and who cosigned. Checked here as well."""

    size: int
    root: str
    path: tuple[str, ...]
    cosigned: tuple[str, ...]
    final: bool
    holds: bool


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One entry.

    ``raw`` is the leaf as it stands, set out in lines; ``digest`` is how entries name each other, ``leaf_hash`` the
    leaf's place in the tree; ``author`` says who signed it and whether that holds. ``proven`` is None while no
    checkpoint covers the entry. ``wrong``: why the entry cannot be read.
    """

    index: int
    size: int
    entry: EntryLine
    meaning: str
    fields: tuple[Field, ...]
    raw: str
    digest: str
    leaf_hash: str
    key: str
    place: int
    author: str
    holds: bool
    proven: Proven | None
    wrong: str = ""


def list_entries(view: View, wanted: Wanted, before: int | None = None) -> LogList:
    """A page of the log.

    Args:
        view: the log.
        wanted: what is listed.
        before: entries before this index; the newest if None.
    """
    log = view.log
    size = log.size
    top = size if before is None else min(max(before, 0), size)
    found: list[EntryLine] = []
    low = top
    for index, leaf in _backwards(log, top):
        if not wanted.everything and top - index > LOOKED_THROUGH:
            break
        low = index
        entry = _line(index, leaf)
        if _fits(entry, wanted):
            found.append(entry)
        if len(found) == PAGE:
            break
    newer = min(top + PAGE, size) if top < size and wanted.everything else None
    return LogList(log.origin, size, view.final_size(), tuple(found), low if low > 0 else None, newer, low)


def read_entry(view: View, index: int) -> EntryPage:
    """One entry with what proves it; ConfigError if there is none."""
    log = view.log
    if not 0 <= index < log.size:
        raise ConfigError(f"the log has {log.size} entries, and none with the index {index}")
    leaf = log.leaf(index)
    entry = _line(index, leaf)
    place: tuple[str, int] = ("", 0)
    fields: tuple[Field, ...] = ()
    said, holds, kind = "", False, ""
    if not entry.wrong:
        event = read_event(leaf)
        said, holds = signed_by(view, event, index)
        fields, kind = tuple(fields_of(event.body)), event.kind.name
        place = (event.keyid, event.seq)
    return EntryPage(
        index=index,
        size=log.size,
        entry=entry,
        meaning=meaning(kind) if kind else "This entry cannot be read by the closed forms of the log.",
        fields=fields,
        raw=_set_out(leaf),
        digest=sha256(leaf),
        leaf_hash=leaf_hash(leaf).hex(),
        key=place[0],
        place=place[1],
        author=said,
        holds=holds,
        proven=_proven(view, index, leaf),
        wrong=entry.wrong,
    )


def leaf_and_proof(view: View, index: int) -> tuple[bytes, Proof]:
    """An entry as it stands, and the file that proves it; ConfigError if there is none, or no checkpoint covers it."""
    if not 0 <= index < view.log.size:
        raise ConfigError(f"the log has {view.log.size} entries, and none with the index {index}")
    return view.log.leaf(index), proof_of(view.copy, index)


def signed_by(view: View, event: Event, index: int) -> tuple[str, bool]:
    """Who has signed an entry, in words, and whether the signature holds.

    Keys are the roster's, and of persons those that the log had added before the entry.
    """
    said = author_of(event, view.policy, Book.FEDERATION)
    if "does not name" in said:
        persons = with_persons(view.policy, _forwards(view.log, index))
        said = author_of(event, persons, Book.FEDERATION)
    return said, said.endswith("whose signature holds")


def _proven(view: View, index: int, leaf: bytes) -> Proven | None:
    try:
        proof = proof_of(view.copy, index)
    except ConfigError:
        return None
    path = tuple(step.hex() for step in proof.path)
    try:
        verdict = check_proof(proof, leaf, view.policy)
    except (SignatureError, MalformedError):
        return Proven(0, "", path, (), final=False, holds=False)
    checkpoint = verdict.checkpoint
    return Proven(checkpoint.size, checkpoint.root.hex(), path, verdict.cosigned, verdict.final, holds=True)


def _line(index: int, leaf: bytes) -> EntryLine:
    try:
        event = read_event(leaf)
    except PeerError as error:
        return EntryLine(index, "", "", "", "", "Unreadable", "", None, wrong=error.message)
    kind = event.kind.name
    return EntryLine(
        index, event.time, event.org, event.actor, kind.partition("/")[0], title(kind), line(event), event.run
    )


def _fits(entry: EntryLine, wanted: Wanted) -> bool:
    if entry.wrong:
        # Never hidden: it is what somebody who reads a log looks for.
        return True
    return (
        wanted.type in ("", entry.type)
        and wanted.org in ("", entry.org)
        and (not wanted.run or wanted.run == entry.run)
    )


def _backwards(log: ReadableLog, top: int) -> Iterator[tuple[int, bytes]]:
    for stop in range(top, 0, -_STRIDE):
        start = max(stop - _STRIDE, 0)
        leaves = log.leaves(start, stop)
        yield from zip(range(stop - 1, start - 1, -1), reversed(leaves), strict=True)


def _forwards(log: ReadableLog, stop: int) -> Iterator[bytes]:
    for start in range(0, stop, _STRIDE):
        yield from log.leaves(start, min(start + _STRIDE, stop))


def _set_out(leaf: bytes) -> str:
    try:
        return json.dumps(json.loads(leaf), indent=2, ensure_ascii=True)
    except ValueError:
        return leaf[:_LARGEST_SHOWN].decode("utf-8", "backslashreplace")
