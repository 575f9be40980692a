"""The ServerApp of a study: reads the run's configuration, plans the noise, and trains.

`app` is what a study's pyproject.toml names as its serverapp. It needs no task code: the initial model is a file, the
ranges of metrics are part of the run's configuration. A Grid that is also a `RoundObserver` is told of every round.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi
from pydantic import ValidationError

from fedseal.compliance.events.fields import public_name, sha256
from fedseal.compliance.log.database import LOG_VARIABLE
from fedseal.errors import ConfigError
from fedseal.privacy.inference.evaluation import evaluation_tables
from fedseal.privacy.inference.tally import Tally
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import MetricRange
from fedseal.privacy.shared_planning import Extent
from fedseal.server.clustered import Clustered
from fedseal.server.contents import TaskSetting
from fedseal.server.counted import Personal
from fedseal.server.counts import Asked, kept, private_evaluation, recalled
from fedseal.server.fedadam import UncorrectedFedAdam
from fedseal.server.fednova import FedNova
from fedseal.server.grid import AveragingGrid, SealedGrid
from fedseal.server.logbook import RunFacts, model_digest
from fedseal.server.means import Means
from fedseal.server.personalised import fine_tuned
from fedseal.server.rounds import Arrays, Plan, RoundRecord, run_rounds
from fedseal.server.scaffold import Scaffold
from fedseal.server.sealing import CohortRules
from fedseal.server.statistics import Moments, federated_moments
from fedseal.server.store import ServerStore, read_model
from fedseal.study import Contract, Training

STORE_KEY = "fedseal-server-store"
CONTRACT_KEY = "fedseal-contract"
MODEL_KEY = "fedseal-initial-model"
METRICS_KEY = "fedseal-metrics"
SITES_KEY = "fedseal-sites"
ROUNDING_KEY = "fedseal-rounding"
RESUME_KEY = "fedseal-resume"
CODE_KEY = "fedseal-code"
# In a checkpoint: the means of what the sites' fine-tuned models came to.
PERSONALISED = "personalised"


@runtime_checkable
class RoundObserver(Protocol):
    """What a Grid may be besides: told of what a run does. Everything it is told is public to the coordinator."""

    def run_planned(self, plans: RunPlans, moments: Moments | None, run: bytes) -> None:
        """Before the first round."""

    def round_finished(self, record: RoundRecord) -> None:
        """After every round, once its checkpoint is on disk."""

    def run_evaluated(self, tally: Tally) -> None:
        """After the private evaluation of the final model, if the study has one, once it is on disk."""

    def run_personalised(self, means: Means) -> None:
        """After the sites have fine-tuned the final model, if the study says so, once it is on disk."""

    def run_finished(self, model: Arrays) -> None:
        """After the last round, once the run is closed."""


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a study to its end."""
    config = RunConfig(context)
    contract = config.contract()
    model = read_model(Path(config.text(MODEL_KEY)))
    plans = plan_run(contract, Extent(sum(array.size for array in model.values()), config.sites()))
    strategy = build_strategy(contract.training, config.sites(), roster_persons(Path(config.text(STORE_KEY))))
    sealed = SealedGrid(
        grid,
        strategy,
        store=config.text(STORE_KEY),
        max_examples=contract.cohort.largest_site,
        metrics=config.metrics(),
        plan=plans.update,
        update_range=contract.training.update_range,
        cohort=CohortRules(
            minimum=contract.cohort.minimum,
            colluders=contract.cohort.colluders,
            retries=contract.privacy.retries,
            patience=3600 * contract.cohort.wait_hours,
        ),
        ring_bits=plans.ring_bits,
        rounding=config.rounding(),
        run_config=context.run_config,
        run=config.resumed(),
        log=log_database(Path(config.text(STORE_KEY))),
        facts=RunFacts(
            study=public_name(contract.name),
            contract=sha256(config.text(CONTRACT_KEY).encode("utf-8")),
            strategy=contract.training.strategy,
            code=config.optional(CODE_KEY),
            model=model_digest(model),
            rounds=contract.training.rounds,
        ),
    )
    run_study(sealed, strategy, contract, plans, model, grid if isinstance(grid, RoundObserver) else None)


def run_study(
    grid: AveragingGrid,
    strategy: FedAvg,
    contract: Contract,
    plans: RunPlans,
    model: Arrays,
    observer: RoundObserver | None,
) -> None:
    """All releases of a study in their order: moments, rounds, evaluation; then close the run.

    Args:
        grid: makes the releases.
        strategy: a fresh one.
        contract: the study's.
        plans: of the releases.
        model: the first one.
        observer: told of everything.
    """
    moments = _normalise(grid, contract, plans)
    if observer is not None:
        observer.run_planned(plans, moments, grid.run_id)
    model = run_rounds(
        grid,
        strategy,
        model,
        Plan(contract.training.rounds, task_settings(contract.training, moments)),
        observer.round_finished if observer is not None else lambda _: None,
        lambda final: _finish(grid, contract, plans, final, observer),
    )
    if observer is not None:
        observer.run_finished(model)


