"""Monitoring in a simulated federation: what a scenario calls at every step, over arrays.

    monitored = monitor(table, classes=2, sites=10, steps=12, seed=7)
    # When a model is released: every site's past, and the federation's public reference.
    past = {site: reference(monitored, site, Persons(x, y, scores)) for site in ...}
    shares = public_reference(monitored, [persons of every site], release=0)
    # Every step: what each site sends, their noisy sum, its tests, and what they lead to.
    vectors = {site: window_vector(monitored, past[site], Persons(x, y, scores)) for site in ...}
    measured = measure(monitored, step, vectors, shares)
    state, decision = trigger.step(table, state, measured, models)

It is the production code from the site's vector to the decision; only the masks are left out, which cancel. Noise is
keyed by seed, site and step, so a site more leaves the others' draws as they were. Without privacy (``private=False``)
sums and references are exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.counts import Axis, Source, Whole, counted
from fedseal.privacy.inference.tally import CountNoise
from fedseal.privacy.plan import SharedGeometric
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.shares import draw_share
from fedseal.privacy.watch import (
    Reference,
    Watch,
    noised_reference,
    reference_plan,
    reference_tables,
    site_vector,
)
from fedseal.server.monitoring.outcome import Measured, Shares, WindowSum, measure_window, pooled_shares
from fedseal.server.monitoring.policy import MonitorTable, plan_of, watch_of
from fedseal.server.monitoring.trigger import Compared

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Persons:
    """Persons of one site, in the order they came.

    Attributes:
        x: features, shape (n, d); NaN where missing.
        y: labels as far as the site knows them, shape (n,); -1 or NaN where not yet.
        scores: the model's probability of class 1 (of several classes: of the one it says), shape (n,).
        said: the class the model says, shape (n,); with two classes 1 where the score is above 0.5, if not given.
    """

    x: Real
    y: NDArray[np.int64] | Real
    scores: Real
    said: NDArray[np.int64] | None = None

    def numbers(self, axis: Axis) -> Real:
        """The persons' numbers for an axis; ConfigError if they have none."""
        labels = np.where(np.asarray(self.y, dtype=np.float64) < 0, np.nan, np.asarray(self.y, dtype=np.float64))
        match Source(axis.source):
            case Source.SCORE:
                return np.asarray(self.scores, dtype=np.float64)
            case Source.LABEL:
                return labels
            case Source.RIGHT:
                said = (self.scores > 0.5).astype(np.int64) if self.said is None else self.said
                return np.where(np.isnan(labels), np.nan, (said == labels).astype(np.float64))
            case Source.FEATURE if axis.number < self.x.shape[1]:
                return np.asarray(self.x[:, axis.number], dtype=np.float64)
            case source:
                raise ConfigError(f"a simulation has no {source.name.lower()} {axis.name or axis.number} to count")


@dataclass(frozen=True, slots=True)
class Monitored:
    """What stays the same while a federation is watched. ``plan`` is None without privacy."""

    table: MonitorTable
    watch: Watch
    plan: SharedGeometric | None
    sites: int
    colluders: int
    seed: int

    def honest(self, sites: int) -> int:
        """How many of so many sites' shares of noise are counted on, as the protocol would."""
        least = minimum_sites(threshold(sites, self.colluders), self.table.min_sites, self.colluders, 0)
        return min(least, sites) - self.colluders


def monitor(
    table: MonitorTable, *, classes: int, sites: int, steps: int, seed: int, private: bool = True, colluders: int = 1
) -> Monitored:
    """What a scenario watches with.

    Args:
        table: the scenario's [monitor].
        classes: of the model.
        sites: of the federation.
        steps: how many windows there will be, for the plan.
        seed: the scenario's.
        private: whether sums have noise.
        colluders: how many sites' noise counts for nothing.

    Raises:
        ConfigError: fewer sites than any window needs, or too little budget for so many tests.
    """
    if sites < colluders + 2:
        raise ConfigError("a federation that is watched needs two honest sites")
    try:
        watch = watch_of(table, classes=classes, private=private)
        plan = plan_of(table, watch, windows=max(steps, 1)) if private else None
    except ValueError as error:
        raise ConfigError(f"[monitor]: {error}", next_step="Raise epsilon, lower share, or test less.") from None
    return Monitored(table, watch, plan, sites, colluders, seed)


