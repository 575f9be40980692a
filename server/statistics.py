"""The federation's mean and deviation of each feature, as a release: exact under plan none, noisy and charged under a
private one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord

from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.releases import MOMENTS, REGISTRY, VALUES
from fedseal.server.grid import AveragingGrid
from fedseal.server.means import weighted_mean

# A deviation below this share of a feature's range is taken for noise: dividing by it would blow the feature up.
SMALLEST_DEVIATION = 0.01


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and deviation of each feature over all training persons of all sites."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def federated_moments(
    grid: AveragingGrid, *, low: Sequence[float], high: Sequence[float], plan: PrivacyPlan, timeout: float | None = None
) -> Moments:
    """Release the mean of u and u^2 over all persons, u in [-1, 1] by the public ranges, and turn them into mean and
    deviation.

    Args:
        grid: the sealed grid of the run.
        low: per feature the low end of its public range.
        high: per feature the high end.
        plan: what protects the release.
        timeout: seconds a site may take.

    Raises:
        RoundAborted: too few sites answered.
    """
    features = len(low)
    settings = ConfigRecord({"low": [float(v) for v in low], "high": [float(v) for v in high]})
    finished = grid.release(
        REGISTRY[MOMENTS],
        list(grid.get_node_ids()),
        task={"config": settings},
        shapes={MOMENTS: np.zeros(2 * features)},
        plan=plan,
        fl_round=0,
        timeout=timeout,
        # |u| <= 1 and u^2 <= 1, so a site's mean row has a norm of at most sqrt(2 k); noise may add to it.
        value_range=4 * math.sqrt(2 * features),
    )
    mean = weighted_mean(finished.total, VALUES)
    first, second = mean[:features], mean[features:]
    spread = np.sqrt(np.maximum(second - first**2, SMALLEST_DEVIATION**2))
    half = (np.asarray(high) - np.asarray(low)) / 2
    centre = np.asarray(low) + half
    return Moments(
        tuple(float(v) for v in centre + half * np.clip(first, -1.0, 1.0)), tuple(float(v) for v in half * spread)
    )
