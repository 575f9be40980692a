"""A log in a database: its leaves, the hashes that proofs are made of, its checkpoints and their cosignatures.

Works on any SQLAlchemy connection within its caller's transaction, so that a site appends in the transaction of its
own store. What is signed or cosigned may leave only after that transaction is on disk.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from fedseal.compliance.log import tree
from fedseal.compliance.log.canonical import MAX_BYTES
from fedseal.compliance.log.checkpoint import Checkpoint, is_origin, read_checkpoint, sign_checkpoint
from fedseal.compliance.log.head import Head, lock_head, read_head
from fedseal.compliance.log.note import Note, Signature, parse_note, parse_signature
from fedseal.compliance.log.queries import (
    ADD_CHECKPOINT,
    ADD_COSIGNATURE,
    ADD_LEAVES,
    ADD_TILE,
    CHECKPOINT,
    CHECKPOINT_SIZES,
    CHECKPOINTS_KEPT,
    COSIGNATURE_LINES,
    LEAVES_BETWEEN,
    MOVE_HEAD,
    MOVE_WITNESS,
    NEWEST_CHECKPOINT,
    REPLACE_TILE,
    TILES_BETWEEN,
)
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.tables import METADATA, SPAN
from fedseal.compliance.log.tiles import WIDTH, encode_hashes
from fedseal.compliance.log.witness import WitnessState
from fedseal.errors import LocalError, PeerError
from fedseal.merkle import HASH_LENGTH, leaf_hash
from fedseal.privacy.secagg.keys import SigningKey

DAMAGED = "The database of the log was damaged or changed from outside. Restore it from a mirror."


class Log:
    """The log ``origin`` on an open connection: this party's own, or its mirror of another's."""

    def __init__(self, connection: Connection, origin: str) -> None:
        if not is_origin(origin):
            raise LocalError("no name of a log")
        self.origin = origin
        self._connection = connection

    @staticmethod
    def create_tables(connection: Connection) -> None:
        """Make the tables where they are missing."""
        METADATA.create_all(connection)

    def lock(self) -> None:
        """Let nobody else change the log until the transaction ends. Whatever changes it does so anyway."""
        self._locked()

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._seen().frontier.size

    def root(self, size: int | None = None) -> bytes:
        """The Merkle tree hash of the first ``size`` leaves, or of all.

        Raises:
            IndexError: there are fewer.
        """
        head = self._seen()
        if size is None or size == head.frontier.size:
            return head.frontier.root
        return tree.root(_within(head, size), self._reader(head))

    def append(self, leaves: Sequence[bytes]) -> range:
        """Append leaves of at most 16 KiB each, and return their indices."""
        if any(len(leaf) > MAX_BYTES for leaf in leaves):
            raise LocalError(f"a leaf of more than {MAX_BYTES} bytes")
        head = self._locked()
        start = head.frontier.size
        if not leaves:
            return range(start, start)
        hashes = [leaf_hash(leaf) for leaf in leaves]
        frontier, levels = head.frontier.extend(hashes)
        place = head.log * SPAN + start
        self._connection.execute(ADD_LEAVES, [{"position": place + i, "leaf": leaf} for i, leaf in enumerate(leaves)])
        for level, found in enumerate(levels):
            self._extend_tiles(head.log, level, start // WIDTH**level, found)
        after = {"in_log": head.log, "size": frontier.size, "frontier": b"".join(frontier.hashes)}
        self._connection.execute(MOVE_HEAD, after)
        return range(start, frontier.size)

    def leaf(self, index: int) -> bytes:
        """One leaf; IndexError where there is none."""
        found = self.leaves(index, index + 1) if 0 <= index < self.size else []
        if not found:
            raise IndexError("no such leaf")
        return found[0]

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from ``start`` up to before ``stop``, or up to the last.

        Raises:
            LocalError: leaves are missing in between.
        """
        head = self._seen()
        start, stop = max(start, 0), min(stop, head.frontier.size)
        if stop <= start:
            return []
        place = head.log * SPAN
        within = {"first": place + start, "last": place + stop}
        found = list(self._connection.execute(LEAVES_BETWEEN, within).scalars())
        if len(found) != stop - start:
            raise LocalError("the log lacks leaves", next_step=DAMAGED)
        return found

    def find(self, digest: bytes) -> int | None:
        """The first index of a leaf with this leaf hash, or None.

        Reads the hashes of all leaves before it, 32 bytes each; there is no index of them, whose pages would make an
        append half as dear again.
        """
        head = self._seen()
        if len(digest) != HASH_LENGTH:
            return None
        step = WIDTH * WIDTH
        for start in range(0, head.frontier.size, step):
            raw = self._raw(head, 0, start, min(start + step, head.frontier.size))
            place = raw.find(digest)
            while place > 0 and place % HASH_LENGTH:
                place = raw.find(digest, place + 1)
            if place >= 0:
                return start + place // HASH_LENGTH
        return None

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Stored hashes of a tile level: the roots of complete subtrees of 256^level leaves. Fewer where there are."""
        return list(self._reader(self._seen())(level, start, stop))

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from leaf ``index`` to the root of the first ``size`` leaves; IndexError where there is none."""
        head = self._seen()
        return tree.inclusion_path(index, _within(head, size), self._reader(head))

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of ``new`` leaves begins with that of ``old``; IndexError where there is none."""
        head = self._seen()
        return tree.consistency_proof(old, _within(head, new), self._reader(head))

    def sign_checkpoint(self, key: SigningKey) -> str:
        """The log's signed checkpoint of its current size, without cosignatures; the same again while the size stays.

        Raises:
            LocalError: another root was signed for this size before, or with another key.
        """
        head = self._locked()
        checkpoint = Checkpoint(self.origin, head.frontier.size, head.frontier.root)
        note = str(sign_checkpoint(checkpoint, key))
        before = self._stored(head, checkpoint.size)
        if before is not None and before != note:
            raise LocalError("another checkpoint of this size was signed before", next_step=DAMAGED)
        if before is None:
            self._keep(head, checkpoint.size, note)
        return note

    def put_checkpoint(self, note: str) -> None:
        """Store another party's signed checkpoint beside the mirror of its log, with the cosignatures it carries.

        Its signatures are for the caller to verify, before.

        Raises:
            MalformedError: it is no checkpoint.
            PeerError: it is another log's, or does not belong to the leaves that are mirrored here.
        """
        checkpoint, parsed = read_checkpoint(note)
        head = self._locked()
        if checkpoint.origin != self.origin or checkpoint.size > head.frontier.size:
            raise PeerError("a checkpoint of another log, or of leaves not mirrored here", peer=self.origin)
        if tree.root(checkpoint.size, self._reader(head)) != checkpoint.root:
            raise PeerError("a checkpoint that contradicts the mirrored leaves", peer=self.origin)
        own = tuple(s for s in parsed.signatures if s.name == self.origin)
        if not own:
            raise PeerError("a checkpoint that its log has not signed", peer=self.origin)
        if self._stored(head, checkpoint.size) is None:
            self._keep(head, checkpoint.size, str(Note(parsed.text, own)))
        for signature in parsed.signatures:
            if signature not in own:
                self._cosign(head, checkpoint.size, signature)

    def checkpoint(self, size: int | None = None) -> str | None:
        """The signed checkpoint of ``size``, or the newest, with all its cosignatures; None where there is none."""
        head = self._seen()
        query = NEWEST_CHECKPOINT if size is None else CHECKPOINT
        row = self._connection.execute(query, {"in_log": head.log, "at_size": size}).one_or_none()
        if row is None:
            return None
        note = parse_note(row.note)
        return str(Note(note.text, (*note.signatures, *self.cosigned(row.size))))

    def checkpoints(self) -> list[tuple[int, str]]:
        """Every checkpoint kept, with its size, oldest first, without cosignatures."""
        rows = self._connection.execute(CHECKPOINTS_KEPT, {"in_log": self._seen().log})
        return [(row.size, row.note) for row in rows]

    def add_cosignature(self, size: int, line: str) -> None:
        """Keep a witness' signature line beside the checkpoint of ``size``; of one key, the first is kept.

        The line is for the caller to verify, before: see `witness.cosignatures`.

        Raises:
            MalformedError: it is no signature line.
            LocalError: there is no checkpoint of that size.
        """
        signature = parse_signature(line)
        head = self._locked()
        if self._stored(head, size) is None:
            raise LocalError("a cosignature on a checkpoint that is not kept here")
        self._cosign(head, size, signature)

    def cosigned(self, size: int) -> tuple[Signature, ...]:
        """The cosignatures kept for the checkpoint of ``size``, by name."""
        lines = self._connection.execute(COSIGNATURE_LINES, {"in_log": self._seen().log, "at_size": size}).scalars()
        return tuple(parse_signature(line) for line in lines)

    def latest_final(self, policy: Policy) -> int | None:
        """The largest size whose checkpoint has a quorum; None where none has.

        Raises:
            SignatureError: a kept checkpoint's signature, by a key of the policy, does not hold.
        """
        sizes = self._connection.execute(CHECKPOINT_SIZES, {"in_log": self._seen().log}).scalars().all()
        for size in sizes:
            note = self.checkpoint(size)
            if note is not None and evaluate(policy, note).final:
                return int(size)
        return None

    def next_checkpoint(self, old: int, stride: int) -> int | None:
        """Up to which size somebody who has seen ``old`` leaves is shown the log: the largest size with a checkpoint
        that is at most ``stride`` beyond, or else the next one there is; None where there is no checkpoint beyond.
        """
        sizes = self._connection.execute(CHECKPOINT_SIZES, {"in_log": self._seen().log}).scalars()
        found: int | None = None
        for size in sizes:
            if size <= old:
                break
            found = int(size)
            if size <= old + stride:
                break
        return found

    def witness_state(self) -> WitnessState:
        """Where this party last cosigned the log."""
        head = self._seen()
        return WitnessState(self.origin, head.witnessed_size, head.witnessed_root)

    def put_witness_state(self, old: WitnessState, new: WitnessState) -> None:
        """Replace ``old`` by ``new``, if ``old`` is still what is stored. Before the cosignature leaves.

        Raises:
            LocalError: it is not, or ``new`` is no step forward, or another log's.
        """
        head = self._locked()
        forward = new.origin == self.origin and (new.size > old.size or new == old)
        if old != self.witness_state() or not forward:
            raise LocalError("the witness' state has moved meanwhile, or would move back")
        after = {"in_log": head.log, "witnessed_size": new.size, "witnessed_root": new.root}
        self._connection.execute(MOVE_WITNESS, after)

    def _seen(self) -> Head:
        """The head as it stands."""
        return read_head(self._connection, self.origin)

    def _locked(self) -> Head:
        """The head, nobody else's until the end of the transaction."""
        return lock_head(self._connection, self.origin)

    def _reader(self, head: Head) -> tree.Reader:
        def read(level: int, start: int, stop: int) -> list[bytes]:
            raw = self._raw(head, level, start, stop)
            return [raw[i : i + HASH_LENGTH] for i in range(0, len(raw), HASH_LENGTH)]

        return read

    def _raw(self, head: Head, level: int, start: int, stop: int) -> bytes:
        """Stored hashes of a tile level, one after the other."""
        within = {"in_level": level, "first": start // WIDTH, "last": (stop - 1) // WIDTH}
        raw = b"".join(self._connection.execute(TILES_BETWEEN, {"in_log": head.log, **within}).scalars())
        skipped = start % WIDTH
        return raw[skipped * HASH_LENGTH : (skipped + stop - start) * HASH_LENGTH]

    def _extend_tiles(self, log: int, level: int, start: int, hashes: list[bytes]) -> None:
        """Write what a level gained. ``start``: how many hashes it had."""
        taken = 0
        while taken < len(hashes):
            number, width = divmod(start + taken, WIDTH)
            gained = hashes[taken : taken + WIDTH - width]
            place = {"in_log": log, "in_level": level, "first": number}
            if width:
                whole = self._tile(place, width) + encode_hashes(gained)
                self._connection.execute(REPLACE_TILE, {**place, "hashes": whole})
            else:
                row = {"log": log, "level": level, "tile": number, "hashes": encode_hashes(gained)}
                self._connection.execute(ADD_TILE, row)
            taken += len(gained)

    def _tile(self, place: dict[str, int], width: int) -> bytes:
        raw = self._connection.execute(TILES_BETWEEN, {**place, "last": place["first"]}).scalar()
        if raw is None or len(raw) != width * HASH_LENGTH:
            raise LocalError("the log's stored hashes are incomplete", next_step=DAMAGED)
        return bytes(raw)

    def _stored(self, head: Head, size: int) -> str | None:
        row = self._connection.execute(CHECKPOINT, {"in_log": head.log, "at_size": size}).one_or_none()
        return None if row is None else row.note

    def _keep(self, head: Head, size: int, note: str) -> None:
        self._connection.execute(ADD_CHECKPOINT, {"log": head.log, "size": size, "note": note})

    def _cosign(self, head: Head, size: int, signature: Signature) -> None:
        held = {(s.name, s.identifier) for s in self.cosigned(size)}
        if (signature.name, signature.identifier) not in held:
            row = {"log": head.log, "size": size, "name": signature.name, "identifier": signature.identifier}
            self._connection.execute(ADD_COSIGNATURE, {**row, "line": signature.line})


def _within(head: Head, size: int) -> int:
    if not 0 <= size <= head.frontier.size:
        raise IndexError("the log is not that long")
    return size
