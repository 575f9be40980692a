"""What holds the log: its checkpoints, who has cosigned them, that it extends what somebody saw, and a copy to take."""

import base64
import binascii
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from fedseal.compliance.audit.parties import is_person, with_persons
from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.export import files
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Signature, SignatureError
from fedseal.compliance.log.quorum import Policy, Witness, evaluate, format_policy
from fedseal.compliance.log.tree import EMPTY_ROOT, verify_consistency
from fedseal.errors import ConfigError, LocalError
from fedseal.merkle import HASH_LENGTH
from fedseal.server.console.evidence.place import View

# So many checkpoints are listed.
LISTED = 12
_SIZE = re.compile(r"[0-9]{1,15}")
# Files of a copy have one date: the same log gives the same bytes.
_DATE = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class WitnessLine:
    """A site as a witness of one checkpoint. ``time``: when it cosigned, by its own clock; empty where it did not."""

    site: str
    cosigned: bool
    time: str


@dataclass(frozen=True, slots=True)
class CheckpointLine:
    """A checkpoint in a list: its size, how many cosigned, whether that is a quorum."""

    size: int
    cosigned: int
    final: bool


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """A signed checkpoint. ``root`` in hex, ``note`` as it stands; ``needed``: how many cosignatures make a quorum;
    ``wrong``: why its signatures do not hold, else empty. ``earlier``: the newest checkpoints, newest first.
    """

    origin: str
    entries: int
    size: int
    root: str
    root_base64: str
    note: str
    witnesses: tuple[WitnessLine, ...]
    needed: int
    final: bool
    wrong: str
    final_size: int
    earlier: tuple[CheckpointLine, ...]

    @property
    def cosigned(self) -> int:
        """How many witnesses have cosigned."""
        return sum(witness.cosigned for witness in self.witnesses)


@dataclass(frozen=True, slots=True)
class Extension:
    """Whether the log begins with what somebody saw: ``old`` entries with this root. ``path``: what proves it, in hex.

    ``holds`` is computed from the stored hashes; anyone can do it again from the path and both roots.
    """

    old: int
    old_root: str
    new: int
    new_root: str
    path: tuple[str, ...]
    holds: bool


def read_checkpoint_page(view: View, size: int | None = None) -> CheckpointPage:
    """The newest checkpoint, or that of a size; ConfigError if there is none."""
    log = view.log
    note = log.checkpoint(size)
    if note is None:
        raise ConfigError("the log has no such checkpoint", next_step="Take one of those that are listed.")
    checkpoint, parsed = read_checkpoint(note)
    cosigned, final, wrong = _judged(view.policy, note)
    times = {w.name: s.time for w in view.policy.witnesses for s in parsed.signatures if _holds(w, s, cosigned)}
    return CheckpointPage(
        origin=log.origin,
        entries=log.size,
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        root_base64=base64.b64encode(checkpoint.root).decode("ascii"),
        note=note,
        witnesses=tuple(
            WitnessLine(_site(w.name), w.name in cosigned, _shown(times.get(w.name)))
            for w in view.policy.witnesses
            if not is_person(w.name)
        ),
        needed=view.policy.groups[0].threshold if view.policy.groups else 0,
        final=final,
        wrong=wrong,
        final_size=view.final_size() if not wrong else 0,
        earlier=tuple(_listed(view)),
    )


def extends(view: View, size: str, root: str) -> Extension:
    """Whether the log extends a state that somebody noted.

    Args:
        view: the log.
        size: how many entries it had, in digits.
        root: its root then: hex, with ``sha256:`` or without, or base64 as in a checkpoint.

    Raises:
        ConfigError: this is no size, or no root, or the log is shorter.
    """
    old_root = _root(root)
    if not _SIZE.fullmatch(size.strip()):
        raise ConfigError("a size is a number of entries, in digits", next_step="It is the checkpoint's second line.")
    old, log = int(size.strip()), view.log
    note = log.checkpoint()
    new = log.size if note is None else read_checkpoint(note)[0].size
    if old > new:
        raise ConfigError(
            f"this log has {new} entries under its newest checkpoint, fewer than the {old} that you saw",
            next_step="If your checkpoint is signed, keep it: a log that became shorter was rolled back.",
        )
    new_root = log.root(new)
    path = log.consistency(old, new) if old else ()
    holds = verify_consistency(old, new, old_root, new_root, path) if old else old_root == EMPTY_ROOT
    return Extension(old, old_root.hex(), new, new_root.hex(), tuple(step.hex() for step in path), holds)


def policy_text(view: View) -> str:
    """The policy's file, with the persons that the log has added: what `fedseal-verify` wants to be given."""
    return format_policy(with_persons(view.policy, view.copy.leaves()))


def copy_of(view: View) -> Iterator[bytes]:
    """The log as an export's files in a ZIP, piece by piece; ConfigError where it has no checkpoint yet.

    The same checkpoint gives the same bytes.
    """
    try:
        _, found = files(view.log, with_persons(view.policy, view.copy.leaves()))
    except LocalError as error:
        raise ConfigError(error.message, next_step=error.next_step) from None
    return zipped(found)


def zipped(found: Iterable[tuple[str, bytes]], folder: str = "log") -> Iterator[bytes]:
    """Files as a ZIP with a folder of this name, piece by piece: what it takes in memory is one file."""
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w") as archive:
        for path, content in found:
            entry = zipfile.ZipInfo(f"{folder}/{path}", _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
            yield pieces.taken()
    yield pieces.taken()


class _Pieces:
    """What a ZIP is written to, that only goes forwards."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        """Keep it until it is taken."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found


def _listed(view: View) -> Iterator[CheckpointLine]:
    for size, _ in reversed(view.log.checkpoints()[-LISTED:]):
        note = view.log.checkpoint(size)
        if note is not None:
            cosigned, final, _wrong = _judged(view.policy, note)
            yield CheckpointLine(size, len(cosigned), final)


def _judged(policy: Policy, note: str) -> tuple[tuple[str, ...], bool, str]:
    try:
        verdict = evaluate(policy, note)
    except (MalformedError, SignatureError) as error:
        return (), False, error.message
    return verdict.cosigned, verdict.final, ""


def _holds(witness: Witness, signature: Signature, cosigned: tuple[str, ...]) -> bool:
    return witness.name in cosigned and signature.is_by(witness.key)


def _site(witness: str) -> str:
    """The site's name in a witness', such as ``demo/site/north``."""
    return unquote(witness.rpartition("/")[2])


def _shown(time: int | None) -> str:
    if time is None:
        return ""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError):
        return "at no time that a calendar has"


def _root(text: str) -> bytes:
    plain = text.strip().removeprefix("sha256:")
    try:
        found = bytes.fromhex(plain) if len(plain) == 2 * HASH_LENGTH else base64.b64decode(plain, validate=True)
    except (ValueError, binascii.Error):
        found = b""
    if len(found) != HASH_LENGTH:
        raise ConfigError(
            "a root is 64 hexadecimal digits, or 44 characters of base64",
            next_step="It is the checkpoint's third line.",
        )
    return found
