"""Training at a site: a few local steps on drawn persons, privately where the plan says so.

The module is built once, its clipping path is chosen once, and both are kept; each release only loads the received
parameters. The accountant is not asked here: what a plan costs is known before it runs.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedseal.client.clipping.choice import Clipping, choose
from fedseal.client.correction import Correction, correction
from fedseal.client.noise import StepNoise
from fedseal.client.probe import BATCH_NORMS, check_per_person, check_shape, check_statistics
from fedseal.client.task import Persons, Task, batch_of, build_model, size
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, Performance, PrivacyPlan
from fedseal.privacy.randomness import Stream

Arrays = dict[str, NDArray[Any]]

# So many persons' places are drawn ahead of the steps that use them.
AHEAD = 2**14


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What the server asks for: public, the same at all sites.

    Under a private plan sample rate and steps are the plan's, and a batch size is an error. Without one persons are
    drawn independently with ``sample_rate``; with one they are taken in batches, in a fresh order for each pass.
    ``proximal_mu`` is FedProx's mu. ``batch_level`` allows a loss that couples persons, and one that is one number for
    the batch, which is then minimised as it is; an error under a private plan. ``staying`` are the arrays that stay at
    the site, by name: layers whose statistics are among them may keep some of their batches.
    """

    learning_rate: float
    sample_rate: float
    local_steps: int
    batch_size: int | None = None
    proximal_mu: float = 0.0
    batch_level: bool = False
    staying: frozenset[str] = frozenset()


class Streams(Protocol):
    """The randomness of one release, by purpose."""

    def __call__(self, *purpose: str | int) -> Stream: ...


def trainable(module: nn.Module) -> Arrays:
    """The parameters that are trained and released, by name."""
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters() if p.requires_grad}


