"""Only plans this build runs, layouts this registry makes, headers that move forward and rosters that were pinned."""

import math
import struct
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, assume, given, settings
from support.keys import ROOT, SERVER, key, make_roster, signed
from support.messages import messages
from support.rounds import make_header, ring_layout

from fedseal.errors import ConfigError, ExitCode, LocalError, PeerError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PlanKind, decode_plan, encode_plan
from fedseal.privacy.quantize import Layout, Rounding, Segment
from fedseal.privacy.releases import (
    COUNTS,
    DRIFT,
    EVALUATION,
    MEMBERS,
    MOMENTS,
    REGISTRY,
    UPDATE,
    MessageKind,
    MetricRange,
    Population,
    check_layout,
    release_layout,
    shapes_hash,
    terms_digest,
)
from fedseal.privacy.roster import Roster, RosterEntry, SignedRoster, open_roster, sign_roster
from fedseal.privacy.runs import CloseRun, RunRecord, admit, control_signed_by, sign_control
from fedseal.wire import encode

# Plans

GAUSSIAN: dict[str, Any] = {
    "clip_norm": 1.0,
    "noise_multiplier": 1.5,
    "sample_rate": 0.5,
    "steps": 2,
    "releases": 3,
    "retries": 1,
}


def test_a_plan_is_for_its_releases_and_their_retries() -> None:
    assert LocalGaussian(**GAUSSIAN).attempts == 4
    assert NoPrivacy(releases=5, retries=0).attempts == 5
    assert (LocalGaussian.kind, NoPrivacy.kind) == (PlanKind.LOCAL, PlanKind.NONE)


LIMITS = {"clip_norm": (1e-6, 1e6), "noise_multiplier": (1e-3, 2.0**21), "sample_rate": (1e-6, 1.0)}


def outside(low: float, high: float) -> list[float]:
    """Numbers that are not between two, near and far."""
    beside = [math.nextafter(low, 0.0), math.nextafter(high, math.inf)]
    return [*beside, 0.0, -0.0, -low, -1.0, 5e-324, 1e308, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    "changes",
    [
        *[{name: bad} for name, limits in LIMITS.items() for bad in outside(*limits)],
        {"steps": 0},
        {"releases": 0},
        {"steps": -1},
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_cannot_exist(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"expected .*{next(iter(changes))}.* from|at least one step"):
        LocalGaussian(**(GAUSSIAN | changes))


@pytest.mark.parametrize("end", [0, 1])
def test_the_limits_of_a_plan_belong_to_it(end: int) -> None:
    made = LocalGaussian(**(GAUSSIAN | {name: limits[end] for name, limits in LIMITS.items()}))
    assert decode_plan(encode_plan(made)) == made


@pytest.mark.parametrize(("name", "limits"), LIMITS.items(), ids=LIMITS)
def test_a_plan_outside_its_limits_is_refused_when_it_is_read(name: str, limits: tuple[float, float]) -> None:
    """Whoever writes the header need not have made the plan with our class."""
    raw = encode_plan(LocalGaussian(**(GAUSSIAN | {name: 0.75})))
    assert raw.count(struct.pack(">d", 0.75)) == 1
    for bad in outside(*limits):
        with pytest.raises(PeerError, match="a privacy plan that this build does not run"):
            decode_plan(raw.replace(struct.pack(">d", 0.75), struct.pack(">d", bad)))


def test_a_plan_without_releases_cannot_exist() -> None:
    with pytest.raises(ValueError, match="at least one release"):
        NoPrivacy(releases=0, retries=3)


@pytest.mark.parametrize("plan", [LocalGaussian(**GAUSSIAN), NoPrivacy(releases=1, retries=0)])
def test_a_plan_is_read_back_from_its_header(plan: LocalGaussian | NoPrivacy) -> None:
    assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        encode_plan(NoPrivacy(releases=1, retries=0)) + b"\x00",
        encode_plan(NoPrivacy(releases=1, retries=0))[:-1],
        encode_plan(NoPrivacy(releases=1, retries=0)).replace(b"\x01\x32", b"\x01\x7f"),
        encode_plan(NoPrivacy(releases=0xABCD, retries=0)).replace(b"\xab\xcd", b"\x00\x00"),
        encode(CloseRun(bytes(16))),
    ],
    ids=["nothing", "garbage", "too long", "too short", "another kind", "no release", "another message"],
)
def test_a_plan_that_this_build_does_not_run_is_the_servers_fault(raw: bytes) -> None:
    with pytest.raises(PeerError, match="a privacy plan that this build does not run") as caught:
        decode_plan(raw)
    assert caught.value.peer == "server"
    assert caught.value.exit_code == ExitCode.PEER


