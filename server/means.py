"""What an unmasked sum says: weighted means of arrays and metrics."""

import numpy as np
from flwr.app import MetricRecord
from numpy.typing import NDArray

from fedseal.privacy.quantize import CLIPPED, IntegerSum
from fedseal.privacy.releases import METRIC_PREFIX, REPORTED_PREFIX

Means = dict[str, float | list[float]]


def weighted_mean(total: IntegerSum, name: str) -> NDArray[np.float64]:
    """The weighted mean of a weighted segment: sum(w/W * v) / sum(w/W), W the largest weight a site may have."""
    mean = total.real(name)
    mean /= total.weight / total.layout.weight.high
    return mean


def clipped_share(total: IntegerSum) -> float:
    """The share of the sites that had to bound something: values, a weight or a metric outside its range."""
    return float(total.real(CLIPPED)[0]) / total.sites


def metric_record(total: IntegerSum, weight_key: str, weight: float) -> MetricRecord:
    """The weighted means of a sum's metrics, and the summed weight."""
    return MetricRecord({weight_key: weight, **means_of(total)})


def means_of(total: IntegerSum) -> Means:
    """The weighted means of a sum's metrics, by name."""
    found: Means = {}
    for segment in total.layout.segments:
        name = segment.name.removeprefix(METRIC_PREFIX)
        if name == segment.name or float(total.real(REPORTED_PREFIX + name)[0]) <= 0:
            continue
        # Over the sites that reported it: a metric of evaluation is absent from training messages, and the reverse.
        mean = total.real(segment.name) / total.real(REPORTED_PREFIX + name)[0]
        found[name] = float(mean[0]) if segment.length == 1 else [float(v) for v in mean]
    return found
