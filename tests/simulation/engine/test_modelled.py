"""The modelled protocol against the real one: the same integer sums, models, metrics, charges and bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.studies import RANGES, FirstAttemptFails, material, tiny

from fedseal.client import trainer
from fedseal.client.app import app as client_app
from fedseal.errors import BudgetExceeded, RoundAborted
from fedseal.privacy.quantize import IntegerSum, Rounding
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.server import exchange
from fedseal.server.grid import AveragingGrid
from fedseal.simulation.engine import portions
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.engine.sites import Sites
from fedseal.simulation.grid import Observer
from fedseal.simulation.training import Material, Trained, train
from fedseal.study import Contract

SHARED: dict[str, Any] = {"cohort": {"minimum": 3, "colluders": 1, "largest_site": 200}}

STUDIES: dict[str, dict[str, Any]] = {
    "none, batches, fedadam": {
        "privacy": {"plan": "none"},
        "training": {"rounds": 2, "strategy": "fedadam", "batch_size": 7},
    },
    "none, scaffold, short words": {
        "privacy": {"plan": "none"},
        "training": {"strategy": "scaffold", "word_bits": 16},
    },
    "local, moments": {"normalisation": RANGES, "training": {"rounds": 1}},
    "local, scaffold, evaluation": {
        "training": {"rounds": 2, "strategy": "scaffold"},
        "evaluation": {"epsilon": 6.0, "bins": 4, "tables": ("score", "right")},
    },
    "distributed, moments": {
        "privacy": {"plan": "distributed"},
        "normalisation": RANGES,
        "training": {"rounds": 1, "learning_rate": 1.0},
        **SHARED,
    },
    "client, fedprox": {"privacy": {"plan": "client"}, "training": {"rounds": 2, "strategy": "fedprox"}, **SHARED},
}


class Sums:
    """Every integer sum of a run, as its server decodes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[IntegerSum] = []
        release = AveragingGrid.release

        def watched(grid: AveragingGrid, *args: Any, **named: Any) -> Any:
            finished = release(grid, *args, **named)
            self.seen.append(finished.total)
            return finished

        monkeypatch.setattr(AveragingGrid, "release", watched)

    def taken(self) -> list[IntegerSum]:
        seen, self.seen = self.seen, []
        return seen


def without_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server count the protocol's own bytes only."""

    def size(content: Any) -> int:
        return exchange.arrays_size(content) + len(exchange._bytes(content, exchange.BYTES) or b"")

    monkeypatch.setattr(exchange, "_size", size)


def same_sums(one: list[IntegerSum], other: list[IntegerSum]) -> bool:
    return len(one) == len(other) and all(
        a.layout == b.layout and a.sites == b.sites and np.array_equal(a.vector, b.vector)
        for a, b in zip(one, other, strict=True)
    )


def same_models(one: Trained, other: Trained) -> bool:
    # A model that was read from a file has its arrays in any order.
    return set(one.model) == set(other.model) and all(
        one.model[name].tobytes() == other.model[name].tobytes() for name in one.model
    )


def traffic(trained: Trained) -> list[dict[str, tuple[int, int]]]:
    return [
        {label: (cost.bytes_down, cost.bytes_up) for label, cost in view.record.stages.items()}
        for view in trained.rounds
    ]


@pytest.mark.quick("none, scaffold, short words")
@pytest.mark.parametrize("name", STUDIES)
def test_the_model_gives_what_the_protocol_gives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = Sums(monkeypatch)
    without_the_log(monkeypatch)
    study = tiny(**STUDIES[name])
    gathered = material(study, tmp_path / "data")
    real = train(gathered, study.contract, tmp_path / "federation")
    sealed = sums.taken()
    modelled = train_modelled(gathered, study.contract)
    assert same_sums(sealed, sums.taken())
    assert same_models(real, modelled)
    for ours, theirs in zip(modelled.rounds, real.rounds, strict=True):
        assert ours.record.metrics == theirs.record.metrics
        assert ours.record.weight == theirs.record.weight
        assert ours.record.assurance == theirs.record.assurance
        assert (ours.judged, ours.epsilon) == (theirs.judged, theirs.epsilon)
    assert traffic(modelled) == traffic(real)
    assert modelled.privacy == real.privacy
    assert modelled.test_privacy == real.test_privacy
    assert modelled.moments == real.moments
    if real.evaluation is not None:
        assert modelled.evaluation is not None
        assert np.array_equal(modelled.evaluation.counts, real.evaluation.counts)


