"""The header of a round: everything the sites must agree on, signed by the server and hashed into every key of the
round.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedseal.errors import LocalError
from fedseal.privacy.quantize import Layout
from fedseal.privacy.secagg.degree import Degree, NoDegreeError
from fedseal.privacy.secagg.keys import SigningKey, signed_message, verify
from fedseal.privacy.secagg.parameters import (
    MAX_COHORT,
    MAX_COMPLETE,
    PROTOCOL_RULES,
    GraphRules,
    degree_for,
    minimum_sites,
    threshold,
)
from fedseal.wire import U8, U16, U32, U64, Blob, Bytes16, Bytes32, Bytes64, Str, encode

PROTOCOL = "fedseal/sa1"
AES_256_CTR = 1
COMPLETE_GRAPH = 0
HARARY_GRAPH = 1
# 4 bytes a site of the largest cohort, and everything else.
HEADER_LIMIT = 1 << 19


@dataclass(frozen=True, slots=True)
class Sparse:
    """What the sparse graph withstands besides the header's colluders: its degree and threshold follow from it.

    ``dropouts``: how many of the cohort may fall silent; ``sigma`` and ``eta``: bits of secrecy and of correctness,
    see `parameters.GraphRules`.
    """

    dropouts: U32
    sigma: U8
    eta: U8


@dataclass(frozen=True, slots=True)
class Header:
    """One attempt at one release of one run. All of it is public.

    ``release_seq`` counts the releases of a run; a site never goes back behind the highest (release_seq, attempt) it
    has seen. ``plan`` is the encoded privacy plan, ``input_digest`` the hash of all the site is asked to compute on
    (the model's arrays and the task's settings): with it in every key, two sites that were sent different models
    cannot be summed. ``noise_minimum`` is how many sites the plan's noise needs (0 where sites add their own).
    ``sparse`` is absent on the complete graph and present on the other.
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
    threshold: U32
    colluders: U32
    site_minimum: U32
    noise_minimum: U32
    mask_generator: U8
    graph: U8
    layout: Layout
    shapes_hash: Bytes32
    plan: Annotated[bytes, Blob(4096)]
    input_digest: Bytes32
    sparse: Sparse | None = None

    def __post_init__(self) -> None:
        known = self.graph == (COMPLETE_GRAPH if self.sparse is None else HARARY_GRAPH)
        if self.protocol != PROTOCOL or self.mask_generator != AES_256_CTR or not known:
            raise ValueError("this build speaks fedseal/sa1 with AES-256-CTR masks on a complete or a Harary graph")
        if self.release_seq >= 1 << 63:
            raise ValueError("a release number that no run reaches")
        if list(self.cohort) != sorted(set(self.cohort)):
            raise ValueError("the cohort is not in strictly increasing order")
        largest = MAX_COMPLETE if self.sparse is None else MAX_COHORT
        if not 2 <= len(self.cohort) <= largest or not 0 <= self.colluders <= len(self.cohort) - 2:
            raise ValueError(f"expected a cohort of 2 to {largest} sites and at most cohort - 2 colluders")
        if self.threshold != threshold(len(self.cohort), self.colluders):
            raise ValueError("the threshold is not floor((n + m) / 2) + 1")
        if self.layout.capacity() < len(self.cohort):
            raise ValueError("a sum over this cohort could wrap around the ring")
        if self.sparse is not None:
            self._check_sparse(self.sparse)

    def _check_sparse(self, sparse: Sparse) -> None:
        if len(self.cohort) < 3 or sparse.dropouts >= len(self.cohort) or sparse.sigma < 1:
            raise ValueError("a sparse graph needs three sites, fewer dropouts than sites and some secrecy")
        try:
            self.degree(len(self.cohort))
        except NoDegreeError:
            raise ValueError("no sparse graph on this cohort withstands so many colluders and dropouts") from None

    def degree(self, members: int) -> Degree:
        """The degree and the threshold of shares on the sparse graph of so many members.

        Raises:
            NoDegreeError: there is no graph on so few.
            LocalError: the header's graph is the complete one.
        """
        if self.sparse is None:
            raise LocalError("the complete graph has no degree to look for")
        sparse = self.sparse
        return degree_for(members, len(self.cohort), self.colluders, sparse.dropouts, sparse.sigma, sparse.eta)

    def follows(self, rules: GraphRules) -> bool:
        """Whether the graph is the one that the rules have for a cohort of this size."""
        if self.sparse is None:
            return len(self.cohort) <= rules.complete_up_to
        same = self.sparse.sigma == rules.sigma and self.sparse.eta == rules.eta
        return len(self.cohort) > rules.complete_up_to and same

    @property
    def minimum(self) -> int:
        """How many sites must be left at every stage."""
        return minimum_sites(self.threshold, self.site_minimum, self.colluders, self.noise_minimum)

    def digest(self) -> bytes:
        """H: the hash that binds everything else to this header."""
        return hashlib.sha256(encode(self)).digest()


def sparse_for(cohort: int, colluders: int, dropouts: float, rules: GraphRules = PROTOCOL_RULES) -> Sparse | None:
    """The sparse graph's part of a header for a cohort of this size; None where the graph is the complete one.

    Args:
        cohort: how many sites are asked.
        colluders: how many of them may work with the server.
        dropouts: the share of the cohort that may fall silent, 0 <= dropouts < 1.
        rules: what sites insist on.

    Raises:
        NoDegreeError: no graph on so few sites withstands so many.
    """
    if cohort <= rules.complete_up_to:
        return None
    sparse = Sparse(int(dropouts * cohort), rules.sigma, rules.eta)
    degree_for(cohort, cohort, colluders, sparse.dropouts, sparse.sigma, sparse.eta)
    return sparse


@dataclass(frozen=True, slots=True)
class AdvertiseRequest:
    """The server opens a round: the header and its signature."""

    TAG: ClassVar[int] = 11

    header: Annotated[bytes, Blob(HEADER_LIMIT)]
    signature: Bytes64


def sign_header(header: Header, server: SigningKey) -> AdvertiseRequest:
    """The request that opens the round at every site of the cohort."""
    raw = encode(header)
    return AdvertiseRequest(raw, server.sign(signed_message("header", header.digest(), raw)))


def header_signed_by(request: AdvertiseRequest, server_key: bytes) -> bool:
    """Whether the server of the roster signed this header."""
    digest = hashlib.sha256(request.header).digest()
    return verify(server_key, request.signature, signed_message("header", digest, request.header))
