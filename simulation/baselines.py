"""What a federated model has to be compared with: the majority class, every site alone, and all data in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, TensorDataset

from fedseal.client.normalise import Normalisation, own_normalisation
from fedseal.client.personal import Staying
from fedseal.client.task import Persons, batch_of, size
from fedseal.client.trainer import Trainer, TrainSettings
from fedseal.errors import ConfigError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.simulation.oracle import Judged, Scores, majority
from fedseal.simulation.training import Material, initial_model
from fedseal.study import Training
from fedseal.study_code import study_code


def majority_baseline(material: Material) -> Judged | None:
    """The best constant answer; None where the study's code cannot be answered by a constant.

    A constant says the same to everyone when it is called. A loss or metric that wants more of the model (a method of
    its own, one of its layers, several outputs at once) fails with it, though not with the study's own model.
    """
    try:
        with study_code("the best constant answer"):
            return material.oracle.judge(majority(material.task, material.splits), None)
    except ConfigError:
        return None


def local_baseline(material: Material, training: Training, *, normalise: bool) -> Judged:
    """Every site on its own, with as many steps as the federation; each judged on everyone's test persons.

    ``everyone`` holds the median of each metric over sites, ``sites`` the sites' own models.
    """
    alone = {
        name: _alone(material, training, split.train, normalise, "local", name).everyone
        for name, split in material.splits.items()
    }
    return Judged(_median(alone), alone, {})


def pooled_baseline(material: Material, training: Training, *, normalise: bool) -> Judged:
    """All training persons in one place: what data protection forbids."""
    return _alone(
        material, training, together([split.train for split in material.splits.values()]), normalise, "pooled", ""
    )


def _alone(material: Material, training: Training, persons: Persons, normalise: bool, kind: str, name: str) -> Judged:
    """Plain training on one dataset with the federation's settings, judged by the oracle."""
    normalisation: Normalisation | None = None
    if normalise and size(persons):
        normalisation = own_normalisation(persons)
        persons = normalisation.apply(persons)
    randomness = KeyedRandomness(material.seed, kind, name)

    def streams(*purpose: str | int) -> Stream:
        return randomness.stream(*purpose)

    settings = TrainSettings(
        learning_rate=training.learning_rate,
        sample_rate=training.sample_rate,
        local_steps=training.steps_over(size(persons)) * training.rounds,
        batch_size=training.batch_size,
        batch_level=training.batch_level,
    )
    trainer = Trainer(material.task, persons, public_persons=size(persons))
    if training.strategy == "fedbn":
        settings = replace(settings, staying=Staying(norms=True).names(trainer.module))
    trainer.fit(initial_model(material.task, material.seed), settings, NoPrivacy(releases=1, retries=0), streams)
    # With the statistics that it has kept, if it keeps any.
    return material.oracle.judge(trainer.module, normalisation)


def together(datasets: Sequence[Any]) -> Persons:
    """Several datasets as one."""
    if all(isinstance(d, TensorDataset) for d in datasets):
        parts = [batch_of(d, np.arange(size(d))) for d in datasets]
        return TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return ConcatDataset(datasets)


def _median(scores: Mapping[str, Scores]) -> Scores:
    names = next(iter(scores.values())).keys()
    found: Scores = {}
    for name in names:
        numbers = [v for s in scores.values() if (v := s[name]) is not None]
        found[name] = median(numbers) if numbers else None
    return found