def reference(monitored: Monitored, site: str, persons: Persons, *, release: int = 0) -> Reference:
    """A site's past at a model's release, noised once from its training persons' budget, as the deployed site does.

    Args:
        monitored: what is watched.
        site: its name.
        persons: its training persons with the scores of the new model.
        release: which release of a model this is, from 0.
    """
    exact = counted(reference_tables(monitored.watch), persons.numbers)
    stream = KeyedRandomness(monitored.seed, "monitoring").stream("reference", site, release)
    return noised_reference(monitored.watch, exact, stream)


def public_reference(monitored: Monitored, persons: Mapping[str, Persons], *, release: int = 0) -> Shares:
    """The federation's reference in the model's card: one release of counts over all sites' training persons."""
    tables = reference_tables(monitored.watch)
    vectors = {site: counted(tables, of_site.numbers) for site, of_site in persons.items()}
    plan = reference_plan(monitored.watch)
    total, _ = _sum(monitored, vectors, plan, "public-reference", release)
    return pooled_shares(monitored.watch, tables.split(total))


def window_vector(monitored: Monitored, past: Reference, persons: Persons) -> Whole:
    """What a site sends of a window, before noise and masks: whole numbers, the same as the deployed site's."""
    return site_vector(monitored.watch, past, persons.numbers, len(persons.scores))


def measure(monitored: Monitored, window: int, vectors: Mapping[str, Whole], shares: Shares | None = None) -> Measured:
    """The tests of one window.

    Args:
        monitored: what is watched.
        window: its number, from 0, never used twice.
        vectors: by site; only of those that take part to the end.
        shares: the federation's reference; not asked for where weights are released.
    """
    counts, noise = _sum(monitored, vectors, monitored.plan, "window", window)
    return measure_window(monitored.table, monitored.watch, WindowSum(window, counts, len(vectors), noise), shares)


def compare(
    monitored: Monitored, window: int, current: Mapping[str, Persons], candidate: Mapping[str, Persons]
) -> Compared:
    """A candidate beside the model in use, on the same persons of a window: two sealed counts and how many there were.

    One person is in at most one of the two and in the number of all: a sensitivity of 2 at the window's epsilon, which
    is charged again.
    """
    vectors = {}
    for site, persons in current.items():
        axis = Axis(int(Source.RIGHT), (-0.5, 0.5, 1.5))
        before, after = persons.numbers(axis), candidate[site].numbers(axis)
        known = ~(np.isnan(before) | np.isnan(after))
        gained, lost = known & (after > before), known & (after < before)
        vectors[site] = np.array([gained.sum(), lost.sum(), known.sum()], dtype=np.int64)
    plan = None
    if monitored.plan is not None:
        plan = SharedGeometric(epsilon=monitored.table.epsilon, cells=2, length=3, releases=1, retries=0)
    total, noise = _sum(monitored, vectors, plan, "shadow", window)
    return Compared(float(total[0]), float(total[1]), float(max(total[2], 1)), 0.0 if noise is None else noise.variance)


def _sum(
    monitored: Monitored, vectors: Mapping[str, Whole], plan: SharedGeometric | None, purpose: str, number: int
) -> tuple[Whole, CountNoise | None]:
    """The sum over sites with a share of noise from each, and what is known of that noise."""
    total: Whole = np.sum(list(vectors.values()), axis=0, dtype=np.int64)
    if plan is None:
        return total, None
    honest = monitored.honest(max(len(vectors), monitored.sites))
    randomness = KeyedRandomness(monitored.seed, "monitoring")
    for site in vectors:
        total = total + draw_share(plan, honest, len(total), randomness.stream(purpose, site, number))
    return total, CountNoise(plan.decay, len(vectors), honest)
