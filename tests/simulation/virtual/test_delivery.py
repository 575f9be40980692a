"""The real protocol under a round's timing: the same survivors, and the very sum of what they bounded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from support.flower import PRIVATE, Federation, Script, flower_task, local_grid, make_federation, model, ordinary_app
from support.flower import train_messages as messages_for

from fedseal.client import session as session_module
from fedseal.errors import RoundAborted
from fedseal.privacy.quantize import signed
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.simulation.virtual.delivery import timed_delivery
from fedseal.simulation.virtual.fleet import Fleet, make_fleet
from fedseal.simulation.virtual.rounds import Moment, Quorum, RoundTiming, plan_round
from fedseal.simulation.virtual.sizes import ByFormula, Measured
from fedseal.simulation.virtual.tables import Devices

SITES = 6


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return make_federation(tmp_path_factory.mktemp("timed"), SITES, epsilon=50.0)


@dataclass
class Bounded:
    """What each site bounded, by header and site: written down where it is made."""

    vectors: dict[tuple[bytes, int], NDArray[np.int64]] = field(default_factory=dict)


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Bounded:
    seen, real = Bounded(), session_module.Session._compute

    def compute(self: Any, header: Header, *rest: Any) -> Any:
        computed = real(self, header, *rest)
        number = self._identity.number
        seen.vectors[header.digest(), number] = signed(computed.update.vector).astype(np.int64)
        return computed

    monkeypatch.setattr(session_module.Session, "_compute", compute)
    return seen


@dataclass
class Real:
    """A real round under a timing: what the grid kept of it."""

    timing: list[RoundTiming]
    sealed: SealedGrid
    header: list[Header]
    aborted: bool


def real_round(federation: Federation, fleet: Fleet, number: int, seed: int) -> Real:
    """One round of the real protocol, with a timing for each attempt."""
    timings: list[RoundTiming] = []
    headers: list[Header] = []

    def timing_of(header: Header) -> RoundTiming:
        headers.append(header)
        cohort = np.array([site - 1 for site in header.cohort])
        sizes, moment = ByFormula(header, task=0), Moment(number, seed, attempt=header.attempt)
        timings.append(plan_round(fleet, cohort, 100.0, sizes, Quorum.of(header), moment))
        return timings[-1]

    app = ordinary_app(Script({n: float(n) for n in federation.sites}, done=True))
    places = {100 + n: n - 1 for n in federation.sites}
    grid = local_grid(federation, app, deliver=timed_delivery(timing_of, places))
    sealed = SealedGrid(
        grid,
        FedAvg(fraction_evaluate=0.0),
        store=federation.server,
        max_examples=100,
        plan=PRIVATE,
        cohort=CohortRules(minimum=2, retries=0),
    )
    try:
        list(sealed.send_and_receive(messages_for(grid, model())))
    except RoundAborted:
        return Real(timings, sealed, headers, aborted=True)
    return Real(timings, sealed, headers, aborted=False)


LATE: dict[str, Any] = {"compute": [1.0, 1.0], "seconds_per_example": 0.01, "bandwidth_mbps": [1.0, 1.0]}


def tables() -> Iterator[tuple[dict[str, Any], int]]:
    """Devices under which sites are late or away at different exchanges, with seeds that show it."""
    for seed in range(6):
        yield {**LATE, "deadline_s": 1.5, "stage_deadline_s": 0.2}, seed
        yield {"availability": 0.7, **LATE, "deadline_s": 3.0}, seed
        yield {"availability": {"active_s": [1.5, 0.7], "away_s": [0.3, 0.7]}, **LATE, "deadline_s": 2.5}, seed


EVERY = list(tables())
SLOW = [pytest.param(*row, marks=pytest.mark.slow) for row in EVERY[3:]]


@pytest.mark.parametrize(("table", "seed"), [*EVERY[:3], *SLOW])
def test_the_real_protocol_keeps_whom_the_timing_keeps(
    table: dict[str, Any], seed: int, federation: Federation, bounded: Bounded
) -> None:
    fleet = make_fleet(Devices.model_validate(table), SITES, seed)
    real = real_round(federation, fleet, number=1, seed=seed)
    (timing,), (header,) = real.timing, real.header
    assert real.aborted is not timing.finished
    if real.aborted:
        assert real.sealed.last_sum is None
        return
    total = real.sealed.last_sum
    assert total is not None
    survivors = [int(site) + 1 for site in timing.survivors]
    assert total.sites == len(survivors)
    attempts = real.sealed.store.attempts(real.sealed.run_id)
    assert attempts[-1][2:] == ("finished", survivors)
    expected = np.sum([bounded.vectors[header.digest(), site] for site in survivors], axis=0)
    np.testing.assert_array_equal(signed(total.vector).astype(np.int64), expected)
    # Who was late has trained and was charged all the same; who never got the request was not.
    late = timing.stages[Stage.MASK].late.tolist()
    assert {s for d, s in bounded.vectors if d == header.digest()} == {*survivors, *(site + 1 for site in late)}


def test_the_seeds_show_something() -> None:
    """Rounds that finish without somebody, rounds that abort, and losses at more than one exchange."""
    seen, outcomes = set(), set()
    for table, seed in tables():
        fleet = make_fleet(Devices.model_validate(table), SITES, seed)
        quorum, sizes = Quorum(4, 4), Measured(dict.fromkeys(Stage, 2000.0), dict.fromkeys(Stage, 1500.0))
        timing = plan_round(fleet, np.arange(SITES), 100.0, sizes, quorum, Moment(1, seed))
        seen |= set(timing.missed().values())
        outcomes.add((timing.finished, len(timing.survivors) < SITES))
    assert outcomes >= {(True, True), (False, True)}
    assert seen >= {Stage.ADVERTISE, Stage.MASK}


def test_the_comparison_can_fail(federation: Federation, bounded: Bounded) -> None:
    fleet = make_fleet(Devices(), SITES, 1)
    real = real_round(federation, fleet, number=1, seed=1)
    (header,), total = real.header, real.sealed.last_sum
    assert total is not None and total.sites == SITES
    fewer = np.sum([bounded.vectors[header.digest(), site] for site in range(1, SITES)], axis=0)
    assert not np.array_equal(signed(total.vector).astype(np.int64), fewer)


def test_measured_bytes_are_those_of_the_formula_and_the_log(federation: Federation) -> None:
    """What the formula leaves out is what is shown of the log at the first exchange, and the model."""
    real = real_round(federation, make_fleet(Devices(), SITES, 1), number=1, seed=1)
    account, sizes = real.sealed.last_account, ByFormula(real.header[0], task=0)
    assert account is not None
    for stage in Stage:
        down, up = sizes.exchange(stage, (SITES,) * (int(stage) + 1))
        measured = account.stages[stage]
        task = measured.down - SITES * down
        if stage in (Stage.SHARE, Stage.CONSISTENCY, Stage.UNMASK):
            assert task == pytest.approx(0, abs=1e-6)
        else:
            assert task > 0
        assert measured.up - SITES * up >= -1e-6
