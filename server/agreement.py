"""How well annotators agree over a whole federation: one sealed table of pairs of labels, and what follows from it.

    tables = pairs_of_labels("first", "second", 3)
    tally = federated_counts(grid, Asked(tables, most=...), plan_counts(tables, epsilon=1.0))
    agreement_over_sites(tally, Coefficient.COHEN, schema.scale())

A site's annotations stay there; its task hands out the two annotators' codes as columns. Under plan `histogram` the
table has noise, which the coefficient is corrected for and its interval includes.
"""

from fedseal.compliance.labels.agreement import Agreement
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.federated import CountNoise, PairLayout, federated_agreement
from fedseal.compliance.labels.scale import Scale
from fedseal.errors import ConfigError
from fedseal.privacy.counts import Tables, agreement
from fedseal.privacy.inference.tally import Tally


def pairs_of_labels(first: str, second: str, classes: int) -> Tables:
    """What a release has to count: items by what two annotators said of them.

    Args:
        first, second: the columns with their codes, from 0; NaN where one did not judge an item.
        classes: how many labels there are.
    """
    return Tables((agreement(first, second, classes),))


def agreement_over_sites(tally: Tally, coefficient: Coefficient, scale: Scale) -> Agreement:
    """A coefficient over all sites with its 95 % interval.

    One person may be the subject of one item: the counts' promise is for that.

    Args:
        tally: a release of `pairs_of_labels`.
        coefficient: one of two annotators who are told apart: Cohen's, plain or weighted.
        scale: the labels.

    Raises:
        ConfigError: the release is of another table, or the coefficient of annotators who are not told apart.
        DataError: the noise leaves nothing to say, or all labels are the same.
    """
    if len(tally.split) != 1 or tally.split[0].shape != (len(scale), len(scale)) or not coefficient.ordered:
        raise ConfigError(
            "expected one table of pairs of these labels, and a coefficient of two annotators who are told apart",
            next_step="Release `pairs_of_labels` of as many classes as the scale has, and ask for Cohen's kappa.",
        )
    noise = None
    if tally.noise is not None:
        noise = CountNoise(tally.noise.decay, per_person=1, surplus=tally.noise.shares / tally.noise.honest)
    layout = PairLayout(len(scale), ordered=True)
    return federated_agreement(tally.split[0].ravel(), layout, coefficient, scale, noise)
