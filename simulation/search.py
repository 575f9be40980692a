"""A private search for hyper-parameters: several trainings on the same ledgers, each charged, the best one kept.

The number of trials is random and drawn before the first. Each is a run like any other: trained under the study's
promise, evaluated once on the test persons, charged to the same ledgers of the same sites. So the server and the sites,
who see every trial, are covered by what the ledgers add up; `privacy.tuning` says what those learn who see the chosen
model alone.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import safetensors.numpy
from pydantic import Field, ValidationError

from fedseal.client.task import size
from fedseal.client.trainer import Arrays
from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import BudgetExceeded, ConfigError
from fedseal.privacy import accounting, tuning
from fedseal.privacy.inference.evaluation import Estimate, estimates
from fedseal.privacy.ledger import Terms, open_terms
from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.planning import PURE_ORDERS, RunPlans, plan_run
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import Population
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.store import SiteStore
from fedseal.simulation.federation import Federation, SitePrivacy, enrol, site_privacy
from fedseal.simulation.folders import run_folder
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import (
    Options,
    check_cohort,
    check_material,
    prepared_material,
    resolve,
)
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, train
from fedseal.study import Contract, Study


class Candidate(Frozen):
    """What one candidate changes of the study's training and promise; what is left out stays as it is."""

    learning_rate: float | None = Field(default=None, gt=0)
    local_steps: int | None = Field(default=None, ge=1)
    sample_rate: float | None = Field(default=None, gt=0, le=1)
    rounds: int | None = Field(default=None, ge=1)
    server_learning_rate: float | None = Field(default=None, gt=0)
    strategy: Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"] | None = None
    clip_norm: float | None = Field(default=None, gt=0)

    def applied(self, contract: Contract) -> Contract:
        """The contract with these changes.

        Raises:
            ConfigError: the outcome is not allowed.
        """
        tables = contract.model_dump()
        values = self.model_dump(exclude_none=True)
        for key, value in values.items():
            tables["privacy" if key == "clip_norm" else "training"][key] = value
        try:
            return Contract.model_validate(tables)
        except ValidationError as error:
            message = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
            raise ConfigError(f"a candidate does not go with the study: {message}") from None


