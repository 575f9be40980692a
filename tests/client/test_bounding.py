"""Whatever a site's function returns leaves as a bounded vector or not at all: no reply tells that it was out of range.

That something had to be bounded is counted in the sum, and how a site's replies look does not depend on it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    default_task,
    flower_task,
    header_for,
    make_federation,
    numpy_of,
    ordinary_app,
)
from support.keys import make_roster
from support.rounds import make_header

from fedseal.client.release import bounded_release
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.quantize import CLIPPED, Rounding, check_sum
from fedseal.privacy.randomness import SystemRandomness
from fedseal.privacy.releases import (
    METRIC_PREFIX,
    REGISTRY,
    REPORTED_PREFIX,
    UPDATE,
    VALUES,
    MetricRange,
    release_layout,
    shapes_hash,
)
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.server.exchange import control_of, vector_of

INF, NAN = float("inf"), float("nan")
LOSS = {"loss": MetricRange(-1.0, 5.0)}
BIAS = np.array([-1.0, 0.0, 1.0])


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


def script(**changes: Any) -> Script:
    """Three sites of 10 examples with the loss 1, where nothing else is said."""
    return Script(**{"change": {1: 1.0, 2: 1.0, 3: 1.0}, "metrics": {"loss": dict.fromkeys((1, 2, 3), 1.0)}, **changes})


def finished(federation: Federation, what: Script, **header: Any) -> Any:
    """The sum of one round."""
    state, _ = Nodes(federation, ordinary_app(what)).run(header_for(federation, metrics=LOSS, **header))
    assert state.survivors == (1, 2, 3)
    return state.total


def bias(total: Any) -> Any:
    """The part of the summed update that belongs to the bias, in units of one example's update."""
    return total.real(VALUES)[:3] * 100


def fill(value: float) -> Any:
    """Puts one number into the returned weight."""

    def change(content: RecordDict) -> None:
        record = content.array_records["arrays"]
        array = record["weight"].numpy().copy()
        array[0, 0] = value
        record["weight"] = Array(array)

    return change


def test_inside_its_ranges_nothing_is_bounded(federation: Federation) -> None:
    total = finished(federation, script())
    assert bias(total) == pytest.approx(30 * BIAS, abs=1e-3)
    assert total.real(CLIPPED)[0] == 0