def roster_persons(store: Path) -> dict[int, int]:
    """Each site's public number of persons, by the roster of a server's store."""
    return {entry.site: entry.persons for entry in ServerStore.open(store).identity.roster.sites}


def log_database(store: Path) -> str | None:
    """Where a real federation's server keeps the log besides its store, if anywhere: a path or a PostgreSQL URL."""
    simulated = ServerStore.open(store).identity.roster.simulated
    return None if simulated else os.environ.get(LOG_VARIABLE) or None


class RunConfig:
    """Flower's run configuration, with the errors of a file that people write."""

    def __init__(self, context: Context) -> None:
        self._values = context.run_config

    def text(self, key: str) -> str:
        """A string; ConfigError if it is missing."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise ConfigError(f"the run's configuration has no {key!r}", next_step="Start runs with `fedseal`.")
        return value

    def optional(self, key: str) -> str | None:
        """A string that may be missing or empty."""
        value = self._values.get(key)
        return value if isinstance(value, str) and value else None

    def contract(self) -> Contract:
        """The study's contract."""
        try:
            return Contract.model_validate_json(self.text(CONTRACT_KEY))
        except ValidationError as error:
            raise ConfigError(f"the run's contract is not valid: {error.error_count()} errors") from None

    def metrics(self) -> dict[str, MetricRange]:
        """The declared ranges: a JSON object of [low, high, length] by name."""
        return {name: MetricRange(*row) for name, row in json.loads(self.text(METRICS_KEY)).items()}

    def sites(self) -> int:
        """How many sites the run is for."""
        value = self._values.get(SITES_KEY)
        if not isinstance(value, int):
            raise ConfigError(f"the run's configuration has no {SITES_KEY!r}")
        return value

    def rounding(self) -> Rounding:
        """Stochastic unless the run asks for reproducible rounding."""
        return Rounding.NEAREST if self._values.get(ROUNDING_KEY) == "nearest" else Rounding.STOCHASTIC

    def resumed(self) -> bytes | None:
        """The id of the run to go on with, if any."""
        value = self._values.get(RESUME_KEY)
        return bytes.fromhex(value) if isinstance(value, str) and value else None


class Everyone(TypedDict):
    """What all strategies are told: ask every site, and send nothing for evaluation alone."""

    fraction_evaluate: float
    min_train_nodes: int
    min_available_nodes: int