def load(module: nn.Module, arrays: Mapping[str, NDArray[Any]], staying: Collection[str] = ()) -> None:
    """Put received arrays into the trainable parameters; ConfigError if names or shapes differ.

    ``staying`` names parameters that are not received but stay at the site, and are left as they are.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad and name not in staying}
    if {n: tuple(p.shape) for n, p in parameters.items()} != {n: a.shape for n, a in arrays.items()}:
        raise ConfigError(
            "the received arrays are not this model's trainable parameters",
            next_step="Server and site have to run the same version of the study.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name])))


@contextmanager
def training_only(module: nn.Module, names: Collection[str] | None) -> Iterator[None]:
    """Train these of the trainable parameters, and hold the others; all of them if None."""
    held = [] if names is None else [p for n, p in module.named_parameters() if p.requires_grad and n not in names]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def lots(persons: int, settings: TrainSettings, streams: Streams) -> Iterator[tuple[NDArray[np.intp], float]]:
    """The places of the persons of each local step, and the number that the sum of their losses is divided by.

    Args:
        persons: how many there are to draw from.
        settings: how to train.
        streams: the release's randomness.
    """
    if settings.batch_size is None:
        expected = max(settings.sample_rate * persons, 1.0)
        for step in range(settings.local_steps):
            yield np.flatnonzero(streams("sampling", step).coins(settings.sample_rate, persons)), expected
        return
    batches = max(1, -(-persons // settings.batch_size))
    order = np.zeros(0, dtype=np.intp)
    for step in range(settings.local_steps):
        done = step % batches
        if not done:
            order = streams("sampling", step).permutation(persons)
        lot = order[done * settings.batch_size : (done + 1) * settings.batch_size]
        yield lot, float(max(len(lot), 1))


class Descent:
    """Gradient descent in place, for as many steps as there are.

    Args:
        parameters: which; they have to keep their memory.
        rate: the learning rate.
        added: what is added to the gradient and is neither clipped nor noisy.
    """

    def __init__(self, parameters: list[nn.Parameter], rate: float, added: Correction | None) -> None:
        self._parameters = parameters
        self._rate = rate
        self._added = added
        # numpy's calls are shorter than torch's, and with few parameters a step is nothing but calls.
        self._values = [p.detach().numpy() for p in parameters]
        ends = np.cumsum([v.size for v in self._values])
        self._places = [slice(end - v.size, end) for v, end in zip(self._values, ends, strict=True)]

    def step(self, gradient: NDArray[np.float64]) -> None:
        """One step along a gradient, that of all parameters in a row."""
        if self._added is not None:
            gradient = self._corrected(gradient, self._added)
        change = gradient * self._rate
        for values, place in zip(self._values, self._places, strict=True):
            np.subtract(values, change[place].reshape(values.shape), out=values)

    def _corrected(self, gradient: NDArray[np.float64], added: Correction) -> NDArray[np.float64]:
        for parameter, place in zip(self._parameters, self._places, strict=True):
            parameter.grad = torch.from_numpy(gradient[place]).view_as(parameter).to(parameter.dtype)
        added.add_to(self._parameters)
        grads = [p.grad.flatten() for p in self._parameters if p.grad is not None]
        for parameter in self._parameters:
            parameter.grad = None
        return torch.cat(grads).double().numpy()


class Trainer:
    """One site's training, kept from release to release.

    Args:
        task: the study's task.
        persons: the site's training persons.
        public_persons: the roster's rounded number of them, which noisy sums are divided by.
        performance: may change speed and memory, nothing else.
        clipping: a model of the task's with a path that was chosen before; None chooses at the first private fit.
    """

    def __init__(
        self,
        task: Task,
        persons: Persons,
        *,
        public_persons: int,
        performance: Performance | None = None,
        clipping: Clipping | None = None,
    ) -> None:
        self.task = task
        self.persons = persons
        self.module = build_model(task)
        self._public_persons = public_persons
        self._performance = performance or Performance()
        self._clipping = clipping
        self._probed = False

    def fit(
        self,
        arrays: Mapping[str, NDArray[Any]],
        settings: TrainSettings,
        plan: PrivacyPlan,
        streams: Streams,
        shift: Mapping[str, NDArray[Any]] | None = None,
        anchor: Mapping[str, NDArray[Any]] | None = None,
        only: Collection[str] | None = None,
    ) -> Arrays:
        """Train from the received parameters and return the new ones.

        Args:
            arrays: the received parameters.
            settings: how to train.
            plan: the privacy plan.
            streams: the release's randomness.
            shift: what is added to every gradient, SCAFFOLD's c - c_i, by parameter.
            anchor: what ``proximal_mu`` pulls towards, by parameter; where training begins if None. Plan none only.
            only: the parameters that are trained, by name; all if None. Plan none only.

        Raises:
            ConfigError: the arrays do not fit the model, or the model, loss or settings cannot be trained under the
                plan.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Opacus' hooks sit on layers whose inputs need no gradient; torch warns of that at every first layer.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            # Dropout and the like; not what privacy rests on. torch.manual_seed would also keep, for each call and for
            # devices that are not there, where it came from.
            torch.default_generator.manual_seed(int(streams("torch").words64(1)[0] >> np.uint64(1)))
            match plan:
                case LocalGaussian():
                    return self._fit_private(arrays, settings, plan, streams, shift)
                case NoPrivacy():
                    return self._fit_plain(arrays, settings, streams, shift, anchor, only)
                case _:
                    raise LocalError("a plan with shared noise is not one to train under")

    def _draw(self, rate: float, stream: Stream) -> NDArray[np.intp]:
        """Everyone independently with probability ``rate``: the sampling that the accountant assumes."""
        return np.flatnonzero(stream.coins(rate, size(self.persons)))

    def _drawn_ahead(self, rate: float, steps: int, streams: Streams) -> Iterator[NDArray[np.intp]]:
        """What `_draw` gives for each step, for several steps at once: what is done in a row stays in the cache."""
        ahead = max(1, int(AHEAD / max(rate * size(self.persons), 1.0)))
        for first in range(0, steps, ahead):
            yield from [self._draw(rate, streams("sampling", s)) for s in range(first, min(first + ahead, steps))]

    def _fit_plain(
        self,
        arrays: Mapping[str, NDArray[Any]],
        settings: TrainSettings,
        streams: Streams,
        shift: Mapping[str, NDArray[Any]] | None,
        anchor: Mapping[str, NDArray[Any]] | None,
        only: Collection[str] | None,
    ) -> Arrays:
        self._probe(settings)
        load(self.module, arrays)
        with training_only(self.module, only):
            self._descend(settings, streams, shift, anchor)
        return trainable(self.module)

    def _descend(
        self,
        settings: TrainSettings,
        streams: Streams,
        shift: Mapping[str, NDArray[Any]] | None,
        anchor: Mapping[str, NDArray[Any]] | None,
    ) -> None:
        self.module.train()
        # A layer that takes mean and deviation of its batch has none of one person.
        fewest = 2 if any(isinstance(part, BATCH_NORMS) for part in self.module.modules()) else 1
        parameters = self._parameters(self.module)
        optimizer = torch.optim.SGD(parameters, lr=settings.learning_rate)
        added = correction(self.module, settings.proximal_mu, shift, anchor)
        for chosen, divisor in lots(size(self.persons), settings, streams):
            optimizer.zero_grad()
            if len(chosen) >= fewest:
                batch = batch_of(self.persons, chosen)
                losses = self.task.loss(self.module, batch)
                check_shape(losses, batch, batch_level=settings.batch_level)
                torch.autograd.backward(losses.sum() / divisor if losses.ndim else losses)
            # Also if nobody was drawn: a step is a step.
            if added is not None:
                added.add_to(parameters)
            optimizer.step()

    def _fit_private(
        self,
        arrays: Mapping[str, NDArray[Any]],
        settings: TrainSettings,
        plan: LocalGaussian,
        streams: Streams,
        shift: Mapping[str, NDArray[Any]] | None,
    ) -> Arrays:
        if settings.batch_size is not None:
            raise ConfigError("a private plan draws persons with its sample rate, not in batches of one size")
        if settings.batch_level:
            raise ConfigError("a private plan clips each person's own gradient: a loss of the whole batch has none")
        clipping = self.clipping
        load(clipping.module, arrays)
        clipping.module.train()
        parameters = self._parameters(clipping.module)
        sizes = [p.numel() for p in parameters]
        noise = StepNoise(streams("noise"), plan.noise_multiplier * plan.clip_norm, sizes, plan.steps)
        expected = max(plan.sample_rate * self._public_persons, 1.0)
        added = correction(clipping.module, settings.proximal_mu, shift)
        descent = Descent(parameters, settings.learning_rate, added)
        for chosen in self._drawn_ahead(plan.sample_rate, plan.steps, streams):
            # Also if nobody was drawn: a sum over nobody gets its noise.
            noisy = noise.added_to(self._clipped_sum(clipping, chosen, plan.clip_norm, sum(sizes)))
            descent.step(noisy / expected)
        return trainable(clipping.module)

    def _clipped_sum(
        self, clipping: Clipping, chosen: NDArray[np.intp], clip: float, count: int
    ) -> NDArray[np.float64]:
        """The sum over one step's persons, in portions of bounded memory; all parameters in a row."""
        total, portion = np.zeros(count), self._performance.physical_batch
        for start in range(0, len(chosen), portion):
            batch = batch_of(self.persons, chosen[start : start + portion])
            sums = clipping.clipped_sum(self.task, batch, clip)
            total += np.concatenate([t.numpy().reshape(-1) for t in sums])
        return total

    @property
    def clipping(self) -> Clipping:
        """How gradients are clipped: chosen once, on a second module, because hooks stay off the one that plain
        training uses.
        """
        if self._clipping is None:
            self._clipping = choose(self.task, self.persons)
        return self._clipping

    def _probe(self, settings: TrainSettings) -> None:
        """Refuse what nobody declared, once: a loss that couples persons, and statistics that are not sent."""
        if self._probed:
            return
        check_statistics(self.module, settings.staying)
        if not settings.batch_level:
            self.module.train()
            check_per_person(self.task, self.module, self.persons)
            self._probed = True

    @staticmethod
    def _parameters(module: nn.Module) -> list[nn.Parameter]:
        return [p for p in module.parameters() if p.requires_grad]
