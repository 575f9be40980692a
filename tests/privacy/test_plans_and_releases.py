"""Only plans this build runs, layouts this registry makes, headers that move forward and rosters that were pinned."""

import math
from dataclasses import replace
from typing import Any

import pytest
from support.keys import ROOT, SERVER, key, make_roster, signed
from support.rounds import make_header, ring_layout

from fedseal.errors import ConfigError, ExitCode, LocalError, PeerError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PlanKind, decode_plan, encode_plan
from fedseal.privacy.quantize import Layout, Rounding, Segment
from fedseal.privacy.releases import (
    EVALUATION,
    MOMENTS,
    REGISTRY,
    UPDATE,
    MetricRange,
    check_layout,
    release_layout,
    shapes_hash,
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


@pytest.mark.parametrize(
    "changes",
    [
        *[{name: bad} for name in ("clip_norm", "noise_multiplier", "sample_rate") for bad in (0.0, -1.0, math.nan)],
        {"sample_rate": 1.0000001},
        {"steps": 0},
        {"releases": 0},
        {"steps": -1},
    ],
)
def test_a_plan_that_makes_no_sense_cannot_exist(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected clip_norm > 0|at least one step"):
        LocalGaussian(**(GAUSSIAN | changes))


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


def accepts(name: str, plan: PlanKind, layout: Layout) -> None:
    check_layout(REGISTRY[name], plan, layout)


def test_the_registry_is_closed_and_fits_its_names() -> None:
    assert set(REGISTRY) == {UPDATE, EVALUATION, MOMENTS}
    assert all(kind.name == name for name, kind in REGISTRY.items())
    with pytest.raises(TypeError):
        REGISTRY["other"] = REGISTRY[UPDATE]  # type: ignore[index]


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
        for plan in kind.plans:
            check_layout(kind, plan, bare)
        check_layout(kind, PlanKind.NONE, with_metrics)


def test_a_layout_holds_values_then_weight_then_metrics_by_name() -> None:
    layout = layout_of(UPDATE, metrics=METRICS)
    names = [(s.name, s.length, s.weighted) for s in layout.segments]
    assert names == [
        ("values", 10, True),
        ("weight:num-examples", 1, False),
        ("clipped", 1, False),
        ("metric:auc", 1, True),
        ("metric:bins", 4, True),
    ]
    assert [s.name for s in layout_of(EVALUATION).segments] == ["weight:num-examples"]
    assert layout.rounding == Rounding.STOCHASTIC


@pytest.mark.parametrize("name", [UPDATE, MOMENTS])
def test_metrics_of_persons_do_not_ride_beside_a_private_release(name: str) -> None:
    with pytest.raises(PeerError, match="metrics of persons beside a private release"):
        accepts(name, PlanKind.LOCAL, layout_of(name, metrics=METRICS))


def test_a_plan_that_the_registry_does_not_allow_is_refused() -> None:
    with pytest.raises(PeerError, match="release 'evaluation' under plan local") as caught:
        accepts(EVALUATION, PlanKind.LOCAL, layout_of(EVALUATION))
    assert caught.value.peer == "server"


def with_segments(*segments: Segment) -> Layout:
    return Layout(32, 0, segments)


VALUES, WEIGHT, CLIPPED, AUC, BINS = layout_of(UPDATE, metrics=METRICS).segments
WRONG: dict[str, tuple[str, Layout]] = {
    "an unknown segment": (UPDATE, with_segments(VALUES, WEIGHT, CLIPPED, replace(AUC, name="rows"))),
    "an unknown segment first": (UPDATE, with_segments(replace(AUC, name="rows"), VALUES, WEIGHT, CLIPPED)),
    "no weight": (UPDATE, with_segments(VALUES, CLIPPED)),
    "no values": (UPDATE, with_segments(WEIGHT, CLIPPED)),
    "no clipped": (UPDATE, with_segments(VALUES, WEIGHT)),
    "another order": (UPDATE, with_segments(WEIGHT, VALUES, CLIPPED)),
    "two weights": (UPDATE, with_segments(VALUES, WEIGHT, replace(WEIGHT, name="weight:b"), CLIPPED)),
    "a second weight as a metric": (UPDATE, with_segments(VALUES, WEIGHT, CLIPPED, replace(WEIGHT, name="weight:b"))),
    "values in an evaluation": (EVALUATION, with_segments(VALUES, WEIGHT, CLIPPED)),
    "nothing but a metric": (EVALUATION, with_segments(AUC)),
    "values without a weight": (UPDATE, with_segments(replace(VALUES, weighted=False), WEIGHT, CLIPPED)),
    "a weighted weight": (UPDATE, with_segments(VALUES, replace(WEIGHT, weighted=True), CLIPPED)),
    "a weighted flag": (UPDATE, with_segments(VALUES, WEIGHT, replace(CLIPPED, weighted=True))),
    "a metric without a weight": (EVALUATION, with_segments(WEIGHT, replace(AUC, weighted=False))),
}


@pytest.mark.parametrize(("name", "layout"), WRONG.values(), ids=WRONG)
def test_a_layout_that_is_not_the_registrys_is_refused(name: str, layout: Layout) -> None:
    with pytest.raises(PeerError, match=f"a layout that is not that of release '{name}'"):
        accepts(name, PlanKind.NONE, layout)


@pytest.mark.parametrize(
    "layout",
    [
        with_segments(VALUES, replace(WEIGHT, length=2), CLIPPED),
        with_segments(VALUES, WEIGHT, replace(CLIPPED, length=7)),
        with_segments(VALUES, replace(WEIGHT, low=-WEIGHT.high), CLIPPED),
    ],
    ids=["two numbers as the weight", "seven flags", "a weight below zero"],
)
def test_a_segment_of_another_form_is_refused(layout: Layout) -> None:
    with pytest.raises(PeerError):
        accepts(UPDATE, PlanKind.NONE, layout)


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
