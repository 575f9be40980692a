"""From a window's sealed sum to what it shows. Pure: the same sum and the same public numbers give the same outcome.

Every p-value knows the noise that is in the sum. A window over too few sites or persons is *not evaluable*, which is
not "no drift".
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from fedseal.errors import LocalError
from fedseal.privacy.counts import OUTSIDE, Source, Whole
from fedseal.privacy.inference.drift.chi2 import chi2_test
from fedseal.privacy.inference.drift.classify import WindowEvidence
from fedseal.privacy.inference.drift.conditional import label_given_score, score_given_label
from fedseal.privacy.inference.drift.cusum import Excess, stratified_excess
from fedseal.privacy.inference.drift.difference import Difference, Strata, expected_weights, stratified
from fedseal.privacy.inference.drift.effect import LEVEL, psi_like
from fedseal.privacy.inference.drift.results import Effect, EffectKind
from fedseal.privacy.inference.drift.smooth import smooth_test
from fedseal.privacy.inference.tally import CountNoise
from fedseal.privacy.watch import Parts, Stratum, Watch, reference_plan, wrong_cells
from fedseal.server.monitoring.policy import OUTCOME, SCORE, MonitorTable

LABEL, ERROR = "label", "error"
LABEL_GIVEN_SCORE, SCORE_GIVEN_LABEL = "label-given-score", "score-given-label"
# So few persons beyond those expected are no evidence of anything: a normal tail is too light for them.
LEAST_OUTSIDE = 4.0
# So many deviations of its noise a number of persons has to be, or the window is not evaluable.
CLEAR = 4.0
# A level that a result carries and nobody asks: p-values are compared after Holm's correction.
_UNUSED = 0.05


@dataclass(frozen=True, slots=True)
class WindowSum:
    """What was released of one window.

    Attributes:
        window: its number, from 0.
        counts: the watch's vector summed over sites, noise and all, shape (watch.length,).
        sites: how many took part.
        noise: that of every integer unit; None under plan none.
    """

    window: int
    counts: Whole
    sites: int
    noise: CountNoise | None


@dataclass(frozen=True, slots=True)
class Shares:
    """The federation's public reference: per stratum of a watch, the persons of all sites by cell, released once.

    Adds up to 1 in each stratum.
    """

    strata: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One test of one window: ``p`` before any correction. ``effects``: how large the change is, with intervals that
    know the noise; decisions and the log have no use for them.
    """

    name: str
    statistic: float
    degrees: int | None
    p: float
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a window's sum says by itself: all that decisions are made of, and what a log keeps of it.

    Attributes:
        window: its number.
        sites: how many took part.
        epsilon: pure, of this window, for each of its persons; infinite under plan none.
        rows: how many persons the sum is over, noise and all.
        tests: what was tested; empty if the sum is over nobody.
        errors: errors beyond those expected, for the chart; None if they are not watched.
    """

    window: int
    sites: int
    epsilon: float
    rows: float
    tests: tuple[Found, ...]
    errors: Excess | None


def pooled_shares(watch: Watch, counts: Sequence[Whole]) -> Shares:
    """The public reference from counts over all sites, noise and all: what is negative is nobody."""
    strata = []
    for stratum, found in zip(watch.strata, counts, strict=True):
        persons = np.maximum(found.reshape(-1).astype(np.float64), 0.0)
        total = persons.sum()
        equal = np.full(stratum.cells, 1.0 / stratum.cells)
        strata.append(tuple(float(p) for p in (persons / total if total > 0 else equal)))
    return Shares(tuple(strata))


def measure_window(table: MonitorTable, watch: Watch, window: WindowSum, shares: Shares | None = None) -> Measured:
    """The tests of a window.

    Args:
        table: the policy.
        watch: what was asked.
        window: the released sum.
        shares: the federation's public reference, for a watch that does not release its weights.

    Raises:
        LocalError: a sum, or a reference, of another watch; or none where it is needed.
    """
    if len(window.counts) != watch.length:
        raise LocalError("a window's sum of another watch")
    if not watch.released and (shares is None or [len(s) for s in shares.strata] != [s.cells for s in watch.strata]):
        raise LocalError("weights are not released, and there is no public reference of this watch")
    parts = watch.split(window.counts)
    found: list[Found] = []
    errors: Excess | None = None
    for place, stratum in enumerate(watch.strata):
        sums = strata_of(watch, window, parts, shares, place)
        if sums is None:
            continue
        if stratum.name == SCORE:
            found.append(_by_shape(SCORE, sums, stratum.ordered))
        elif stratum.name == OUTCOME:
            if "label" in table.tests:
                found += _labels(sums, stratum)
            if "error" in table.tests:
                errors = _errors(sums, stratum)
                p = float(norm.sf(errors.deviations))
                found.append(Found(ERROR, errors.deviations, None, p, (_rate(errors, float(sums.rows)),)))
        else:
            inside, outside = _inside(sums, stratum)
            found.append(_by_shape(stratum.name, inside, stratum.ordered))
            found += _outside(stratum, outside)
    epsilon = math.inf if window.noise is None else table.epsilon
    return Measured(window.window, window.sites, epsilon, float(max(parts.rows)), tuple(found), errors)


def evidence_of(measured: Measured, moved: Collection[str]) -> WindowEvidence:
    """What tests that stand out are evidence of; None of what was not tested."""
    about: dict[str, bool] = {}
    for test in measured.tests:
        field = _about(test.name)
        about[field] = about.get(field, False) or test.name in moved
    return WindowEvidence(
        measured.sites,
        measured.rows,
        missing=about.get("missing"),
        out_of_range=about.get("out-of-range"),
        unseen=about.get("unseen"),
        features=about.get("feature"),
        scores=about.get(SCORE),
        labels=about.get(LABEL),
        label_given_score=about.get(LABEL_GIVEN_SCORE),
        score_given_label=about.get(SCORE_GIVEN_LABEL),
        errors=about.get(ERROR),
    )


def _about(name: str) -> str:
    """What a test is about: feature-3-missing is about missing values, feature-3 about a feature."""
    found = re.fullmatch(r"feature-[0-9]+(?:-(.+))?", name)
    return name if found is None else found.group(1) or "feature"


def strata_of(watch: Watch, window: WindowSum, parts: Parts, shares: Shares | None, place: int) -> Strata | None:
    """A stratum's released sums in persons, with what is known of their noise; None if they are over nobody, or over so
    few that their number does not stand clear of its noise.

    The noise of the sites' references adds sum_i (n1_i / n0_i)^2 v0 to a cell. With every site's ratio near the
    released mean r that is sites * r^2 * v0.
    """
    stratum = watch.strata[place]
    basis = watch.bases.index(stratum.labelled)
    unit = 0.0 if window.noise is None else window.noise.variance
    rows = float(parts.rows[basis])
    if not _clear(rows, unit):
        return None
    if watch.released or shares is None:
        weights, weights_noise = parts.weights[place].astype(np.float64), unit
        total = float(weights.sum())
    else:
        total, weights_noise = float(max(parts.totals[basis], rows)), 0.0
        weights = expected_weights(rows, np.asarray(shares.strata[place]), total / rows - 1)
    if not _clear(total, unit * (stratum.cells if watch.released else 1)):
        return None
    ratio = max(total / rows - 1, 0.0)
    added = unit / watch.share**2
    noise = added + window.sites * ratio**2 * reference_noise(watch)
    # That of the references is a sum over sites, and nearly normal.
    kurtosis = 0.0 if window.noise is None else window.noise.excess_kurtosis * (added / noise) ** 2
    return Strata(parts.differences[place] / watch.share, weights, np.asarray(rows), noise, weights_noise, kurtosis)


def _clear(number: float, variance: float) -> bool:
    """Whether a released number stands clear of its noise: only the variance of sampling hangs on it, and where there
    is much noise most of the variance is noise.
    """
    return number > 0 and number**2 >= CLEAR**2 * variance


def reference_noise(watch: Watch) -> float:
    """The variance of the noise in a cell of a site's reference."""
    plan = reference_plan(watch)
    return 0.0 if plan is None else CountNoise(plan.decay, 1, 1).variance


