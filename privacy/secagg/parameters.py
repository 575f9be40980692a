"""Numbers of protocol SA1 on the complete graph: thresholds, minimum sizes and the conditions that make the proof
hold.
"""

from fedseal.errors import LocalError

# Above this size the complete graph's n^2 shares dominate; larger cohorts want the sparse graph, which this build
# does not have.
MAX_COHORT = 256


def threshold(cohort: int, colluders: int) -> int:
    """t = floor((n + m) / 2) + 1: two survivor sets cannot both gather t signatures, even if m sites sign twice.

    Two sets of t signers need 2t <= n + m; this t makes 2t > n + m (Bonawitz et al. 2017, malicious model). The round
    survives the loss of n - t sites after the first exchange.

    Raises:
        LocalError: not 2 <= cohort <= 256 and 0 <= colluders <= cohort - 2.
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
