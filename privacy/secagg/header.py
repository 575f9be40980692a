"""The header of a round: everything the sites must agree on, signed by the server and hashed into every key of the
round.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedseal.privacy.quantize import Layout
from fedseal.privacy.secagg.keys import SigningKey, signed_message, verify
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.wire import U8, U16, U32, U64, Blob, Bytes16, Bytes32, Bytes64, Str, encode

PROTOCOL = "fedseal/sa1"
AES_256_CTR = 1
COMPLETE_GRAPH = 0


@dataclass(frozen=True, slots=True)
class Header:
    """One attempt at one release of one run. All of it is public.

    ``release_seq`` counts the releases of a run; a site never goes back behind the highest (release_seq, attempt) it
    has seen. ``plan`` is the encoded privacy plan, ``input_digest`` the hash of all the site is asked to compute on
    (the model's arrays and the task's settings): with it in every key, two sites that were sent different models
    cannot be summed. ``noise_minimum`` is how many sites the plan's noise needs (0 where sites add their own).
    """

    TAG: ClassVar[int] = 10

    protocol: Str
    federation: Str
    roster_hash: Bytes32
    run: Bytes16
    fl_round: U32
    release_seq: U64
    attempt: U16
    release_name: Str
    cohort: tuple[U32, ...]
    threshold: U16
    colluders: U16
    site_minimum: U16
    noise_minimum: U16
    mask_generator: U8
    graph: U8
    layout: Layout
    shapes_hash: Bytes32
    plan: Annotated[bytes, Blob(4096)]
    input_digest: Bytes32

    def __post_init__(self) -> None:
        if self.protocol != PROTOCOL or self.mask_generator != AES_256_CTR or self.graph != COMPLETE_GRAPH:
            raise ValueError("this build speaks fedseal/sa1 with AES-256-CTR masks on the complete graph")
        if self.release_seq >= 1 << 63:
            raise ValueError("a release number that no run reaches")
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ValueError("the cohort is not in strictly increasing order")
        if not 2 <= len(self.cohort) <= 256 or not 0 <= self.colluders <= len(self.cohort) - 2:
            raise ValueError("expected a cohort of 2 to 256 sites and at most cohort - 2 colluders")
        if self.threshold != threshold(len(self.cohort), self.colluders):
            raise ValueError("the threshold is not floor((n + m) / 2) + 1")
        if self.layout.capacity() < len(self.cohort):
            raise ValueError("a sum over this cohort could wrap around the ring")

    @property
    def minimum(self) -> int:
        """How many sites must be left at every stage."""
        return minimum_sites(self.threshold, self.site_minimum, self.colluders, self.noise_minimum)

    def digest(self) -> bytes:
        """H: the hash that binds everything else to this header."""
        return hashlib.sha256(encode(self)).digest()


@dataclass(frozen=True, slots=True)
class AdvertiseRequest:
    """The server opens a round: the header and its signature."""

    TAG: ClassVar[int] = 11

    header: Annotated[bytes, Blob(1 << 16)]
    signature: Bytes64


def sign_header(header: Header, server: SigningKey) -> AdvertiseRequest:
    """The request that opens the round at every site of the cohort."""
    raw = encode(header)
    return AdvertiseRequest(raw, server.sign(signed_message("header", header.digest(), raw)))


def header_signed_by(request: AdvertiseRequest, server_key: bytes) -> bool:
    """Whether the server of the roster signed this header."""
    digest = hashlib.sha256(request.header).digest()
    return verify(server_key, request.signature, signed_message("header", digest, request.header))