def build_strategy(training: Training, sites: int, persons: Mapping[int, int] | None = None) -> FedAvg:
    """Flower's own strategy or one of ours, asking every site every round.

    Evaluation rides with the update, so there are no messages for it.

    Args:
        training: the study's.
        sites: how many sites there are.
        persons: the roster's number of persons of each; FedNova counts by it where steps are passes.

    Raises:
        ConfigError: FedNova is to count passes, and nobody says over how many persons.
    """
    everyone = Everyone(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    eta = training.server_rate
    match training.strategy:
        case "fedavg":
            return FedAvg(**everyone)
        case "fedprox":
            return FedProx(**everyone, proximal_mu=training.proximal_mu)
        case "fedavgm":
            return FedAvgM(**everyone, server_learning_rate=eta, server_momentum=training.server_momentum)
        case "fedadagrad":
            adagrad = FedAdagrad(**everyone, eta=eta, eta_l=training.learning_rate, tau=training.tau)
            # Algorithm 2 of the paper has a beta_1 for all three; Flower's constructor sets it to 0 here.
            adagrad.beta_1 = training.momentum
            return adagrad
        case "scaffold":
            return Scaffold(
                sites, local_steps=training.local_steps, learning_rate=training.learning_rate, server_learning_rate=eta
            )
        case "fednova":
            return FedNova(sites, training, persons or {})
        case "ditto" | "fedrep" | "fedbn":
            return Personal(sites)
        case "clustered":
            return Clustered(sites, clusters=training.clusters, minimum=training.cluster_minimum)
        case "fedadam" | "fedyogi":
            adam = FedAdam if training.bias_correction else UncorrectedFedAdam
            kind = adam if training.strategy == "fedadam" else FedYogi
            return kind(
                **everyone,
                eta=eta,
                eta_l=training.learning_rate,
                beta_1=training.momentum,
                beta_2=training.beta_2,
                tau=training.tau,
            )


def ask_a_share(strategy: FedAvg, fraction: float, least: int) -> None:
    """Let a strategy ask a share of the sites in every round, by Flower's draw, and never fewer than ``least``.

    Raises:
        ConfigError: the share is not above 0 and at most 1, or the strategy has to ask everyone.
    """
    if not 0 < fraction <= 1:
        raise ConfigError("the share of the sites that are asked has to be above 0 and at most 1")
    if isinstance(strategy, Scaffold | Clustered):
        raise ConfigError(f"{type(strategy).__name__.lower()} asks every site in every round")
    strategy.fraction_train, strategy.min_train_nodes = fraction, least


def task_settings(training: Training, moments: Moments | None) -> dict[str, TaskSetting]:
    """What every site is told, the same for all."""
    settings: dict[str, TaskSetting] = {
        "learning-rate": training.learning_rate,
        "sample-rate": training.sample_rate,
        "local-steps": training.local_steps,
    }
    if training.batch_size is not None:
        settings["batch-size"] = training.batch_size
    if training.local_epochs is not None:
        settings["local-epochs"] = training.local_epochs
    if training.batch_level:
        settings["batch-level"] = True
    return settings | _personal_settings(training) | _moment_settings(moments)


def _personal_settings(training: Training) -> dict[str, TaskSetting]:
    """What sites are told of the models that they keep."""
    match training.strategy:
        case "ditto":
            settings: dict[str, TaskSetting] = {"ditto-lambda": training.ditto_lambda}
            if training.personal_steps is not None:
                settings["ditto-steps"] = training.personal_steps
            if training.personal_learning_rate is not None:
                settings["ditto-rate"] = training.personal_learning_rate
            return settings
        case "fedrep":
            steps = training.local_steps if training.head_steps is None else training.head_steps
            return {"personal-layers": list(training.personal_layers), "head-steps": steps}
        case "fedbn":
            return {"personal-norms": True}
        case _:
            return {}


def _moment_settings(moments: Moments | None) -> dict[str, TaskSetting]:
    if moments is None:
        return {}
    return {"feature-mean": list(moments.mean), "feature-deviation": list(moments.deviation)}


def _normalise(sealed: AveragingGrid, contract: Contract, plans: RunPlans) -> Moments | None:
    """The federation's moments: released once, and taken from the checkpoint when a run is resumed."""
    if plans.moments is None:
        return None
    checkpoint = sealed.store.load(sealed.run_id)
    if checkpoint is not None and "feature-mean" in checkpoint.settings:
        settings = checkpoint.settings
        return Moments(tuple(settings["feature-mean"]), tuple(settings["feature-deviation"]))
    ranges = contract.normalisation
    return federated_moments(sealed, low=ranges.low, high=ranges.high, plan=plans.moments)


def _finish(
    sealed: AveragingGrid, contract: Contract, plans: RunPlans, model: Arrays, observer: RoundObserver | None
) -> None:
    """What is released about the final model before the run is closed."""
    _evaluate(sealed, contract, plans, model, observer)
    if contract.training.personalise == "finetune":
        _personalise(sealed, contract, model, observer)


def _personalise(sealed: AveragingGrid, contract: Contract, model: Arrays, observer: RoundObserver | None) -> None:
    """The sites fine-tune the final model: once, and the means are taken from the checkpoint when a run is resumed."""
    checkpoint = sealed.store.load(sealed.run_id)
    settings = {} if checkpoint is None else dict(checkpoint.settings)
    means = settings.get(PERSONALISED)
    if not isinstance(means, dict):
        means = fine_tuned(sealed, contract.training, model, settings, contract.privacy.retries)
        if checkpoint is not None:
            sealed.store.save(sealed.run_id, replace(checkpoint, settings=settings | {PERSONALISED: means}))
    if observer is not None:
        observer.run_personalised(means)


def _evaluate(
    sealed: AveragingGrid, contract: Contract, plans: RunPlans, model: Arrays, observer: RoundObserver | None
) -> None:
    """The one private evaluation of the final model, before the run is closed: released once, and taken from the
    checkpoint when a run is resumed.
    """
    if plans.evaluation is None:
        return
    tables, checkpoint = evaluation_tables(contract.evaluation), sealed.store.load(sealed.run_id)
    tally = None if checkpoint is None else recalled(checkpoint.settings, tables)
    if tally is None:
        settings = {} if checkpoint is None else dict(checkpoint.settings)
        asked = Asked(tables, contract.cohort.largest_site, model, settings, contract.training.rounds)
        tally = private_evaluation(sealed, asked, plans.evaluation.plan)
        if checkpoint is not None:
            sealed.store.save(sealed.run_id, replace(checkpoint, settings=settings | kept(tally)))
    if observer is not None:
        observer.run_evaluated(tally)
