"""The sum of clipped gradients over all persons, against persons one by one; and which headers a site refuses."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from support.flower import Federation, Nodes, Script, flower_task, header_for, make_federation, ordinary_app
from support.keys import make_roster
from support.rounds import make_header
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.gradient_sum import GradientSum
from fedseal.client.noise import clipped_sum
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE, TaskError, bounded_release
from fedseal.client.task import Batch, SiteData, Split
from fedseal.client.trainer import trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import Performance, SharedGeometric, SharedSkellam, Unit, encode_plan
from fedseal.privacy.quantize import CLIPPED, check_sum
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.releases import REGISTRY, UPDATE, VALUES, release_layout, shapes_hash
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Signed
from fedseal.privacy.shares import room
from fedseal.server.exchange import control_of
from fedseal.wire import decode

PERSONS = 23


def stream(*purpose: str | int) -> Stream:
    return KeyedRandomness(7, "gradients").stream(*purpose)


def persons(count: int = PERSONS) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 5, generator=generator) * 2
    return TensorDataset(features, (features[:, 0] > 0).float())


class Linear:
    """A small task; others change one thing about it."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))

    def data(self, site: SiteData) -> Split:
        return Split(persons(), persons(), persons())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> list[Any]:
        return []


def start() -> dict[str, Any]:
    torch.manual_seed(3)
    return trainable(Linear().model())


def one_by_one(arrays: dict[str, Any], data: TensorDataset, clip: float) -> dict[str, Any]:
    """The twin: a fresh module for each person, torch's own gradient, clipped and added up in doubles."""
    total = {name: np.zeros(a.shape) for name, a in arrays.items()}
    for i in range(len(data)):
        module = Linear().model()
        for name, parameter in module.named_parameters():
            parameter.data = torch.from_numpy(arrays[name].copy())
        Linear().loss(module, tuple(t[None] for t in data[i])).sum().backward()  # type: ignore[no-untyped-call]
        gradients = {n: cast(Tensor, p.grad).double().numpy() for n, p in module.named_parameters()}
        norm = math.sqrt(sum(float(np.square(g).sum()) for g in gradients.values()))
        for name, gradient in gradients.items():
            total[name] += gradient * min(1.0, clip / norm)
    return total


@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
@pytest.mark.parametrize("portion", [1, 7, 512])
def test_the_sum_is_that_of_persons_one_by_one(clip: float, portion: int) -> None:
    found = GradientSum(Linear(), persons(), Performance(physical_batch=portion)).at(start(), clip, stream("torch"))
    expected = one_by_one(start(), persons(), clip)
    assert set(found) == set(expected)
    for name, array in expected.items():
        # Clipping stays 2^-16 below the bound.
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-5 * clip * PERSONS)
        assert found[name].dtype == np.float64


def test_no_person_moves_the_sum_by_more_than_the_clip_norm() -> None:
    """Add-or-remove-one, each person in turn; the twin without clipping moves it further."""
    whole = flat(GradientSum(Linear(), persons()).at(start(), 0.3, stream("torch")))
    moves = []
    for i in range(PERSONS):
        rest = TensorDataset(*(torch.cat([t[:i], t[i + 1 :]]) for t in persons().tensors))
        moves.append(np.linalg.norm(whole - flat(GradientSum(Linear(), rest).at(start(), 0.3, stream("torch")))))
    assert max(moves) <= 0.3
    assert max(moves) > 0.29
    loose = [
        np.linalg.norm(flat(one_by_one(start(), TensorDataset(*(t[i : i + 1] for t in persons().tensors)), 1e9)))
        for i in range(PERSONS)
    ]
    assert max(loose) > 1.0


def test_a_person_whose_gradient_is_no_number_counts_as_zero() -> None:
    data = persons()
    broken = TensorDataset(*(t.clone() for t in data.tensors))
    broken.tensors[0][4] = torch.inf
    found = flat(GradientSum(Linear(), broken).at(start(), 0.3, stream("torch")))
    rest = TensorDataset(*(torch.cat([t[:4], t[5:]]) for t in data.tensors))
    np.testing.assert_allclose(found, flat(one_by_one(start(), rest, 0.3)), rtol=1e-3, atol=1e-4)