# Layouts

METRICS = {"auc": MetricRange(0.0, 1.0), "bins": MetricRange(0.0, 5.0, length=4)}


def layout_of(name: str, **changes: Any) -> Layout:
    """The registry's layout of a release, for three sites."""
    kind = REGISTRY[name]
    arguments: dict[str, Any] = {
        "values": 10 if kind.has_values else 0,
        "value_range": 2.0,
        "weight_key": "num-examples",
        "largest_weight": 500,
        "metrics": {},
        "sites": 3,
    }
    return release_layout(kind, **(arguments | changes))


def accepts(name: str, plan: PlanKind, layout: Layout, sites: int = 3) -> None:
    check_layout(REGISTRY[name], plan, layout, sites)


def refused(name: str, layout: Layout, sites: int = 3, plan: PlanKind = PlanKind.NONE) -> None:
    """That a layout is the server's fault."""
    with pytest.raises(PeerError, match=f"a layout that is not that of release '{name}'") as caught:
        accepts(name, plan, layout, sites)
    assert caught.value.peer == "server"


def test_the_registry_is_closed_and_fits_its_names() -> None:
    assert set(REGISTRY) == {UPDATE, EVALUATION, MOMENTS, COUNTS, MEMBERS, DRIFT}
    assert all(kind.name == name for name, kind in REGISTRY.items())
    with pytest.raises(TypeError):
        REGISTRY["other"] = REGISTRY[UPDATE]  # type: ignore[index]


def test_the_registry_says_how_each_release_is_made() -> None:
    both, counts = frozenset(PlanKind) - {PlanKind.HISTOGRAM}, frozenset({PlanKind.NONE, PlanKind.HISTOGRAM})
    facts = {
        name: (k.population, k.message, k.plans, k.has_values, k.difference, k.declared, k.counts)
        for name, k in REGISTRY.items()
    }
    assert facts == {
        UPDATE: (Population.TRAIN, MessageKind.TRAIN, both, True, True, False, False),
        EVALUATION: (Population.TEST, MessageKind.EVALUATE, counts, False, False, False, True),
        # Statistics only from code that says it made them: an ordinary train function's arrays are not moments.
        MOMENTS: (Population.TRAIN, MessageKind.TRAIN, both, True, False, True, False),
        COUNTS: (Population.TRAIN, MessageKind.TRAIN, counts, True, False, True, True),
        # A vote: no plan covers what it says of a site's persons.
        MEMBERS: (Population.TRAIN, MessageKind.TRAIN, frozenset({PlanKind.NONE}), True, False, True, True),
        DRIFT: (Population.MONITOR, MessageKind.TRAIN, counts, True, False, True, True),
    }
    # Whose cells a task has to name.
    assert {name for name, kind in REGISTRY.items() if kind.tables} == {EVALUATION, COUNTS}


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("sites", [2, 256])
@pytest.mark.parametrize("name", [UPDATE, EVALUATION, MOMENTS])
def test_every_layout_of_the_registry_is_one_it_accepts(name: str, sites: int, ring_bits: int) -> None:
    kind = REGISTRY[name]
    for rounding in Rounding:
        bare = layout_of(name, sites=sites, ring_bits=ring_bits, rounding=rounding)
        with_metrics = layout_of(name, sites=sites, ring_bits=ring_bits, rounding=rounding, metrics=METRICS)
        assert bare.capacity() >= sites
        assert with_metrics.capacity() >= sites
        # Under a plan for counts there are no metrics but counts: see test_counts.py.
        for plan in kind.plans - {PlanKind.HISTOGRAM}:
            check_layout(kind, plan, bare, sites)
        check_layout(kind, PlanKind.NONE, with_metrics, sites)


