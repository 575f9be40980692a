"""What one site computes in a training round, whoever carries the messages.

In go arrays, settings, randomness and what the site kept of earlier rounds; out come arrays, metrics and what it keeps
for the next. No message, no store and no Flower here: the app of a deployed site and a simulation call the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from fedseal.client.clusters import CLUSTER_METRIC, CLUSTERS, best, block, models_in, open_clusters
from fedseal.client.local_steps import NOVA_METRIC, nova_steps, train_settings
from fedseal.client.metrics import Measured, measure
from fedseal.client.normalise import Normalisation, normalised
from fedseal.client.personal import (
    FINETUNE_RATE,
    HEAD_STEPS,
    PLAIN,
    Staying,
    ditto,
    first_state,
    pack,
    put_state,
    staying_of,
    train_halves,
    unpack,
)
from fedseal.client.remembered import DITTO_LAMBDA, FINETUNE_STEPS
from fedseal.client.trainer import Arrays, Streams, TrainSettings, load
from fedseal.client.variates import ControlVariates, control_variates, divide, released_way
from fedseal.client.work import Settings, SiteWork, normalisation_of, number
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, PlanKind, PrivacyPlan
from fedseal.privacy.releases import VALIDATION_RATIO

WEIGHT = "num-examples"

Reported = Mapping[str, float | list[float]]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a site is asked in one round: public, the same at all sites.

    Args:
        received: the arrays, with what a strategy sends beside the model.
        settings: the task's.
        plan: the round's.
        limit: the bound on the L2 norm of what is released, of the signed header.
    """

    received: Arrays
    settings: Settings
    plan: PrivacyPlan
    limit: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """What came of a round at a site.

    Args:
        arrays: the arrays to be summed, of the names and shapes of the model that was received.
        metrics: what rides along with its weight; None under a private plan.
        memory: what the site keeps for later rounds, under `remembered.memory_name`; None keeps nothing.
    """

    arrays: Arrays
    metrics: Reported | None = None
    memory: bytes | None = None


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A site's fine-tuned model: on its test persons, and as it is kept under `personal.MEMORY_NAME`."""

    measured: Measured
    memory: bytes


def contribute(work: SiteWork, assignment: Assignment, streams: Streams, memory: bytes | None) -> Contribution:
    """Train from the received model; without a private plan, measure it first on the validation persons.

    Under a plan that sums gradients (distributed) use `SiteWork.gradient_sum`; Ditto's personal model goes with it,
    see `personal_model`.

    Args:
        work: the site's.
        assignment: what is asked.
        streams: the site's randomness for this attempt at the release.
        memory: what the site kept in the last round whose sum it was in.

    Raises:
        ConfigError: arrays, settings and model do not go together.
    """
    settings, plan = assignment.settings, assignment.plan
    if (staying := staying_of(settings)) is not None:
        return _in_halves(work, assignment, staying, streams, memory)
    if CLUSTERS in settings:
        return _in_a_cluster(work, assignment, streams)
    normalisation = normalisation_of(settings)
    trainer = work.trainer(normalisation)
    received, beside = divide(assignment.received)
    metrics: dict[str, float | list[float]] | None = None
    if plan.kind is PlanKind.NONE:
        load(trainer.module, received)
        metrics = _validated(work, trainer.module, normalisation)
    how = site_settings(work, assignment)
    own = control_variates(beside, memory) if beside else None
    shift = None if own is None else own.shift(received)
    # What a whole site sends is bounded and gets its noise after training, which goes on as if there were none.
    training = PLAIN if plan.kind is PlanKind.CLIENT else plan
    trained = trainer.fit(received, how, training, streams, shift)
    steps = plan.steps if isinstance(plan, LocalGaussian) else how.local_steps
    if own is not None:
        return Contribution(trained, metrics, _renewed(own, assignment, received, trained, steps, how))
    if (nova := nova_steps(settings, steps)) is not None:
        if metrics is not None:
            metrics[NOVA_METRIC] = nova.ratio
        return Contribution(nova.normalised(received, trained), metrics)
    return Contribution(trained, metrics, personal_model(work, assignment, streams, memory))


def _in_halves(
    work: SiteWork, assignment: Assignment, staying: Staying, streams: Streams, memory: bytes | None
) -> Contribution:
    """A round of a model of which a part stays at the site: FedRep, FedPer, FedBN.

    Raises:
        ConfigError: a plan that bounds what each person adds: through the site's part, which has no noise, a person
            moves everybody's gradients.
    """
    settings, kind = assignment.settings, assignment.plan.kind
    if kind not in (PlanKind.NONE, PlanKind.CLIENT):
        raise ConfigError(f"a model of which a part stays at its site cannot be trained under plan {kind.label}")
    normalisation = normalisation_of(settings)
    trainer = work.trainer(normalisation)
    names = staying.names(trainer.module)
    first = first_state(work.task, names)
    own = first if memory is None else unpack(memory, first)
    metrics = None
    if kind is PlanKind.NONE:
        put_state(trainer.module, own)
        load(trainer.module, assignment.received, names)
        metrics = _validated(work, trainer.module, normalisation)
    how = replace(site_settings(work, assignment), staying=names)
    head_steps = int(number(settings, HEAD_STEPS)) if HEAD_STEPS in settings else 0
    halves = train_halves(trainer, assignment.received, own, how, head_steps, streams)
    return Contribution(halves.shared, metrics, pack(halves.own))


