"""A server chooses the ranges of a release once a run, and nothing else of a layout ever."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.flower import (
    PLENTY,
    PRIVATE,
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)

from fedseal.privacy.plan import NoPrivacy, PrivacyPlan
from fedseal.privacy.quantize import Layout, Rounding, Segment
from fedseal.privacy.releases import EVALUATION, MOMENTS, REGISTRY, MetricRange
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Signed
from fedseal.server.exchange import control_of
from fedseal.wire import decode

LOSS = {"loss": MetricRange(0.0, 5.0)}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 4)


@pytest.fixture
def running(federation: Federation) -> Nodes:
    return Nodes(federation, ordinary_app(Script(done=True)))


def answer(running: Nodes, header: Any, kind: str = "train") -> RefusalCode | None:
    """How site 1 answers a header: None is an advertisement."""
    found = decode(control_of(running.send(1, running.opening(header), kind=kind)) or b"", Refusal, Signed)
    return RefusalCode(found.code) if isinstance(found, Refusal) else None


def segment(name: str, **changes: Any) -> Callable[[Layout], Layout]:
    """Changes one segment of a layout."""
    return lambda layout: replace(
        layout, segments=tuple(replace(s, **changes) if s.name == name else s for s in layout.segments)
    )


def without(name: str) -> Callable[[Layout], Layout]:
    return lambda layout: replace(layout, segments=tuple(s for s in layout.segments if s.name != name))


LAYOUTS: dict[str, Callable[[Layout], Layout]] = {
    # The reviewer's: a scale of one level turns a sum of values into a count of sites above a threshold.
    "a scale of one level": segment("metric:loss", scale=0.2),
    "a coarser scale of values": segment("values", scale=0.01),
    "a slightly other scale": lambda layout: replace(
        layout, segments=tuple(replace(s, scale=s.scale * (1 - 1e-12)) for s in layout.segments)
    ),
    "an uneven range of values": segment("values", low=-1.0),
    "a metric without its share": without("reported:loss"),
    "a share without its metric": without("metric:loss"),
    "no count of what was bounded": without("clipped"),
    "another range of that count": segment("clipped", high=0.5),
    "a metric that is not weighted": segment("metric:loss", weighted=False),
    "weights that are not whole": segment("weight:num-examples", high=99.5),
    "weights from below zero": segment("weight:num-examples", low=-1.0),
    "another order": lambda layout: replace(layout, segments=tuple(reversed(layout.segments))),
    "a segment of its own": lambda layout: replace(
        layout, segments=(*layout.segments, Segment("more", 1, 0.0, 1.0, 1.0, False))
    ),
    "two weights": lambda layout: replace(
        layout, segments=(*layout.segments, replace(layout.weight, name="weight:other"))
    ),
    "no weight": without("weight:num-examples"),
    "no values": without("values"),
    "ranges below what a double can divide": lambda layout: replace(
        layout,
        segments=tuple(
            replace(s, low=-1e-306, high=1e-306, scale=1e308) if s.name == "values" else s for s in layout.segments
        ),
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_the_registry_does_not_make_is_refused(running: Nodes, name: str) -> None:
    made = header_for(running.federation, metrics=LOSS)
    other = header_for(running.federation, layout=LAYOUTS[name](made.layout))
    assert other.layout != made.layout
    assert answer(running, other) is RefusalCode.PROTOCOL
    assert "not that of release 'update'" in running.incident(1)
    assert answer(running, made) is None


def test_a_layout_for_another_number_of_sites_is_refused(running: Nodes) -> None:
    """A finer one could wrap around and is no header at all; a coarser one is the server's choice of a scale."""
    federation = running.federation
    three, four = header_for(federation, cohort=[1, 2, 3]), header_for(federation)
    with pytest.raises(ValueError, match="could wrap around"):
        header_for(federation, layout=three.layout)
    assert answer(running, header_for(federation, cohort=[1, 2, 3], layout=four.layout)) is RefusalCode.PROTOCOL