def test_a_layout_holds_values_then_weight_then_flag_then_metrics_by_name() -> None:
    layout = layout_of(UPDATE, metrics=METRICS)
    after = [
        ("weight:num-examples", 1, 0.0, 500.0, False),
        ("clipped", 1, 0.0, 1.0, False),
        ("metric:auc", 1, 0.0, 1.0, True),
        ("reported:auc", 1, 0.0, 1.0, True),
        ("metric:bins", 4, 0.0, 5.0, True),
        ("reported:bins", 1, 0.0, 1.0, True),
    ]
    names = [(s.name, s.length, s.low, s.high, s.weighted) for s in layout.segments]
    assert names == [("values", 10, -2.0, 2.0, True), *after]
    # An evaluation says too that something had to be bounded.
    evaluation = layout_of(EVALUATION, metrics=METRICS)
    assert [(s.name, s.length, s.low, s.high, s.weighted) for s in evaluation.segments] == after
    assert layout.rounding == Rounding.STOCHASTIC


@pytest.mark.parametrize("name", [UPDATE, MOMENTS])
def test_metrics_of_persons_do_not_ride_beside_a_private_release(name: str) -> None:
    for metrics in (METRICS, {"auc": METRICS["auc"]}):
        with pytest.raises(PeerError, match="metrics of persons beside a private release"):
            accepts(name, PlanKind.LOCAL, layout_of(name, metrics=metrics))
    # Nor does what stands beside a metric.
    bare = layout_of(name)
    reported = layout_of(name, metrics={"auc": METRICS["auc"]}).segment("reported:auc")
    refused(name, replace(bare, segments=(*bare.segments, reported)), plan=PlanKind.LOCAL)


def test_a_plan_that_the_registry_does_not_allow_is_refused() -> None:
    with pytest.raises(PeerError, match="release 'evaluation' under plan local") as caught:
        accepts(EVALUATION, PlanKind.LOCAL, layout_of(EVALUATION))
    assert caught.value.peer == "server"


def with_segments(*segments: Segment) -> Layout:
    return Layout(32, 1, segments)