def _in_a_cluster(work: SiteWork, assignment: Assignment, streams: Streams) -> Contribution:
    """A round of clustered training: one of the open models moves, all others come back as they were received.

    Raises:
        ConfigError: a plan; which model a site takes says something of its persons that no plan covers.
    """
    settings = assignment.settings
    if assignment.plan.kind is not PlanKind.NONE:
        raise ConfigError("clustered training goes with plan none")
    models = models_in(assignment.received, int(number(settings, CLUSTERS)))
    cluster = best(work, models, open_clusters(settings), settings)
    normalisation = normalisation_of(settings)
    trainer = work.trainer(normalisation)
    load(trainer.module, models[cluster])
    metrics = _validated(work, trainer.module, normalisation)
    metrics[CLUSTER_METRIC] = [float(j == cluster) for j in range(len(models))]
    trained = trainer.fit(models[cluster], site_settings(work, assignment), assignment.plan, streams)
    own = {block(cluster) + name: array for name, array in trained.items()}
    return Contribution({name: own.get(name, array) for name, array in assignment.received.items()}, metrics)


def _validated(
    work: SiteWork, module: nn.Module, normalisation: Normalisation | None
) -> dict[str, float | list[float]]:
    """What rides along: the received model on the validation persons."""
    return ride_along(measure(work.task, module, normalised(work.split.validation, normalisation)), work.persons)


def personal_model(work: SiteWork, assignment: Assignment, streams: Streams, memory: bytes | None) -> bytes | None:
    """Ditto's personal model after this round, to be kept; None with another strategy."""
    if DITTO_LAMBDA not in assignment.settings:
        return None
    trainer, how = work.trainer(normalisation_of(assignment.settings)), site_settings(work, assignment)
    return ditto(trainer, assignment.received, assignment.settings, how, streams, memory)


def fine_tune(work: SiteWork, received: Arrays, settings: Settings, streams: Streams) -> FineTuned:
    """Local steps from the final model on this site's training persons, and what it then comes to on its test persons.

    Args:
        work: the site's.
        received: the final model.
        settings: the task's, with the number of steps and the learning rate.
        streams: the site's randomness for this attempt at the release.
    """
    normalisation = normalisation_of(settings)
    trainer = work.trainer(normalisation)
    how = replace(
        train_settings(settings, work.persons),
        local_steps=int(number(settings, FINETUNE_STEPS)),
        learning_rate=number(settings, FINETUNE_RATE),
        proximal_mu=0.0,
    )
    tuned = trainer.fit(received, how, PLAIN, streams)
    measured = measure(work.task, trainer.module, normalised(work.split.test, normalisation))
    return FineTuned(measured, pack(tuned))


def site_settings(work: SiteWork, assignment: Assignment) -> TrainSettings:
    """How this site trains. Under a private plan its number of steps is public: by the roster's persons."""
    private = assignment.plan.kind is not PlanKind.NONE
    return train_settings(assignment.settings, work.public_persons if private else work.persons)


def ride_along(measured: Measured, trained_on: int) -> dict[str, float | list[float]]:
    """Validation metrics beside an update, which is weighted by its training persons.

    Each mean is multiplied by the ratio of validation to training persons, and the ratio rides along: the quotient of
    the two sealed means is the exact mean over all validation persons of all sites.
    """
    ratio = measured.persons / max(trained_on, 1)
    record: dict[str, float | list[float]] = {WEIGHT: trained_on, VALIDATION_RATIO: ratio}
    for name, mean in measured.means.items():
        record[name] = float(ratio * mean[0]) if len(mean) == 1 else [float(v) for v in ratio * mean]
    return record


def _renewed(
    own: ControlVariates, assignment: Assignment, received: Arrays, trained: Arrays, steps: int, how: TrainSettings
) -> bytes | None:
    """SCAFFOLD's next control variate, from the update as it is released; None if it is not released."""
    private = assignment.plan.kind is not PlanKind.NONE
    way = released_way(received, trained, assignment.limit, private=private)
    if way is None:
        return None
    return own.renewed(way, steps=steps, learning_rate=how.learning_rate).astype("<f8").tobytes()
