"""Sites that the attacker plays, and headers that need not be able to exist."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

from support.keys import SERVER, Bytes, key

from fedseal.privacy.secagg import sharing
from fedseal.privacy.secagg.checks import self_commitment
from fedseal.privacy.secagg.graph import Graph
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.keys import (
    Agreement,
    SigningKey,
    envelope_key,
    mask_private_key,
    signed_message,
    x25519_public,
)
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
    sign,
)
from fedseal.privacy.secagg.shamir import split
from fedseal.privacy.secret import Secret
from fedseal.wire import encode


def altered(header: Header, **changes: Any) -> Header:
    """A header that need not be able to exist."""
    other = copy.copy(header)
    for name, value in changes.items():
        object.__setattr__(other, name, value)
    return other


def opening(header: Header, server: SigningKey = SERVER) -> AdvertiseRequest:
    """The request for any header, or for no header at all."""
    raw = encode(header)
    return AdvertiseRequest(raw, server.sign(signed_message("header", hashlib.sha256(raw).digest(), raw)))


class Mole:
    """A site that the attacker plays itself: it answers whatever is useful, and all its secrets are known.

    Args:
        number: which site it says it is.
        key: what it signs with; its own long-term key if it colludes, any other if it is made up.
    """

    def __init__(self, number: int, key: SigningKey) -> None:
        self.number, self.key = number, key
        self.draw = Bytes(f"mole-{number}")
        self.mask_seed, self.self_seed, self.channel = (Secret(self.draw(32)) for _ in range(3))

    def payload(self, digest: bytes) -> Advertisement:
        """Its keys for a round."""
        return Advertisement(
            x25519_public(mask_private_key(self.mask_seed, digest)),
            x25519_public(self.channel.reveal()),
            self_commitment(digest, self.number, self.self_seed.reveal()),
            1,
        )

    def advertise(self, digest: bytes, **changes: Any) -> Signed:
        """Its advertisement, or another one."""
        payload = copy.copy(self.payload(digest))
        for name, value in changes.items():
            object.__setattr__(payload, name, value)
        return sign(Stage.ADVERTISE, self.number, digest, payload, self.key)

    def deal(self, digest: bytes, session: bytes, graph: Graph, keys: Mapping[int, Advertisement]) -> ShareReply:
        """True shares of its secrets for all it has an envelope for."""
        holders, channel = graph.holders(self.number), Agreement(self.channel.reveal())
        envelopes = {
            v: envelope_key(channel.shared(keys[v].channel_key), session, self.number, v) if v in keys else bytes(32)
            for v in holders
            if v != self.number
        }
        entries, _ = sharing.deal(
            session,
            self.number,
            holders,
            split(self.self_seed.reveal(), graph.threshold, len(holders), self.draw),
            split(self.mask_seed.reveal(), graph.threshold, len(holders), self.draw),
            envelopes,
            self.draw,
        )
        head = ShareHead(session, sharing.entry_root(entries), len(entries))
        return ShareReply(sign(Stage.SHARE, self.number, digest, head, self.key), tuple(entries))


def moles(*numbers: int) -> dict[int, Mole]:
    """Sites of the roster that collude."""
    return {n: Mole(n, key(f"site-{n}")) for n in numbers}


def strangers(*numbers: int) -> dict[int, Mole]:
    """Made up by the attacker, who has no site's key."""
    return {n: Mole(n, key(f"stranger-{n}")) for n in numbers}
