"""A clip norm that adapts, over whole runs of an ordinary app: where it comes to, what a checkpoint has of it, and who
stops a server that has forgotten it.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    OPEN_POLICY,
    Federation,
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    numpy_of,
    ordinary_app,
)

from fedseal.errors import RoundAborted
from fedseal.privacy.plan import AdaptiveSkellam, SharedSkellam, Unit
from fedseal.privacy.quantize import Rounding
from fedseal.server.grid import SealedGrid
from fedseal.server.rounds import CLIP_KEY, Plan, RoundRecord, run_rounds
from fedseal.server.sealing import CohortRules
from fedseal.server.store import Checkpoint

CHANGE = {1: 0.5, 2: -1.5, 3: 3.0, 4: 0.25, 5: -4.0}
POLICY = OPEN_POLICY.replace('"none", "local"', '"client"')


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def pattern_norm() -> float:
    """Of what a change of 1 does to the model."""
    return math.sqrt(sum(float((np.linspace(-1, 1, a.size) ** 2).sum()) for a in numpy_of(model()).values()))


def plan_from(clip_norm: float, **changes: Any) -> AdaptiveSkellam:
    """Noise of half the clip norm in the sum, a quarter of a site in the count: to see where it goes."""
    vector = SharedSkellam(
        unit=int(Unit.SITE),
        clip_norm=clip_norm,
        resolution=1 << 14,
        length=15,
        variance=1 << 26,
        releases=24,
        retries=4,
    )
    fields: dict[str, Any] = {
        "vector": vector,
        "count_units": 1 << 15,
        "lowest": 0.01,
        "highest": 1e4,
        "quantile": 0.5,
        "rate": 1.0,
    }
    return AdaptiveSkellam(**(fields | changes))


def federation_in(folder: Path) -> Federation:
    folder.mkdir(parents=True, exist_ok=True)
    return make_federation(folder, 5, policy=POLICY, epsilon=1000.0, order=1.5)


def sealed(federation: Federation, plan: AdaptiveSkellam, **options: Any) -> SealedGrid:
    grid = local_grid(federation, ordinary_app(Script(CHANGE)))
    rules = CohortRules(minimum=4, colluders=1, retries=0, stage_timeout=0.0)
    return SealedGrid(
        grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules, plan=plan, ring_bits=64, **options
    )


def rounds(grid: SealedGrid, count: int, stop_after: int | None = None) -> list[RoundRecord]:
    """What a run's rounds said; stopped after one of them."""
    seen: list[RoundRecord] = []

    def observe(record: RoundRecord) -> None:
        seen.append(record)
        if record.number == stop_after:
            raise Stop

    with suppress(Stop):
        run_rounds(grid, FedAvg(fraction_evaluate=0.0), numpy_of(model()), Plan(count, {}), observe)
    return seen


class Stop(Exception):  # noqa: N818
    """The server's process dies here."""


def clips(seen: list[RoundRecord]) -> list[float]:
    return [r.clip.clip_norm for r in seen if r.clip is not None]


@pytest.mark.slow
@pytest.mark.parametrize("factor", [20.0, 1 / 20])
def test_from_far_too_large_or_small_it_comes_to_the_median(tmp_path: Path, factor: float) -> None:
    median = 1.5 * pattern_norm()
    seen = rounds(sealed(federation_in(tmp_path), plan_from(factor * median, rate=2.0)), 8)
    found = clips(seen)
    assert found[0] == factor * median
    # All sites on one side: a unit of the logarithm a round, with little noise in it.
    pace = abs(math.log(found[2] / found[0])) / 2
    assert 0.8 < pace <= 1.0
    # Between the norms of the sites next to the median's, or a step beyond.
    assert all(0.5 * pattern_norm() / 1.5 < c < 3.0 * pattern_norm() * 1.5 for c in found[-3:])
    assert all(r.clip is not None and r.clipped == 0.0 for r in seen)


@pytest.mark.slow
def test_another_quantile_comes_elsewhere(tmp_path: Path) -> None:
    plan = plan_from(1.5 * pattern_norm())
    low = rounds(sealed(federation_in(tmp_path / "low"), replace(plan, quantile=0.1)), 10)
    high = rounds(sealed(federation_in(tmp_path / "high"), replace(plan, quantile=0.9)), 10)
    assert max(clips(low)[-4:]) < 0.6 * pattern_norm()
    assert min(clips(high)[-4:]) > 2.5 * pattern_norm()


def test_it_stops_at_the_interval(tmp_path: Path) -> None:
    plan = plan_from(50.0, lowest=40.0, highest=60.0)
    assert clips(rounds(sealed(federation_in(tmp_path), plan), 3)) == [50.0, 40.0, 40.0]


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_with_the_clip_norm_it_had_come_to(tmp_path: Path) -> None:
    plan = plan_from(50.0)
    whole = rounds(sealed(federation_in(tmp_path / "whole"), plan, rounding=Rounding.NEAREST), 3)
    federation = federation_in(tmp_path / "stopped")
    grid = sealed(federation, plan, rounding=Rounding.NEAREST)
    before = rounds(grid, 3, stop_after=1)
    resumed = sealed(federation, plan, rounding=Rounding.NEAREST, run=grid.run_id)
    after = rounds(resumed, 3)
    assert [r.number for r in before + after] == [1, 2, 3]
    assert [r.clip for r in before + after] == [r.clip for r in whole]
    for name, array in whole[-1].model.items():
        assert array.tobytes() == after[-1].model[name].tobytes()
    assert len(set(clips(whole))) == 3


def test_a_server_that_forgot_it_is_refused(tmp_path: Path) -> None:
    """The twin: with the first round's clip norm in round 3, no site goes on."""
    federation, plan = federation_in(tmp_path), plan_from(50.0, rate=0.5, quantile=0.3)
    grid = sealed(federation, plan)
    rounds(grid, 3, stop_after=2)
    kept = grid.store.load(grid.run_id)
    assert kept is not None
    assert kept.settings[CLIP_KEY] == grid.clip_norm != 50.0
    forgotten = Checkpoint(kept.fl_round, kept.model, kept.strategy, kept.memory, {})
    grid.store.save(grid.run_id, forgotten)
    with pytest.raises(RoundAborted, match=r"round 3"):
        rounds(sealed(federation, plan, run=grid.run_id), 3)
    assert all("cannot have led" in federation.incidents(site)[-1][1] for site in federation.sites)
    # Nothing was charged for it, and with the checkpoint put back the run goes on.
    assert {federation.charges(site) for site in federation.sites} == {2}
    grid.store.save(grid.run_id, kept)
    assert [r.number for r in rounds(sealed(federation, plan, run=grid.run_id), 3)] == [3]