class Search(Frozen):
    """A search: its candidates, of which each trial draws one, and how many trials there are.

    Their number has the truncated negative binomial distribution with this ``mean`` and ``shape`` (1: geometric, 0:
    logarithmic). Of more than ``most`` trials none takes place, for ledgers are opened for so many; left out, it is so
    large that this adds no more to delta than delta. ``score`` is a figure of the private evaluation, the larger the
    better.
    """

    version: Literal[1]
    score: str = "auc"
    mean: float = Field(default=4.0, gt=1, le=1000)
    shape: float = Field(default=0.0, gt=-1, le=10)
    most: int | None = Field(default=None, ge=1, le=10_000)
    candidate: tuple[Candidate, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: which candidate, and its private score."""

    candidate: int
    score: Estimate


@dataclass(frozen=True, slots=True)
class Cost:
    """Epsilons of one population.

    ``one`` of a trial, ``charged`` by the ledgers of all that took place (towards server and sites), ``budget`` of the
    ledgers, ``selected`` towards those who see the chosen model alone at delta ``delta_selected``.
    """

    one: float
    charged: float
    budget: float
    selected: float
    delta_selected: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found. ``costs`` by population; ``best`` is a place in ``trials``."""

    search: Search
    trials: tuple[Trial, ...]
    best: int
    contract: Contract
    model: Arrays
    costs: dict[str, Cost]


def read_search(path: Path) -> Search:
    """Read a search's file; ConfigError says what is wrong and where."""
    tables, text = read_toml(path)
    return validate(Search, tables, text=text, source=str(path))


def search(
    material: Material, contract: Contract, wanted: Search, folder: Path, on_trial: Callable[[int, int, Trial], None]
) -> Found:
    """Draw the number of trials, train and evaluate each, and keep the best.

    Args:
        material: what the simulation has gathered.
        contract: the study's, with a private plan and a private evaluation.
        wanted: the search.
        folder: a new folder for the federation's stores.
        on_trial: told of every trial: its number, how many there are, what it found.

    Raises:
        ConfigError: the study promises nothing or evaluates nothing, or no trial has the score.
        BudgetExceeded: the number that was drawn is larger than ``most``; nothing was trained.
        RoundAborted: a round failed for good.
    """
    if contract.privacy.plan == "none" or contract.evaluation.epsilon is None:
        raise ConfigError(
            "a private search needs a private plan and an evaluation",
            next_step="Set plan in [tool.fedseal.privacy] and epsilon in [tool.fedseal.evaluation].",
        )
    contracts = [candidate.applied(contract) for candidate in wanted.candidate]
    persons = {name: size(split.train) for name, split in material.splits.items()}
    extent = Extent(sum(a.size for a in material.first_model().values()), len(persons))
    plans = [plan_run(c, extent) for c in contracts]
    most, delta = most_trials(plans, wanted, contract.privacy.delta), contract.privacy.delta
    random = KeyedRandomness(material.seed, "search")
    number = tuning.trials_of(wanted.mean, wanted.shape)
    count = number.draw(random.stream("number"), most)
    if count is None:
        raise BudgetExceeded(
            f"more than {most} trials were drawn, and the ledgers are for so many",
            next_step="Raise most, or lower mean; drawing again until it fits would void what is promised.",
        )
    terms = search_terms(plans, most, delta)
    federation = enrol(folder, contract, plans[0], persons, material.seed, terms)
    trials: list[Trial] = []
    models: list[Arrays] = []
    for at in range(count):
        chosen = int(random.stream("candidate", at).words64(1)[0] % len(contracts))
        for store in federation.site_stores.values():
            SiteStore.open(store).reseed(int(random.stream("trial", at).words64(1)[0]) >> 1)
        trained = train(material, contracts[chosen], folder, federation=federation)
        found = {} if trained.evaluation is None else estimates(trained.evaluation)
        if wanted.score not in found:
            raise ConfigError(
                f"the evaluation has no {wanted.score!r}", next_step=f"It has {', '.join(found)}: choose one as score."
            )
        trials.append(Trial(chosen, found[wanted.score]))
        models.append(trained.model)
        on_trial(at + 1, count, trials[-1])
    best = max(range(count), key=lambda i: (trials[i].score.value is not None, trials[i].score.value or 0.0, -i))
    costs = search_costs(plans, number, most, delta, federation)
    return Found(wanted, tuple(trials), best, contracts[trials[best].candidate], models[best], costs)


def simulate_search(
    study: Study, options: Options, wanted: Search, out: Path, on_trial: Callable[[int, int, Trial], None]
) -> tuple[Path, Found]:
    """Search on a study's population and write search.json, the chosen model and its contract; the folder and what was
    found.

    Args:
        study: the study.
        options: changes to its contract.
        wanted: the search.
        out: the folder that holds runs.
        on_trial: told of every trial.

    Raises:
        FedsealError: as `search` does; nothing is left behind.
    """
    contract = resolve(study.contract, options)
    seed = contract.simulation.seed
    population = gather(Study(study.folder, contract), data=options.data, sites=options.sites, seed=seed)
    check_cohort(contract, len(population.sites))
    with run_folder(out, f"{contract.name}-search") as (folder, run), one_thread():
        material = prepared_material(Study(study.folder, contract), population, folder / "data", seed)
        check_material(contract, material)
        found = search(material, contract, wanted, folder / "federation", on_trial)
        shutil.rmtree(folder / "data")
        (folder / "model.safetensors").write_bytes(safetensors.numpy.save(found.model))
        (folder / "contract.json").write_text(found.contract.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "search.json").write_text(json.dumps(as_json(found), indent=2) + "\n", encoding="utf-8")
    return out / run, found


def as_json(found: Found) -> dict[str, object]:
    """What was found, as search.json has it."""
    return {
        "schema_version": 1,
        "simulated": True,
        "search": found.search.model_dump(mode="json"),
        "trials": [{"candidate": t.candidate, "score": asdict(t.score)} for t in found.trials],
        "best": found.best,
        "costs": {population: asdict(cost) for population, cost in found.costs.items()},
    }


def search_terms(plans: list[RunPlans], most: int, delta: float) -> tuple[Terms, ...]:
    """Ledgers that afford so many trials of the dearest candidate, retries included, at the orders where that is least.

    A ledger keeps its order, so all candidates are counted at one.
    """
    found = []
    for population in Population:
        orders = accounting.ORDERS if population is Population.TRAIN else PURE_ORDERS
        sets = [_releases(p, population) for p in plans]
        worst = {a: max(sum(_charge(plan, a) * plan.attempts for plan in s) for s in sets) for a in orders}
        epsilon, order = min((most * worst[a] + accounting.conversion(a, delta), a) for a in orders)
        found.append(open_terms(population.value, epsilon=epsilon + 1e-6, delta=delta, order=order))
    return tuple(found)


def search_costs(
    plans: list[RunPlans], number: tuning.Trials, most: int, delta: float, federation: Federation
) -> dict[str, Cost]:
    """What a search costs whom, by population; ``most`` as `most_trials` says."""
    costs = {}
    for population in (Population.TRAIN, Population.TEST):
        one = _one_trial(plans, population)
        ledgers: list[SitePrivacy] = [site_privacy(path, population) for path in federation.site_stores.values()]
        selected = tuning.epsilon_selected(one, number, delta)
        costs[population.value] = Cost(
            one=tuning.epsilon_of_all(one, 1, delta),
            charged=max(ledger.epsilon for ledger in ledgers),
            budget=max(ledger.epsilon_budget for ledger in ledgers),
            selected=selected,
            delta_selected=delta + tuning.refusal_delta(number, most, selected),
        )
    return costs


def most_trials(plans: list[RunPlans], wanted: Search, delta: float) -> int:
    """The largest number of trials that may take place: as the search says, or by what a refusal adds to delta.

    Raises:
        ConfigError: it would take more than ten thousand.
    """
    if wanted.most is not None:
        return wanted.most
    number = tuning.trials_of(wanted.mean, wanted.shape)
    epsilon = max(
        tuning.epsilon_selected(_one_trial(plans, p), number, delta) for p in (Population.TRAIN, Population.TEST)
    )
    most = number.enough(delta / (1 + math.exp(min(epsilon, 700.0))), 10_000)
    if most is None:
        raise ConfigError(
            "no ledger can be opened for as many trials as such a search may have",
            next_step="Lower mean or epsilon, or say most: the table then tells what that adds to delta.",
        )
    return most


def _one_trial(plans: list[RunPlans], population: Population) -> tuning.Divergence:
    """A bound on the divergence of any candidate's trial."""
    sets = [_releases(p, population) for p in plans]

    @cache
    def one(order: float) -> float:
        return max(sum(plan.divergence(order) * plan.releases for plan in s) for s in sets)

    return one


def _releases(plans: RunPlans, population: Population) -> tuple[PrivacyPlan, ...]:
    """The plans of one run about a population."""
    match population:
        case Population.TRAIN:
            return (plans.update,) if plans.moments is None else (plans.update, plans.moments)
        case Population.TEST:
            return () if plans.evaluation is None else (plans.evaluation.plan,)
        case Population.MONITOR:
            return ()


def _charge(plan: PrivacyPlan, order: float) -> float:
    """What a ledger charges for a release, rounded up to its units."""
    return plan.divergence(order) + accounting.COST_UNIT
