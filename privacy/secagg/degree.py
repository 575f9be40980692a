"""How many neighbours every site of the sparse graph has, and how many shares rebuild a secret.

The graph is a ring of n sites in random order in which everyone is joined to the k/2 next on each side (a Harary
graph). A of the sites work with the server, D others fall silent. Bad events:

* E1: some site has so many of the A among its k neighbours that both of its secrets can be rebuilt, or one without
  any honest site;
* E2: leaving out the A and D random others tears the ring;
* E3: some site keeps fewer than t of its neighbours, which stops the round (correctness, not secrecy);
* E4: two places of k/2 sites in a row with at least t - k/2 of the A in each, between which a server that chooses
  who falls silent could cut the ring.

E1 to E3 are those of Bell et al. (CCS 2020), bounded as in Google's published tables, which are reproduced
exactly. E4 is ours; docs/protocol.md has the argument.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from math import isqrt

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.secagg.hypergeometric import Urn, all_marked_below, largest_rare_below, smallest_rare


class Adversary(Enum):
    """Against whom a graph has to hold.

    The first three are those of the published tables: nobody, a server that looks, a server that lies but not while
    keys and graph are made. The protocol uses the last one: a server that may lie at any time and choose who falls
    silent.
    """

    NONE = "none"
    CURIOUS = "curious server"
    SEMI_MALICIOUS = "semi-malicious server"
    MALICIOUS = "malicious server"


@dataclass(frozen=True, slots=True)
class Degree:
    """``neighbours`` of every site (even), and the ``threshold`` of them whose shares rebuild a secret."""

    neighbours: int
    threshold: int


class NoDegreeError(ConfigError):
    """No graph on so many sites keeps what it promises: too few of them, too many colluders or too many dropouts."""


@lru_cache(maxsize=256)
def find_degree(
    sites: int,
    colluders: int,
    dropouts: int,
    sigma: int,
    eta: int,
    adversary: Adversary = Adversary.MALICIOUS,
    most: int | None = None,
) -> Degree:
    """The smallest even number of neighbours with a feasible threshold, and the smallest such threshold.

    Args:
        sites: n, at least 3.
        colluders: A, how many sites work with the server.
        dropouts: D, how many sites fall silent.
        sigma: secrecy fails for a random graph with probability at most 2^-sigma.
        eta: the round fails for want of neighbours with probability at most 2^-eta.
        adversary: against whom.
        most: the largest number of neighbours to try; sites - 2 if not given.

    Raises:
        NoDegreeError: there is none.
    """
    if sites < 3 or not 0 <= colluders < sites or not 0 <= dropouts < sites or sigma < 1 or eta < 0:
        raise LocalError("expected at least 3 sites, fewer colluders and dropouts than sites, sigma > 0 and eta >= 0")
    last = sites - 2 if most is None else min(most, sites - 2)
    for neighbours in range(2, last + 1, 2):
        threshold = _threshold(sites, colluders, dropouts, sigma, eta, adversary, neighbours)
        if threshold is not None:
            return Degree(neighbours, threshold)
    raise NoDegreeError(
        f"no sparse graph on {sites} sites withstands {colluders} colluders and {dropouts} dropouts",
        next_step="Invite more sites, or assume fewer colluders or fewer dropouts.",
    )


def _threshold(n: int, colluders: int, dropouts: int, sigma: int, eta: int, adversary: Adversary, k: int) -> int | None:
    """The smallest threshold for k neighbours; None if there is none."""
    pairs, half = gap_pairs(n, k), Fraction(1, 2 << sigma)
    # One neighbourhood a site; the protocol looks at one more, that of the witnesses.
    places = n + 1 if adversary is Adversary.MALICIOUS else n
    if adversary is not Adversary.MALICIOUS and not all_marked_below(n, colluders + dropouts, k, half / pairs):
        return None
    highest = largest_rare_below(Urn(n, n - dropouts, k), Fraction(1, places << eta))
    lowest = smallest_rare(Urn(n, colluders, k), half / places)
    if adversary in (Adversary.SEMI_MALICIOUS, Adversary.MALICIOUS):
        # At most lowest - 1 neighbours collude: 2t > k + lowest - 1 leaves too few honest ones for both secrets.
        lowest = (k + lowest - 1) // 2 + 1
    if adversary is Adversary.MALICIOUS:
        lowest = max(lowest, k // 2 + smallest_rare(Urn(n, colluders, k // 2), _root(half / pairs)))
    return max(lowest, 2) if lowest <= highest else None


def gap_pairs(sites: int, neighbours: int) -> int:
    """In how many pairs of places a ring can be cut."""
    return max(sites * (sites - neighbours - 1) // 2, 1)


def _root(square: Fraction) -> Fraction:
    """The largest fraction of denominator 2^128 whose square is at most ``square``."""
    return Fraction(isqrt((square.numerator << 256) // square.denominator), 1 << 128)
