"""`fedseal privacy plan`: what a study will cost, what a ledger has left, and whether the one fits the other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from fedseal.config import validate
from fedseal.errors import BudgetExceeded, ConfigError, FedsealError, PolicyRefused
from fedseal.study import Contract, Study, load_study, private_by

if TYPE_CHECKING:
    from fedseal.privacy.forecast import Statement
    from fedseal.privacy.plan import PrivacyPlan
    from fedseal.privacy.planning import RunPlans
    from fedseal.privacy.shared_planning import Extent
    from fedseal.privacy.store import Identity

# How noise and rounds are varied around the plan.
NOISES, ROUNDS = (0.8, 1.25), (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line changes of a study; None keeps what the study says.

    ``sites`` and ``values`` (the model's trainable numbers) matter to plans with shared noise.
    """

    plan: Literal["local", "distributed", "client"] | None = None
    epsilon: float | None = None
    delta: float | None = None
    rounds: int | None = None
    sites: int | None = None
    values: int | None = None

    def contract(self, contract: Contract) -> Contract:
        """The study's contract with these changes; an epsilon turns plan local on where there is none.

        Raises:
            ConfigError: a number is out of range, or the plan does not go with the study.
        """
        tables = contract.model_dump()
        plan = self.plan or private_by(contract, self.epsilon)
        for table, key, value in (
            ("privacy", "plan", plan),
            ("privacy", "epsilon", self.epsilon),
            ("privacy", "delta", self.delta),
            ("training", "rounds", self.rounds),
        ):
            if value is not None:
                tables[table][key] = value
        return validate(Contract, tables, text="", source="the study with these options", where=("tool", "fedseal"))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The update's plan with another noise or number of rounds.

    ``epsilon`` is what would be shown after these rounds, ``enforced`` what a ledger of the study's own promise would
    hold against it with all retries; ``fitting`` how many rounds of this noise the promise carries, ``needed`` the
    noise multiplier that so many rounds need.
    """

    noise_multiplier: float | None
    rounds: int
    epsilon: float
    enforced: float
    fitting: int
    needed: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a study's own run costs in a new ledger of its promise."""

    contract: Contract
    plans: "RunPlans"
    epsilon: float
    epsilon_with_retries: float
    enforced: float
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a site would accept a study's run now, and what of it would fit.

    ``epsilon`` and ``enforced`` are what the ledger says after it, without retries and with all of them. If it does not
    fit: ``rounds`` at this noise, ``noise`` as a multiple of this one for these rounds, and ``promise``, the
    `privacy.epsilon` with which the study's own plan fits; None where nothing does.
    """

    plans: "RunPlans"
    refusal: FedsealError | None
    epsilon: float
    enforced: float
    rounds: int
    noise: float | None
    promise: float | None


def run_plan(folder: Path | None, store: Path | None, population: str, asked: Asked, *, as_json: bool) -> None:
    """Print what was asked for, of a study, of a store, or of both.

    Args:
        folder: the study's; None looks at the store alone.
        store: a site's store, read without holding it up; None looks at the study alone.
        population: whose ledger.
        asked: changes to the study.
        as_json: print numbers on standard output; everything for people then goes to standard error.

    Raises:
        ConfigError: neither is given, or one of them cannot be read.
        BudgetExceeded, PolicyRefused: the site would refuse the run; everything has been printed by then.
    """
    from fedseal.cli import plan_evaluation, plan_tables
    from fedseal.cli.plan_numbers import as_numbers
    from fedseal.cli.site import opened, whose
    from fedseal.privacy.forecast import statement

    if folder is None and store is None:
        raise ConfigError("nothing to plan for", next_step="Name a study's folder, or a site's store by --store.")
    if folder is None and asked != Asked():
        raise ConfigError("these options change a study, and none is named", next_step="Name the study's folder too.")
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    outlook = verdict = stands = tested = None
    study = None if folder is None else load_study(folder)
    contract = None if study is None else asked.contract(study.contract)
    sites = asked.sites
    if store is not None:
        with opened(store, reading=True) as (site_store, transaction):
            terms, entries = transaction.terms(population), transaction.entries(population)
            stands = statement(terms, entries)
        identity = site_store.identity
        sites = sites or len(identity.roster.sites)
        console.print(whose(site_store), markup=False)
        plan_tables.show_statement(console, stands)
    if contract is not None and stands is not None and population == "test":
        tested = plan_evaluation.judge_evaluation(contract, stands, identity)
        plan_evaluation.show_evaluation_verdict(console, tested)
    elif study is not None and contract is not None:
        extent = extent_of(study, contract, asked.values, sites or contract.simulation.sites)
        if stands is None:
            outlook = look_ahead(contract, extent)
            plan_tables.show_outlook(console, outlook)
            if (evaluated := plan_evaluation.look_at_evaluation(contract)) is not None:
                plan_evaluation.show_evaluation(console, evaluated)
        else:
            verdict = judge(contract, extent, stands, identity)
            plan_tables.show_verdict(console, contract, stands, verdict)
    if as_json:
        numbers = as_numbers(outlook, stands, verdict)
        if tested is not None:
            numbers["run"] = plan_evaluation.verdict_numbers(tested)
        print(json.dumps(numbers, indent=2, allow_nan=False))
    for judged in (verdict, tested):
        if judged is not None and judged.refusal is not None:
            raise judged.refusal


def extent_of(study: Study, contract: Contract, values: int | None, sites: int) -> "Extent | None":
    """What plans with shared noise have to know; the study's model is made to count its numbers if nobody says them."""
    from fedseal.privacy.shared_planning import Extent

    if contract.privacy.plan in ("none", "local"):
        return None
    if values is None:
        from fedseal.cli.simulating import need_packages

        need_packages()
        from typing import cast

        from fedseal.client.task import Task, build_model
        from fedseal.study_code import load_task, study_code

        task = cast(Task, load_task(contract.task, study.folder))
        with study_code("model()"):
            values = sum(p.numel() for p in build_model(task).parameters() if p.requires_grad)
    return Extent(values, sites)


