"""FedRep, FedPer and FedBN through sealed rounds against their papers' algorithms in torch, all sites in one loop."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import Message
from numpy.typing import NDArray
from pydantic import ValidationError
from support.doors import Walker
from support.flower import flower_task
from support.planes import FOLDER, UNEQUAL, Planes, silent, training
from support.studies import tiny
from torch import nn

from fedseal.client.first_model import first_arrays
from fedseal.client.personal import MEMORY_NAME, Staying, first_state, staying_in, unpack
from fedseal.client.records import control_bytes
from fedseal.client.site_round import Assignment, contribute
from fedseal.client.task import SiteData, Task, build_model
from fedseal.client.trainer import Trainer, TrainSettings, trainable
from fedseal.client.work import SiteWork
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.secagg.messages import ConsistencyRequest
from fedseal.server.app import task_settings
from fedseal.study import Training
from fedseal.study_code import load_task

EVERYONE = (1, 2, 3, 4)
ROUNDS = 3
STEPS = {"rounds": ROUNDS, "local_steps": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fedrep": ("task:Headed", {"strategy": "fedrep", "personal_layers": ["head"], "head_steps": 3}),
    "fedper": ("task:Headed", {"strategy": "fedrep", "personal_layers": ["head"], "head_steps": 0}),
    "fedbn": ("task:Normed", {"strategy": "fedbn", "batch_level": True}),
}
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def streams(*purpose: str | int) -> Stream:
    return KeyedRandomness(7, "test").stream(*purpose)


def loaded(reference: str) -> Task:
    return cast(Task, load_task(reference, FOLDER))


def begin(name: str) -> tuple[Training, Arrays]:
    reference, changes = CASES[name]
    how = training(**STEPS | changes)
    task = loaded(reference)
    return how, first_arrays(task, how, lambda _: trainable(build_model(task)), streams("apart"))


def sealed(name: str, folder: Path, **options: Any) -> tuple[Planes, Training]:
    how, start = begin(name)
    return Planes(folder, UNEQUAL, task=CASES[name][0], start=start, **options), how


def descend(
    module: nn.Module, names: set[str], rows: torch.Tensor, targets: torch.Tensor, steps: int, rate: float
) -> None:
    """Full-batch gradient descent on some parameters, by hand."""
    module.train()
    for _ in range(steps):
        module.zero_grad()
        (0.5 * (module(rows).squeeze(1) - targets) ** 2).mean().backward()
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                if key in names and parameter.grad is not None:
                    parameter.sub_(rate * parameter.grad)


def paper(name: str, planes: Planes, how: Training) -> tuple[Arrays, list[Arrays]]:
    """The shared arrays after the last round, and each site's own with its statistics.

    FedRep is Collins et al. 2021, Algorithm 1: the head to phi^t, then the representation to the new head. FedPer and
    FedBN (Li et al. 2021, Algorithm 1) train both together; what stays is left out of the mean.
    """
    modules = [build_model(loaded(CASES[name][0])) for _ in planes.sites]
    every = {key for key, _ in modules[0].named_parameters()}
    stays = {key for key in modules[0].state_dict() if key.startswith("norm" if name == "fedbn" else "head")}
    shared = {k: t.double() for k, t in modules[0].state_dict().items() if k in every - stays}
    for _ in range(how.rounds):
        mean = {key: torch.zeros_like(value) for key, value in shared.items()}
        for module, site, share in zip(modules, planes.sites, planes.weights, strict=True):
            module.load_state_dict({key: value.float() for key, value in shared.items()}, strict=False)
            rows, targets = torch.tensor(site.rows[:, 1:]).float(), torch.tensor(site.targets).float()
            if how.head_steps:
                descend(module, every & stays, rows, targets, how.head_steps, how.learning_rate)
                descend(module, every - stays, rows, targets, how.local_steps, how.learning_rate)
            else:
                descend(module, every, rows, targets, how.local_steps, how.learning_rate)
            for key in mean:
                mean[key] += float(share) * module.state_dict()[key].double()
        shared = mean
    own = [{k: t.numpy().copy() for k, t in m.state_dict().items() if k in stays} for m in modules]
    return {key: value.numpy() for key, value in shared.items()}, own


def kept(name: str, planes: Planes, site: int) -> Arrays:
    how, _ = begin(name)
    task, staying = loaded(CASES[name][0]), staying_in(how)
    assert staying is not None
    with planes.federation.site(site).transaction() as transaction:
        raw = transaction.kept(planes.run, MEMORY_NAME)
    assert raw is not None
    return unpack(raw, first_state(task, staying.names(build_model(task))))


def assert_follows(name: str, planes: Planes, how: Training) -> None:
    shared, own = paper(name, planes, how)
    found = planes.records[-1].model
    assert set(found) == set(shared)
    for key, array in found.items():
        np.testing.assert_allclose(array, shared[key], atol=2e-5)
    for site in EVERYONE:
        mine = kept(name, planes, site)
        assert set(mine) == set(own[site - 1])
        for key, array in mine.items():
            np.testing.assert_allclose(array, own[site - 1][key], atol=2e-5)


@pytest.mark.quick("fedbn")
@pytest.mark.parametrize("name", list(CASES))
def test_it_follows_the_paper_and_what_stays_does_not_leave(name: str, tmp_path: Path) -> None:
    walker = Walker()
    planes, how = sealed(name, tmp_path, deliver=walker)
    planes.train(how)
    assert_follows(name, planes, how)
    # Sites have become different, and no number of theirs was in a message.
    own = [kept(name, planes, site) for site in EVERYONE]
    key = "norm.running_mean" if name == "fedbn" else "head.weight"
    assert np.abs(own[0][key] - own[1][key]).max() > 1e-3
    for mine in own:
        assert not any(walker.holds(value.tobytes()) for value in mine[key].ravel())
    # Vectors are as long as what is shared, and the few numbers of every update.
    shared = sum(array.size for array in planes.records[-1].model.values())
    assert planes.records[-1].model.keys().isdisjoint(own[0])
    assert max(len(raw) for raw in walker.bytes if raw[:2] != b"FS") < 4 * (shared + 3) + 256


@pytest.mark.quick("fedbn")
@pytest.mark.parametrize("name", ["fedrep", "fedbn"])
def test_an_aborted_attempt_and_a_crash_of_the_server_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    """All trained in round 2 and none could be summed; after it the server dies and comes back."""
    spoilt: list[int] = []

    def lose(node: int, message: Message) -> bool:
        if control_bytes(message)[3] == ConsistencyRequest.TAG and len(planes.models) == 1 and len(spoilt) < 4:
            spoilt.append(node)
            return True
        return False

    planes, how = sealed(name, tmp_path, deliver=silent(lose))
    with pytest.raises(KeyboardInterrupt):
        planes.train(how, stop_after=2)
    assert [r.attempts for r in planes.records] == [1, 2]
    planes.train(how, run=planes.run)
    assert_follows(name, planes, how)


# Which arrays stay is public: by what the model is made of.


def test_normalisation_layers_stay_with_their_statistics() -> None:
    normed = build_model(loaded("task:Normed"))
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert Staying(norms=True).names(normed) == {"norm.weight", "norm.bias"} | statistics
    others = nn.Sequential(nn.Linear(2, 4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4))
    assert Staying(norms=True).names(others) == {"1.weight", "1.bias", "2.weight", "2.bias", "3.weight"}


def test_named_layers_stay_and_names_are_whole() -> None:
    module = nn.ModuleDict({"head": nn.Linear(2, 2), "head2": nn.Linear(2, 2)})
    assert Staying(layers=("head",)).names(module) == {"head.weight", "head.bias"}
    assert Staying(layers=("head", "head2.bias")).names(module) == {"head.weight", "head.bias", "head2.bias"}


@pytest.mark.parametrize(
    ("staying", "message"),
    [
        (Staying(layers=("tail",)), "no layer 'tail'"),
        (Staying(norms=True), "no normalisation layer"),
        (Staying(layers=("body", "head")), "nothing is left to be trained together"),
    ],
)
def test_what_cannot_stay_is_refused(staying: Staying, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        staying.names(build_model(loaded("task:Headed")))


def test_statistics_may_be_kept_only_where_they_stay_and_coupling_is_declared(tmp_path: Path) -> None:
    planes, _ = sealed("fedbn", tmp_path)
    task = loaded("task:Normed")
    persons = task.data(SiteData("site-1", planes.folder / "data-1")).train
    module, plan = build_model(task), NoPrivacy(releases=1, retries=0)
    names = Staying(norms=True).names(module)
    how = TrainSettings(learning_rate=0.1, sample_rate=1.0, local_steps=1)
    for settings, message in (
        (replace(how, batch_level=True), "keeps running statistics"),
        (replace(how, staying=names), "couples the persons of a batch"),
    ):
        with pytest.raises(ConfigError, match=message):
            Trainer(task, persons, public_persons=8).fit(trainable(module), settings, plan, streams)
    # One person has no deviation: such a step moves nobody.
    trainer = Trainer(task, persons, public_persons=8)
    alone = replace(how, staying=names, batch_level=True, batch_size=1, local_steps=3)
    found = trainer.fit(trainable(module), alone, plan, streams)
    assert all(np.array_equal(found[key], array) for key, array in trainable(module).items())


def test_plans_that_clip_persons_are_refused_on_both_sides(tmp_path: Path) -> None:
    """Through a head without noise one person moves everybody's gradients: the promise would be void."""
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=0.5, steps=2, releases=4, retries=1)
    planes, how = sealed("fedrep", tmp_path)
    task = loaded("task:Headed")
    work = SiteWork(task, task.data(SiteData("site-1", planes.folder / "data-1")), 8)
    assignment = Assignment(planes.start or {}, {**task_settings(how, None)}, plan, 10.0)
    with pytest.raises(ConfigError, match="cannot be trained under plan local"):
        contribute(work, assignment, streams, None)
    for wanted in ("local", "distributed"):
        with pytest.raises(ValidationError, match="moves everybody's gradients"):
            tiny(privacy={"plan": wanted}, training={"strategy": "fedrep", "personal_layers": ["bias"]})
    with pytest.raises(ValidationError, match="fedrep needs personal_layers"):
        tiny(privacy={"plan": "none"}, training={"strategy": "fedrep"})
    with pytest.raises(ValidationError, match="no one model"):
        tiny(privacy={"plan": "none"}, training={"strategy": "fedbn"}, evaluation={"epsilon": 1.0})