def folded(sums: Strata, stratum: Stratum, axis: int) -> Strata:
    """Sums over all but one axis of a table: their noise adds up."""
    shape = stratum.table.shape
    others = tuple(i for i in range(len(shape)) if i != axis)
    times = math.prod(shape[i] for i in others)
    return Strata(
        sums.difference.reshape(shape).sum(axis=others),
        sums.weights.reshape(shape).sum(axis=others),
        sums.rows,
        sums.noise * times,
        sums.weights_noise * times,
        sums.kurtosis / times,
    )


def _labels(sums: Strata, stratum: Stratum) -> list[Found]:
    """Class counts; with the scores beside them also what means what it meant."""
    found = [_by_shape(LABEL, folded(sums, stratum, 0), False)]
    if stratum.table.axes[1].source == Source.SCORE:
        difference = stratified(sums)
        for name, test in ((LABEL_GIVEN_SCORE, label_given_score), (SCORE_GIVEN_LABEL, score_given_label)):
            result = test(difference, alpha=_UNUSED)
            found.append(Found(name, result.statistic, result.degrees, result.p))
    return found


def _by_shape(name: str, sums: Strata, ordered: bool) -> Found:
    difference: Difference = stratified(sums)
    result = (smooth_test if ordered else chi2_test)(difference, alpha=_UNUSED)
    return Found(name, result.statistic, result.degrees, result.p, (psi_like(difference),))


