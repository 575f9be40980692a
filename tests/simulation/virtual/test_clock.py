"""One timing, two ways to pay for it: the real protocol and its modelled cost give the same rounds and the same model,
byte for byte.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.studies import material, tiny

from fedseal.errors import RoundAborted
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.federation import FIRST_NODE
from fedseal.simulation.training import Trained, train
from fedseal.simulation.virtual.clock import VirtualClock
from fedseal.simulation.virtual.fleet import make_fleet
from fedseal.simulation.virtual.rounds import Disturbance
from fedseal.simulation.virtual.sizes import sizes_for
from fedseal.simulation.virtual.tables import Devices

DEVICES: dict[str, Any] = {
    "compute": [1.0, 1.2],
    "seconds_per_example": 0.01,
    "bandwidth_mbps": [1.0, 1.0],
    "deadline_s": 4.0,
    "availability": 0.9,
}


def clock_for(seed: int, sites: int = 4, **table: Any) -> VirtualClock:
    fleet = make_fleet(Devices.model_validate({**DEVICES, **table}), sites, seed)
    return VirtualClock(fleet, 100.0, seed, task=16)


def both(folder: Path, clock: Callable[[], VirtualClock], **changes: Any) -> list[tuple[Trained, VirtualClock]]:
    """A training with the real protocol, and one with the modelled, each with a clock of its own."""
    study = tiny(**{"privacy": {"plan": "none", "retries": 4}, "cohort": {"colluders": 0}, **changes})
    gathered, found = material(study, folder / "data"), []
    numbers = {FIRST_NODE + i: i + 1 for i in range(len(gathered.splits))}
    real, modelled = clock(), clock()
    found.append((train(gathered, study.contract, folder / "real", deliver=real.delivery(numbers)), real))
    found.append((train_modelled(gathered, study.contract, losses=modelled.losses), modelled))
    return found


def models(trained: Trained) -> list[dict[str, bytes]]:
    return [{name: a.tobytes() for name, a in view.record.model.items()} for view in trained.rounds]


@pytest.mark.parametrize("seed", [8, pytest.param(4, marks=pytest.mark.slow)])
def test_the_real_protocol_and_its_modelled_cost(seed: int, tmp_path: Path) -> None:
    (real, first), (modelled, second) = both(tmp_path, lambda: clock_for(seed))
    assert models(real) == models(modelled)
    assert [v.record.sites for v in real.rounds] == [v.record.sites for v in modelled.rounds]
    assert [v.record.attempts for v in real.rounds] == [v.record.attempts for v in modelled.rounds]
    kept = [[(t.finished, t.survivors.tolist(), t.seconds) for t in clock.timings] for clock in (first, second)]
    assert kept[0] == kept[1]
    finished = [t for t in first.timings if t.finished]
    assert [len(t.survivors) for t in finished] == [v.record.sites for v in real.rounds]
    # Somebody was missing and an attempt failed, so that the two had something to agree on.
    assert {t.finished for t in first.timings} == {True, False}
    assert first.now == pytest.approx(sum(t.seconds for t in first.timings))


def test_another_timing_is_another_model(tmp_path: Path) -> None:
    """The comparison can fail."""
    study = tiny(privacy={"plan": "none", "retries": 4}, cohort={"colluders": 0})
    gathered = material(study, tmp_path / "data")
    one, other = (train_modelled(gathered, study.contract, losses=clock_for(s).losses) for s in (3, 8))
    assert models(one) != models(other)


def header(number: int = 1, attempt: int = 0) -> Header:
    return replace(sizes_for(4, 10).header, fl_round=number, release_seq=number, attempt=attempt)


def test_a_clock_goes_on_from_attempt_to_attempt() -> None:
    clock = clock_for(1, availability=1.0)
    first = clock.timing(header(1))
    assert clock.timing(header(1)) is first and clock.now == first.seconds
    second = clock.timing(header(1, attempt=1))
    assert second.moment.start == first.seconds and clock.timings == (first, second)


def test_faults_are_part_of_the_timing() -> None:
    fleet = make_fleet(Devices(), 4, 1)
    silent = {2: Disturbance(silent={1: Stage.MASK})}
    clock = VirtualClock(fleet, 1.0, 1, task=0, disturbance=lambda n: silent.get(n, Disturbance()))
    assert clock.losses(header(1)) == {} and clock.losses(header(2)) == {2: Stage.MASK}


def test_over_commitment_ends_training_early() -> None:
    clock = VirtualClock(make_fleet(Devices(over_commit=1.3, compute=(1.0, 1.0)), 4, 1), 1.0, 1, task=0)
    timing = clock.timing(header())
    assert len(timing.survivors) == 3 and set(timing.missed().values()) == {Stage.MASK}


def test_work_by_site_is_that_of_the_cohort() -> None:
    examples = np.array([1.0, 2.0, 3.0, 400.0])
    clock = VirtualClock(make_fleet(Devices(seconds_per_example=1.0), 4, 1), examples, 1, task=0)
    three = replace(header(), cohort=(1, 2, 3), threshold=2)
    assert 3.0 < clock.timing(three).stages[Stage.MASK].seconds < 4.0
    assert clock.timing(header()).stages[Stage.MASK].seconds > 400.0


def test_a_clock_under_which_nobody_can_finish_ends_the_run(tmp_path: Path) -> None:
    study = tiny(privacy={"plan": "none"})
    with pytest.raises(RoundAborted, match="round 1 failed"):
        train_modelled(material(study, tmp_path / "data"), study.contract, losses=clock_for(1, deadline_s=0.1).losses)