def look_ahead(contract: Contract, extent: "Extent | None") -> Outlook:
    """What a study's run costs, and what its neighbours would.

    Raises:
        ConfigError: it has no privacy plan, or no noise keeps its promise.
    """
    from fedseal.privacy.accounting import spent_by
    from fedseal.privacy.forecast import after_reserving, all_plans
    from fedseal.privacy.ledger import epsilon_enforced, open_ledger, open_terms
    from fedseal.privacy.planning import plan_run

    privacy = contract.privacy
    if privacy.plan == "none":
        raise ConfigError(
            "the study's plan is none: its sums are exact, and nothing is promised that could be planned",
            next_step="Say which promise to plan for: --epsilon 3, or --plan local.",
        )
    plans = plan_run(contract, extent)
    terms = open_terms("train", epsilon=privacy.epsilon, delta=privacy.delta, order=plans.order)
    reserved = after_reserving(open_ledger(terms)[0], all_plans(plans))
    once = tuple((plan, plan.releases) for plan in all_plans(plans))
    every = tuple((plan, plan.attempts) for plan in all_plans(plans))
    return Outlook(
        contract,
        plans,
        spent_by(once, privacy.delta),
        spent_by(every, privacy.delta),
        epsilon_enforced(terms, reserved.last.reserved),
        _neighbours(contract, plans, extent),
    )


def _neighbours(contract: Contract, plans: "RunPlans", extent: "Extent | None") -> tuple[Neighbour, ...]:
    """The plan itself, with less and more noise, and with fewer and more rounds."""
    from fedseal.privacy import accounting
    from fedseal.privacy.forecast import MOST_ROUNDS, most_releases, with_noise
    from fedseal.privacy.ledger import cost, epsilon_enforced, open_ledger, open_terms
    from fedseal.privacy.planning import plan_run

    privacy, rounds = contract.privacy, contract.training.rounds
    terms = open_terms("train", epsilon=privacy.epsilon, delta=privacy.delta, order=plans.order)
    ledger, beside = open_ledger(terms)[0], [] if plans.moments is None else [plans.moments]
    extra = [(plan, plan.releases) for plan in beside]
    counts = [max(round(rounds * factor), 1) for factor in ROUNDS]
    found = []
    for factor, count in [(1.0, rounds), *((f, rounds) for f in NOISES), *((1.0, n) for n in counts if n != rounds)]:
        plan = with_noise(plans.update, factor)
        changed = contract.training.model_copy(update={"rounds": min(count, MOST_ROUNDS)})
        needed = plan_run(contract.model_copy(update={"training": changed}), extent).update
        units = sum(cost(p, terms.order) * p.attempts for p in beside)
        units += cost(plan, terms.order) * (count + plan.retries)
        found.append(
            Neighbour(
                noise_of(plan),
                count,
                accounting.spent_by(((plan, count), *extra), privacy.delta),
                epsilon_enforced(terms, units),
                most_releases(ledger, plan, beside),
                noise_of(needed),
            )
        )
    return tuple(found)