def _errors(sums: Strata, stratum: Stratum) -> Excess:
    """Wrong answers beyond those expected."""
    difference, weights, wrong = sums.difference, sums.weights, wrong_cells(stratum)
    least = 0.5
    pair = (max(float(weights[wrong].sum()), least), max(float(weights[~wrong].sum()), least))
    return stratified_excess(float(difference[wrong].sum()), pair, noise=sums.noise * float(wrong.sum()))


def _rate(errors: Excess, rows: float) -> Effect:
    """By how much the share of wrong answers rose."""
    value, reach = errors.value / rows, float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(errors.variance) / rows
    return Effect(EffectKind.RATE, value, value - reach, value + reach, LEVEL)


def _inside(sums: Strata, stratum: Stratum) -> tuple[Strata, Strata]:
    """What is between the edges, compared with itself; and below, above, missing."""
    inside = stratum.cells - OUTSIDE
    difference, weights = sums.difference[:inside], np.maximum(sums.weights[:inside], 0.0)
    outside = Strata(sums.difference[inside:], sums.weights[inside:], sums.rows, sums.noise, sums.weights_noise)
    total = weights.sum()
    if total > 0:
        # That fewer persons are inside at all is the other test's: here the differences add up to 0.
        difference = difference - difference.sum() * weights / total
    return Strata(difference, weights, sums.rows, sums.noise, sums.weights_noise, sums.kurtosis), outside


def _outside(stratum: Stratum, outside: Strata) -> list[Found]:
    """Are more values missing, out of range, or of no known category than there were? One-sided normal tests: each
    count is a sum over many persons, or lost in noise.
    """

    def rise(name: str, cells: slice) -> Found:
        count = cells.stop - cells.start
        weight = max(float(outside.weights[cells].sum()), LEAST_OUTSIDE)
        z = float(outside.difference[cells].sum()) / math.sqrt(weight + count * outside.noise)
        return Found(f"{stratum.name}-{name}", z, None, float(norm.sf(z)))

    # Below, above, missing: the order of an axis's cells outside.
    return [rise("missing", slice(2, 3)), rise("out-of-range" if stratum.ordered else "unseen", slice(0, 2))]