def test_a_longer_update_is_scaled_down_to_the_range(federation: Federation) -> None:
    """To the norm, not coordinate by coordinate: its direction stays."""
    norm = float(np.sqrt((np.linspace(-1, 1, 12) ** 2).sum() + 2))
    total = finished(federation, script(change={1: 1000.0}), value_range=7.0)
    assert bias(total) == pytest.approx(10 * 7.0 / norm * BIAS, abs=1e-4)
    assert total.real(CLIPPED)[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.quick("inf", "nan")
@pytest.mark.parametrize("value", [INF, -INF, NAN, 3e38])
def test_an_update_that_is_not_a_number_counts_as_no_site(federation: Federation, value: float) -> None:
    """Also 3e38, which float32 still holds: the range is what decides, and that is a long update like any other."""
    total = finished(federation, script(alter={2: fill(value)}))
    assert total.weight == (30 if value == 3e38 else 20)
    assert total.real(CLIPPED)[0] == pytest.approx(1.0, abs=1e-6)
    assert np.isfinite(total.real(VALUES)).all()
    if value != 3e38:
        assert bias(total) == pytest.approx(20 * BIAS, abs=1e-3)


def test_under_a_private_plan_it_keeps_its_public_weight(federation: Federation) -> None:
    what = script(done=True, alter={2: fill(NAN)}, change={1: 1.0, 3: 1.0})
    state, _ = Nodes(federation, ordinary_app(what)).run(header_for(federation, PRIVATE))
    assert state.survivors == (1, 2, 3)
    # The roster's 100 persons a site, not the 10 that the metrics report.
    assert state.total.weight == 300
    assert bias(state.total) == pytest.approx(200 * BIAS, abs=1e-3)
    assert state.total.real(CLIPPED)[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.quick("0-0", "101-100", "-1-0", "nan-0")
@pytest.mark.parametrize(
    ("weight", "counted"), [(0, 0), (100, 100), (101, 100), (-1, 0), (INF, 100), (-INF, 0), (NAN, 0), (2**62, 100)]
)
def test_a_weight_is_bounded(federation: Federation, weight: float, counted: int) -> None:
    total = finished(federation, script(examples={3: weight}))
    assert total.weight == 20 + counted
    assert total.real(CLIPPED)[0] == pytest.approx(float(weight not in (0, 100)), abs=1e-6)
    assert bias(total) == pytest.approx((20 + counted) * BIAS, abs=1e-3)


@pytest.mark.quick("5.0-70-30", "-3.0-10-30", "nan-20-20")
@pytest.mark.parametrize(
    ("loss", "summed", "reported"),
    [(4.0, 60, 30), (5.0, 70, 30), (7.0, 70, 30), (-3.0, 10, 30), (INF, 70, 30), (-INF, 10, 30), (NAN, 20, 20)],
)
def test_a_metric_is_bounded(federation: Federation, loss: float, summed: float, reported: float) -> None:
    total = finished(federation, script(metrics={"loss": {1: 1.0, 2: loss, 3: 1.0}}))
    assert total.real(METRIC_PREFIX + "loss")[0] * 100 == pytest.approx(summed, abs=1e-3)
    assert total.real(REPORTED_PREFIX + "loss")[0] * 100 == pytest.approx(reported, abs=1e-3)
    assert total.real(CLIPPED)[0] == pytest.approx(float(loss not in (4.0, 5.0)), abs=1e-6)


def test_a_metric_that_a_site_does_not_report_is_not_bounded(federation: Federation) -> None:
    total = finished(federation, script(metrics={"loss": {1: 2.0, 3: 2.0}}))
    assert total.real(METRIC_PREFIX + "loss")[0] * 100 == pytest.approx(40, abs=1e-3)
    assert total.real(REPORTED_PREFIX + "loss")[0] * 100 == pytest.approx(20, abs=1e-3)
    assert total.real(CLIPPED)[0] == 0


STRANGE: dict[str, dict[str, Any]] = {
    "not a number": {"alter": {1: fill(NAN)}},
    "overflow": {"alter": {1: fill(INF)}},
    "long": {"alter": {1: fill(3e38)}},
    "weight": {"examples": {1: 10**9}},
    "no weight": {"examples": {1: NAN}},
    "metric": {"metrics": {"loss": {1: NAN, 2: 1.0, 3: 1.0}}},
}


def form(seen: Any) -> list[tuple[Any, ...]]:
    """All of site 1's replies but the bytes that are random anyway."""
    found = []
    for (stage, site), (_, reply) in seen.items():
        if site == 1:
            vector, control = vector_of(reply), control_of(reply)
            shape = None if vector is None else (vector.dtype.str, vector.shape)
            found.append((stage, sorted(reply.content), None if control is None else len(control), shape))
    return found


@pytest.mark.quick("not a number-none", "overflow-local", "long-local", "weight-none", "no weight-local", "metric-none")
@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
@pytest.mark.parametrize("name", STRANGE)
def test_the_replies_look_the_same_whatever_was_bounded(federation: Federation, name: str, plan: Any) -> None:
    """No refusal, no other stage, no other length: who sets the ranges learns nothing about a single site."""
    metrics = LOSS if plan is None else {}

    def replies(run: bytes, **changes: Any) -> list[tuple[Any, ...]]:
        app = ordinary_app(script(done=True, **changes))
        _, seen = Nodes(federation, app).run(header_for(federation, plan, run=run, metrics=metrics))
        return form(seen)

    ordinary, strange = replies(b"o" * 16), replies(b"s" * 16, **STRANGE[name])
    assert len(ordinary) == len(Stage)
    assert strange == ordinary
    assert federation.incidents(1) == []


def test_bisecting_with_ranges_finds_nothing(federation: Federation) -> None:
    """The reviewer's search for one site's number of examples: every question gets the same answer."""
    nodes = Nodes(federation, ordinary_app(script(examples={1: 77})))
    for number, largest in enumerate((8, 76, 77, 1000)):
        run = bytes([number]) * 16
        state, _ = nodes.run(header_for(federation, run=run, largest_weight=largest), until=Stage.MASK)
        assert state.refused == ()
    assert all(federation.incidents(site) == [] for site in (1, 2, 3))


def test_wrong_forms_are_refused_whatever_they_hold(federation: Federation) -> None:
    """A code for the form, which no data decides; the message about it quotes no value."""

    def wrong(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord({"weight": Array(np.array([271828.0, NAN]))})

    nodes = Nodes(federation, ordinary_app(script(alter={2: wrong})))
    state, _ = nodes.run(header_for(federation), until=Stage.MASK)
    assert [(r.site, r.refusal.code) for r in state.refused] == [(2, RefusalCode.TASK)]
    assert "271828" not in nodes.incident(2)


floats32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
anything = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=150, deadline=None)
@given(
    weight=npst.arrays("f4", (3, 4), elements=floats32),
    vector=npst.arrays("f8", 3, elements=st.floats(allow_nan=True, allow_infinity=True)),
    examples=anything,
    loss=st.none() | anything,
    value_range=st.floats(1e-6, 1e30),
    rounding=st.sampled_from(list(Rounding)),
)
def test_any_numbers_at_all_make_a_vector_in_its_ranges(
    weight: Any, vector: Any, examples: float, loss: float | None, value_range: float, rounding: Rounding
) -> None:
    """What leaves is what an honest site can make, has at most the range's norm, and says if it was bounded."""
    received = numpy_of(default_task()["arrays"])
    kind, plan = REGISTRY[UPDATE], NoPrivacy(releases=1, retries=0)
    layout = release_layout(
        kind,
        values=15,
        value_range=value_range,
        weight_key="num-examples",
        largest_weight=100,
        metrics=LOSS,
        sites=3,
        rounding=rounding,
    )
    shapes = shapes_hash([(n, a.shape) for n, a in received.items()])
    header = make_header(make_roster(3), [1, 2, 3], layout, plan=encode_plan(plan), shapes_hash=shapes)
    metrics = MetricRecord({"num-examples": examples})
    if loss is not None:
        metrics["loss"] = loss
    with flower_task():
        request = Message(RecordDict(), dst_node_id=1, message_type="train")
        content = RecordDict({"a": ArrayRecord({"weight": Array(weight), "bias": Array(vector)}), "m": metrics})
        reply = Message(content, reply_to=request)
    stream = SystemRandomness().stream("rounding")
    with np.errstate(all="ignore"):
        made = bounded_release(header, kind, plan, received, reply, public_persons=100, stream=stream, noise=stream)
        change = np.concatenate([vector - received["bias"], (weight.astype("f8") - received["weight"]).ravel()])
        norm = float(np.linalg.norm(change))
    total = check_sum(layout, 1, made.vector)
    fraction = total.weight / 100
    values = total.real(VALUES)
    unit = 1 / layout.segment(VALUES).scale
    assert 0 <= fraction <= 1
    assert float(np.linalg.norm(values)) <= fraction * value_range * (1 + 1e-6) + 15 * unit
    inside = norm <= value_range and 0 <= examples <= 100 and (loss is None or -1 <= loss <= 5)
    assert (total.real(CLIPPED)[0] > 0.5) == (not inside)
    if inside:
        assert values == pytest.approx(examples / 100 * change, abs=1.5 * unit, rel=1e-6)
