"""What a round is sure of: its graph, its thresholds, and with what probability they do not hold.

Every run prints this, so that nobody has to take the numbers of a graph on trust.
"""

from dataclasses import dataclass

from fedseal.privacy.secagg.degree import gap_pairs
from fedseal.privacy.secagg.header import Header, Sparse
from fedseal.privacy.secagg.hypergeometric import Urn


@dataclass(frozen=True, slots=True)
class Assurance:
    """Numbers of one round's graph.

    ``members`` advertised keys, of whom ``colluders`` may work with the server; everyone shares with ``degree``
    others, and ``threshold`` of those who hold a secret's shares rebuild it. ``sum_minimum``: how many sites a sum is
    over at least.

    ``sigma`` and ``eta`` are what the protocol asks for in bits, None on the complete graph, which needs neither.
    ``secrecy_bound``: with what probability at most a random graph lets the server and the colluders learn more than
    the sum; 0 on the complete graph, whatever they do. Whoever can try N graphs has N times that. ``failure_bound``:
    with what probability at most ``dropouts`` random sites that fall silent stop the round; on the complete graph it
    goes on while no more than ``dropouts`` do and stops otherwise. A round that stops releases nothing.
    """

    members: int
    colluders: int
    dropouts: int
    degree: int
    threshold: int
    sum_minimum: int
    sigma: int | None
    eta: int | None
    secrecy_bound: float
    failure_bound: float


def assurance(header: Header, members: int) -> Assurance:
    """What a round with this header is sure of once so many sites advertised.

    Raises:
        NoDegreeError: there is no sparse graph on so few.
    """
    if header.sparse is None:
        spare = members - header.minimum
        return Assurance(
            members, header.colluders, spare, members - 1, header.threshold, header.minimum, None, None, 0.0, 0.0
        )
    return _sparse(header, header.sparse, members)


def _sparse(header: Header, sparse: Sparse, n: int) -> Assurance:
    degree, colluders = header.degree(n), header.colluders
    k, t = degree.neighbours, degree.threshold
    dropouts = sparse.dropouts * n // len(header.cohort)
    surrounded = float(Urn(n, colluders, k).at_least()[2 * t - k])
    cut = float(Urn(n, colluders, k // 2).at_least()[min(t - k // 2, k // 2 + 1)])
    deserted = float(Urn(n, n - dropouts, k).below()[t])
    return Assurance(
        n,
        colluders,
        dropouts,
        k,
        t,
        header.minimum,
        sparse.sigma,
        sparse.eta,
        (n + 1) * surrounded + gap_pairs(n, k) * cut**2,
        (n + 1) * deserted,
    )
