"""The arrays that a run begins with: what the server is given of the models that a seed draws."""

from collections.abc import Callable

import numpy as np

from fedseal.client.clusters import block
from fedseal.client.personal import staying_in
from fedseal.client.task import Task, build_model
from fedseal.client.trainer import Arrays
from fedseal.privacy.randomness import Stream
from fedseal.study import Training

# How far apart equal first models of clusters are moved, as a standard deviation.
APART = 0.1


def first_arrays(task: Task, training: Training, draw: Callable[[int], Arrays], stream: Stream) -> Arrays:
    """What the server sends in the first round.

    Args:
        task: the study's.
        training: its strategy says which arrays the server has: all of a model's, those that do not stay at the sites,
            or the models of several clusters.
        draw: the trainable parameters of a model by number.
        stream: moves the models of clusters apart where all draws are alike, as a model is that begins with zeros: to
            sites they would be one.

    Raises:
        ConfigError: the model has nothing that could stay at the sites, or nothing that could be shared.
    """
    whole = draw(0)
    if (staying := staying_in(training)) is not None:
        names = staying.names(build_model(task))
        return {name: array for name, array in whole.items() if name not in names}
    if training.strategy != "clustered":
        return whole
    models = [whole, *(draw(number) for number in range(1, training.clusters))]
    if all(np.array_equal(m[name], whole[name]) for m in models[1:] for name in whole):
        models = [whole, *(_moved(model, stream) for model in models[1:])]
    return {block(j) + name: array for j, model in enumerate(models) for name, array in model.items()}


def _moved(model: Arrays, stream: Stream) -> Arrays:
    return {n: (a + APART * stream.normal(a.size).reshape(a.shape)).astype(a.dtype) for n, a in model.items()}
