"""A clip norm that adapts, at a site: who is counted, and which headers are answered."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adversary.removal import Check, without
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from support.flower import (
    OPEN_POLICY,
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.gradient_sum import GradientSum
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE, DONE_UNCLIPPED, TaskError, bounded_release
from fedseal.client.task import Batch, SiteData, Split
from fedseal.client.trainer import trainable
from fedseal.privacy.plan import AdaptiveSkellam, Performance, SharedSkellam, Unit, encode_plan
from fedseal.privacy.quantize import UNCLIPPED, BoundedUpdate, signed
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import REGISTRY, UPDATE, release_layout
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Signed
from fedseal.privacy.shares import room
from fedseal.server.exchange import control_of
from fedseal.wire import decode

SITES = 4
POLICY = OPEN_POLICY.replace('["none", "local"]', '["client", "distributed"]')


def plan_for(unit: Unit, **changes: Any) -> AdaptiveSkellam:
    # So much noise that budgets are not in the way; for the count's units see the tests.
    vector = SharedSkellam(
        unit=int(unit), clip_norm=1.0, resolution=16, length=15, variance=1 << 30, releases=9, retries=3
    )
    fields: dict[str, Any] = {
        "vector": vector,
        "count_units": 4,
        "lowest": 0.01,
        "highest": 50.0,
        "quantile": 0.5,
        "rate": 0.2,
    }
    return AdaptiveSkellam(**(fields | changes))


def opening(federation: Federation, plan: AdaptiveSkellam, clip: float, **changes: Any) -> Header:
    """A header with this clip norm in the layout that belongs to it."""
    # A server that is not honest names the interval as it likes: the layout is that of a wider plan.
    wide = replace(plan, lowest=1e-6, highest=1e6)
    space = room(wide, sites=SITES, minimum=3, colluders=1, clip_norm=clip)
    layout = release_layout(
        REGISTRY[UPDATE],
        values=15,
        value_range=1.0,
        weight_key="num-examples",
        largest_weight=100,
        metrics={},
        sites=SITES,
        room=space,
    )
    return header_for(federation, plan, layout=layout, colluders=1, noise_minimum=3, **changes)


# Headers


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def running(tmp_path: Path) -> Nodes:
    return Nodes(make_federation(tmp_path, SITES, policy=POLICY), ordinary_app(Script(done=True)))


def answer(running: Nodes, header: Header) -> RefusalCode | None:
    """How site 1 answers a header: None is an advertisement."""
    found = decode(control_of(running.send(1, running.opening(header))) or b"", Refusal, Signed)
    return RefusalCode(found.code) if isinstance(found, Refusal) else None


STEP = math.exp(0.1)
HONEST: list[tuple[int, float]] = [(1, 1.0), (2, STEP), (3, 1.0), (3, 1.0), (5, STEP**-2)]


def test_a_site_goes_along_with_the_rule(running: Nodes) -> None:
    """Up, down, the same round again, and a round that this site missed; one reservation for all."""
    plan = plan_for(Unit.SITE)
    for seq, (fl_round, clip) in enumerate(HONEST, start=1):
        header = opening(running.federation, plan, clip, release_seq=seq, fl_round=fl_round)
        assert answer(running, header) is None
    assert len(running.federation.kinds(1)) == 2


MALICIOUS: dict[str, tuple[int, float, str]] = {
    "one step too far": (2, STEP * 1.001, "cannot have led"),
    "to nothing at once": (2, 0.01, "cannot have led"),
    "to everything at once": (2, 50.0, "cannot have led"),
    "another one in the same round": (1, 1.001, "cannot have led"),
    "out of the interval, above": (9, 51.0, "outside of the interval"),
    "out of the interval, below": (9, 0.009, "outside of the interval"),
    "a round that the plan has not": (10, 1.0, "none of its plan's"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_server_that_moves_it_otherwise_is_refused(running: Nodes, name: str) -> None:
    """And the site still answers what the rule leads to: nothing has changed."""
    fl_round, clip, says = MALICIOUS[name]
    federation, plan = running.federation, plan_for(Unit.SITE)
    assert answer(running, opening(federation, plan, 1.0)) is None
    moved = opening(federation, plan, clip, release_seq=2, fl_round=fl_round)
    assert answer(running, moved) is RefusalCode.PROTOCOL
    assert says in running.incident(1)
    assert answer(running, opening(federation, plan, STEP, release_seq=2, fl_round=2)) is None


@pytest.mark.parametrize("name", [n for n, (_, _, says) in MALICIOUS.items() if says == "cannot have led"])
def test_without_the_check_it_would_be_answered(running: Nodes, name: str) -> None:
    """The twin."""
    fl_round, clip, _ = MALICIOUS[name]
    federation, plan = running.federation, plan_for(Unit.SITE)
    assert answer(running, opening(federation, plan, 1.0)) is None
    with without([Check("privacy.adaptive.accepted", "not least <= clip_norm <= most")]):
        assert answer(running, opening(federation, plan, clip, release_seq=2, fl_round=fl_round)) is None


def test_going_back_a_round_is_refused(running: Nodes) -> None:
    federation, plan = running.federation, plan_for(Unit.SITE)
    assert answer(running, opening(federation, plan, 1.0, fl_round=3)) is None
    assert answer(running, opening(federation, plan, 1.0, fl_round=2, release_seq=2)) is RefusalCode.PROTOCOL
    assert "before the last" in running.incident(1)


def test_runs_and_the_interval_are_apart(running: Nodes) -> None:
    """Another run begins at its own first clip norm; within a run the interval does not move."""
    federation, plan = running.federation, plan_for(Unit.SITE)
    assert answer(running, opening(federation, plan, 1.0)) is None
    assert answer(running, opening(federation, plan, 1.0, run=b"o" * 16)) is None
    wider = replace(plan, highest=60.0)
    assert answer(running, opening(federation, wider, 1.0, release_seq=2)) is RefusalCode.PROTOCOL
    assert "another plan" in running.incident(1)


def test_the_owners_limit_is_asked_before_anything_else(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, SITES, policy=POLICY + "[limits]\nclip_norm = 49.0\n")
    running = Nodes(federation, ordinary_app(Script(done=True)))
    assert answer(running, opening(federation, plan_for(Unit.SITE), 1.0)) is RefusalCode.POLICY
    assert answer(running, opening(federation, plan_for(Unit.SITE, highest=49.0), 1.0)) is None


# Who is counted


def persons(count: int = 23) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 5, generator=generator) * 2
    return TensorDataset(features, (features[:, 0] > 0).float())


class Linear:
    """A small task."""

    def model(self) -> nn.Module:
        return nn.Linear(5, 1)

    def data(self, site: SiteData) -> Split:
        return Split(persons(), persons(), persons())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> tuple[()]:
        return ()


def start() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return trainable(Linear().model())


def own_norms(data: TensorDataset) -> list[float]:
    """Of each person's gradient, one by one."""
    model = Linear().model()
    model.load_state_dict({n: torch.from_numpy(a) for n, a in start().items()})
    found = []
    for features, label in zip(*data.tensors, strict=True):
        model.zero_grad()
        torch.autograd.backward(Linear().loss(model, (features[None], label[None])).sum())
        found.append(
            math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None))
        )
    return found


