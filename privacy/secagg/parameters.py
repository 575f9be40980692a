"""Numbers of protocol SA1: thresholds, minimum sizes, and which graph a cohort of which size uses."""

from dataclasses import dataclass

from fedseal.errors import LocalError
from fedseal.privacy.secagg.degree import Degree, find_degree

MAX_COHORT = 100_000
# Up to here everyone shares with everyone, which needs no assumption about a graph; above, n^2 shares dominate.
MAX_COMPLETE = 256
# Nobody is asked to deal, hold and check more shares than this. The largest that a third of 100,000 sites colluding
# needs is 312.
MAX_DEGREE = 1024


@dataclass(frozen=True, slots=True)
class GraphRules:
    """What a site insists on in the graph of a round. There is one graph for a size: the server has no choice.

    ``complete_up_to``: the largest cohort on the complete graph; ``sigma``: a random sparse graph fails to protect
    with probability at most 2^-sigma; ``eta``: it loses a round for want of neighbours with probability at most
    2^-eta.

    sigma is 80 although 40 is usual: whoever makes keys until the graph comes out well gets 2^40 tries for 2^40 work.
    eta is 20: a lost round costs an attempt and nothing else.
    """

    complete_up_to: int = MAX_COMPLETE
    sigma: int = 80
    eta: int = 20


PROTOCOL_RULES = GraphRules()


def threshold(cohort: int, colluders: int) -> int:
    """t = floor((n + m) / 2) + 1: two survivor sets cannot both gather t signatures, even if m sites sign twice.

    Two sets of t signers need 2t <= n + m; this t makes 2t > n + m (Bonawitz et al. 2017, malicious model). On the
    complete graph the round survives the loss of n - t sites after the first exchange. On the sparse graph this is how
    many sites a sum is over at least; shares have a threshold of their own.

    Raises:
        LocalError: not 2 <= cohort <= 100,000 and 0 <= colluders <= cohort - 2.
    """
    if not 2 <= cohort <= MAX_COHORT:
        raise LocalError(f"expected a cohort of 2 to {MAX_COHORT} sites, got {cohort}")
    if not 0 <= colluders <= cohort - 2:
        raise LocalError(f"expected 0 <= colluders <= cohort - 2, got {colluders} of {cohort}")
    return (cohort + colluders) // 2 + 1


def minimum_sites(threshold_: int, site_minimum: int, colluders: int, noise_minimum: int) -> int:
    """How many sites must be left at every stage: max(t, n_min, m + 2, t_min).

    With m colluders among them, m + 2 survivors leave two honest sites, so that nobody's value is the sum minus what
    the others know.
    """
    return max(threshold_, site_minimum, colluders + 2, noise_minimum)


def degree_for(members: int, cohort: int, colluders: int, dropouts: int, sigma: int, eta: int) -> Degree:
    """The degree and the threshold of shares on the sparse graph of those who advertised.

    Args:
        members: how many of the cohort advertised (U1): the graph is theirs.
        cohort: how many were asked.
        colluders: how many may work with the server: all of them may have advertised, whoever did not.
        dropouts: how many of the whole cohort may fall silent; of the members as large a share, rounded down.
        sigma: bits of secrecy.
        eta: bits of correctness.

    Raises:
        NoDegreeError: there is none up to `MAX_DEGREE`.
    """
    return find_degree(members, colluders, dropouts * members // cohort, sigma, eta, most=MAX_DEGREE)
