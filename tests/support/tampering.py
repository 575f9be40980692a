"""Histories that a server with the key to its log might show instead of the true one, below a size a site cosigned."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from support.keys import SERVER, key
from support.logs import reader

from fedseal.compliance.events.bodies import RunFinished
from fedseal.compliance.events.leaf import Place, sign_event
from fedseal.compliance.journal.attachment import LogRequest
from fedseal.compliance.log import checkpoint, tree, witness
from fedseal.merkle import leaf_hash, root
from fedseal.privacy.secagg.keys import SigningKey

NOW = "2026-11-28T10:00:00.000000Z"


def fresh(count: int, salt: int) -> list[bytes]:
    """New entries that the server signs; nobody has seen them."""
    return [
        sign_event(RunFinished(rounds=salt + i, model=None), SERVER, Place(10_000 + i), org="server", time=NOW)
        for i in range(count)
    ]


@dataclass(frozen=True)
class Shown:
    """What a server shows: these leaves, signed by this key, as an extension of ``old`` leaves."""

    leaves: Sequence[bytes]
    old: int
    signer: SigningKey = SERVER

    def request(self, origin: str) -> LogRequest:
        """The message, with the best proof there is."""
        hashes = [leaf_hash(leaf) for leaf in self.leaves]
        size = len(hashes)
        old = min(self.old, size)
        note = checkpoint.sign_checkpoint(checkpoint.Checkpoint(origin, size, root(hashes)), self.signer)
        proof = tree.consistency_proof(old, size, reader(hashes))
        return LogRequest(witness.encode_request(old, proof, str(note)), tuple(self.leaves[old:]))


Tampering = Callable[[list[bytes], random.Random], Shown]


def honest(leaves: list[bytes], draw: random.Random) -> Shown:
    """The twin of all others: the true history and what is new."""
    return Shown([*leaves, *fresh(draw.randint(0, 5), draw.randint(0, 9))], len(leaves))


def edit(leaves: list[bytes], draw: random.Random) -> Shown:
    """One entry says something else."""
    at = draw.randrange(len(leaves))
    return Shown([*leaves[:at], *fresh(1, at + 50), *leaves[at + 1 :], *fresh(draw.randint(0, 5), 7)], len(leaves))


def delete(leaves: list[bytes], draw: random.Random) -> Shown:
    """One entry is gone, others come behind."""
    at = draw.randrange(len(leaves))
    return Shown([*leaves[:at], *leaves[at + 1 :], *fresh(draw.randint(1, 5), 7)], len(leaves))


def insert(leaves: list[bytes], draw: random.Random) -> Shown:
    """One entry more in the past."""
    at = draw.randrange(len(leaves))
    return Shown([*leaves[:at], *fresh(1, 60), *leaves[at:], *fresh(draw.randint(0, 5), 7)], len(leaves))


def reorder(leaves: list[bytes], draw: random.Random) -> Shown:
    """Two entries have changed places."""
    first, second = sorted(draw.sample(range(len(leaves)), 2))
    moved = list(leaves)
    moved[first], moved[second] = moved[second], moved[first]
    return Shown([*moved, *fresh(draw.randint(0, 5), 7)], len(leaves))


def truncate(leaves: list[bytes], draw: random.Random) -> Shown:
    """The last entries are gone."""
    return Shown(leaves[: draw.randrange(1, len(leaves))], len(leaves))


def roll_back(leaves: list[bytes], draw: random.Random) -> Shown:
    """The last entries are gone, and others have taken their places and more."""
    kept = draw.randrange(1, len(leaves))
    return Shown([*leaves[:kept], *fresh(len(leaves) - kept + draw.randint(0, 5), 80)], len(leaves))


def swap_key(leaves: list[bytes], draw: random.Random) -> Shown:
    """The true history, signed by another key."""
    return Shown([*leaves, *fresh(draw.randint(0, 5), 7)], len(leaves), key("mallory"))


TAMPERINGS: tuple[Tampering, ...] = (edit, delete, insert, reorder, truncate, roll_back, swap_key)
