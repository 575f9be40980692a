"""A frozen transformer: adapters and head are what is trained and what leaves, the rest is as in its file."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
from support.flower import flower_task
from support.frozen import (
    BESIDE,
    EXAMPLES,
    Remembering,
    Vectors,
    changed,
    copied,
    frozen_digest,
    holds_any,
    simulated,
    sizes,
    small_material,
)

from fedseal.client.probe import check_model, check_per_person
from fedseal.client.task import build_model, size
from fedseal.client.trainer import Trainer, TrainSettings, load, trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation import training
from fedseal.simulation.arms import Arm, run_arm
from fedseal.simulation.engine import processes
from fedseal.simulation.grid import LocalGrid
from fedseal.study import load_study
from fedseal.study_code import load_object, load_task

STUDY = EXAMPLES / "text-lora"
RANK, WIDTH = 4, 48
# Two adapters in each of two blocks, and the head with its offset.
TRAINED = 2 * 2 * 2 * RANK * WIDTH + WIDTH + 1
PLANS = [
    NoPrivacy(releases=1, retries=0),
    LocalGaussian(clip_norm=0.5, noise_multiplier=1.0, sample_rate=0.5, steps=2, releases=1, retries=0),
]


def task(reference: str = "task:Adapters") -> Any:
    return load_task(reference, STUDY)


def words(some: Any, count: int = 8) -> torch.Tensor:
    """The numbers of some messages' words, as the task makes them."""
    number: Any = load_object("transformer:numbers", STUDY)
    texts = list(load_object("task:population", STUDY)()["message"][:count])  # type: ignore[operator]
    return cast(torch.Tensor, number(texts, some.vocabulary, len(some.weights["place.weight"])))


def test_what_is_trained_are_adapters_and_head() -> None:
    names = trainable(build_model(task()))
    assert sum(array.size for array in names.values()) == TRAINED
    assert all(name.startswith("head.") or ".down." in name or ".up." in name for name in names)
    trained, frozen = sizes(task())
    everything, nothing = sizes(task("task:Everything"))
    assert (trained, nothing) == (TRAINED, 0)
    # Full training has no adapters, and the same head.
    assert everything == frozen + WIDTH + 1
    assert everything > 25 * trained


def test_new_adapters_change_nothing_and_trained_ones_do() -> None:
    some, whole = task(), build_model(task("task:Everything"))
    adapted, inputs = build_model(some), words(some)
    with torch.no_grad():
        for model in (adapted, whole):
            cast(Any, model).head.weight.fill_(0.1)
        assert torch.equal(adapted(inputs), whole(inputs))
        for name, parameter in adapted.named_parameters():
            if name.endswith("up.weight"):
                parameter.fill_(0.05)
        assert not torch.allclose(adapted(inputs), whole(inputs))


def test_the_frozen_weights_are_those_of_the_file_and_the_same_at_every_call() -> None:
    file = safetensors.torch.load_file(STUDY / "pretrained.safetensors")
    assert (STUDY / "pretrained.safetensors").stat().st_size < 500_000
    one, two = build_model(task()), build_model(task())
    for name, tensor in file.items():
        assert torch.equal(one.state_dict()[f"encoder.{name}"], tensor)
    assert frozen_digest(one) == frozen_digest(two)
    # The check sees a single changed number.
    with torch.no_grad():
        cast(Any, two).encoder.after.bias[0] += 1e-3
    assert frozen_digest(one) != frozen_digest(two)


def test_another_file_is_refused(tmp_path: Path) -> None:
    folder = copied("text-lora", tmp_path)
    load_task("task:Adapters", folder)
    other = copied("text-lora", tmp_path / "other")
    raw = bytearray((other / "pretrained.safetensors").read_bytes())
    raw[-1] ^= 1
    (other / "pretrained.safetensors").write_bytes(raw)
    with pytest.raises(ConfigError, match=r"another one than this study's"):
        load_task("task:Adapters", other)
    (other / "pretrained.safetensors").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        load_task("task:Adapters", other)