def test_a_site_without_persons_sums_to_zero() -> None:
    found = GradientSum(Linear(), persons(0)).at(start(), 0.3, stream("torch"))
    assert not flat(found).any()


def test_a_loss_that_couples_persons_is_refused() -> None:
    class Coupled(Linear):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            losses = super().loss(model, batch)
            return losses * losses.mean()

    with pytest.raises(ConfigError, match="couples the persons"):
        GradientSum(Coupled(), persons())


def flat(arrays: dict[str, Any]) -> Any:
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


def test_rows_are_clipped_each_on_its_own() -> None:
    rows = np.array([[3.0, 4.0], [0.3, 0.4], [np.nan, 1.0]])
    np.testing.assert_allclose(clipped_sum(rows, 1.0), [0.9, 1.2])


# What becomes of it


def shared(unit: Unit, **changes: Any) -> SharedSkellam:
    fields: dict[str, Any] = {
        "unit": int(unit),
        "clip_norm": 0.5,
        "resolution": 1 << 14,
        "length": 15,
        "variance": 1 << 30,
        "releases": 2,
        "retries": 0,
    }
    return SharedSkellam(**(fields | changes))


def round_for(plan: SharedSkellam, largest: int = 100) -> Header:
    space = room(plan, sites=4, minimum=3, colluders=1)
    layout = release_layout(
        REGISTRY[UPDATE],
        values=15,
        value_range=1.0,
        weight_key="num-examples",
        largest_weight=largest,
        metrics={},
        sites=4,
        room=space,
    )
    shapes = shapes_hash([("bias", (3,)), ("weight", (3, 4))])
    return make_header(
        make_roster(4),
        [1, 2, 3, 4],
        layout,
        colluders=1,
        noise_minimum=3,
        plan=encode_plan(plan),
        shapes_hash=shapes,
    )


def released(plan: SharedSkellam, arrays: dict[str, Any], *, done: bool = True, persons_: int = 40) -> Any:
    """What a site's integers say, in the units of the values: many times with fresh noise, averaged."""
    header = round_for(plan)
    received = {"weight": np.ones((3, 4), np.float32), "bias": np.ones(3, np.float32)}
    with flower_task():
        request = Message(RecordDict(), dst_node_id=1, message_type="train")
        content = RecordDict({"a": ArrayRecord({name: Array(a) for name, a in arrays.items()})})
        if done:
            content[DONE] = ConfigRecord({DONE_RELEASE: header.release_name, DONE_PLAN: header.plan})
        reply = Message(content, reply_to=request)
    rows = []
    for i in range(200):
        made = bounded_release(
            header,
            REGISTRY[UPDATE],
            plan,
            received,
            reply,
            public_persons=persons_,
            stream=stream("round", i),
            noise=stream("noise", i),
        )
        total = check_sum(header.layout, 4, made.vector)
        assert total.weight == persons_
        assert float(total.real(CLIPPED)[0]) == 0.0
        rows.append(total.real(VALUES))
    noise = math.sqrt(plan.variance / 2) / header.layout.segments[0].scale
    spread = np.std(rows, axis=0, ddof=1)
    assert float(np.mean(spread)) == pytest.approx(noise, rel=0.1)
    return np.mean(rows, axis=0), 6 * noise / math.sqrt(200)


def test_a_sum_over_persons_leaves_as_it_is_over_the_largest_weight() -> None:
    weight = np.linspace(-1, 1, 12).reshape(3, 4)
    mean, error = released(shared(Unit.PERSON), {"weight": weight, "bias": np.zeros(3)})
    np.testing.assert_allclose(mean, np.concatenate([np.zeros(3), weight.ravel()]) / 100, atol=error)


def test_a_sum_over_more_persons_than_the_roster_says_is_bounded_as_a_whole() -> None:
    """40 persons of norm 0.5 have 20 together, whatever the site holds."""
    long = np.full((3, 4), 100.0)
    mean, error = released(shared(Unit.PERSON), {"weight": long, "bias": np.zeros(3)})
    np.testing.assert_allclose(mean[3:], 20 / math.sqrt(12) / 100, atol=error)


