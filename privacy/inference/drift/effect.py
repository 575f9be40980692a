"""How large a change is, with an interval that knows sampling and noise.

A p-value says whether, not how much. The PSI-like effect is what people who know PSI look for, without its bias: every
empty or noisy cell adds to PSI, so that a raw one of a noised histogram says little but how much noise there was.
"""

import math

import numpy as np
from scipy.special import chndtr, ndtr, ndtri

from fedseal.privacy.inference.drift.contrasts import Real, every
from fedseal.privacy.inference.drift.difference import Difference, floored, sampling_covariance
from fedseal.privacy.inference.drift.results import Effect, EffectKind

LEVEL = 0.95
# Newton steps of a fit with two parameters; it is quadratic, and starts near.
_STEPS = 12
# Largest shift, in standard deviations and in their logarithm, that ten bins can still tell.
_FARTHEST = 3.0


def psi_like(difference: Difference, level: float = LEVEL) -> Effect:
    """The sum over bins of (p1 - p0)^2 / p, minus what it would be on average without any change.

    That average is the trace of D C, with D = diag 1/p and C the covariance: for equal bins
    (B - 1)(1/n0 + 1/n1) + B (B - 1)(v0/n0^2 + v1/n1^2). The interval inverts the noncentral chi-squared distribution
    with the same two first moments (Satterthwaite 1946).
    """
    scaled = difference.covariance / difference.common[:, None]
    first, second = float(np.trace(scaled)), float((scaled * scaled.T).sum())
    unit, degrees = second / first, first**2 / second
    raw = float((difference.shares**2 / difference.common).sum())
    tail = (1 - level) / 2
    low, high = (unit * _noncentrality(raw / unit, degrees, p) for p in (1 - tail, tail))
    return Effect(EffectKind.PSI_LIKE, raw - first, low, high, level)


def mean_and_scale(difference: Difference, level: float = LEVEL) -> tuple[Effect, Effect]:
    """Shift of the mean in standard deviations, and the ratio of standard deviations, of a variable seen as normal.

    The bins' shares before give their edges as normal quantiles (so it is exact for any variable that a monotone map
    makes normal), and both numbers are fitted to all bins by generalised least squares. Up to three standard
    deviations; intervals are of the fit, with the variance after the shift that was found.
    """
    edges = np.asarray(ndtri(np.cumsum(difference.before)[:-1]))
    contrasts = every(difference.bins)
    precision = np.linalg.inv(contrasts.T @ difference.covariance @ contrasts)
    seen = contrasts.T @ (difference.shares + difference.before)
    found = np.zeros(2)
    for _ in range(_STEPS):
        slope = contrasts.T @ _slopes(edges, found)
        information = slope.T @ precision @ slope
        move = np.linalg.solve(information, slope.T @ precision @ (seen - contrasts.T @ _shares(edges, found)))
        found = np.clip(found + np.clip(move, -0.5, 0.5), -_FARTHEST, _FARTHEST)
    slope = contrasts.T @ _slopes(edges, found)
    fitted = precision @ slope @ np.linalg.inv(slope.T @ precision @ slope)
    now = sampling_covariance(difference, _shares(edges, found)) + difference.noise_covariance
    errors = np.sqrt(np.diag(fitted.T @ contrasts.T @ now @ contrasts @ fitted))
    reach = float(ndtri((1 + level) / 2)) * errors
    mean, scale = (float(v) for v in found)
    return (
        Effect(EffectKind.MEAN_SHIFT, mean, mean - float(reach[0]), mean + float(reach[0]), level),
        Effect(
            EffectKind.SCALE_RATIO,
            float(np.exp(scale)),
            float(np.exp(scale - reach[1])),
            float(np.exp(scale + reach[1])),
            level,
        ),
    )


def rate_change(difference: Difference, cell: int, level: float = LEVEL) -> Effect:
    """By how much one cell's share rose."""
    value = float(difference.shares[cell])
    now = floored(difference.before + difference.shares, np.asarray(1e-9))
    variance = float((sampling_covariance(difference, now) + difference.noise_covariance)[cell, cell])
    reach = float(ndtri((1 + level) / 2)) * math.sqrt(variance)
    return Effect(EffectKind.RATE, value, value - reach, value + reach, level)


def _shares(edges: Real, parameters: Real) -> Real:
    """Of bins under a normal variable of mean ``parameters[0]`` and log standard deviation ``parameters[1]``."""
    levels = ndtr((edges - parameters[0]) * np.exp(-parameters[1]))
    return np.diff(np.concatenate([[0.0], levels, [1.0]]))


def _slopes(edges: Real, parameters: Real) -> Real:
    """Derivatives of `_shares` by mean and log standard deviation, shape (B, 2)."""
    z = (edges - parameters[0]) * np.exp(-parameters[1])
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    by_mean = -density * np.exp(-parameters[1])
    by_scale = -density * z
    ends = np.zeros((1, 2))
    return np.diff(np.concatenate([ends, np.column_stack([by_mean, by_scale]), ends]), axis=0)


def _noncentrality(value: float, degrees: float, probability: float) -> float:
    """The noncentrality under which ``value`` is at that quantile; 0 if none is."""
    if value <= 0 or float(chndtr(value, degrees, 0.0)) <= probability:
        return 0.0
    low, high = 0.0, value + 10.0
    while float(chndtr(value, degrees, high)) > probability:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(chndtr(value, degrees, middle)) > probability else (low, middle)
    return (low + high) / 2
