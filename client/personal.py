"""A site's personal model: what of a model stays at its site, kept in its store from round to round.

Personal arrays are kept as the bytes of a safetensors file. They are in no release and in no message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from fedseal.client.trainer import Arrays, Streams, Trainer, TrainSettings
from fedseal.client.work import Settings, number
from fedseal.errors import ConfigError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.randomness import Stream
from fedseal.privacy.transaction import PERSONAL

# Under this name the personal model stands in a site's store; it outlives the run.
MEMORY_NAME = PERSONAL + "model"
DITTO_LAMBDA, DITTO_STEPS, DITTO_RATE = "ditto-lambda", "ditto-steps", "ditto-rate"

PLAIN = NoPrivacy(releases=1, retries=0)


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