VALUES, WEIGHT, CLIPPED, AUC, AUC_SENT, BINS, BINS_SENT = layout_of(UPDATE, metrics=METRICS).segments
HEAD = (VALUES, WEIGHT, CLIPPED)
WRONG: dict[str, tuple[str, Layout]] = {
    "an unknown segment": (UPDATE, with_segments(*HEAD, replace(AUC, name="rows"))),
    "an unknown segment first": (UPDATE, with_segments(replace(AUC, name="rows"), *HEAD)),
    "no weight": (UPDATE, with_segments(VALUES, CLIPPED)),
    "no values": (UPDATE, with_segments(WEIGHT, CLIPPED)),
    "no clipped": (UPDATE, with_segments(VALUES, WEIGHT)),
    "no clipped in an evaluation": (EVALUATION, with_segments(WEIGHT, AUC, AUC_SENT)),
    "another order": (UPDATE, with_segments(WEIGHT, VALUES, CLIPPED)),
    "metrics out of order": (UPDATE, with_segments(*HEAD, BINS, BINS_SENT, AUC, AUC_SENT)),
    "metrics apart from their reports": (UPDATE, with_segments(*HEAD, AUC, BINS, AUC_SENT, BINS_SENT)),
    "a report before its metric": (UPDATE, with_segments(*HEAD, AUC_SENT, AUC)),
    "a metric without a report": (UPDATE, with_segments(*HEAD, AUC)),
    "a report without a metric": (UPDATE, with_segments(*HEAD, AUC_SENT)),
    "a metric with another's report": (UPDATE, with_segments(*HEAD, AUC, BINS_SENT)),
    "two weights": (UPDATE, with_segments(VALUES, WEIGHT, replace(WEIGHT, name="weight:b"), CLIPPED)),
    "a second weight as a metric": (UPDATE, with_segments(*HEAD, replace(WEIGHT, name="weight:b"))),
    "values in an evaluation": (EVALUATION, with_segments(*HEAD)),
    "nothing but a metric": (EVALUATION, with_segments(AUC)),
    "values without a weight": (UPDATE, with_segments(replace(VALUES, weighted=False), WEIGHT, CLIPPED)),
    "a weighted weight": (UPDATE, with_segments(VALUES, replace(WEIGHT, weighted=True), CLIPPED)),
    "a weighted flag": (UPDATE, with_segments(VALUES, WEIGHT, replace(CLIPPED, weighted=True))),
    "a metric without a weight": (EVALUATION, with_segments(WEIGHT, CLIPPED, replace(AUC, weighted=False), AUC_SENT)),
    "a report without a weight": (EVALUATION, with_segments(WEIGHT, CLIPPED, AUC, replace(AUC_SENT, weighted=False))),
    "two numbers as the weight": (UPDATE, with_segments(VALUES, replace(WEIGHT, length=2), CLIPPED)),
    "half a person as the largest weight": (UPDATE, with_segments(VALUES, replace(WEIGHT, high=500.5), CLIPPED)),
    "a weight below zero": (UPDATE, with_segments(VALUES, replace(WEIGHT, low=-WEIGHT.high), CLIPPED)),
    "seven flags": (UPDATE, with_segments(VALUES, WEIGHT, replace(CLIPPED, length=7))),
    "a wider flag": (UPDATE, with_segments(VALUES, WEIGHT, replace(CLIPPED, high=2.0, scale=CLIPPED.scale / 2))),
    "a lopsided range": (UPDATE, with_segments(replace(VALUES, low=-1.0), WEIGHT, CLIPPED)),
    "values above zero only": (UPDATE, with_segments(replace(VALUES, low=0.0), WEIGHT, CLIPPED)),
}


@pytest.mark.parametrize(("name", "layout"), WRONG.values(), ids=WRONG)
def test_a_layout_that_is_not_the_registrys_is_refused(name: str, layout: Layout) -> None:
    refused(name, layout)


@pytest.mark.parametrize("place", range(7))
def test_a_scale_of_the_servers_choice_is_refused(place: int) -> None:
    """With so coarse a scale that a value has one level, its sum would count the values above a threshold."""
    layout = layout_of(UPDATE, metrics=METRICS)
    segment = layout.segments[place]
    one_level = 1 / max(abs(segment.low), abs(segment.high))
    beside = [math.nextafter(segment.scale, 0.0), math.nextafter(segment.scale, math.inf)]
    for scale in (one_level, segment.scale / 2, *beside):
        changed = replace(segment, scale=scale)
        refused(UPDATE, replace(layout, segments=(*layout.segments[:place], changed, *layout.segments[place + 1 :])))


# Numbers that a double writes exactly and others, but none that is lost beside the rest.
numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6).map(lambda x: x + 0.0)
short_names = st.text(max_size=4)
ranges = st.builds(
    lambda ends, length: MetricRange(min(ends), max(ends), length),
    st.lists(numbers, min_size=2, max_size=2, unique=True),
    st.integers(1, 5),
)
layout_arguments = st.fixed_dictionaries(
    {
        "values": st.integers(1, 1000),
        "value_range": st.floats(1e-6, 1e6),
        "weight_key": short_names,
        "largest_weight": st.integers(1, 1 << 22),
        "metrics": st.dictionaries(short_names, ranges, max_size=3),
        "ring_bits": st.sampled_from([32, 64]),
        "rounding": st.sampled_from(Rounding),
    }
)
# How many persons a count may hold is the server's to say, so counts have tests of their own.
releases = st.sampled_from(sorted(set(REGISTRY) - {COUNTS, MEMBERS, DRIFT}))
cohorts = st.integers(2, 256)