@pytest.mark.parametrize("clip", [1e-3, 0.3, 0.9, 2.0, 1e3])
@pytest.mark.parametrize("portion", [5, 64])
def test_persons_within_the_bound_are_counted(clip: float, portion: int) -> None:
    data = persons()
    summed = GradientSum(Linear(), data, Performance(physical_batch=portion))
    found = summed.counted(start(), clip, KeyedRandomness(1).stream("torch"))
    assert found.unclipped == sum(0.5 if norm <= clip else -0.5 for norm in own_norms(data))
    again = summed.at(start(), clip, KeyedRandomness(1).stream("torch"))
    assert all(np.array_equal(again[name], array) for name, array in found.arrays.items())


def test_a_person_who_is_no_number_counts_as_clipped() -> None:
    features, labels = persons().tensors
    features = features.clone()
    features[3, 2] = math.nan
    broken = GradientSum(Linear(), TensorDataset(features, labels))
    whole = GradientSum(Linear(), persons()).counted(start(), 1e3, KeyedRandomness(1).stream("torch"))
    assert broken.counted(start(), 1e3, KeyedRandomness(1).stream("torch")).unclipped == whole.unclipped - 1


def released(
    tmp_path: Path, unit: Unit, clip: float, content: RecordDict, *, public_persons: int = 40
) -> BoundedUpdate:
    """A site's integers under next to no noise: its count in units of 2^13, noise of 2^5 (and more in the share)."""
    vector = replace(plan_for(unit).vector, resolution=1 << 14, variance=1 << 10)
    plan = plan_for(unit, vector=vector, count_units=1 << 14)
    header = opening(make_federation(tmp_path, SITES), plan, clip)
    request = Message(RecordDict(), dst_node_id=1, message_type="train")
    if DONE in content:
        content[DONE] = ConfigRecord(
            dict(content.config_records[DONE]) | {DONE_RELEASE: UPDATE, DONE_PLAN: encode_plan(plan)}
        )
    received = {"weight": np.zeros((3, 4), np.float32), "bias": np.zeros(3, np.float32)}
    return bounded_release(
        header,
        REGISTRY[UPDATE],
        plan,
        received,
        Message(content, reply_to=request),
        public_persons=public_persons,
        stream=KeyedRandomness(1).stream("coins"),
        noise=KeyedRandomness(1).stream("noise"),
    )


