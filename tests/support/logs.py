"""Logs, witnesses and trees whose keys and leaves are the same in every run."""

from collections.abc import Sequence

from support.keys import SERVER, key

from fedseal.compliance.log.checkpoint import (
    Checkpoint,
    Cosigner,
    log_key,
    server_origin,
    sign_checkpoint,
    site_origin,
)
from fedseal.compliance.log.note import VerifierKey
from fedseal.compliance.log.tree import Reader
from fedseal.merkle import leaf_hash, root

FEDERATION = "test"
ORIGIN = server_origin(FEDERATION)
LOG: VerifierKey = log_key(ORIGIN, SERVER.public)
TIME = 1_800_000_000


def witness(number: int) -> Cosigner:
    """The witness that a site is."""
    return Cosigner(site_origin(FEDERATION, f"site-{number}"), key(f"site-{number}"))


def leaves(start: int, stop: int) -> list[bytes]:
    """Leaves of different lengths, none twice."""
    return [f"leaf {i} ".encode() * (1 + i % 3) for i in range(start, stop)]


def hashes(count: int) -> list[bytes]:
    """The leaf hashes of the first ``count`` of them."""
    return [leaf_hash(leaf) for leaf in leaves(0, count)]


def reader(leaf_hashes: Sequence[bytes]) -> Reader:
    """Reads what a log of these leaves stores, by computing it."""

    def read(level: int, start: int, stop: int) -> list[bytes]:
        span = 256**level
        return [root(leaf_hashes[i * span : (i + 1) * span]) for i in range(start, stop)]

    return read


def signed(leaf_hashes: Sequence[bytes], origin: str = ORIGIN) -> str:
    """The server's signed checkpoint of these leaves."""
    return str(sign_checkpoint(Checkpoint(origin, len(leaf_hashes), root(leaf_hashes)), SERVER))
