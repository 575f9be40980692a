"""A site's personal model: what of a model stays at its site, kept in its store from round to round.

Personal arrays are kept as the bytes of a safetensors file. They are in no release and in no message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from fedseal.client.remembered import DITTO_LAMBDA, LAYERS, NORMS
from fedseal.client.task import Task, build_model
from fedseal.client.trainer import Arrays, Streams, Trainer, TrainSettings
from fedseal.client.work import Settings, number
from fedseal.errors import ConfigError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.randomness import Stream
from fedseal.privacy.transaction import PERSONAL_MODEL
from fedseal.study import Training

# Under this name the personal model stands in a site's store; it outlives the run.
MEMORY_NAME = PERSONAL_MODEL
DITTO_STEPS, DITTO_RATE = "ditto-steps", "ditto-rate"
FINETUNE_RATE = "finetune-rate"
HEAD_STEPS = "head-steps"

# Layers that bring their inputs to one scale: Li et al. 2021 keep batch normalisation, others do the same job.
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)

PLAIN = NoPrivacy(releases=1, retries=0)


@dataclass(frozen=True, slots=True)
class Staying:
    """Which arrays of a model stay at their site: a public set, the same at all sites, by what the model is made of.

    Args:
        norms: parameters and statistics of normalisation layers (FedBN).
        layers: everything of the layers or parameters of these names (FedRep's head).
    """

    norms: bool = False
    layers: tuple[str, ...] = ()

    def names(self, module: nn.Module) -> frozenset[str]:
        """Their names, of parameters and of statistics.

        Raises:
            ConfigError: a name is not of this model, nothing stays, or nothing is left to be trained together.
        """
        state = list(module.state_dict())
        found = {n for layer in self.layers for n in state if n == layer or n.startswith(layer + ".")}
        for layer in self.layers:
            if not any(n == layer or n.startswith(layer + ".") for n in state):
                raise ConfigError(
                    f"the model has no layer {layer!r} that a site could keep",
                    next_step=f"personal_layers names some of: {', '.join(sorted({n.split('.')[0] for n in state}))}.",
                )
        if self.norms:
            for name, part in module.named_modules():
                if isinstance(part, NORM_LAYERS):
                    found |= {f"{name}.{own}" if name else own for own in part.state_dict()}
        if not found:
            raise ConfigError(
                "the model has no normalisation layer that a site could keep", next_step="Use fedavg, or add some."
            )
        if all(name in found for name, p in module.named_parameters() if p.requires_grad):
            raise ConfigError("all that is trained would stay at the sites: nothing is left to be trained together")
        return frozenset(found)


def staying_of(settings: Settings) -> Staying | None:
    """What stays at the sites by a task's settings; None where the whole model is trained together."""
    if bool(settings.get(NORMS, False)):
        return Staying(norms=True)
    layers = settings.get(LAYERS)
    return Staying(layers=tuple(str(name) for name in layers)) if isinstance(layers, list) else None


def staying_in(training: Training) -> Staying | None:
    """The same by a study's contract."""
    if training.strategy == "fedbn":
        return Staying(norms=True)
    return Staying(layers=training.personal_layers) if training.strategy == "fedrep" else None


def first_state(task: Task, names: frozenset[str]) -> Arrays:
    """What a site begins with of the arrays that stay with it: the same everywhere."""
    return state_of(build_model(task), names)


def state_of(module: nn.Module, names: frozenset[str]) -> Arrays:
    """A copy of these parameters and statistics, by name."""
    return {name: t.detach().numpy().copy() for name, t in module.state_dict().items() if name in names}


def put_state(module: nn.Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Put parameters and statistics into a module, in place."""
    own = module.state_dict()
    with torch.no_grad():
        for name, array in state.items():
            own[name].copy_(torch.from_numpy(np.array(array)))


@dataclass(frozen=True, slots=True)
class Under:
    """A release's randomness for a purpose of its own: the same names below it are other streams."""

    streams: Streams
    purpose: str

    def __call__(self, *purpose: str | int) -> Stream:
        """The stream of one purpose below this one."""
        return self.streams(self.purpose, *purpose)


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Personal arrays as they are kept."""
    return safetensors.numpy.save({name: array.copy(order="C") for name, array in arrays.items()})


def unpack(kept: bytes, like: Mapping[str, NDArray[Any]]) -> Arrays:
    """Kept arrays; ConfigError if they are not of the names and shapes of ``like``."""
    try:
        found: Arrays = safetensors.numpy.load(kept)
    except SafetensorError:
        found = {}
    if {n: a.shape for n, a in found.items()} != {n: a.shape for n, a in like.items()}:
        raise ConfigError("the site's personal model belongs to another model", next_step="Start a new run.")
    return {name: found[name] for name in like}


def ditto(
    trainer: Trainer, received: Arrays, settings: Settings, how: TrainSettings, streams: Streams, kept: bytes | None
) -> bytes:
    """Ditto's personal model after this round (Li, Hu, Beirami and Smith 2021, Algorithm 1).

    The steps are v_k <- v_k - eta (grad F_k(v_k) + lambda (v_k - w^t)), with w^t as it was received: the model that
    the round's update begins from too. Nothing of v_k is released, and the update does not depend on it, so a private
    plan has nothing to clip, to noise or to charge here.

    Args:
        trainer: the site's.
        received: w^t.
        settings: the task's: lambda, and perhaps steps and a learning rate of the personal model's own.
        how: how the update is trained.
        streams: the release's randomness.
        kept: v_k after the last counted round; None begins with w^t, which in the first round is the paper's v_k^0.

    Returns:
        v_k, to be kept.
    """
    own = replace(
        how,
        learning_rate=number(settings, DITTO_RATE) if DITTO_RATE in settings else how.learning_rate,
        local_steps=int(number(settings, DITTO_STEPS)) if DITTO_STEPS in settings else how.local_steps,
        proximal_mu=number(settings, DITTO_LAMBDA),
    )
    begin = received if kept is None else unpack(kept, received)
    return pack(trainer.fit(begin, own, PLAIN, Under(streams, "personal"), anchor=received))


@dataclass(frozen=True, slots=True)
class Halves:
    """A model in two parts after a site's round: what is released, and what stays, statistics included."""

    shared: Arrays
    own: Arrays


def train_halves(
    trainer: Trainer, received: Arrays, own: Arrays, how: TrainSettings, head_steps: int, streams: Streams
) -> Halves:
    """Train a model of which a part stays at the site.

    With ``head_steps`` first the site's part alone, then the shared part alone: FedRep (Collins, Hassani, Mokhtari and
    Shakkottai 2021, Algorithm 1). Without, both together: FedPer (Arivazhagan et al. 2019) and FedBN (Li, Jiang, Zhang,
    Kamp and Dou 2021), whose update of the shared part is that of the whole model.

    Args:
        trainer: the site's.
        received: the shared parameters.
        own: the site's part.
        how: how the shared part is trained; ``staying`` names the site's.
        head_steps: steps on the site's part alone; 0 trains both together.
        streams: the release's randomness.
    """
    module = trainer.module
    put_state(module, own)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    whole = {name: received[name] if name in received else own[name] for name in names}
    if head_steps:
        first = replace(how, local_steps=head_steps)
        whole = trainer.fit(whole, first, PLAIN, Under(streams, "head"), only=how.staying)
        whole = trainer.fit(whole, how, PLAIN, streams, only=set(received))
    else:
        whole = trainer.fit(whole, how, PLAIN, streams)
    return Halves({name: whole[name] for name in received}, state_of(module, how.staying))