@settings(max_examples=150, deadline=None)
@given(releases, layout_arguments, cohorts, cohorts)
def test_only_the_canonical_layout_of_a_cohort_is_accepted(
    name: str, arguments: dict[str, Any], sites: int, others: int
) -> None:
    layout = layout_of(name, **arguments, sites=sites)
    accepts(name, PlanKind.NONE, layout, sites)
    # A ring of 64 bits has room for the finest scale there is, whatever the cohort.
    if sites == others or layout.ring_bits == 64:
        assert layout_of(name, **arguments, sites=others) == layout
    else:
        refused(name, layout, others)


def changed_segment(draw: st.DrawFn, segment: Segment) -> dict[str, Any]:
    """One change of a segment that the registry never makes on its own."""
    # Of weights and flags nothing is the server's choice but the largest weight, and that decides the scale too.
    fixed = not segment.name.startswith(("values", "metric:"))
    changes = [
        "scale",
        "weighted",
        "wider",
        *(["length", "low"] if fixed else []),
        *["low"] * (segment.name == "values"),
    ]
    match draw(st.sampled_from(changes)):
        case "scale":
            return {"scale": segment.scale * draw(st.floats(1e-6, 4).filter(lambda f: f != 1))}
        case "weighted":
            return {"weighted": not segment.weighted}
        case "wider":
            return {"low": 2 * segment.low, "high": 2 * segment.high}
        case "length":
            return {"length": segment.length + draw(st.integers(1, 9))}
        case _:
            return {"low": segment.low - draw(st.floats(1e-3, 1.0)) * segment.high}


@st.composite
def other_layouts(draw: st.DrawFn) -> tuple[str, Layout, int]:
    """A layout of the registry with one thing changed that the registry does not leave open."""
    name, sites = draw(releases), draw(cohorts)
    layout = original = layout_of(name, **draw(layout_arguments), sites=sites)
    segments = list(layout.segments)
    place = draw(st.integers(0, len(segments) - 1))
    try:
        match draw(st.sampled_from(["segment", "order", "missing", "extra", "ring", "name"])):
            case "segment":
                segments[place] = replace(segments[place], **changed_segment(draw, segments[place]))
            case "order":
                segments = draw(st.permutations(segments))
            case "missing":
                del segments[place]
            case "extra":
                prefix = draw(st.sampled_from(["", "values", "weight:", "clipped", "metric:", "reported:", "x"]))
                model = draw(st.sampled_from(segments))
                segments.insert(place, replace(model, name=prefix + draw(short_names)))
            case "ring":
                layout = replace(layout, ring_bits=96 - layout.ring_bits)
            case _:
                # The names of weights are the server's choice; those of a metric stand twice.
                assume(not segments[place].name.startswith("weight:"))
                segments[place] = replace(segments[place], name=segments[place].name + draw(st.text(min_size=1)))
        found = replace(layout, segments=tuple(segments))
    except ValueError:
        # No such layout can exist: that is refused when it is read.
        assume(False)
        raise
    # A drawn order may be the one it was.
    assume(found != original)
    return name, found, sites


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(other_layouts())
def test_every_other_layout_is_refused(made: tuple[str, Layout, int]) -> None:
    refused(*made)


