"""What a site's operator is shown of its ledgers, its log and its node."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedseal.cli.on_record import journal_of
from fedseal.client.running import is_running
from fedseal.compliance.events.bodies import Contributed
from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.policy import read_policy
from fedseal.compliance.site_rules.held import waiting
from fedseal.compliance.site_rules.period import PeriodRule
from fedseal.privacy.chain import reservations
from fedseal.privacy.dates import charges_since
from fedseal.privacy.ledger import EntryKind, epsilon_enforced
from fedseal.privacy.membership.standing import said
from fedseal.privacy.plan import PlanKind, decode_plan
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RunShare:
    """What one run has taken of a budget, as shares of it."""

    run: str
    charges: int
    charged: float
    reserved: float


@dataclass(frozen=True, slots=True)
class Period:
    """Where a population stands in its policy's period; ``spent`` is a share of what it allows."""

    epsilon: float
    days: int
    charges: int
    spent: float


@dataclass(frozen=True, slots=True)
class Balance:
    """Where a ledger stands: shares of the budget, and the epsilon that the filter holds against the promise."""

    population: str
    epsilon: float
    delta: float
    enforced: float
    charged: float
    reserved: float
    left: float
    without_privacy: int
    period: Period | None
    runs: tuple[RunShare, ...]

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def balances(store: SiteStore, transaction: Transaction) -> list[Balance]:
    """Every population's."""
    policy = read_policy(store.identity.policy)
    return [_balance(transaction, name, policy.periods.of(name)) for name in transaction.populations()]


def _balance(transaction: Transaction, population: str, rule: PeriodRule | None) -> Balance:
    terms, entries = transaction.terms(population), transaction.entries(population)
    last, budget = entries[-1], terms.budget
    charges = [entry for entry in entries if entry.kind == EntryKind.CHARGE]
    held: dict[bytes, int] = {}
    for (run, plan), left in reservations(entries).items():
        if decode_plan(plan).kind is not PlanKind.NONE:
            held[run] = held.get(run, 0) + left
    runs = list(dict.fromkeys([entry.run for entry in charges] + list(held)))
    return Balance(
        population,
        terms.epsilon,
        terms.delta,
        epsilon_enforced(terms, last.charged),
        last.charged / budget,
        last.reserved / budget,
        (budget - last.charged - last.reserved) / budget,
        sum(decode_plan(entry.plan).kind is PlanKind.NONE for entry in charges),
        None if rule is None else period_of(transaction, population, terms.delta, rule),
        tuple(
            RunShare(
                run.hex(),
                sum(entry.run == run for entry in charges),
                sum(entry.amount for entry in charges if entry.run == run) / budget,
                held.get(run, 0) / budget,
            )
            for run in runs
        ),
    )


def period_of(transaction: Transaction, population: str, delta: float, rule: PeriodRule) -> Period:
    """What was charged to a population in the period that ends now."""
    past = charges_since(transaction.connection, population, rule.begins(datetime.now(UTC)))
    private = [(plan, count) for plan, count in past if plan.kind is not PlanKind.NONE]
    budget = rule.budget(delta)
    spent = rule.spent(private, delta) / budget if budget else 1.0
    return Period(rule.epsilon, rule.days, sum(count for _, count in past), spent)


def own_entries(
    store: SiteStore, transaction: Transaction, last: int, kind: str | None = None
) -> list[tuple[int, bytes, Event]]:
    """The newest entries of the site's own log, oldest first: index, leaf and event; of one type if it is named."""
    own = journal_of(store, transaction).own
    found: list[tuple[int, bytes, Event]] = []
    for index in range(own.size - 1, -1, -1):
        leaf = own.leaf(index)
        event = read_event(leaf, "this site")
        if kind is None or event.kind.name == kind:
            found.append((index, leaf, event))
        if len(found) == last:
            break
    return found[::-1]


def standing_of(path: Path, store: SiteStore, transaction: Transaction) -> dict[str, Any]:
    """How a site stands, by what is asked. Texts of errors are the operator's own to read."""
    journal = journal_of(store, transaction)
    number = path.with_name(f"{path.name}.node")
    running = is_running(path)
    round_ = journal.last_shared(type_of_form(Contributed).name)
    incident, epoch = transaction.last_incident(), store.identity.epoch
    return {
        "running": running,
        "connected": f"as node {number.read_text(encoding='ascii').strip()}" if running and number.exists() else "no",
        "last_round": None if round_ is None else _round(round_),
        "last_error": None if incident is None else _incident(*incident),
        "stopped": journal.halted is not None,
        "budget_left": {b.population: f"{b.left:.1%}" for b in balances(store, transaction)},
        "waiting": len(waiting(transaction.connection)),
        "unlogged": journal.unlogged(),
        "roster_epoch": store.identity.roster.epoch,
        "membership_until": None if epoch is None else said(datetime.fromtimestamp(epoch.membership.valid_until, UTC)),
    }


def _round(event: Event) -> str:
    body = event.body
    what = f"{body.release.value} of round {body.round}" if isinstance(body, Contributed) else ""
    return f"{event.time[:19]}Z, {what} of run {event.run}"


def _incident(at: int | None, code: str, text: str) -> str:
    when = "undated" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    lines = [line for line in text.strip().splitlines() if line and not line.startswith((" ", "next:"))]
    return f"{when}, {code.lower()}: {lines[-1] if lines else ''}"
