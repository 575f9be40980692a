"""How good a model is on some persons of every site, by labels that are true or recorded."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedseal.client.tabular import Tabular
from fedseal.client.trainer import Arrays, load
from fedseal.simulation.scenario.material import Rows


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of some persons: the probability of each class, shape (n, classes), and its class."""

    probabilities: NDArray[np.float64]
    classes: NDArray[np.intp]

    def losses(self, y: NDArray[np.intp]) -> NDArray[np.float64]:
        """The cross-entropy of each person."""
        losses: NDArray[np.float64] = -np.log(np.maximum(self.probabilities[np.arange(len(y)), y], 1e-12))
        return losses


@dataclass(frozen=True, slots=True)
class Quality:
    """Accuracy and loss over all persons, and each site's accuracy; None where there is nobody."""

    accuracy: float | None
    loss: float | None
    sites: dict[str, float | None]

    @property
    def known(self) -> list[float]:
        """The sites' accuracies that there are."""
        return [a for a in self.sites.values() if a is not None]


def answers(task: Tabular, model: Arrays, x: NDArray[np.float64]) -> Answers:
    """What a model of this task says of persons with these values, shape (n, features)."""
    module = task.model()
    load(module, model)
    with torch.no_grad():
        logits = module.eval()(torch.from_numpy(task.scaled(x))).double()
        probabilities = torch.softmax(logits, dim=1).numpy()
    return Answers(probabilities, probabilities.argmax(axis=1))


def quality(task: Tabular, model: Arrays, sites: Mapping[str, Rows]) -> Quality:
    """A model's quality on persons by site."""
    names = list(sites)
    counts = np.array([len(sites[name].y) for name in names])
    if not counts.sum():
        return Quality(None, None, dict.fromkeys(names))
    y = np.concatenate([sites[name].y for name in names])
    said = answers(task, model, np.concatenate([sites[name].x for name in names]))
    right = np.bincount(np.repeat(np.arange(len(names)), counts), said.classes == y, minlength=len(names))
    return Quality(
        accuracy=float(right.sum() / counts.sum()),
        loss=float(said.losses(y).mean()),
        sites={n: float(r / c) if c else None for n, r, c in zip(names, right, counts, strict=True)},
    )


def own_quality(task: Tabular, models: Mapping[str, Arrays], sites: Mapping[str, Rows]) -> Quality:
    """The quality of each site's own model on its own persons; a site without one has none."""
    found = {name: quality(task, models[name], {name: rows}) for name, rows in sites.items() if name in models}
    counts = {name: len(sites[name].y) for name in found}
    everyone = sum(counts.values())
    if not everyone:
        return Quality(None, None, dict.fromkeys(sites))
    return Quality(
        accuracy=sum((q.accuracy or 0.0) * counts[name] for name, q in found.items()) / everyone,
        loss=sum((q.loss or 0.0) * counts[name] for name, q in found.items()) / everyone,
        sites={name: found[name].accuracy if name in found else None for name in sites},
    )