@pytest.mark.parametrize(("high", "scale"), [(1e-305, 1e306), (1e308, 1e-300), (1e-307, 1.7e308), (1e300, 1e-299)])
def test_a_range_at_the_end_of_the_doubles_is_refused_and_not_a_crash(high: float, scale: float) -> None:
    layout = layout_of(UPDATE)
    segment = replace(layout.segments[0], low=-high, high=high, scale=scale)
    refused(UPDATE, replace(layout, segments=(segment, *layout.segments[1:])))
    metric = replace(AUC, high=high, scale=scale)
    refused(UPDATE, replace(layout, segments=(*layout.segments, metric, AUC_SENT)))
    weight = replace(layout.weight, high=high, scale=scale)
    refused(UPDATE, replace(layout, segments=(VALUES, weight, CLIPPED)))


@pytest.mark.parametrize("sites", [-1, 0, 1, 100_001])
def test_a_cohort_that_cannot_be_has_no_layout(sites: int) -> None:
    with pytest.raises(ConfigError, match="expected 2 to 100000 sites"):
        layout_of(UPDATE, sites=sites)
    refused(UPDATE, layout_of(UPDATE), sites)


# Terms that a run keeps

PLAN = encode_plan(NoPrivacy(releases=2, retries=0))


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_the_terms_are_the_same_for_every_cohort(ring_bits: int) -> None:
    """A site that drops out leaves a smaller cohort, and so other scales."""
    made = [layout_of(UPDATE, metrics=METRICS, sites=n, ring_bits=ring_bits) for n in (2, 3, 10, 256)]
    assert len({terms_digest(layout, PLAN) for layout in made}) == 1
    assert len(terms_digest(made[0], PLAN)) == 32
    if ring_bits == 32:
        assert len(set(made)) == len(made)


def test_any_other_range_length_name_rounding_ring_or_plan_is_other_terms() -> None:
    arguments: list[dict[str, Any]] = [
        {},
        {"values": 11},
        {"value_range": math.nextafter(2.0, 3.0)},
        {"weight_key": "num-examples2"},
        {"largest_weight": 501},
        {"rounding": Rounding.NEAREST},
        {"ring_bits": 64},
        {"metrics": {}},
        {"metrics": {"auc": METRICS["auc"]}},
        {"metrics": METRICS | {"more": METRICS["auc"]}},
        {"metrics": {"auc2": METRICS["auc"], "bins": METRICS["bins"]}},
        {"metrics": METRICS | {"auc": MetricRange(0.5, 1.0)}},
        {"metrics": METRICS | {"auc": MetricRange(0.0, math.nextafter(1.0, 0.0))}},
        {"metrics": METRICS | {"auc": MetricRange(0.0, 1.0, length=2)}},
        {"metrics": METRICS | {"bins": MetricRange(0.0, 5.0, length=5)}},
    ]
    layouts = [layout_of(UPDATE, **({"metrics": METRICS} | each)) for each in arguments]
    digests = {terms_digest(layout, PLAN) for layout in layouts}
    digests |= {terms_digest(layouts[0], encode_plan(NoPrivacy(releases=3, retries=0))), terms_digest(layouts[0], b"")}
    digests |= {terms_digest(layout_of(name, metrics=METRICS), PLAN) for name in (MOMENTS, EVALUATION)}
    # The same arrays laid out the same: the update and the moments are told apart by their names, not here.
    assert len(digests) == len(layouts) + 3


@settings(max_examples=200, deadline=None)
@given(messages(Layout), messages(Layout), st.binary(max_size=3), st.binary(max_size=3), st.booleans())
def test_terms_are_told_apart_by_everything_but_scales(
    one: Layout, two: Layout, plan: bytes, other: bytes, same: bool
) -> None:
    def picture(layout: Layout, plan: bytes) -> Any:
        rows = [(s.name, s.length, s.low, s.high, s.weighted) for s in layout.segments]
        return (plan, layout.ring_bits, layout.rounding, rows)

    if same:
        two = replace(one, segments=tuple(replace(s, scale=1.5 * s.scale) for s in one.segments))
    for a, b in ((plan, plan), (plan, other)):
        assert (terms_digest(one, a) == terms_digest(two, b)) == (picture(one, a) == picture(two, b))