@pytest.mark.quick("task:Adapters-none")
@pytest.mark.parametrize("plan", PLANS, ids=["none", "local"])
@pytest.mark.parametrize("reference", ["task:Adapters", "task:Everything"])
def test_training_moves_what_is_trained_and_nothing_else(plan: Any, reference: str, tmp_path: Path) -> None:
    study = changed("text-lora", reference)
    material = small_material(study, tmp_path, 60)
    persons = next(iter(material.splits.values())).train
    remembering = Remembering(material.task)
    trainer = Trainer(remembering, persons, public_persons=size(persons))
    first = material.first_model()
    settings = TrainSettings(learning_rate=0.5, sample_rate=0.5, local_steps=2)
    before = frozen_digest(build_model(material.task))
    found = trainer.fit(first, settings, plan, KeyedRandomness(1, "test").stream)
    assert found.keys() == first.keys()
    assert any(not np.array_equal(found[name], first[name]) for name in found)
    assert remembering.made
    assert all(frozen_digest(module) == before for module in remembering.made)
    judged = build_model(material.task)
    load(judged, found)
    assert frozen_digest(judged) == before


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["task:Adapters", "task:Everything"])
def test_the_probe_accepts_the_model_and_notices_one_that_couples_persons(reference: str, tmp_path: Path) -> None:
    from opacus.grad_sample import GradSampleModule

    material = small_material(changed("text-lora", reference), tmp_path, 40)
    persons = next(iter(material.splits.values())).train
    module = build_model(material.task)
    check_model(module)
    check_per_person(material.task, GradSampleModule(module, loss_reduction="sum"), persons)

    class Coupled:
        """The same, but everyone is told apart from the batch's mean."""

        def loss(self, model: Any, batch: Any) -> torch.Tensor:
            answers = model(batch[0])
            return cast(torch.Tensor, (answers - answers.mean() - batch[1]) ** 2)

    with pytest.raises(ConfigError, match="couples"):
        check_per_person(
            cast(Any, Coupled()), GradSampleModule(build_model(material.task), loss_reduction="sum"), persons
        )


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "numbers"), [("task:Adapters", TRAINED), ("task:Everything", None)])
def test_only_what_is_trained_is_in_what_leaves_a_site(
    reference: str, numbers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = changed("text-lora", reference, training={"rounds": 1, "local_steps": 1})
    material = small_material(study, tmp_path / "data", 40)
    seen = Vectors(set(), [])

    class WatchedGrid(LocalGrid):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"deliver": seen})

    monkeypatch.setattr(processes, "LocalGrid", WatchedGrid)
    with flower_task():
        trained = training.train(material, study.contract, tmp_path / "federation")
    # One number a trained parameter: under a private plan no metric rides along.
    expected = numbers or sizes(material.task)[0]
    assert seen.lengths == {expected + BESIDE}
    assert sum(array.size for array in trained.model.values()) == expected
    assert not holds_any(seen.bytes, list(task().weights.values()))
    # The twin: bytes that would have left are found.
    leaked = [tensor.numpy().tobytes() for tensor in task().weights.values()]
    assert holds_any(leaked, list(task().weights.values()))


def test_public_and_private_text_share_no_sentence_and_no_form() -> None:
    make: Any = load_object("messages:leaflets", STUDY)
    public, private = set(make(3000)[0]), set(load_object("task:population", STUDY)()["message"])  # type: ignore[operator]
    assert not public & private
    forms: Any = (load_object("messages:LEAFLETS", STUDY), load_object("messages:MESSAGES", STUDY))
    assert not set(forms[0]) & set(forms[1])
    # The vocabulary is the public text's: some words of the messages are not in it.
    known = set(task().vocabulary)
    assert {word for text in public for word in text.split()} <= known
    assert {"hello", "thanks"} <= {word for text in private for word in text.split()} - known


@pytest.mark.slow
def test_the_study_runs_as_it_stands(tmp_path: Path) -> None:
    found = simulated(STUDY, tmp_path, "--rounds", "1", "--no-baselines")
    assert len(found["sites"]) == 5
    (epsilons,) = {p["epsilon"] for p in found["privacy"]["sites"].values()}
    assert 0 < epsilons <= 3


@pytest.mark.slow
def test_private_adapters_beat_the_majority() -> None:
    study = load_study(STUDY)
    adapters = Arm("adapters", "task:Adapters", "local", learning_rate=1.0, clip_norm=0.5)
    assert run_arm(study, adapters, seed=1).accuracy > 0.7
    # The twin: with a rate of next to nothing they do not.
    assert run_arm(study, Arm("still", "task:Adapters", "local", 1e-9, clip_norm=0.5), seed=1).accuracy < 0.6
