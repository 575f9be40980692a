"""Exports of audit logs for the verifier's tests, made from the specifications: with neither fedseal nor the verifier.

Slow and plain on purpose. An attacker of a test writes his export with the same functions as an honest log.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TYPE = b"application/vnd.fedseal.event+json"
TIME = 1_790_000_000


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def jcs(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True)
class Party:
    """A party with its one key."""

    name: str
    seed: int

    @cached_property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32)

    @cached_property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @cached_property
    def event_id(self) -> str:
        return sha256(self.public).hex()[:8]

    def key_id(self, algorithm: int) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([algorithm]) + self.public)[:4]

    def vkey(self, algorithm: int) -> str:
        return f"{self.name}+{self.key_id(algorithm).hex()}+{b64(bytes([algorithm]) + self.public)}"


LOG = Party("fedseal.example/coord", 1)
SITES = (Party("site-a", 11), Party("site-b", 12), Party("site-c", 13))
STRANGER = Party("site-x", 66)


def event(author: Party, seq: int, prev: str, **fields: Any) -> dict[str, Any]:
    """An event without its signature."""
    return {
        "v": 1,
        "seq": seq,
        "type": "round.contributed/v1",
        "time": "2026-11-20T22:04:05.123456Z",
        "actor": "act_" + sha256(author.public).hex()[:32],
        "org": author.name,
        "run": "r1",
        "subject": [{"k": "dataset_version", "d": "hmac:" + "ab" * 32}],
        "prev": prev,
        "body": {"round": seq, "reason": "Größe ok"},
        **fields,
    }


def sign(author: Party, unsigned: dict[str, Any], key_id: str | None = None) -> dict[str, Any]:
    """The event with ``author``'s signature over its canonical form."""
    body = jcs(unsigned)
    signed = b"DSSEv1 " + str(len(TYPE)).encode() + b" " + TYPE + b" " + str(len(body)).encode() + b" " + body
    return {**unsigned, "sig": {"keyid": key_id or author.event_id, "s": b64(author.key.sign(signed))}}


@dataclass
class Book:
    """Leaves in order, and where every author's chain stands."""

    leaves: list[bytes] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, author: Party, **fields: Any) -> bytes:
        seq, prev = self.heads.get(author.event_id, (0, "sha256:" + "0" * 64))
        return self.append(author, jcs(sign(author, event(author, seq, prev, **fields))), seq)

    def append(self, author: Party, leaf: bytes, seq: int) -> bytes:
        self.leaves.append(leaf)
        self.heads[author.event_id] = (seq + 1, "sha256:" + sha256(leaf).hex())
        return leaf


def book(size: int) -> Book:
    """Events by the log's owner and the sites in turn."""
    made = _book(size)
    return Book(list(made.leaves), dict(made.heads))


@cache
def _book(size: int) -> Book:
    made = Book()
    for index in range(size):
        made.add((LOG, *SITES)[index % 4])
    return made


def root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, over leaf hashes, by its recursion."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return sha256(b"\x01" + root(hashes[:k]) + root(hashes[k:]))


def leaf_hashes(leaves: Sequence[bytes]) -> list[bytes]:
    return [sha256(b"\x00" + leaf) for leaf in leaves]


def inclusion(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    if index < k:
        return [*inclusion(hashes[:k], index), root(hashes[k:])]
    return [*inclusion(hashes[k:], index - k), root(hashes[:k])]


def note(
    size: int, tree_root: bytes, cosigners: Sequence[Party] = SITES, log: Party = LOG, origin: str = LOG.name
) -> str:
    """A checkpoint, signed and cosigned."""
    text = f"{origin}\n{size}\n{b64(tree_root)}\n"
    lines = [f"— {log.name} {b64(log.key_id(1) + log.key.sign(text.encode()))}"]
    lines += [cosignature(text, each) for each in cosigners]
    return text + "\n" + "\n".join(lines) + "\n"


def cosignature(text: str, witness: Party, forged: bool = False) -> str:
    """A line of cosignature/v1; a forged one is a signature of something else."""
    signed = f"cosignature/v1\ntime {TIME}\n" + ("" if forged else text)
    blob = witness.key_id(4) + TIME.to_bytes(8, "big") + witness.key.sign(signed.encode())
    return f"— {witness.name} {b64(blob)}"


def policy(threshold: int = 2, log: Party = LOG, witnesses: Sequence[Party] = SITES) -> str:
    names = " ".join(each.name for each in witnesses)
    return "\n".join(
        [
            "# whom we trust",
            f"log {log.vkey(1)}",
            *(f"witness {each.name} {each.vkey(4)}" for each in witnesses),
            f"group sites {threshold} {names}",
            "quorum sites\n",
        ]
    )


def tile_name(level: int | str, index: int, width: int) -> str:
    digits = f"{index:03d}" if index < 1000 else f"x{index // 1000:03d}/{index % 1000:03d}"
    return f"tile/{level}/{digits}" + ("" if width == 256 else f".p/{width}")


def write_file(directory: Path, name: str, data: bytes) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_export(directory: Path, leaves: Sequence[bytes], checkpoint: str | None = None, rules: str = "") -> Path:
    """A whole export of ``leaves``: bundles, tiles, checkpoint (by default signed by all), policy."""
    for start in range(0, len(leaves), 256):
        part = leaves[start : start + 256]
        data = b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in part)
        write_file(directory, tile_name("entries", start // 256, len(part)), data)
    hashes, level = leaf_hashes(leaves), 0
    whole = root(hashes)
    while hashes:
        for start in range(0, len(hashes), 256):
            part = hashes[start : start + 256]
            write_file(directory, tile_name(level, start // 256, len(part)), b"".join(part))
        hashes = [root(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1
    (directory / "checkpoint").parent.mkdir(parents=True, exist_ok=True)
    (directory / "checkpoint").write_text(checkpoint or note(len(leaves), whole), encoding="utf-8")
    (directory / "policy.txt").write_text(rules or policy(), encoding="utf-8")
    return directory


def proof(leaves: Sequence[bytes], index: int, checkpoint: str | None = None) -> str:
    """A tlog-proof of one leaf."""
    hashes = leaf_hashes(leaves)
    path = "".join(b64(each) + "\n" for each in inclusion(hashes, index))
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{path}\n" + (checkpoint or note(len(leaves), root(hashes)))