def test_a_sites_whole_update_is_clipped_whoever_made_it() -> None:
    weight = np.ones((3, 4), np.float32) + 100
    arrays = {"weight": weight, "bias": np.ones(3, np.float32)}
    mean, error = released(shared(Unit.SITE), arrays, done=False)
    # The change has norm 0.5, and 40 of 100 as its weight.
    np.testing.assert_allclose(mean[3:], 0.4 * 0.5 / math.sqrt(12), atol=error)


def test_what_is_no_number_is_nothing_but_noise() -> None:
    for unit in Unit:
        mean, error = released(shared(unit), {"weight": np.full((3, 4), np.nan), "bias": np.zeros(3)})
        np.testing.assert_allclose(mean, 0.0, atol=error)


def test_only_code_that_clipped_each_person_may_say_so() -> None:
    with pytest.raises(TaskError, match="did not make release"):
        released(shared(Unit.PERSON), {"weight": np.zeros((3, 4)), "bias": np.zeros(3)}, done=False)


# At the door

POLICY = """
version = 1
[cohort]
minimum = 2
[releases]
update = ["distributed"]
moments = []
[limits]
clip_norm = 0.75
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Nodes]:
    with flower_task():
        yield Nodes(make_federation(tmp_path, 4, policy=POLICY), ordinary_app(Script(done=True)))


def at_the_door(federation: Federation, plan: SharedSkellam, **changes: Any) -> Header:
    layout = round_for(plan).layout
    fields: dict[str, Any] = {"colluders": 1, "noise_minimum": 3, "layout": layout}
    return header_for(federation, **({"plan": plan} | fields | changes))


def answer(running: Nodes, header: Header) -> RefusalCode | None:
    found = decode(control_of(running.send(1, running.opening(header))) or b"", Refusal, Signed)
    return RefusalCode(found.code) if isinstance(found, Refusal) else None


def test_a_site_answers_a_round_whose_noise_is_enough(running: Nodes) -> None:
    assert answer(running, at_the_door(running.federation, shared(Unit.PERSON))) is None


PLAN = shared(Unit.PERSON)
SEGMENTS = round_for(PLAN).layout.segments


@pytest.mark.parametrize(
    "changes",
    [
        {"colluders": 0},
        {"noise_minimum": 0},
        {"noise_minimum": 1},
        {"noise_minimum": 4},
        {
            "layout": replace(
                round_for(PLAN).layout, segments=(replace(SEGMENTS[0], scale=2 * SEGMENTS[0].scale), *SEGMENTS[1:])
            )
        },
    ],
    ids=["trusts everyone", "counts on nobody", "counts on the colluder", "another room", "a finer scale"],
)
def test_a_site_refuses_a_round_whose_noise_is_not_the_plans(running: Nodes, changes: dict[str, Any]) -> None:
    header = at_the_door(running.federation, PLAN, **changes)
    assert answer(running, header) is RefusalCode.PROTOCOL
    # Nothing was set aside for it, and the honest header is still answered.
    assert len(running.federation.kinds(1)) == 1
    assert answer(running, at_the_door(running.federation, PLAN)) is None


def test_a_site_refuses_plans_that_its_policy_does_not_name(running: Nodes) -> None:
    site = shared(Unit.SITE)
    assert answer(running, at_the_door(running.federation, site)) is RefusalCode.POLICY
    wide = shared(Unit.PERSON, clip_norm=0.8)
    assert answer(running, at_the_door(running.federation, wide)) is RefusalCode.POLICY
    allowed = shared(Unit.PERSON, clip_norm=0.75)
    assert answer(running, at_the_door(running.federation, allowed)) is None


def test_no_release_of_vectors_goes_under_a_plan_for_counts(running: Nodes) -> None:
    counts = SharedGeometric(epsilon=1.0, cells=1, length=15, releases=1, retries=0)
    header = replace(at_the_door(running.federation, PLAN), plan=encode_plan(counts))
    assert answer(running, header) is RefusalCode.PROTOCOL