@pytest.mark.parametrize(
    "changes", [{"name": "x"}, {"length": 9}, {"low": -0.5}, {"high": 0.5}, {"weighted": False}], ids=str
)
def test_terms_name_every_field_of_a_segment_but_its_scale(changes: dict[str, Any]) -> None:
    digest = terms_digest(with_segments(WEIGHT, AUC), PLAN)
    assert terms_digest(with_segments(WEIGHT, replace(AUC, **changes)), PLAN) != digest
    assert terms_digest(with_segments(WEIGHT, replace(AUC, scale=AUC.scale / 3)), PLAN) == digest
    assert terms_digest(with_segments(AUC, WEIGHT), PLAN) != digest


def test_a_name_does_not_pose_as_a_range() -> None:
    """Numbers and names of two segments, one after the other, read the same."""
    one = with_segments(replace(AUC, name="a"), replace(AUC, name="b"))
    two = with_segments(replace(AUC, name="a\n1:0.0:1.0:True:b"))
    three = with_segments(replace(AUC, name="True:a"), replace(AUC, name="b"))
    assert len({terms_digest(each, PLAN) for each in (one, two, three)}) == 3


@pytest.mark.parametrize("name", [UPDATE, MOMENTS])
def test_a_release_of_no_values_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"has no values: does the model have trainable parameters\?"):
        layout_of(name, values=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"value_range": 0.0},
        {"value_range": -1.0},
        {"value_range": math.inf},
        {"value_range": math.nan},
        {"value_range": 1e-305},
        {"value_range": 5e-324},
        {"metrics": {"m": MetricRange(0.0, 1e-305)}},
        {"largest_weight": 0},
        {"largest_weight": 1 << 40},
    ],
    ids=str,
)
def test_a_number_out_of_range_is_a_config_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        layout_of(UPDATE, **changes)


@pytest.mark.parametrize(
    ("low", "high", "length"),
    [(1.0, 1.0, 1), (2.0, 1.0, 1), (0.0, 1.0, 0), (math.nan, 1.0, 1), (0.0, math.nan, 1), (-math.inf, 1.0, 1)],
)
def test_a_metric_without_a_range_is_a_config_error(low: float, high: float, length: int) -> None:
    with pytest.raises(ConfigError, match="a metric's range"):
        MetricRange(low, high, length)


def test_the_shapes_are_hashed_in_the_order_of_their_names() -> None:
    one = shapes_hash([("a", (2, 3)), ("b", ())])
    assert one == shapes_hash([("b", ()), ("a", (2, 3))])
    others: list[list[tuple[str, tuple[int, ...]]]]
    others = [[("a", (3, 2)), ("b", ())], [("a", (2, 3))], [("a", (2, 3)), ("b", (1,))], [("a", (2, 3)), ("c", ())], []]
    others += [[("a", (23,)), ("b", ())], [("b", (2, 3)), ("a", ())], [("a", (2, 3)), ("b", ()), ("b", ())]]
    assert len({one, *(shapes_hash(shapes) for shapes in others)}) == len(others) + 1


# Runs


def header(seq: int, attempt: int) -> Any:
    roster = make_roster(3)
    return make_header(roster, [1, 2, 3], ring_layout(4, 3), release_seq=seq, attempt=attempt)


@pytest.mark.parametrize(("seq", "attempt"), [(2, 2), (3, 0), (3, 5), (9, 1)])
def test_a_newer_header_is_admitted_and_remembered(seq: int, attempt: int) -> None:
    record = RunRecord(b"r" * 16, 2, 1)
    assert admit(record, header(seq, attempt)) == RunRecord(b"r" * 16, seq, attempt)


@pytest.mark.parametrize(("seq", "attempt"), [(2, 1), (2, 0), (1, 9), (0, 0), (1, 1)])
def test_a_header_at_or_behind_the_last_one_is_refused(seq: int, attempt: int) -> None:
    with pytest.raises(PeerError, match="at or behind one that was answered before") as caught:
        admit(RunRecord(b"r" * 16, 2, 1), header(seq, attempt))
    assert "new attempt number" in caught.value.next_step


