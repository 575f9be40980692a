"""What a sweep says: groups of runs that differ in their seed only, compared by pairs of the same seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from scipy import stats

from fedseal.config import Frozen
from fedseal.simulation.scenario.gates import value_of
from fedseal.simulation.scenario.outcome import GateRow, ScenarioResult

CONFIDENCE = 0.95


class Interval(Frozen):
    """A mean difference over pairs of the same seed, with its 95 % Student interval; no interval for one pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int


class Group(Frozen):
    """All runs of one strategy and promise.

    ``against`` compares their accuracy at the end with the first group's, pair by pair; ``rank`` is the mean over seeds
    of the group's place among all groups, 1 the best and ties their mean. ``best`` says that no other group has more
    accuracy for no more epsilon, bytes and seconds.
    """

    name: str
    strategy: str
    epsilon: float | None
    seeds: tuple[int, ...]
    accuracy: float | None
    deviation: float | None
    worst_site: float | None
    regret: float | None
    against: Interval | None
    rank: float | None
    epsilon_spent: float | None
    bytes_total: float
    seconds: float
    best: bool
    gates: tuple[GateRow, ...] = ()


class Comparison(Frozen):
    """compare.json: a sweep's groups in the order of the file; the first is what the others are compared with."""

    schema_version: Literal[1] = 1
    simulated: Literal[True] = True
    scenario: str
    title: str
    scenario_sha256: str
    groups: tuple[Group, ...]
    digests: dict[str, str]


@dataclass(frozen=True, slots=True)
class Cells:
    """The results of one group, by seed."""

    strategy: str
    epsilon: float | None
    results: dict[int, ScenarioResult]

    @property
    def name(self) -> str:
        """As people read it."""
        return f"{self.strategy}, {'no promise' if self.epsilon is None else f'epsilon {self.epsilon:g}'}"

    def accuracy(self, seed: int) -> float | None:
        """At the end of the run of a seed."""
        return value_of(self.results[seed], "accuracy.global")

    def means(self, metric: str) -> float | None:
        """The mean over seeds; None if a run has none."""
        found = [value_of(result, metric) for result in self.results.values()]
        return None if None in found else mean(v for v in found if v is not None)


def groups_of(results: Sequence[ScenarioResult]) -> list[Cells]:
    """Results by strategy and promise, in the order in which those first occur."""
    found: dict[tuple[str, float | None], Cells] = {}
    for result in results:
        key = (result.strategy, result.epsilon)
        found.setdefault(key, Cells(*key, {})).results[result.seed] = result
    return list(found.values())


def compare(groups: Sequence[Cells], gates: Sequence[tuple[GateRow, ...]], title: str, digest: str) -> Comparison:
    """Compare groups.

    Args:
        groups: of a sweep; the first is compared with.
        gates: of each group.
        title: the scenario's.
        digest: the scenario's.
    """
    ranks = mean_ranks(groups)
    costs = [_costs(group) for group in groups]
    rows = []
    for i, group in enumerate(groups):
        accuracies = [a for seed in group.results if (a := group.accuracy(seed)) is not None]
        rows.append(
            Group(
                name=group.name,
                strategy=group.strategy,
                epsilon=group.epsilon,
                seeds=tuple(group.results),
                accuracy=mean(accuracies) if accuracies else None,
                deviation=stdev(accuracies) if len(accuracies) > 1 else None,
                worst_site=group.means("accuracy.worst_site"),
                regret=group.means("regret"),
                against=None if i == 0 else paired(groups[0], group),
                rank=ranks[i],
                epsilon_spent=group.means("eps.spent"),
                bytes_total=group.means("bytes.total") or 0.0,
                seconds=group.means("virtual_time.total_s") or 0.0,
                best=not any(_beats(other, costs[i]) for other in costs),
                gates=gates[i],
            )
        )
    first = next(iter(groups[0].results.values()))
    digests = {f"{g.name}, seed {seed}": r.digest for g in groups for seed, r in g.results.items()}
    return Comparison(scenario=first.scenario, title=title, scenario_sha256=digest, groups=tuple(rows), digests=digests)


def paired(first: Cells, other: Cells) -> Interval | None:
    """Accuracy of the other minus the first, over the seeds that both have."""
    differences = []
    for seed in first.results:
        if seed in other.results:
            before, after = first.accuracy(seed), other.accuracy(seed)
            if before is not None and after is not None:
                differences.append(after - before)
    if not differences:
        return None
    middle = mean(differences)
    if len(differences) < 2:
        return Interval(mean=middle, low=None, high=None, pairs=1)
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1))
    margin = quantile * stdev(differences) / math.sqrt(len(differences))
    return Interval(mean=middle, low=middle - margin, high=middle + margin, pairs=len(differences))


def mean_ranks(groups: Sequence[Cells]) -> list[float | None]:
    """The mean over the seeds that all groups have of each group's place by accuracy, 1 the best, ties their mean."""
    common = [seed for seed in groups[0].results if all(seed in group.results for group in groups)]
    places: list[list[float]] = [[] for _ in groups]
    for seed in common:
        accuracies = [group.accuracy(seed) for group in groups]
        # A run without a model comes last.
        values = [-1.0 if a is None else a for a in accuracies]
        for place, rank in zip(places, stats.rankdata([-v for v in values]), strict=True):
            place.append(float(rank))
    return [mean(place) if place else None for place in places]


def _costs(group: Cells) -> tuple[float, ...]:
    """What is wanted small: minus accuracy, epsilon, bytes, seconds."""
    accuracy, spent = group.means("accuracy.global"), group.means("eps.spent")
    return (
        math.inf if accuracy is None else -accuracy,
        math.inf if spent is None else spent,
        group.means("bytes.total") or 0.0,
        group.means("virtual_time.total_s") or 0.0,
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether one is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
