"""A log in a database: its leaves, the hashes that proofs are made of, its checkpoints and their cosignatures.

Works on any SQLAlchemy connection within its caller's transaction, so that a site appends in the transaction of its
own store. What is signed or cosigned may leave only after that transaction is on disk.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, insert, select, update

from fedseal.compliance.log import tree
from fedseal.compliance.log.canonical import MAX_BYTES
from fedseal.compliance.log.checkpoint import Checkpoint, is_origin, read_checkpoint, sign_checkpoint
from fedseal.compliance.log.head import Head, lock_head, read_head
from fedseal.compliance.log.note import Note, Signature, parse_note, parse_signature
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.tables import CHECKPOINTS, COSIGNATURES, HEADS, LEAVES, METADATA, SPAN, TILES
from fedseal.compliance.log.tiles import WIDTH, encode_hashes
from fedseal.compliance.log.witness import WitnessState
from fedseal.errors import LocalError, PeerError
from fedseal.merkle import HASH_LENGTH, leaf_hash
from fedseal.privacy.secagg.keys import SigningKey

DAMAGED = "The database of the log was damaged or changed from outside. Restore it from a mirror."
_INSERT_LEAVES = insert(LEAVES)
_INSERT_TILE = insert(TILES)
_UPDATE_TILE = (
    update(TILES)
    .where(TILES.c.log == bindparam("of"), TILES.c.level == bindparam("at"), TILES.c.tile == bindparam("number"))
    .values(hashes=bindparam("hashes"))
)


class Log:
    """The log ``origin`` on an open connection: this party's own, or its mirror of another's."""

    def __init__(self, connection: Connection, origin: str) -> None:
        if not is_origin(origin):
            raise LocalError("no name of a log")
        self.origin = origin
        self._connection = connection
        self._head: Head | None = None

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
        self._within(size)
        return tree.root(size, self.hashes)

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
        self._connection.execute(
            _INSERT_LEAVES,
            [
                {"position": place + i, "prefix": _prefix(digest), "leaf": leaf}
                for i, (digest, leaf) in enumerate(zip(hashes, leaves, strict=True))
            ],
        )
        for level, found in enumerate(levels):
            self._extend_tiles(head.log, level, start // WIDTH**level, found)
        self._connection.execute(
            update(HEADS).where(HEADS.c.log == head.log).values(size=frontier.size, frontier=b"".join(frontier.hashes))
        )
        self._head = head.with_frontier(frontier)
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
        first, last = head.log * SPAN + start, head.log * SPAN + stop
        place = LEAVES.c.position
        query = select(LEAVES.c.leaf).where(place >= first, place < last).order_by(place)
        found = list(self._connection.execute(query).scalars())
        if len(found) != stop - start:
            raise LocalError("the log lacks leaves", next_step=DAMAGED)
        return found

    def find(self, digest: bytes) -> int | None:
        """The first index of a leaf with this leaf hash, or None."""
        head = self._seen()
        first = head.log * SPAN
        place = LEAVES.c.position
        query = (
            select(place, LEAVES.c.leaf)
            .where(LEAVES.c.prefix == _prefix(digest), place >= first, place < first + head.frontier.size)
            .order_by(place)
        )
        # Eight bytes of a hash can be made to collide; the whole hash decides.
        return next(
            (row.position - first for row in self._connection.execute(query) if leaf_hash(row.leaf) == digest), None
        )

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Stored hashes of a tile level, as proofs read them."""
        head = self._seen()
        number = TILES.c.tile
        query = (
            select(TILES.c.hashes)
            .where(TILES.c.log == head.log, TILES.c.level == level)
            .where(number >= start // WIDTH, number <= (stop - 1) // WIDTH)
            .order_by(number)
        )
        raw = b"".join(self._connection.execute(query).scalars())
        skipped = start % WIDTH
        part = raw[skipped * HASH_LENGTH : (skipped + stop - start) * HASH_LENGTH]
        return [part[i : i + HASH_LENGTH] for i in range(0, len(part), HASH_LENGTH)]

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from leaf ``index`` to the root of the first ``size`` leaves; IndexError where there is none."""
        self._within(size)
        return tree.inclusion_path(index, size, self.hashes)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of ``new`` leaves begins with that of ``old``; IndexError where there is none."""
        self._within(new)
        return tree.consistency_proof(old, new, self.hashes)

    def sign_checkpoint(self, key: SigningKey) -> str:
        """The log's signed checkpoint of its current size, without cosignatures; the same again while the size stays.

        Raises:
            LocalError: another root, or by another key, was signed for this size before.
        """
        head = self._locked()
        note = str(sign_checkpoint(Checkpoint(self.origin, head.frontier.size, head.frontier.root), key))
        return self._keep(head, head.frontier.size, note)

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
        if self.root(checkpoint.size) != checkpoint.root:
            raise PeerError("a checkpoint that contradicts the mirrored leaves", peer=self.origin)
        own = tuple(s for s in parsed.signatures if s.name == self.origin)
        if not own:
            raise PeerError("a checkpoint that its log has not signed", peer=self.origin)
        self._keep(head, checkpoint.size, str(Note(parsed.text, own)))
        for signature in parsed.signatures:
            if signature not in own:
                self._cosign(head, checkpoint.size, signature)

    def checkpoint(self, size: int | None = None) -> str | None:
        """The signed checkpoint of ``size``, or the newest, with all its cosignatures; None where there is none."""
        head = self._seen()
        query = select(CHECKPOINTS).where(CHECKPOINTS.c.log == head.log).order_by(CHECKPOINTS.c.size.desc()).limit(1)
        row = self._connection.execute(query if size is None else query.where(CHECKPOINTS.c.size == size)).one_or_none()
        if row is None:
            return None
        note = parse_note(row.note)
        return str(Note(note.text, (*note.signatures, *self.cosigned(row.size))))

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
        query = select(COSIGNATURES.c.line).where(COSIGNATURES.c.log == self._seen().log, COSIGNATURES.c.size == size)
        lines = self._connection.execute(query.order_by(COSIGNATURES.c.name, COSIGNATURES.c.identifier)).scalars()
        return tuple(parse_signature(line) for line in lines)

    def latest_final(self, policy: Policy) -> int | None:
        """The largest size whose checkpoint has a quorum; None where none has.

        Raises:
            SignatureError: a kept checkpoint's signature, by a key of the policy, does not hold.
        """
        query = select(CHECKPOINTS.c.size).where(CHECKPOINTS.c.log == self._seen().log)
        for size in self._connection.execute(query.order_by(CHECKPOINTS.c.size.desc())).scalars().all():
            note = self.checkpoint(size)
            if note is not None and evaluate(policy, note).final:
                return int(size)
        return None

    def witness_state(self) -> WitnessState:
        """Where this party last cosigned the log."""
        head = self._seen()
        return WitnessState(self.origin, head.witnessed_size, head.witnessed_root)

    def put_witness_state(self, old: WitnessState, new: WitnessState) -> None:
        """Replace ``old`` by ``new``, if ``old`` is still what is stored. Before the cosignature leaves.

        Raises:
            LocalError: it is not, or ``new`` is smaller or another log's.
        """
        head = self._locked()
        if old != self.witness_state() or new.origin != self.origin or new.size < old.size:
            raise LocalError("the witness' state has moved meanwhile, or would move back")
        self._connection.execute(
            update(HEADS).where(HEADS.c.log == head.log).values(witnessed_size=new.size, witnessed_root=new.root)
        )
        self._head = head.with_witnessed(new.size, new.root)

    def _seen(self) -> Head:
        """The head: the one locked in this transaction, or as it stands in the database."""
        return self._head or read_head(self._connection, self.origin)

    def _locked(self) -> Head:
        """The head, nobody else's until the end of the transaction."""
        if self._head is None:
            self._head = lock_head(self._connection, self.origin)
        return self._head

    def _within(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise IndexError("the log is not that long")

    def _extend_tiles(self, log: int, level: int, start: int, hashes: list[bytes]) -> None:
        """Write what a level gained. ``start``: how many hashes it had."""
        taken = 0
        while taken < len(hashes):
            number, width = divmod(start + taken, WIDTH)
            gained = hashes[taken : taken + WIDTH - width]
            if width:
                before = self._tile(log, level, number, width)
                values = {"of": log, "at": level, "number": number, "hashes": before + encode_hashes(gained)}
                self._connection.execute(_UPDATE_TILE, values)
            else:
                row = {"log": log, "level": level, "tile": number, "hashes": encode_hashes(gained)}
                self._connection.execute(_INSERT_TILE, row)
            taken += len(gained)

    def _tile(self, log: int, level: int, number: int, width: int) -> bytes:
        query = select(TILES.c.hashes).where(TILES.c.log == log, TILES.c.level == level, TILES.c.tile == number)
        raw = self._connection.execute(query).scalar()
        if raw is None or len(raw) != width * HASH_LENGTH:
            raise LocalError("the log's stored hashes are incomplete", next_step=DAMAGED)
        return bytes(raw)

    def _stored(self, head: Head, size: int) -> str | None:
        query = select(CHECKPOINTS.c.note).where(CHECKPOINTS.c.log == head.log, CHECKPOINTS.c.size == size)
        return self._connection.execute(query).scalar()

    def _keep(self, head: Head, size: int, note: str) -> str:
        """Store a checkpoint, unless the very same is there."""
        before = self._stored(head, size)
        if before is not None and before != note:
            raise LocalError("two different checkpoints of one size", next_step=DAMAGED)
        if before is None:
            self._connection.execute(insert(CHECKPOINTS).values(log=head.log, size=size, note=note))
        return note

    def _cosign(self, head: Head, size: int, signature: Signature) -> None:
        held = {(s.name, s.identifier) for s in self.cosigned(size)}
        if (signature.name, signature.identifier) not in held:
            row = {"log": head.log, "size": size, "name": signature.name, "identifier": signature.identifier}
            self._connection.execute(insert(COSIGNATURES).values(**row, line=signature.line))


def _prefix(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)
