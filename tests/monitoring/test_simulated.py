"""The simulation's windows are the deployed ones, and keep what is promised of false alarms, power and draws."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.flower import flower_task
from support.windows import MODEL, NONE, SITES, TABLE, Watching, released, watch

from fedseal.errors import ConfigError
from fedseal.privacy.counts import Axis, Real, Source, Whole
from fedseal.privacy.inference.drift.classify import DriftKind
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.privacy.watch import Reference
from fedseal.server.monitoring.outcome import Measured, Shares
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.trigger import Models, TriggerState, step
from fedseal.simulation import monitoring
from fedseal.simulation.monitoring import Persons

WEEKLY = MonitorTable(epsilon=1.0, reference_epsilon=1.0, min_sites=5, k_min=0)


def people(
    rng: np.random.Generator, count: int, *, mean: float = 0.0, shift: float = 0.0, flip: float = 0.0
) -> Persons:
    """A site whose features lie around ``mean``, and a model that is right about it."""
    x = rng.normal(mean, 1, (count, 3))
    x[:, 0] += shift
    scores = 1 / (1 + np.exp(-1.5 * x[:, 0] + 0.5 * x[:, 1] + mean))
    y = (rng.random(count) < scores).astype(np.int64)
    return Persons(x, np.where(rng.random(count) < flip, 1 - y, y), scores)


class World:
    """Ten sites that differ from one another."""

    def __init__(self, seed: int, table: MonitorTable = WEEKLY, *, private: bool = True, sites: int = 10) -> None:
        self.rng = np.random.default_rng(seed)
        self.means = dict(zip([f"s{i}" for i in range(sites)], self.rng.normal(0, 0.5, sites), strict=True))
        self.monitored = monitoring.monitor(table, classes=2, sites=sites, steps=12, seed=seed, private=private)
        past = {site: people(self.rng, 2000, mean=mean) for site, mean in self.means.items()}
        self.past: dict[str, Reference] = {s: monitoring.reference(self.monitored, s, p) for s, p in past.items()}
        self.shares: Shares = monitoring.public_reference(self.monitored, past)
        self.state = TriggerState()

    def window(
        self, number: int, sizes: dict[str, int] | None = None, *, shift: float = 0.0, flip: float = 0.0
    ) -> Measured:
        vectors = {}
        for site, mean in self.means.items():
            now = people(self.rng, (sizes or {}).get(site, 400), mean=mean, shift=shift, flip=flip)
            vectors[site] = monitoring.window_vector(self.monitored, self.past[site], now)
        return monitoring.measure(self.monitored, number, vectors, self.shares)


@pytest.mark.quick("another mix-released")
@pytest.mark.parametrize("weights", ["reference", "released"])
@pytest.mark.parametrize("mix", [False, True], ids=["all alike", "another mix"])
def test_false_alarms_stay_rare_whoever_takes_part(mix: bool, weights: str) -> None:
    """No site drifts; one sends five times as many persons and one none. Loose bounds: 25 worlds of 6 windows."""
    rejected, windows = Counter[str](), 0
    table = WEEKLY.model_copy(update={"weights": weights})
    for seed in range(25):
        world = World(seed, table)
        for number in range(6):
            sizes = {f"s{number}": 2000, f"s{number + 1}": 0} if mix else None
            measured = world.window(number, sizes)
            windows += 1
            rejected.update(test.name for test in measured.tests if test.p <= 0.05)
    assert len(rejected) <= 5
    assert all(count / windows < 0.11 for count in rejected.values()), rejected


def test_pooling_would_alarm_at_every_other_mix() -> None:
    """The twin: the same windows, pooled and compared with the pooled past."""
    from scipy.stats import chi2_contingency

    alarms, edges = 0, np.linspace(0, 1, 11)[1:-1]

    def pooled(rng: np.random.Generator, means: Real, sizes: list[int]) -> Whole:
        scores = np.concatenate([1 / (1 + np.exp(-rng.normal(m, 1, n))) for m, n in zip(means, sizes, strict=True)])
        return np.bincount(np.searchsorted(edges, scores), minlength=10)

    for seed in range(20):
        rng = np.random.default_rng(seed)
        means = rng.normal(0, 0.5, 10)
        before, now = pooled(rng, means, [2000] * 10), pooled(rng, means, [2000, 0, *[400] * 8])
        alarms += chi2_contingency(np.array([before, now])).pvalue < 0.05
    assert alarms >= 12


@pytest.mark.parametrize(("shift", "flip", "kind"), [(0.3, 0.0, DriftKind.COVARIATE), (0.0, 0.15, DriftKind.CONCEPT)])
def test_drift_everywhere_is_an_alarm_of_its_kind(shift: float, flip: float, kind: DriftKind) -> None:
    found = 0
    for seed in range(8):
        world = World(100 + seed)
        _, decision = step(WEEKLY, TriggerState(), world.window(0, shift=shift, flip=flip), Models("m"))
        found += decision.alert is Alert.ALARM and kind in decision.kinds
    assert found >= 7


def test_a_site_more_leaves_the_draws_of_the_others() -> None:
    few, many = (World(3, sites=n).monitored for n in (10, 11))
    rng = np.random.default_rng(1)
    one = people(rng, 500)
    assert np.array_equal(
        np.concatenate(monitoring.reference(few, "s1", one).counts),
        np.concatenate(monitoring.reference(many, "s1", one).counts),
    )

    def noise(names: list[str]) -> Whole:
        nobody = {name: np.zeros(few.watch.length, dtype=np.int64) for name in names}
        return monitoring._sum(few, nobody, few.plan, "window", 0)[0]

    names = [f"s{i}" for i in range(9)]
    alone = noise(["s9"])
    assert (noise([*names, "s9"]) - noise(names) == alone).all()
    assert alone.any()


def test_the_same_seed_gives_the_same_window_and_another_another() -> None:
    first, again, other = World(5).window(0), World(5).window(0), World(6).window(0)
    assert first == again
    assert first != other


def test_a_shadow_comparison_counts_who_was_right_where_the_other_was_not() -> None:
    world = World(7, private=False)
    rng = np.random.default_rng(2)
    current = {site: people(rng, 300) for site in world.means}
    worse = {s: replace(p, scores=np.where(rng.random(300) < 0.2, 1 - p.scores, p.scores)) for s, p in current.items()}
    found = monitoring.compare(world.monitored, 0, worse, current)
    right = {s: (p.scores > 0.5) == p.y for s, p in current.items()}
    before = {s: (p.scores > 0.5) == p.y for s, p in worse.items()}
    assert found.candidate_only == sum(int((right[s] & ~before[s]).sum()) for s in right)
    assert found.current_only == sum(int((before[s] & ~right[s]).sum()) for s in right)
    assert (found.rows, found.variance) == (3000, 0.0)
    noisy = monitoring.compare(World(7).monitored, 0, worse, current)
    assert noisy.variance > 0
    assert abs(noisy.candidate_only - found.candidate_only) < 12 * noisy.variance**0.5


def test_labels_that_are_not_known_yet_are_nobodys() -> None:
    world = World(8, private=False)
    rng = np.random.default_rng(3)
    vectors = {}
    for site in world.means:
        now = people(rng, 400)
        late = replace(now, y=np.where(np.arange(400) < 300, -1, now.y))
        vectors[site] = monitoring.window_vector(world.monitored, world.past[site], late)
    total = sum(vectors.values())
    assert world.monitored.watch.split(np.asarray(total)).rows == (4000, 1000)


def test_features_that_a_world_lacks_are_refused() -> None:
    axis = Axis(int(Source.FEATURE), (0.0, 1.0), True, 9)
    with pytest.raises(ConfigError, match="no feature 9"):
        people(np.random.default_rng(1), 5).numbers(axis)
    with pytest.raises(ConfigError, match="two honest"):
        monitoring.monitor(WEEKLY, classes=2, sites=2, steps=1, seed=1)
    with pytest.raises(ConfigError, match="Raise epsilon"):
        monitoring.monitor(
            WEEKLY.model_copy(update={"epsilon": 2.0**-6, "share": 64}), classes=2, sites=5, steps=1, seed=1
        )


@pytest.mark.parametrize("change", ["missing", "range", "category"])
def test_a_schema_that_breaks_is_told_from_a_drift(change: str) -> None:
    table = MonitorTable.model_validate(
        {
            "tests": ["score", "features"],
            "epsilon": 4.0,
            "features": [{"number": 0, "low": -5.0, "high": 5.0}, {"number": 1, "codes": 3}],
        }
    )
    monitored = monitoring.monitor(table, classes=2, sites=6, steps=3, seed=4)
    rng = np.random.default_rng(4)

    def site(broken: bool) -> Persons:
        x = np.column_stack([rng.normal(size=500), rng.integers(0, 3, 500)]).astype(np.float64)
        hit = rng.random(500) < (0.2 if broken else 0.0)
        match change:
            case "missing":
                x[hit, 0] = np.nan
            case "range":
                x[hit, 0] = 99.0
            case _:
                x[hit, 1] = 7.0
        return Persons(x, rng.integers(0, 2, 500), rng.random(500))

    names = [f"s{i}" for i in range(6)]
    past = {name: site(False) for name in names}
    shares = monitoring.public_reference(monitored, past)
    references = {name: monitoring.reference(monitored, name, p) for name, p in past.items()}
    vectors = {name: monitoring.window_vector(monitored, references[name], site(True)) for name in names}
    measured = monitoring.measure(monitored, 0, vectors, shares)
    _, decision = step(table, TriggerState(), measured, Models("m"))
    assert decision.alert is Alert.ALARM
    assert DriftKind.SCHEMA in decision.kinds


@pytest.mark.slow
def test_a_simulated_window_is_the_deployed_one_to_the_last_person(tmp_path: Path) -> None:
    """The same persons and model, without noise: real sites with the whole protocol, and the simulation."""
    import torch
    from support.studies import TINY

    from fedseal.client.task import SiteData
    from fedseal.study_code import load_task

    real = Watching(tmp_path, drift='["none"]')
    real.window(0, sites=(2,), wrong=0.4)
    deployed = released(real, 0, NONE, watch(private=False))
    monitored = monitoring.monitor(TABLE, classes=2, sites=SITES, steps=1, seed=1, private=False)
    task: Any = load_task("task:Blobs", str(TINY))

    def of(folder: Path, *parts: str) -> Persons:
        split = task.data(SiteData("x", folder))
        features = torch.cat([getattr(split, p).tensors[0] for p in parts]).numpy()
        labels = torch.cat([getattr(split, p).tensors[1] for p in parts]).numpy()
        logits = features @ MODEL["weight"].T + MODEL["bias"]
        scores = torch.sigmoid(torch.from_numpy(logits[:, 0])).double().numpy()
        return Persons(features, labels, scores)

    total = np.zeros(monitored.watch.length, dtype=np.int64)
    with flower_task():
        for number in real.federation.sites:
            past = of(real.folder / "data" / str(number), "train")
            now = of(real.folder / "windows" / str(number) / "0", "train", "validation", "test")
            reference = monitoring.reference(monitored, f"s{number}", past)
            total += monitoring.window_vector(monitored, reference, now)
    assert total.tolist() == deployed.counts.tolist()
