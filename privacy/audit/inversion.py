"""Reading records out of a gradient: the analytic attack on a first layer of ReLU units.

For unit j with weights w_j and bias b_j a batch's gradient is dL/dw_j = sum of a_ij x_i and dL/db_j = sum of a_ij,
over the records x_i that fire the unit. If one record alone does, the ratio of the two *is* that record, however many
others are in the batch, and from however many sites (Phong et al. 2018; Geiping et al. 2020, proposition 3.1). A
server that chooses the model can arrange that most records are alone somewhere (Fowl et al. 2022).
"""

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

# A recovered record is off by less than this, root mean square over its features in [-1, 1].
CLOSE = 0.01


def candidates(weights: Real, biases: Real) -> Real:
    """What every unit, and every pair of neighbouring units, says a record might be.

    The difference of two neighbours matters where a server has made their weights equal and their biases not: then
    it holds the records whose projection lies between the two.

    Args:
        weights: gradient of the first layer's weights, up to a factor, shape (units, features).
        biases: gradient of its biases, up to the same factor, shape (units,).

    Returns:
        Shape (found, features); units that nobody fires say nothing.
    """
    numerators = np.concatenate([weights, np.diff(weights, axis=0)])
    denominators = np.concatenate([biases, np.diff(biases)])
    # Rounding of the sums is about 1e-7 of their size: what is smaller than that is nobody.
    heard = np.abs(denominators) > 1e-6 * max(float(np.abs(biases).max(initial=0.0)), 1e-300)
    found: Real = numerators[heard] / denominators[heard, None]
    return found


def recovered(found: Real, records: Real, close: float = CLOSE) -> NDArray[np.bool_]:
    """Which of the true records are among the candidates, shape (records,).

    This is the judge, not the attacker: it knows the truth. An attacker has a few false candidates beside the true
    ones, most of them outside the public ranges.

    Args:
        found: shape (candidates, features).
        records: shape (records, features).
        close: how far off the nearest candidate may be, root mean square over the features.
    """
    if not len(found):
        return np.zeros(len(records), dtype=np.bool_)
    distances = np.sqrt(np.square(found[None, :, :] - records[:, None, :]).mean(axis=2))
    hit: NDArray[np.bool_] = distances.min(axis=1) < close
    return hit
