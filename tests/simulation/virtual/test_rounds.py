"""Rounds in virtual time: computed by hand, against the event loop, and what must grow with what."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.virtual.events import Happening, Kind, Loop, trace_round
from fedseal.simulation.virtual.fleet import Fleet, make_fleet
from fedseal.simulation.virtual.rounds import (
    Disturbance,
    Moment,
    Quorum,
    RoundTiming,
    over_committed,
    plan_release,
    plan_round,
)
from fedseal.simulation.virtual.sizes import sizes_for
from fedseal.simulation.virtual.tables import Devices
from fedseal.simulation.virtual.traces import Openings

EVERYONE = Quorum(3, 3)


@dataclass(frozen=True)
class Flat:
    """A million bits down and half a million up in every exchange."""

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        assert len(left) == int(stage) + 1
        return 125_000.0, 62_500.0


def fleet_of(compute: list[float], mbps: list[float], **table: Any) -> Fleet:
    devices = Devices.model_validate({"seconds_per_example": 0.01, "latency_ms": 50.0, **table})
    n = len(compute)
    speed = 1e6 * np.array(mbps)
    return Fleet(devices, np.array(compute), speed, speed / 2, np.full(n, devices.latency_ms) / 1e3)


def planned(fleet: Fleet, quorum: Quorum = EVERYONE, **options: Any) -> RoundTiming:
    cohort = np.arange(fleet.sites)
    moment = options.pop("moment", Moment(1, 7))
    return plan_round(fleet, cohort, options.pop("examples", 100.0), Flat(), quorum, moment, **options)


# By hand. Site 0: 0.1 + 1/1 + 0.5/0.5 = 2.1 s an exchange; site 1, ten times as fast a line: 0.1 + 0.1 + 0.1 = 0.3 s;
# site 2 as site 1. Training 100 examples of 0.01 s: 1 s, 0.5 s, 4 s at compute 1, 2, 0.25.
COMPUTE, LINES = [1.0, 2.0, 0.25], [1.0, 10.0, 10.0]


def test_a_round_computed_by_hand() -> None:
    timing = planned(fleet_of(COMPUTE, LINES))
    assert [s.seconds for s in timing.stages] == pytest.approx([2.1, 2.1, max(3.1, 0.8, 4.3), 2.1, 2.1])
    assert timing.seconds == pytest.approx(4 * 2.1 + 4.3)
    assert timing.bytes_down == 5 * 3 * 125_000 and timing.bytes_up == 5 * 3 * 62_500
    assert timing.finished and timing.missed() == {} and timing.survivors.tolist() == [0, 1, 2]


def test_a_deadline_drops_the_slow_and_costs_its_whole_length() -> None:
    fleet = fleet_of(COMPUTE, LINES, deadline_s=4.0)
    timing = planned(fleet, Quorum(2, 2))
    assert [s.seconds for s in timing.stages] == pytest.approx([2.1, 2.1, 4.0, 2.1, 2.1])
    assert timing.missed() == {2: Stage.MASK} and timing.survivors.tolist() == [0, 1]
    assert timing.stages[Stage.MASK].late.tolist() == [2]
    # The one that was dropped is asked nothing any more, and its vector is not counted.
    assert timing.bytes_down == (3 + 3 + 3 + 2 + 2) * 125_000
    assert timing.bytes_up == (3 + 3 + 2 + 2 + 2) * 62_500


def test_too_few_in_time_end_the_round_there() -> None:
    timing = planned(fleet_of(COMPUTE, LINES, deadline_s=4.0), Quorum(3, 3))
    assert not timing.finished and len(timing.stages) == 3
    assert timing.survivors.tolist() == [] and timing.seconds == pytest.approx(2.1 + 2.1 + 4.0)


def test_over_commitment_closes_the_exchange_with_the_number_wanted() -> None:
    fleet = fleet_of(COMPUTE, LINES, over_commit=1.5)
    assert over_committed(fleet, 2) == 3
    timing = planned(fleet, Quorum(2, 2, wanted=2))
    assert timing.stages[Stage.MASK].seconds == pytest.approx(3.1)
    assert timing.survivors.tolist() == [0, 1] and timing.missed() == {2: Stage.MASK}


def test_who_is_away_is_not_waited_for_and_who_goes_away_is() -> None:
    """Site 0's hours end at 3 s: in the second exchange, which begins at 2.1 s. Site 2's begin at 1 s."""
    fleet = fleet_of(COMPUTE, LINES, stage_deadline_s=30.0)
    hours = Openings(np.array([[0.0], [0.0], [1.0]]), np.array([[3.0], [1e6], [1e6]]), np.full(3, 1e6))
    fleet = replace(fleet, openings=hours, row=np.arange(3), phase=np.zeros(3))
    timing = planned(fleet, Quorum(1, 1))
    assert timing.missed() == {2: Stage.ADVERTISE, 0: Stage.SHARE}
    assert [s.seconds for s in timing.stages] == pytest.approx([2.1, 30.0, 0.8, 0.3, 0.3])
    assert timing.stages[Stage.ADVERTISE].late.tolist() == [] and timing.stages[Stage.SHARE].late.tolist() == [0]


def test_faults_on_purpose() -> None:
    fleet = fleet_of([1.0] * 4, [10.0] * 4, stage_deadline_s=9.0)
    silent = planned(fleet, disturbance=Disturbance(silent={1: Stage.CONSISTENCY}))
    assert silent.missed() == {1: Stage.CONSISTENCY} and silent.survivors.tolist() == [0, 1, 2, 3]
    assert silent.stages[Stage.CONSISTENCY].seconds == 9.0 and silent.stages[Stage.CONSISTENCY].late.tolist() == []
    lost = planned(fleet, disturbance=Disturbance(lost=frozenset({(2, Stage.SHARE)})))
    assert lost.missed() == {2: Stage.SHARE} and lost.stages[Stage.SHARE].late.tolist() == [2]
    late = planned(fleet, disturbance=Disturbance(delays={(3, Stage.UNMASK): 5.0}))
    assert late.missed() == {} and late.stages[Stage.UNMASK].seconds == pytest.approx(5.3)
    unconfirmed = planned(fleet, disturbance=Disturbance(delays={(3, Stage.CONSISTENCY): 99.0}))
    # It has signed, if too late, and opens shares like the others.
    assert unconfirmed.stages[Stage.UNMASK].answered.tolist() == [0, 1, 2, 3]
    assert unconfirmed.missed() == {3: Stage.CONSISTENCY}
    too_late = planned(fleet, disturbance=Disturbance(delays={(3, Stage.UNMASK): 9.0}))
    assert too_late.missed() == {3: Stage.UNMASK} and too_late.finished


def test_attempts_follow_one_another() -> None:
    fleet = make_fleet(Devices(availability=0.6), 6, seed=3)
    attempts = plan_release(fleet, np.arange(6), 10.0, Flat(), Quorum(5, 5), Moment(1, 3, start=100.0), retries=40)
    assert [a.finished for a in attempts[:-1]] == [False] * (len(attempts) - 1) and attempts[-1].finished
    assert len(attempts) > 1
    starts = [a.moment.start for a in attempts]
    assert starts == pytest.approx([100.0 + sum(a.seconds for a in attempts[:i]) for i in range(len(attempts))])


# Against the event loop.

TABLES: dict[str, dict[str, Any]] = {
    "lognormal": {"compute": [1.0, 1.0], "bandwidth_mbps": [2.0, 1.0], "deadline_s": 8.0, "stage_deadline_s": 4.0},
    "coins and stragglers": {"availability": 0.8, "stragglers": 0.3, "deadline_s": 6.0, "compute": [1.0, 0.3]},
    "sessions": {"availability": {"active_s": [8.0, 1.0], "away_s": [3.0, 1.0]}, "stage_deadline_s": 2.0},
    "all alike": {},
}


def same(one: RoundTiming, other: RoundTiming) -> bool:
    pairs = zip(one.stages, other.stages, strict=True)
    alike = [
        a.seconds == b.seconds
        and a.bytes_down == b.bytes_down
        and a.bytes_up == b.bytes_up
        and all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("asked", "answered", "late"))
        for a, b in pairs
    ]
    return one.finished == other.finished and all(alike)


@settings(max_examples=150, deadline=None)
@given(
    table=st.sampled_from(sorted(TABLES)),
    sites=st.integers(1, 14),
    seed=st.integers(0, 10_000),
    wanted=st.none() | st.integers(1, 14),
    needed=st.integers(1, 6),
    data=st.data(),
)
def test_array_operations_and_events_agree(
    table: str, sites: int, seed: int, wanted: int | None, needed: int, data: st.DataObject
) -> None:
    fleet = make_fleet(Devices.model_validate(TABLES[table]), 14, seed)
    cohort = np.sort(np.array(data.draw(st.permutations(range(14))), dtype=np.intp)[:sites])
    struck = st.dictionaries(st.integers(0, 13), st.sampled_from(list(Stage)), max_size=3)
    silent, lost, slow = data.draw(struck), data.draw(struck), data.draw(struck)
    disturbance = Disturbance(silent, frozenset(lost.items()), frozenset(), dict.fromkeys(slow.items(), 3.0))
    arguments = (fleet, cohort, 300.0, sizes_for(14, 20_000), Quorum(needed, needed, wanted), Moment(2, seed, 5.0))
    planned_ = plan_round(*arguments, disturbance)
    traced, happenings = trace_round(*arguments, disturbance)
    assert same(planned_, traced)
    times = [h.seconds for h in happenings]
    assert times == sorted(times)
    for stage in planned_.stages:
        answers = {h.site for h in happenings if h.kind is Kind.ANSWERED and h.stage is stage.stage}
        assert answers == set(stage.answered.tolist())


def test_the_comparison_can_fail() -> None:
    fleet = fleet_of(COMPUTE, LINES)
    assert not same(planned(fleet), planned(fleet, disturbance=Disturbance(delays={(0, Stage.MASK): 2.0})))


def test_the_clock_goes_on_with_the_next_event() -> None:
    loop: Loop[str] = Loop(10.0)
    for at, name in ((12.0, "b"), (11.0, "a"), (12.0, "c"), (np.inf, "never"), (3.0, "past")):
        loop.plan(at, name)
    taken = [(loop.take(), loop.now) for _ in range(5)]
    assert taken == [("past", 10.0), ("a", 11.0), ("b", 12.0), ("c", 12.0), (None, 12.0)]


def test_a_timeline_says_who_was_too_late() -> None:
    fleet = fleet_of(COMPUTE, LINES, deadline_s=4.0)
    _, seen = trace_round(fleet, np.arange(3), 100.0, Flat(), Quorum(2, 2), Moment(1, 7))
    (late,) = (h for h in seen if h.kind is Kind.TOO_LATE)
    assert late == Happening(late.seconds, Stage.MASK, Kind.TOO_LATE, 2)
    assert late.seconds == pytest.approx(2.1 + 2.1 + 4.0)


# What must grow with what.


@settings(max_examples=60, deadline=None)
@given(
    mbps=st.lists(st.floats(0.5, 200), min_size=4, max_size=8),
    site=st.integers(0, 3),
    factor=st.floats(1.0, 20.0),
    examples=st.floats(1.0, 1e4),
)
def test_more_bandwidth_speed_or_patience_never_hurts(
    mbps: list[float], site: int, factor: float, examples: float
) -> None:
    """Without deadlines a faster line, a faster device and less work make no round longer; and nobody is lost."""
    patient = {"deadline_s": 1e9, "stage_deadline_s": 1e9}
    compute = [1.0] * len(mbps)
    base = planned(fleet_of(compute, mbps, **patient), examples=examples)
    wider = [factor * b if i == site else b for i, b in enumerate(mbps)]
    faster = [factor * c if i == site else c for i, c in enumerate(compute)]
    assert planned(fleet_of(compute, wider, **patient), examples=examples).seconds <= base.seconds
    assert planned(fleet_of(faster, mbps, **patient), examples=examples).seconds <= base.seconds
    assert planned(fleet_of(compute, mbps, **patient), examples=examples / factor).seconds <= base.seconds
    assert base.finished and len(base.survivors) == len(mbps)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), short=st.floats(0.5, 10.0), more=st.floats(1.0, 3.0))
def test_a_longer_deadline_keeps_whoever_a_shorter_one_kept(seed: int, short: float, more: float) -> None:
    def survivors(deadline: float) -> set[int]:
        fleet = make_fleet(Devices(compute=(1.0, 1.0), deadline_s=deadline), 10, seed)
        return set(plan_round(fleet, np.arange(10), 1000.0, Flat(), Quorum(1, 1), Moment(1, 1)).survivors.tolist())

    assert survivors(short) <= survivors(short * more)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), sites=st.integers(1, 12), more=st.integers(1, 12))
def test_a_site_more_leaves_the_others_as_they_were(seed: int, sites: int, more: int) -> None:
    table = Devices.model_validate(
        {**TABLES["lognormal"], "stragglers": 0.5, "latency_ms": [20.0, 1.0], "up_mbps": [1.0, 0.5]}
    )
    for devices in (table, table.model_copy(update={"availability": 0.5}), Devices.model_validate(TABLES["sessions"])):
        few, many = make_fleet(devices, sites, seed), make_fleet(devices, sites + more, seed)
        for name in ("compute", "down", "up", "latency", "phase"):
            np.testing.assert_array_equal(getattr(many, name)[:sites][: len(getattr(few, name))], getattr(few, name))
        one, other = (
            plan_round(fleet, np.arange(fleet.sites), 100.0, Flat(), Quorum(1, 1), Moment(4, seed, 50.0))
            for fleet in (few, many)
        )
        mine = other.stages[0].answered
        np.testing.assert_array_equal(one.stages[0].answered, mine[mine < sites])