def count_in(update: BoundedUpdate) -> float:
    place = update.layout.offsets()[UNCLIPPED]
    return float(signed(update.vector[place])[0]) / update.layout.segment(UNCLIPPED).scale


def moved_by(value: float) -> RecordDict:
    arrays = {"weight": np.full((3, 4), value, np.float32), "bias": np.full(3, value, np.float32)}
    return RecordDict({"a": ArrayRecord({name: Array(a) for name, a in arrays.items()})})


@pytest.mark.parametrize(
    ("value", "clip", "counted"), [(0.1, 1.0, 0.5), (0.1, 0.3, -0.5), (10.0, 1.0, -0.5), (math.nan, 1.0, -0.5)]
)
def test_a_site_counts_whether_its_own_update_was_within(
    tmp_path: Path, value: float, clip: float, counted: float
) -> None:
    """The norm is .1 times the root of 15, .387; whatever the site's size it counts once."""
    update = released(tmp_path, Unit.SITE, clip, moved_by(value))
    assert count_in(update) == pytest.approx(counted, abs=0.03)


@pytest.mark.parametrize(
    ("said", "counted"), [(-7.5, -7.5), (20.0, 20.0), (500.0, 20.0), (-500.0, -20.0), (math.inf, 20.0), (math.nan, 0.0)]
)
def test_a_count_is_of_at_most_the_public_number_of_persons(tmp_path: Path, said: float, counted: float) -> None:
    content = moved_by(0.1)
    content[DONE] = ConfigRecord({DONE_UNCLIPPED: said})
    assert count_in(released(tmp_path, Unit.PERSON, 1.0, content)) == pytest.approx(counted, abs=0.03)


def test_an_app_that_did_not_count_is_told_so(tmp_path: Path) -> None:
    content = moved_by(0.1)
    content[DONE] = ConfigRecord()
    with pytest.raises(TaskError, match="did not count who was not clipped"):
        released(tmp_path, Unit.PERSON, 1.0, content)
