"""A frozen backbone: the head is what is trained and what leaves, on digits that the backbone never saw."""

from pathlib import Path
from typing import Any

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

from fedseal.client.probe import check_model
from fedseal.client.task import build_model, size
from fedseal.client.trainer import Trainer, TrainSettings, trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation import training
from fedseal.simulation.arms import Arm, ArmRow, choose, majority_accuracy, run_arm, table
from fedseal.simulation.engine import processes
from fedseal.simulation.grid import LocalGrid
from fedseal.study_code import load_object, load_task

STUDY = EXAMPLES / "frozen-backbone"
HEAD = 64 * 5 + 5


def task(reference: str = "task:Head") -> Any:
    return load_task(reference, STUDY)


def test_the_public_and_the_private_images_are_apart() -> None:
    make: Any = load_object("images:images", STUDY)
    digits: Any = (load_object("images:PUBLIC", STUDY), load_object("images:PRIVATE", STUDY))
    public, private = (make(some) for some in digits)
    assert set(public["digit"]) == {0, 1, 2, 3, 4}
    assert set(private["digit"]) == {5, 6, 7, 8, 9}
    assert not set(public["person"]) & set(private["person"])
    assert (len(public), len(private)) == (901, 896)


def test_what_is_trained_is_the_head_and_the_rest_is_in_the_file() -> None:
    trained, frozen = sizes(task())
    assert (trained, frozen) == (HEAD, sizes(task("task:Everything"))[0] - HEAD)
    module = build_model(task())
    assert set(trainable(module)) == {"head.weight", "head.bias"}
    file = safetensors.torch.load_file(STUDY / "pretrained.safetensors")
    assert sum(tensor.numel() for tensor in file.values()) == frozen
    assert all(torch.equal(module.state_dict()[f"backbone.{name}"], tensor) for name, tensor in file.items())
    check_model(module)


def test_another_file_is_refused(tmp_path: Path) -> None:
    folder = copied("frozen-backbone", tmp_path)
    (folder / "pretrained.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"another one than this study's"):
        load_task("task:Head", folder)


def test_private_training_leaves_the_backbone_alone_and_full_training_does_not(tmp_path: Path) -> None:
    plan = LocalGaussian(clip_norm=0.5, noise_multiplier=1.0, sample_rate=0.5, steps=2, releases=1, retries=0)
    plans: tuple[LocalGaussian | NoPrivacy, ...] = (plan, NoPrivacy(releases=1, retries=0))
    for each in plans:
        material = small_material(changed("frozen-backbone", "task:Head"), tmp_path / type(each).__name__, 40)
        persons, remembering = next(iter(material.splits.values())).train, Remembering(material.task)
        trainer = Trainer(remembering, persons, public_persons=size(persons))
        before = frozen_digest(build_model(material.task))
        settings = TrainSettings(learning_rate=0.5, sample_rate=0.5, local_steps=2)
        trainer.fit(material.first_model(), settings, each, KeyedRandomness(1, "test").stream)
        assert remembering.made
        assert {frozen_digest(module) for module in remembering.made} == {before}
    # The twin: with everything trained, the backbone moves.
    material = small_material(changed("frozen-backbone", "task:Everything"), tmp_path / "everything", 40)
    persons = next(iter(material.splits.values())).train
    first = material.first_model()
    trainer = Trainer(material.task, persons, public_persons=size(persons))
    found = trainer.fit(first, settings, plan, KeyedRandomness(1, "test").stream)
    assert any(not np.array_equal(found[n], first[n]) for n in found if n.startswith("backbone."))


@pytest.mark.slow
def test_only_what_is_trained_is_in_what_leaves_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = changed("frozen-backbone", "task:Head", training={"rounds": 1, "local_steps": 1})
    material = small_material(study, tmp_path / "data", 40)
    seen = Vectors(set(), [])

    class WatchedGrid(LocalGrid):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"deliver": seen})

    monkeypatch.setattr(processes, "LocalGrid", WatchedGrid)
    with flower_task():
        training.train(material, study.contract, tmp_path / "federation")
    assert seen.lengths == {HEAD + BESIDE}
    assert not holds_any(seen.bytes, list(task().weights.values()))


@pytest.mark.slow
def test_arms_differ_in_what_they_say_and_the_table_says_what_ran() -> None:
    study = changed("frozen-backbone", "task:Head", training={"rounds": 2})
    head, everything = (Arm(t, f"task:{t}", "local", 1.0, 0.5) for t in ("Head", "Everything"))
    outcomes = {arm: run_arm(study, arm, 1) for arm in (head, everything)}
    small, large = outcomes[head], outcomes[everything]
    assert (small.trained, large.trained, large.frozen) == (HEAD, small.trained + small.frozen, 0)
    # What is uploaded is what is trained, and the same for everyone is around it.
    assert large.upload - small.upload == pytest.approx(4 * (large.trained - small.trained), rel=0.02)
    assert (small.epsilon, small.noise_multiplier) == (large.epsilon, large.noise_multiplier)
    assert small.epsilon is not None
    assert small.epsilon <= 3
    written = table([ArmRow(arm, (found,)) for arm, found in outcomes.items()], [0.25], study.contract)
    assert f"| Head | local, epsilon 3 | {HEAD} |" in written
    assert f"{small.accuracy:.3f}" in written


@pytest.mark.slow
def test_settings_are_chosen_on_validation_persons() -> None:
    study = changed("frozen-backbone", "task:Head", training={"rounds": 3})
    arm = Arm("head", "task:Head", "none", 0.1)
    tried: list[float] = []
    chosen = choose(study, arm, (1e-6, 0.1), 101, lambda trial, _: tried.append(trial.learning_rate))
    assert (chosen.learning_rate, tried) == (0.1, [1e-6, 0.1])
    # Other persons than the table's.
    assert run_arm(study, arm, 101, part="validation").loss != run_arm(study, arm, 101).loss


@pytest.mark.slow
def test_the_study_runs_as_it_stands_and_beats_the_majority(tmp_path: Path) -> None:
    found = simulated(STUDY, tmp_path, "--rounds", "6", "--no-baselines")
    assert found["final"]["global"]["accuracy"] > majority_accuracy(changed("frozen-backbone", "task:Head"), 1) + 0.1
