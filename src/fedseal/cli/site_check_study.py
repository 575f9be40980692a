"""`fedseal site check`, about the study: the data it would use, and whether the policy lets it make each release."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from fedseal.cli.planning import extent_of
from fedseal.cli.site_check import Finding, Looked
from fedseal.client.datasets.recheck import compared, expected_of
from fedseal.client.permission import in_use
from fedseal.compliance.policy import SitePolicy, check_cohort, check_plan, check_range, read_policy
from fedseal.compliance.site_rules.study import check_data, check_study, study_facts
from fedseal.errors import ConfigError, FedsealError
from fedseal.privacy.dates import charges_since
from fedseal.privacy.forecast import after_reserving
from fedseal.privacy.ledger import cost, epsilon_enforced
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PlanKind, PrivacyPlan, SharedSkellam
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.releases import EVALUATION, MOMENTS, REGISTRY, UPDATE, Population, ReleaseKind
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.store import SiteStore
from fedseal.study import Contract, load_study


def data_in_use(looked: Looked) -> Iterator[Finding]:
    """The data folder is there and, where data is registered, holds the registered version unchanged."""
    folder = looked.home / looked.config.site.data
    if not folder.exists():
        yield Finding("data", False, f"{folder} does not exist", "Give the folder of the site's data as site.data.")
        return
    if looked.store is None:
        return
    with looked.store.transaction() as transaction:
        expected = expected_of(transaction.connection, folder)
        found = in_use(transaction, None if expected is None else expected.version)
    if expected is not None:
        compared(expected)
    yield Finding("data", True, "not registered" if expected is None else f"{found.dataset}:{found.version}, unchanged")
    yield _tried("data and labels allowed", "by the policy", lambda: check_data(_policy(looked).data, found))


def policy_allows(looked: Looked) -> Iterator[Finding]:
    """The policy lets the study run, and each of its releases is allowed, affordable, and over enough sites."""
    store = looked.store
    if store is None:
        return
    policy = _policy(looked)
    if looked.config.policy is not None and looked.config.policy != read_policy(store.identity.policy):
        # Not wrong: it is what `site run` is for. What follows is about the file's.
        yield Finding("policy", True, "the file's is not the store's yet; it will be when the node is started again")
    if policy.study.asks:
        facts = study_facts(looked.folder, {})
        yield _tried("purpose, strategy, code", "allowed", lambda: check_study(policy.study, facts))
    contract = load_study(looked.folder).contract
    sites = len(store.identity.roster.sites)
    yield _tried("cohort", f"{sites} sites in the roster", lambda: _check_cohort(policy, contract, sites))
    plans = plan_run(contract, extent_of(load_study(looked.folder), contract, None, sites))
    for kind, plan in _releases(plans):
        allowed = _tried(
            f"release {kind.name}", f"plan {plan.kind.label}, allowed", _release(policy, contract, kind, plan)
        )
        yield allowed
        then = policy.outbox.verdict(kind.name, plan.kind.label, sites)
        if allowed.ok and then != "send":
            fix = "Change outbox in the policy." if then == "deny" else ""
            yield Finding(f"outbox of {kind.name}", then != "deny", f"each one is {then}", fix)
    yield from _affordable(store, policy, plans)
    if policy.hours is not None:
        rules = policy.hours
        closed = " (closed now; the server tries again)" if not rules.open_at(datetime.now(UTC)) else ""
        yield _tried("hours", f"{rules.begin:%H:%M} to {rules.end:%H:%M} {rules.zone}{closed}", lambda: None)


def _policy(looked: Looked) -> SitePolicy:
    """The file's, which is what the node will answer by; the store's where the file has none."""
    if looked.config.policy is not None or looked.store is None:
        return looked.config.policy or SitePolicy()
    return read_policy(looked.store.identity.policy)


def _tried(what: str, found: str, check: Callable[[], None]) -> Finding:
    try:
        check()
    except FedsealError as error:
        return Finding(what, False, error.message, error.next_step)
    return Finding(what, True, found)


def _check_cohort(policy: SitePolicy, contract: Contract, sites: int) -> None:
    cohort = contract.cohort
    if sites < max(cohort.minimum, cohort.colluders + 2):
        raise ConfigError(
            f"the roster lists {sites} sites, the study asks for {max(cohort.minimum, cohort.colluders + 2)}",
            next_step="Lower minimum or colluders in [tool.fedseal.cohort], or enrol more sites.",
        )
    smallest = minimum_sites(threshold(sites, cohort.colluders), cohort.minimum, cohort.colluders, 0)
    check_cohort(policy, min(smallest, sites), cohort.colluders)
    if (enough := threshold(sites, cohort.colluders)) < policy.cohort.threshold:
        raise ConfigError(
            f"{enough} sites take a mask off; the policy asks for {policy.cohort.threshold}",
            next_step="Enrol more sites, or lower cohort.threshold in the policy.",
        )


def _releases(plans: RunPlans) -> Iterator[tuple[ReleaseKind, PrivacyPlan]]:
    if plans.moments is not None:
        yield REGISTRY[MOMENTS], plans.moments
    yield REGISTRY[UPDATE], plans.update
    if plans.evaluation is not None:
        yield REGISTRY[EVALUATION], plans.evaluation.plan


def _release(policy: SitePolicy, contract: Contract, kind: ReleaseKind, plan: PrivacyPlan) -> Callable[[], None]:
    def check() -> None:
        check_plan(policy, kind, plan)
        if isinstance(plan, AdaptiveSkellam):
            check_range(policy, kind, plan.highest)
        elif isinstance(plan, LocalGaussian | SharedSkellam):
            check_range(policy, kind, plan.clip_norm)
        elif kind.name == UPDATE:
            check_range(policy, kind, contract.training.update_range)

    return check


def _affordable(store: SiteStore, policy: SitePolicy, plans: RunPlans) -> Iterator[Finding]:
    """Whether each population's ledger can set the whole run aside, and how much of it its period has room for."""
    wanted = {Population.TRAIN: [p for k, p in _releases(plans) if k.population is Population.TRAIN]}
    wanted[Population.TEST] = [p for k, p in _releases(plans) if k.population is Population.TEST]
    for population, asked in wanted.items():
        if not asked:
            continue
        name = population.value
        with store.transaction() as transaction:
            ledger, terms = transaction.ledger(name, bytes(16), b""), transaction.terms(name)
            rule = policy.periods.of(name)
            begins = None if rule is None else rule.begins(datetime.now(UTC))
            past = () if begins is None else charges_since(transaction.connection, name, begins)
        try:
            after = after_reserving(ledger, asked)
            spent = epsilon_enforced(terms, after.last.charged + after.last.reserved)
            yield Finding(f"budget of {name}", True, f"epsilon {spent:.3f} of {terms.epsilon:g} after the whole run")
        except FedsealError as error:
            yield Finding(f"budget of {name}", False, error.message, error.next_step)
        if rule is None:
            continue
        unbounded = any(p.kind is PlanKind.NONE for p in (*asked, *(p for p, _ in past)))
        left = rule.budget(terms.delta) - rule.spent(
            [(p, n) for p, n in past if p.kind is not PlanKind.NONE], terms.delta
        )
        one = 0 if unbounded else max(cost(plan, rule.order(terms.delta)) for plan in asked)
        fits = 0 if unbounded or left < one else left // max(one, 1)
        need = sum(getattr(plan, "releases", 1) for plan in asked)
        yield Finding(
            f"period of {name}",
            bool(fits),
            f"{min(fits, need)} of the {need} releases of the run fit epsilon {rule.epsilon:g} in {rule.days} days",
            "" if fits else f"Wait, raise periods.{name} in the policy, or plan more noise.",
        )
        if 0 < fits < need:
            yield Finding(f"period of {name}", True, "the run will stop when the period is used up, and can be resumed")