MOVES: dict[str, dict[str, Any]] = {
    "values": {"value_range": 99.0},
    "weights": {"largest_weight": 101},
    "a metric": {"metrics": {"loss": MetricRange(0.0, 4.9)}},
    "another metric": {"metrics": {**LOSS, "more": MetricRange(0.0, 1.0)}},
    "no metric": {"metrics": {}},
}


@pytest.mark.parametrize("name", MOVES)
def test_ranges_do_not_move_within_a_run(running: Nodes, name: str) -> None:
    """Neither in a retry nor in a later round; another run may have others."""
    federation = running.federation
    assert answer(running, header_for(federation, metrics=LOSS)) is None
    moved = {"metrics": LOSS, **MOVES[name]}
    laters: list[dict[str, Any]] = [{"attempt": 1}, {"release_seq": 2}]
    for later in laters:
        assert answer(running, header_for(federation, **moved, **later)) is RefusalCode.PROTOCOL
        assert "other ranges or another plan" in running.incident(1)
    assert answer(running, header_for(federation, metrics=LOSS, release_seq=2)) is None
    assert answer(running, header_for(federation, **moved, run=b"o" * 16)) is None


@pytest.mark.parametrize("plan", [NoPrivacy(releases=91, retries=10), PRIVATE])
def test_the_plan_does_not_change_within_a_run(running: Nodes, plan: PrivacyPlan) -> None:
    assert answer(running, header_for(running.federation, PLENTY)) is None
    assert answer(running, header_for(running.federation, plan, release_seq=2)) is RefusalCode.PROTOCOL
    assert "other ranges or another plan" in running.incident(1)


@pytest.mark.parametrize("change", [{"ring_bits": 64}, {"rounding": Rounding.NEAREST}])
def test_ring_and_rounding_do_not_change_within_a_run(running: Nodes, change: dict[str, Any]) -> None:
    federation = running.federation
    assert answer(running, header_for(federation)) is None
    assert answer(running, header_for(federation, release_seq=2, **change)) is RefusalCode.PROTOCOL
    assert answer(running, header_for(federation, run=b"o" * 16, **change)) is None


def test_another_cohort_has_another_scale_and_the_same_ranges(running: Nodes) -> None:
    """A site that drops out must not end the run for the others."""
    federation = running.federation
    first = header_for(federation, metrics=LOSS)
    fewer = header_for(federation, metrics=LOSS, cohort=[1, 2, 3], attempt=1)
    assert first.layout != fewer.layout
    assert answer(running, first) is None
    assert answer(running, fewer) is None
    assert answer(running, header_for(federation, metrics=LOSS, release_seq=2)) is None


def test_releases_are_pinned_one_by_one(running: Nodes) -> None:
    """Statistics and evaluation in the run of an update have ranges of their own."""
    federation = running.federation
    moments, evaluation = REGISTRY[MOMENTS], REGISTRY[EVALUATION]
    assert answer(running, header_for(federation, value_range=3.0, kind=moments)) is None
    assert answer(running, header_for(federation, release_seq=2)) is None
    assert answer(running, header_for(federation, release_seq=3, kind=evaluation, metrics=LOSS), "evaluate") is None
    moved = header_for(federation, release_seq=4, kind=moments)
    assert answer(running, moved) is RefusalCode.PROTOCOL


def test_a_refused_header_pins_nothing(running: Nodes) -> None:
    """It is one transaction: what the budget turns away has not begun the run."""
    federation = running.federation
    expensive = replace(PRIVATE, noise_multiplier=0.01)
    assert answer(running, header_for(federation, expensive, value_range=5.0)) is RefusalCode.BUDGET
    assert answer(running, header_for(federation, value_range=7.0)) is None
    assert answer(running, header_for(federation, value_range=5.0, release_seq=2)) is RefusalCode.PROTOCOL


def test_bisecting_a_sites_metric_needs_a_run_for_each_question(running: Nodes) -> None:
    """The reviewer's search moved a range from round to round: here it ends after its first question."""
    federation = running.federation
    answers = [
        answer(running, header_for(federation, release_seq=n, metrics={"loss": MetricRange(-1.0, 20.0 / n)}))
        for n in range(1, 6)
    ]
    assert answers == [None, *[RefusalCode.PROTOCOL] * 4]
