"""SA1, written from docs/protocol.md alone: the site, the server, and what both compute. Slow and plain on purpose.

It checks what tells whether two implementations agree, and protects nobody: no policy, no disk, no constant time.
"""

import hashlib
import hmac
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from reference.wire import decode, encode, make, u32

STAGES = ("advertise", "share", "mask", "consistency", "unmask")
PAYLOADS = ("Advertisement", "ShareHead", "Masked", "Confirmation", "Openings")
DOMAIN = b"fedseal/sa1/"
P = 2**256 + 297
WORDS = {32: "I", 64: "Q"}


class EndedError(Exception):
    """The server ends the round: (stage, how many are left)."""


def need(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(what)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def labelled(label: str, data: bytes) -> bytes:
    return sha(DOMAIN + label.encode() + b"\0" + data)


def derive(secret: bytes, salt: bytes, label: str, *identifiers: int) -> bytes:
    info = DOMAIN + label.encode() + b"".join(b"\0" + u32(i) for i in identifiers)
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, other: bytes) -> bytes:
    need(int.from_bytes(other, "little") < 2**255 - 19, "public key out of range")
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def mask_words(secret: bytes, sid: bytes, header: Any, label: str, *sites: int) -> tuple[int, ...]:
    length, bits = sum(s.length for s in header.layout.segments), header.layout.ring_bits
    cipher = Cipher(algorithms.AES(derive(secret, sid, label, *sorted(sites), 0)), modes.CTR(bytes(16)))
    return struct.unpack(f"<{length}{WORDS[bits]}", cipher.encryptor().update(bytes(length * bits // 8)))


def signable(stage: str, h: bytes, payload: bytes) -> bytes:
    return DOMAIN + stage.encode() + b"\0" + h + sha(payload)


def verify(key: bytes, signature: bytes, text: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(key).verify(signature, text)


def opened(signed: Any, roster: Mapping[int, bytes], stage: int, h: bytes) -> Any:
    """The payload of a signed message, once its signature holds for this round and stage."""
    need((signed.stage, signed.header_hash) == (stage, h), "signed for something else")
    verify(roster[signed.site], signed.signature, signable(STAGES[stage], h, signed.payload))
    return decode(signed.payload, PAYLOADS[stage])


def split(secret: bytes, t: int, count: int, draw: Callable[[int], bytes]) -> list[bytes]:
    terms = [int.from_bytes(secret, "big"), *(int.from_bytes(draw(48), "big") % P for _ in range(t - 1))]
    values = [0] * count
    for term in reversed(terms):
        values = [(value * x + term) % P for x, value in enumerate(values, 1)]
    return [value.to_bytes(33, "big") for value in values]


def rebuild(shares: Mapping[int, bytes]) -> bytes:
    value = 0
    for x, share in shares.items():
        up, down = 1, 1
        for other in shares:
            if other != x:
                up, down = up * other % P, down * (other - x) % P
        value += int.from_bytes(share, "big") * up * pow(down, -1, P)
    return (value % P).to_bytes(32, "big")


def paths(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root and the path of every leaf, nearest sibling first."""
    if len(leaves) == 1:
        return sha(b"\0" + leaves[0]), [[]]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    (left, lower), (right, upper) = paths(leaves[:split]), paths(leaves[split:])
    return sha(b"\1" + left + right), [[*p, right] for p in lower] + [[*p, left] for p in upper]


def root_from(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    if size == 1:
        need(not path, "path too long")
        return sha(b"\0" + leaf)
    need(path, "path too short")
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha(b"\1" + root_from(leaf, index, split, path[:-1]) + path[-1])
    return sha(b"\1" + path[-1] + root_from(leaf, index - split, size - split, path[:-1]))


def ring_numbers(n1: int, n: int, colluders: int, dropouts: int, sigma: int, eta: int) -> tuple[int, int]:
    """The degree k and threshold t of a ring of n1, by fractions only."""

    def tail(marked: int, k: int, least: int) -> Fraction:
        ways = (math.comb(marked, i) * math.comb(n1 - marked, k - i) for i in range(max(least, 0), min(marked, k) + 1))
        return Fraction(sum(ways), math.comb(n1, k))

    for k in range(2, min(1024, n1 - 2) + 1, 2):
        run = Fraction(math.isqrt(2 ** (255 - sigma) // max(1, n1 * (n1 - k - 1) // 2)), 2**128)
        t = max(2, k // 2)
        while (n1 + 1) * tail(colluders, k, 2 * t - k) > Fraction(1, 2 ** (sigma + 1)):
            t += 1
        while tail(colluders, k // 2, t - k // 2) > run:
            t += 1
        if t <= k and (n1 + 1) * (1 - tail(n1 - dropouts * n1 // n, k, t)) < Fraction(1, 2**eta):
            return k, t
    raise EndedError("advertise", n1)


class Graph:
    """Who shares with whom in one session."""

    def __init__(self, header: Any, h: bytes, members: Sequence[int], adverts: Sequence[bytes], root: bytes) -> None:
        self.members = list(members)
        self.ring: list[int] = []
        if header.sparse is None:
            self.sid = labelled("sid", h + b"".join(map(sha, adverts)))
            self.k, self.t, self.witnesses = len(members) - 1, header.threshold, set(members)
            return
        self.sid = labelled("ring-sid", h + u32(len(members), *members) + root)
        places = {s: hmac.digest(self.sid, DOMAIN + b"ring\0" + u32(s), "sha256") for s in members}
        self.ring = sorted(members, key=lambda s: (places[s], s))
        self.k, self.t = ring_numbers(len(members), len(header.cohort), header.colluders, *header.sparse)
        self.witnesses = set(self.ring[: self.k])

    def neighbours(self, site: int) -> list[int]:
        if not self.ring:
            return [s for s in self.members if s != site]
        at = self.ring.index(site)
        return sorted(self.ring[(at + d) % len(self.ring)] for d in range(-self.k // 2, self.k // 2 + 1) if d)

    def holders(self, site: int) -> list[int]:
        return self.neighbours(site) if self.ring else self.members


def confirmation(sid: bytes, survivors: Iterable[int]) -> Any:
    return make("Confirmation", sid, labelled("survivors", sid + u32(*survivors)))


def share_commitment(sid: bytes, dealer: int, receiver: int, kind: int, salt: bytes, share: bytes) -> bytes:
    return labelled("share-commitment", sid + u32(dealer, receiver) + bytes([kind]) + salt + share)


def commitments(sid: bytes, dealer: int, receiver: int, parts: Any) -> tuple[bytes, bytes]:
    own = share_commitment(sid, dealer, receiver, 0, parts.self_salt, parts.self_share)
    return own, share_commitment(sid, dealer, receiver, 1, parts.seed_salt, parts.seed_share)


def least(header: Any) -> int:
    return int(max(header.threshold, header.site_minimum, header.colluders + 2, header.noise_minimum))


class Site:
    """One site in one round. `draw(n)` gives its next n random bytes; `roster` are all public keys, 0 the server's."""

    def __init__(self, number: int, key: bytes, draw: Callable[[int], bytes], roster: Mapping[int, bytes]) -> None:
        self.number, self.key, self.draw, self.roster = number, key, draw, roster
        self.shares: dict[int, Any] = {}

    def signed(self, stage: int, payload: Any) -> Any:
        raw = encode(payload)
        signature = Ed25519PrivateKey.from_private_bytes(self.key).sign(signable(STAGES[stage], self.h, raw))
        return make("Signed", stage, self.number, self.h, raw, signature)

    def advertise(self, data: bytes) -> bytes:
        request = decode(data, "AdvertiseRequest")
        self.h, self.header = sha(request.header), decode(request.header, "Header")
        verify(self.roster[0], request.signature, signable("header", self.h, request.header))
        need(self.number in self.header.cohort, "not asked")
        need(self.header.threshold == (len(self.header.cohort) + self.header.colluders) // 2 + 1, "threshold")
        need(self.header.graph == (len(self.header.cohort) > 256) == (self.header.sparse is not None), "graph")
        self.z, self.b, self.channel = self.draw(32), self.draw(32), self.draw(32)
        self.mask_private = derive(self.z, self.h, "maskkey")
        commitment = labelled("com-b", self.h + u32(self.number) + self.b)
        self.mine = make("Advertisement", public(self.mask_private), public(self.channel), commitment, 0)
        return encode(self.signed(0, self.mine))

    def share(self, data: bytes) -> bytes:
        request = decode(data, "ShareRequest" if self.header.sparse is None else "NeighbourRequest")
        ring = self.header.sparse is not None
        shown = [m.advertisement for m in request.neighbourhood] if ring else list(request.advertisements)
        self.adverts = {s.site: opened(s, self.roster, 0, self.h) for s in shown}
        need(self.adverts[self.number] == self.mine, "own entry changed")
        members = request.members if ring else sorted(self.adverts)
        need(len(members) >= least(self.header) and set(members) <= set(self.header.cohort), "members")
        self.graph = Graph(self.header, self.h, members, list(map(encode, shown)), request.root if ring else b"")
        need({*self.graph.neighbours(self.number), self.number} == set(self.adverts), "other neighbours")
        for place, member in [(members.index(m.advertisement.site), m) for m in request.neighbourhood] if ring else ():
            found = root_from(encode(member.advertisement), place, len(members), member.path)
            need(found == request.root, "not under the root")
        sid, holders = self.graph.sid, self.graph.holders(self.number)
        self.holders = {u: self.graph.holders(u) for u in self.graph.members if self.number in self.graph.holders(u)}
        own, seed = (split(s, self.graph.t, len(holders), self.draw) for s in (self.b, self.z))
        entries = []
        for v, b, z in zip(holders, own, seed, strict=True):
            parts = make("SealedShares", b, self.draw(16), z, self.draw(16))
            if v == self.number:
                self.shares[v], sealed = parts, b""
            else:
                key = derive(agree(self.channel, self.adverts[v].channel_key), sid, "share", self.number, v)
                sealed = aead.AESGCM(key).encrypt(bytes(12), encode(parts), sid + u32(self.number, v))
            entries.append(make("ShareEntry", v, sealed, *commitments(sid, self.number, v, parts)))
        head = make("ShareHead", sid, paths(list(map(encode, entries)))[0], len(holders))
        return encode(make("ShareReply", self.signed(1, head), entries))

    def receive(self, delivery: Any) -> None:
        u, entry, sid = delivery.head.site, delivery.entry, self.graph.sid
        head = opened(delivery.head, self.roster, 1, self.h)
        place = self.holders[u].index(self.number)
        need(head.session == sid and head.size == len(self.holders[u]), "another session")
        need(root_from(encode(entry), place, head.size, delivery.path) == head.root, "not under the root")
        key = derive(agree(self.channel, self.adverts[u].channel_key), sid, "share", u, self.number)
        plain = aead.AESGCM(key).decrypt(bytes(12), entry.ciphertext, sid + u32(u, self.number))
        parts = self.shares[u] = decode(plain, "SealedShares")
        need((entry.receiver, *entry[2:]) == (self.number, *commitments(sid, u, self.number, parts)), "share")

    def mask(self, data: bytes, values: Sequence[int]) -> tuple[bytes, list[int]]:
        request, bits, sid = decode(data, "MaskRequest"), self.header.layout.ring_bits, self.graph.sid
        self.contributors = set(request.contributors)
        near = sorted(self.contributors & set(self.graph.neighbours(self.number)))
        need(len(self.contributors) >= least(self.header), "contributors")
        need([d.head.site for d in request.deliveries] == near, "deliveries")
        need(len(self.contributors & set(self.graph.holders(self.number))) >= self.graph.t, "holders")
        for delivery in request.deliveries:
            self.receive(delivery)
        total = [v + w for v, w in zip(values, mask_words(self.b, sid, self.header, "self", self.number), strict=True)]
        for v in near:
            secret = agree(self.mask_private, self.adverts[v].mask_key)
            for i, word in enumerate(mask_words(secret, sid, self.header, "pair", self.number, v)):
                total[i] += word if self.number < v else -word
        vector = [v % 2**bits for v in total]
        digest = sha(struct.pack(f"<{len(vector)}{WORDS[bits]}", *vector))
        return encode(self.signed(2, make("Masked", sid, digest))), vector

    def confirm(self, data: bytes) -> bytes:
        self.survivors = list(decode(data, "ConsistencyRequest").survivors)
        need({self.number} <= set(self.survivors) <= self.contributors, "survivors")
        need(len(self.survivors) >= least(self.header), "too few survivors")
        return encode(self.signed(3, confirmation(self.graph.sid, self.survivors)))

    def unmask(self, data: bytes) -> bytes:
        request = decode(data, "UnmaskRequest")
        need(list(request.survivors) == self.survivors, "other survivors")
        expected = confirmation(self.graph.sid, self.survivors)
        signers = {c.site for c in request.confirmations}
        for c in request.confirmations:
            need(opened(c, self.roster, 3, self.h) == expected, "confirmed something else")
        need(signers <= (self.graph.witnesses | set(self.graph.neighbours(self.number))) & set(self.survivors), "who")
        need(len(signers & self.graph.witnesses) >= self.graph.t, "too few witnesses")
        openings = []
        for u, s in sorted(self.shares.items()):
            kind = (0, s.self_share, s.self_salt) if u in self.survivors else (1, s.seed_share, s.seed_salt)
            openings.append(make("Opening", u, *kind))
        return encode(self.signed(4, make("Openings", self.graph.sid, openings)))


class Server:
    """The server of one round. `asked` are those who get the next request: at first the cohort."""

    def __init__(self, header: Any, key: bytes, roster: Mapping[int, bytes]) -> None:
        self.header, self.raw, self.roster, self.h = header, encode(header), roster, sha(encode(header))
        self.signature = Ed25519PrivateKey.from_private_bytes(key).sign(signable("header", self.h, self.raw))
        self.asked: list[int] = list(header.cohort)
        self.replies: list[dict[int, Any]] = [{} for _ in STAGES]
        self.payloads: list[dict[int, Any]] = [{} for _ in STAGES]
        self.vectors: dict[int, Sequence[int]] = {}
        self.dealt: dict[int, list[Any]] = {}

    def request(self, stage: int, site: int) -> bytes:
        if stage == 0:
            return encode(make("AdvertiseRequest", self.raw, self.signature))
        if stage == 1:
            return encode(self.keys_for(site))
        if stage == 3:
            return encode(make("ConsistencyRequest", self.h, self.survivors))
        near = set(self.graph.neighbours(site))
        if stage == 2:
            dealt = [self.dealt[u][self.graph.holders(u).index(site)] for u in self.contributors if u in near]
            return encode(make("MaskRequest", self.h, self.contributors, dealt))
        heard = [c for s, c in sorted(self.replies[3].items()) if s in near | self.graph.witnesses]
        return encode(make("UnmaskRequest", self.h, self.survivors, heard))

    def keys_for(self, site: int) -> Any:
        if self.header.sparse is None:
            return make("ShareRequest", self.h, [self.replies[0][s] for s in self.asked])
        near = sorted([site, *self.graph.neighbours(site)])
        members = [make("Member", self.replies[0][s], self.paths[s]) for s in near]
        return make("NeighbourRequest", self.h, self.asked, self.root, members)

    def receive(self, stage: int, site: int, data: bytes, vector: Sequence[int] = ()) -> None:
        reply = decode(data, "ShareReply" if stage == 1 else "Signed")
        signed = reply.head if stage == 1 else reply
        need(signed.site == site, "somebody else's")
        self.payloads[stage][site] = opened(signed, self.roster, stage, self.h)
        self.replies[stage][site] = reply
        if stage == 2:
            self.vectors[site] = vector

    def close(self, stage: int) -> None:
        left = sorted(self.replies[stage])
        if stage < 3:
            self.asked = left
            self.enough(stage, len(left) >= least(self.header))
        if stage == 0:
            leaves = [encode(self.replies[0][s]) for s in left]
            self.root, found = paths(leaves)
            self.paths = dict(zip(left, found, strict=True))
            self.graph = Graph(self.header, self.h, left, leaves, self.root)
            return
        if stage == 1:
            self.contributors = left
            for u, reply in self.replies[1].items():
                found = paths(list(map(encode, reply.entries)))[1]
                self.dealt[u] = [make("Delivery", reply.head, *e) for e in zip(reply.entries, found, strict=True)]
        if stage == 2:
            self.survivors = left
        if stage in (2, 3):
            self.enough(stage, len(self.graph.witnesses & set(left)) >= self.graph.t)
        if stage != 3:
            counts = [len(set(self.graph.holders(u)).intersection(left)) for u in self.contributors]
            self.enough(stage, min(counts) >= self.graph.t)

    def enough(self, stage: int, holds: bool) -> None:
        if not holds:
            raise EndedError(STAGES[stage], len(self.replies[stage]))

    def secret(self, dealer: int, kind: int) -> bytes:
        shares: dict[int, bytes] = {}
        for x, v in enumerate(self.graph.holders(dealer), 1):
            if v in self.payloads[4] and len(shares) < self.graph.t:
                o, entry = self.openings[v][dealer], self.replies[1][dealer].entries[x - 1]
                found = share_commitment(self.graph.sid, dealer, v, kind, o.salt, o.share)
                need(found == (entry.seed_commitment if kind else entry.self_commitment), "opener")
                shares[x] = o.share
        return rebuild(shares)

    def total(self) -> list[int]:
        """The sum over the survivors, as signed integers."""
        sid, adverts = self.graph.sid, self.payloads[0]
        self.openings = {v: {o.dealer: o for o in p.openings} for v, p in self.payloads[4].items()}
        total = [sum(words) for words in zip(*self.vectors.values(), strict=True)]
        for u in self.contributors:
            if u in self.survivors:
                b = self.secret(u, 0)
                need(labelled("com-b", self.h + u32(u) + b) == adverts[u].self_commitment, "dealer")
                total = [a - w for a, w in zip(total, mask_words(b, sid, self.header, "self", u), strict=True)]
                continue
            private = derive(self.secret(u, 1), self.h, "maskkey")
            need(public(private) == adverts[u].mask_key, "dealer")
            for v in set(self.graph.neighbours(u)) & set(self.survivors):
                words = mask_words(agree(private, adverts[v].mask_key), sid, self.header, "pair", u, v)
                total = [a + (w if u < v else -w) for a, w in zip(total, words, strict=True)]
        half = 2 ** (self.header.layout.ring_bits - 1)
        return [(a + half) % (2 * half) - half for a in total]
