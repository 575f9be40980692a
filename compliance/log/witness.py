"""A witness of a log (c2sp.org/tlog-witness), as a pure function of what it has seen so far.

A cosignature is given only on a checkpoint that the log has signed and that is shown to extend the last one that this
witness cosigned. Whoever calls has to put the new state on disk, by compare-and-set, before the answer leaves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from fedseal.compliance.log.checkpoint import Checkpoint, Cosigner, cosign, parse_decimal, read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import (
    MAX_NOTE,
    Note,
    Signature,
    SignatureError,
    VerifierKey,
    from_base64,
    holds,
    parse_signature,
    signers,
    to_base64,
)
from fedseal.compliance.log.tree import EMPTY_ROOT, verify_consistency
from fedseal.merkle import HASH_LENGTH

MAX_PROOF = 63


@dataclass(frozen=True, slots=True)
class WitnessState:
    """The last checkpoint of the log ``origin`` that this witness has cosigned; at first that of the empty log."""

    origin: str
    size: int = 0
    root: bytes = EMPTY_ROOT


class Outcome(Enum):
    """How a request is answered. The value is its HTTP status; FORKED and STALE share theirs, as the text says."""

    COSIGNED = "200 cosigned"
    MALFORMED = "400 malformed"
    UNSIGNED = "403 no signature of the log holds"
    UNKNOWN = "404 another log"
    STALE = "409 another size was cosigned last"
    FORKED = "409 another root was cosigned at this size"
    INCONSISTENT = "422 the proof does not hold"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.value[:3])


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to add-checkpoint.

    After FORKED the request and the note that was cosigned before prove between them that the log has lied, and
    after INCONSISTENT they may: keep both.
    """

    outcome: Outcome
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.outcome.status

    @property
    def content_type(self) -> str:
        """The HTTP header of that name."""
        return "text/x.tlog.size" if self.status == 409 else "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """The body of add-checkpoint: the size cosigned last, a consistency proof from there, the signed checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: Note


def encode_request(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """The body that asks to cosign the signed checkpoint ``note``."""
    return "\n".join([f"old {old}", *map(to_base64, proof), "", note]).encode()


def decode_request(raw: bytes) -> Request:
    """Take a request's body apart. Nothing is verified.

    Raises:
        MalformedError: it is none.
    """
    if len(raw) > 2 * MAX_NOTE:
        raise MalformedError("a request that is too long")
    head, _, note = raw.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("a request that cannot be read") from None
    if not first.startswith("old ") or len(lines) > MAX_PROOF:
        raise MalformedError("a request without an old size, or with too long a proof")
    proof = tuple(from_base64(line) for line in lines)
    if any(len(step) != HASH_LENGTH for step in proof):
        raise MalformedError("a hash that has not 32 bytes")
    return Request(parse_decimal(first.removeprefix("old ")), proof, *read_checkpoint(note))


def answer(
    state: WitnessState, raw: bytes, log: VerifierKey, witness: Cosigner, time: int
) -> tuple[WitnessState, Response]:
    """Answer a request at ``time``, in seconds since 1970. After anything but COSIGNED the state is the one given."""
    try:
        request = decode_request(raw)
    except MalformedError:
        return state, _refuse(Outcome.MALFORMED)
    refused = _judge(state, request, log)
    if refused is Outcome.STALE or refused is Outcome.FORKED:
        return state, Response(refused, f"{state.size}\n".encode())
    if refused is not None:
        return state, _refuse(refused)
    checkpoint = request.checkpoint
    line = cosign(checkpoint, witness, time).line
    after = WitnessState(checkpoint.origin, checkpoint.size, checkpoint.root)
    return after, Response(Outcome.COSIGNED, f"{line}\n".encode())


def cosignatures(response: Response, note: str, witnesses: Iterable[VerifierKey]) -> tuple[Signature, ...]:
    """Those signatures in an answer that hold over ``note``'s text and are by one of ``witnesses``.

    Raises:
        MalformedError: the answer is no list of signatures.
        SignatureError: a line by one of them does not hold.
    """
    text = read_checkpoint(note)[1].text
    try:
        lines = response.body.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise MalformedError("an answer that is not UTF-8") from None
    known, found = list(witnesses), []
    for signature in map(parse_signature, lines):
        for key in known:
            if signature.is_by(key):
                if not holds(signature, text, key):
                    raise SignatureError(f"the cosignature of {key.name} does not hold")
                found.append(signature)
    return tuple(found)


def stale_size(response: Response) -> int:
    """The size that the witness has cosigned last, from its answer 409.

    Raises:
        MalformedError: it is no such answer.
    """
    body = response.body.decode("utf-8", "replace")
    if response.status != 409 or not body.endswith("\n"):
        raise MalformedError("an answer without a size")
    return parse_decimal(body.removesuffix("\n"))


def _judge(state: WitnessState, request: Request, log: VerifierKey) -> Outcome | None:
    """Why not to cosign, in the order that the specification gives; None where there is no reason."""
    checkpoint = request.checkpoint
    if checkpoint.origin != state.origin or checkpoint.origin != log.name:
        return Outcome.UNKNOWN
    try:
        signed = signers(request.note, [log])
    except SignatureError:
        return Outcome.UNSIGNED
    if not signed:
        return Outcome.UNSIGNED
    if request.old > checkpoint.size:
        return Outcome.MALFORMED
    if request.old != state.size:
        return Outcome.STALE
    if checkpoint.size == state.size and checkpoint.root != state.root:
        return Outcome.FORKED
    return None if _extends(state, request) else Outcome.INCONSISTENT


def _extends(state: WitnessState, request: Request) -> bool:
    new = request.checkpoint
    if state.size == 0:
        # Nothing was seen yet, so there is nothing to be consistent with (RFC 9162 has no such proof).
        return not request.proof and (new.size > 0 or new.root == EMPTY_ROOT)
    return verify_consistency(state.size, new.size, state.root, new.root, request.proof)


def _refuse(outcome: Outcome) -> Response:
    return Response(outcome, f"{outcome.value[4:]}\n".encode())