@pytest.mark.parametrize("purpose", ["rounding", "sampling", "noise-share"])
def test_another_draw_anywhere_would_be_noticed(purpose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: one site draws from another stream for one purpose, and the sum is another one."""
    sums = Sums(monkeypatch)
    study = tiny(privacy={"plan": "client"}, training={"rounds": 1}, **SHARED)
    gathered = material(study, tmp_path / "data")
    train_modelled(gathered, study.contract)
    first = sums.taken()
    train_modelled(gathered, study.contract)
    assert same_sums(first, sums.taken())
    keyed = Sites.site

    def other(sites: Sites, number: int, memory: Any) -> Any:
        found = keyed(sites, number, memory)
        return found if number != 2 else Shifted(found, purpose)

    monkeypatch.setattr(Sites, "site", other)
    train_modelled(gathered, study.contract)
    assert not same_sums(first, sums.taken())


class Shifted:
    """A site with other draws for one purpose."""

    def __init__(self, site: Any, purpose: str) -> None:
        self.identity = Elsewhere(site.identity, purpose)
        self.transaction = site.transaction


class Elsewhere:
    def __init__(self, identity: Any, purpose: str) -> None:
        self._identity, self._purpose = identity, purpose
        self.number = identity.number

    def randomness(self) -> "Elsewhere":
        return self

    def stream(self, *purpose: str | int) -> Any:
        more = ("elsewhere",) if purpose[0] == self._purpose else ()
        return self._identity.randomness().stream(*purpose, *more)


def test_one_unit_more_at_one_site_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of all the sums: the smallest change there is."""
    sums = Sums(monkeypatch)
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    gathered = material(study, tmp_path / "data")
    train_modelled(gathered, study.contract, rounding=Rounding.NEAREST)
    first = sums.taken()
    computed = portions.OneByOne.computed

    def more(self: Any, header: Any, request: Any, number: int, memory: Any) -> Any:
        found = computed(self, header, request, number, memory)
        if number == 3:
            found.update.vector[1] += 1
        return found

    monkeypatch.setattr(portions.OneByOne, "computed", more)
    train_modelled(gathered, study.contract, rounding=Rounding.NEAREST)
    assert not same_sums(first, sums.taken())


# Failures


def spoiled(header: Header) -> dict[int, Stage]:
    """The first attempt at every release fails at CONSISTENCY, as in `FirstAttemptFails`."""
    return dict.fromkeys(header.cohort, Stage.CONSISTENCY) if header.attempt == 0 else {}


@pytest.mark.slow
def test_a_repeated_round_costs_what_both_attempts_cost(tmp_path: Path) -> None:
    study = tiny(training={"rounds": 2}, privacy={"retries": 2})
    gathered = material(study, tmp_path / "data")
    network = FirstAttemptFails(client_app, {}, run_config={}, observer=Observer(*[lambda *_: None] * 3))
    real = train(gathered, study.contract, tmp_path / "federation", deliver=network._spoil)
    modelled = train_modelled(gathered, study.contract, losses=spoiled)
    assert same_models(real, modelled)
    assert modelled.privacy == real.privacy
    assert [v.record.attempts for v in modelled.rounds] == [v.record.attempts for v in real.rounds] == [2, 2]
    assert [v.epsilon for v in modelled.rounds] == [v.epsilon for v in real.rounds]


@pytest.mark.parametrize("plan", ["local", "none"])
def test_attempts_that_were_used_up_end_a_run_as_in_the_protocol(plan: str, tmp_path: Path) -> None:
    study = tiny(privacy={"plan": plan})
    with pytest.raises(BudgetExceeded, match="round 3") as caught:
        train_modelled(material(study, tmp_path / "data"), study.contract, losses=spoiled)
    assert "hospital-1 refused (budget): this run has used up what its plan reserved" in caught.value.message
    assert caught.value.next_step == "Start a new run with a plan for the rounds that remain."


def lost(at: Stage) -> Any:
    return lambda header: {2: at}


@pytest.mark.parametrize("stage", list(Stage), ids=lambda stage: stage.label)
def test_a_lost_site_is_in_the_sum_only_after_mask(stage: Stage, tmp_path: Path) -> None:
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    gathered = material(study, tmp_path / "data")
    trained = train_modelled(gathered, study.contract, losses=lost(stage))
    expected = 4 if stage > Stage.MASK else 3
    assert trained.rounds[0].record.sites == expected


def test_too_few_sites_end_the_run_with_the_reason(tmp_path: Path) -> None:
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    with pytest.raises(RoundAborted, match="failed 2 times"):
        train_modelled(
            material(study, tmp_path / "data"), study.contract, losses=lambda h: {1: Stage.MASK, 2: Stage.MASK}
        )


class Sick:
    """A task whose code fails at one site."""

    def __init__(self, task: Any, persons: int) -> None:
        self._task, self._persons = task, persons
        self.model, self.metrics, self.data = task.model, task.metrics, task.data

    def loss(self, model: Any, batch: Any) -> Any:
        raise ValueError("the scanner is warming up")


def test_a_studys_own_failure_is_told_by_the_site_that_had_it(tmp_path: Path) -> None:
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    gathered = material(study, tmp_path / "data")
    sick: Any = Sick(gathered.task, 0)
    broken = Material(study, sick, gathered.splits, gathered.data, gathered.oracle, gathered.seed)
    with pytest.raises(RoundAborted) as caught:
        train_modelled(broken, study.contract)
    assert "hospital-1 refused (task): ValueError: the scanner is warming up" in caught.value.next_step


def test_an_added_site_leaves_the_others_draws_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    gathered = material(study, tmp_path / "data")
    drawn: list[list[list[int]]] = []
    lots = trainer.lots

    def watched(persons: int, settings: Any, streams: Any) -> Any:
        drawn.append([])
        for chosen, divisor in lots(persons, settings, streams):
            drawn[-1].append(chosen.tolist())
            yield chosen, divisor

    monkeypatch.setattr(trainer, "lots", watched)
    train_modelled(gathered, study.contract)
    before = list(drawn)
    drawn.clear()
    more = {**gathered.splits, "hospital-5": next(iter(gathered.splits.values()))}
    train_modelled(Material(study, gathered.task, more, {}, gathered.oracle, gathered.seed), study.contract)
    assert len(before) == 4
    assert drawn[:4] == before
    assert len(drawn) == 5


def test_contracts_are_what_they_were(tmp_path: Path) -> None:
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1})
    trained = train_modelled(material(study, tmp_path / "data"), study.contract)
    assert isinstance(trained.contract, Contract)
    assert trained.federation is None
    assert trained.engine == "one-by-one"