def test_every_header_is_admitted_once() -> None:
    record = RunRecord(b"r" * 16)
    for seq, attempt in ((1, 0), (1, 1), (2, 0), (5, 0), (5, 3)):
        record = admit(record, header(seq, attempt))
        for old_seq, old_attempt in ((seq, attempt), (seq - 1, 9), (1, 0)):
            with pytest.raises(PeerError):
                admit(record, header(old_seq, old_attempt))


def test_a_closed_run_never_reopens() -> None:
    with pytest.raises(PeerError, match="a run that is closed"):
        admit(RunRecord(b"r" * 16, closed=True), header(9, 9))


def test_the_first_release_of_a_run_is_number_one() -> None:
    with pytest.raises(PeerError, match="at or behind"):
        admit(RunRecord(b"r" * 16), header(0, 0))
    assert admit(RunRecord(b"r" * 16), header(1, 0)) == RunRecord(b"r" * 16, 1, 0)


def test_a_run_message_is_signed_by_its_author_and_for_runs_only() -> None:
    message = sign_control(CloseRun(b"r" * 16), SERVER)
    assert control_signed_by(message, SERVER.public)
    assert not control_signed_by(message, key("site-1").public)
    assert not control_signed_by(replace(message, payload=message.payload[:-1] + b"x"), SERVER.public)
    assert not control_signed_by(replace(message, signature=SERVER.sign(message.payload)), SERVER.public)


# Rosters


def test_a_pinned_roster_opens() -> None:
    roster = make_roster(3)
    assert open_roster(signed(roster), pinned=roster.digest()) == roster


def test_a_roster_that_was_not_pinned_or_not_signed_does_not_open() -> None:
    roster, other = make_roster(3), replace(make_roster(3), epoch=2)
    cases = [
        (signed(other), roster.digest(), "not the one this site has pinned"),
        (SignedRoster(encode(other), signed(roster).signature), other.digest(), "signature does not hold"),
        (SignedRoster(encode(roster), bytes(64)), roster.digest(), "signature does not hold"),
        (SignedRoster(encode(roster), SERVER.sign(encode(roster))), roster.digest(), "signature does not hold"),
    ]
    for wrong, pinned, message in cases:
        with pytest.raises(ConfigError, match=message) as caught:
            open_roster(wrong, pinned=pinned)
        assert "over another channel" in caught.value.next_step


def test_only_the_root_that_a_roster_names_signs_it() -> None:
    with pytest.raises(LocalError, match="not the roster's root key"):
        sign_roster(make_roster(3), SERVER)
    assert sign_roster(make_roster(3), ROOT) == signed(make_roster(3))


def entry(site: int, name: str = "", key_: str = "", persons: int = 1) -> RosterEntry:
    return RosterEntry(site, name or f"site-{site}", "org", key(key_ or f"k{site}").public, persons)


@pytest.mark.parametrize(
    "sites",
    [
        (entry(2), entry(1)),
        (entry(1), entry(1, "b", "c")),
        (entry(1, "same"), entry(2, "same")),
        (entry(1, key_="same"), entry(2, key_="same")),
    ],
    ids=["out of order", "one number twice", "one name twice", "one key twice"],
)
def test_a_roster_that_lists_a_site_twice_cannot_exist(sites: tuple[RosterEntry, ...]) -> None:
    with pytest.raises(ValueError, match=r"strictly increasing order|share a name or a key"):
        Roster("test", 1, True, ROOT.public, SERVER.public, sites)


def test_the_largest_site_is_the_denominator_of_public_weights() -> None:
    sites = (entry(1, persons=5), entry(2, persons=70))
    assert replace(make_roster(0), sites=sites).largest_site == 70
    assert make_roster(0).largest_site == 1
    assert make_roster(2, persons=0).largest_site == 1
    assert make_roster(2).entry(3) is None