def judge(contract: Contract, extent: "Extent | None", stands: "Statement", identity: "Identity") -> Verdict:
    """Try a study's run on a copy of a site's ledger, after the site's policy.

    Raises:
        ConfigError: no noise keeps the study's promise.
    """
    from fedseal.privacy.forecast import (
        after_reserving,
        all_plans,
        most_releases,
        noise_that_fits,
        promise_that_fits,
    )
    from fedseal.privacy.ledger import epsilon_enforced
    from fedseal.privacy.planning import plan_run

    plans, ledger = plan_run(contract, extent), stands.ledger
    refusal: FedsealError | None = _policy_refusal(contract, plans, identity)
    *beside, update = all_plans(plans)
    after, fits = ledger, True
    try:
        after = after_reserving(ledger, all_plans(plans))
    except BudgetExceeded as error:
        refusal, fits = refusal or error, False
    return Verdict(
        plans,
        refusal,
        _shown_after(stands, all_plans(plans)),
        epsilon_enforced(ledger.terms, after.last.charged + after.last.reserved),
        most_releases(ledger, update, beside),
        1.0 if fits else noise_that_fits(ledger, all_plans(plans)),
        contract.privacy.epsilon if fits else promise_that_fits(contract, extent, ledger),
    )


def _policy_refusal(contract: Contract, plans: "RunPlans", identity: "Identity") -> PolicyRefused | None:
    """Why the site's policy forbids the run, if all sites of its roster take part."""
    from fedseal.compliance.policy import check_cohort, check_plan, read_policy
    from fedseal.privacy.releases import EVALUATION, MOMENTS, REGISTRY, UPDATE
    from fedseal.privacy.secagg.parameters import minimum_sites, threshold

    policy, cohort, sites = read_policy(identity.policy), contract.cohort, len(identity.roster.sites)
    if sites < max(cohort.minimum, cohort.colluders + 2):
        raise ConfigError(
            f"the site's roster lists {sites} sites, the study asks for {max(cohort.minimum, cohort.colluders + 2)}",
            next_step="Lower minimum or colluders in [tool.fedseal.cohort], or enrol more sites.",
        )
    try:
        smallest = minimum_sites(threshold(sites, cohort.colluders), cohort.minimum, cohort.colluders, 0)
        check_cohort(policy, min(smallest, sites), cohort.colluders)
        check_plan(policy, REGISTRY[UPDATE], plans.update)
        if plans.moments is not None:
            check_plan(policy, REGISTRY[MOMENTS], plans.moments)
        if plans.evaluation is not None:
            check_plan(policy, REGISTRY[EVALUATION], plans.evaluation.plan)
    except PolicyRefused as refusal:
        return refusal
    return None


def _shown_after(stands: "Statement", plans: "Sequence[PrivacyPlan]") -> float:
    """The epsilon to show once everything that was charged and these plans without retries have run."""
    from fedseal.privacy.ledger import epsilon_shown

    counts: dict[PrivacyPlan, int] = {}
    for plan, count in [*((s.plan, s.charges) for s in stands.spent), *((p, p.releases) for p in plans)]:
        counts[plan] = counts.get(plan, 0) + count
    return epsilon_shown(tuple(counts.items()), stands.ledger.terms.delta)


def noise_of(plan: "PrivacyPlan") -> float | None:
    """The noise multiplier of a plan that has one."""
    from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, SharedSkellam

    return plan.noise_multiplier if isinstance(plan, LocalGaussian | SharedSkellam | AdaptiveSkellam) else None
