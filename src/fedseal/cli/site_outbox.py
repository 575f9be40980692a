"""`fedseal site outbox`: releases that wait for a person, and what the person says."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli.site import number_of, opened, whose
from fedseal.cli.site_store import AsJson, Config, Store, store_path
from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.compliance.events.fields import Decision, DecisionScope
    from fedseal.compliance.site_rules.held import Waiting
    from fedseal.privacy.store import SiteStore
    from fedseal.privacy.transaction import Transaction

outbox = typer.Typer(
    help="Releases that a rule of the site's policy holds back until a person has looked at them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Number = Annotated[int | None, typer.Argument(help="The release, as `fedseal site outbox list` numbers it.")]
Run = Annotated[str | None, typer.Option("--run", help="Everything that this run asks for, now and later.")]
By = Annotated[str | None, typer.Option("--by", help="The pseudonym of whoever decides; see `fedseal person`.")]
All = Annotated[bool, typer.Option("--all", help="Also what was decided.")]
Apply = Annotated[bool, typer.Option("--apply", help="Decide what waits by the rules as they are now.")]


@outbox.command("list")
def list_waiting(config: Config = None, store: Store = None, every: All = False, as_json: AsJson = False) -> None:
    """List what waits: which release of which run, its plan, cost, range, cohort and model. Nothing is computed yet."""
    from fedseal.compliance.site_rules.held import standing, waiting

    with opened(store_path(config, store), reading=True) as (site_store, transaction):
        found = waiting(transaction.connection, all_of_them=every)
        runs = standing(transaction.connection)
    if as_json:
        whole = {run.hex(): decision.value for run, decision in runs.items()}
        print(json.dumps({"releases": [_numbers(each) for each in found], "runs": whole}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    console.print(whose(site_store), markup=False)
    console.print(_table(found) if found else "Nothing waits.")
    for run, decision in runs.items():
        console.print(f"Run {run.hex()} is {decision.value} as a whole.")


@outbox.command()
def approve(number: Number = None, run: Run = None, by: By = None, config: Config = None, store: Store = None) -> None:
    """Let a release leave, or all of a run; it is computed and sent when the server asks again."""
    from fedseal.compliance.events.fields import Decision

    _decide(store_path(config, store), number, run, Decision.APPROVED, by)


@outbox.command()
def deny(number: Number = None, run: Run = None, by: By = None, config: Config = None, store: Store = None) -> None:
    """Refuse a release, or all of a run: the server is told that the site's policy forbids it."""
    from fedseal.compliance.events.fields import Decision

    _decide(store_path(config, store), number, run, Decision.DENIED, by)


@outbox.command()
def rules(config: Config = None, store: Store = None, apply: Apply = False) -> None:
    """Show the rules by which releases are sent, held or denied; with --apply decide by them what waits."""
    from fedseal.compliance.events.fields import Decision, DecisionScope
    from fedseal.compliance.policy import read_policy
    from fedseal.compliance.site_rules.held import decide, waiting

    with opened(store_path(config, store)) as (site_store, transaction):
        policy = read_policy(site_store.identity.policy)
        decided: list[tuple[int, str]] = []
        for each in waiting(transaction.connection) if apply else []:
            then = policy.outbox.verdict(each.asked.release, each.asked.plan, len(each.asked.cohort))
            if then == "hold":
                continue
            decision = Decision.APPROVED if then == "send" else Decision.DENIED
            decide(transaction.connection, each.number, decision, _now(), None)
            _record(site_store, transaction, decision, DecisionScope.RULE, each.key, None)
            decided.append((each.number, decision.value))
    console = Console(highlight=False, soft_wrap=True)
    console.print(whose(site_store), markup=False)
    for place, rule in enumerate(policy.outbox.rule, start=1):
        what = ", ".join(r.value for r in rule.releases) or "any release"
        plans = f" under plan {', '.join(rule.plans)}" if rule.plans else ""
        least = f" of at least {rule.smallest_cohort} sites" if rule.smallest_cohort else ""
        console.print(f"{place}. {what}{plans}{least}: {rule.then}")
    console.print(f"Otherwise: {policy.outbox.otherwise}")
    for release, said in decided:
        console.print(f"Release {release} is {said}.")


def _decide(path: Path, number: int | None, run: str | None, decision: "Decision", by: str | None) -> None:
    from fedseal.compliance.events.fields import DecisionScope
    from fedseal.compliance.site_rules.held import decide, decide_run

    if (number is None) == (run is None):
        raise ConfigError("decide one release or one run", next_step="Give a number, or --run and the run.")
    _check_person(by)
    with opened(path) as (site_store, transaction):
        if run is not None:
            decide_run(transaction.connection, number_of(run), decision, _now(), by)
            _record(site_store, transaction, decision, DecisionScope.RUN, None, by, number_of(run))
            what = f"Everything that run {run} asks for"
        else:
            found = decide(transaction.connection, number or 0, decision, _now(), by)
            if found is None:
                raise ConfigError("no release of that number has waited", next_step="fedseal site outbox list --all")
            _record(
                site_store, transaction, decision, DecisionScope.RELEASE, found.key, by, bytes.fromhex(found.asked.run)
            )
            what = f"Release {number} ({found.asked.release}, round {found.asked.round})"
    Console(highlight=False, soft_wrap=True).print(f"{what} is {decision.value}.", markup=False)


def _record(
    store: "SiteStore",
    transaction: "Transaction",
    decision: "Decision",
    scope: "DecisionScope",
    key: bytes | None,
    by: str | None,
    run: bytes | None = None,
) -> None:
    """Write the decision into the site's own log."""
    from fedseal.cli.on_record import journal_of
    from fedseal.compliance.events.bodies import OutboxDecided
    from fedseal.compliance.site_rules.held import request_name

    request = None if key is None else request_name(key)
    body = OutboxDecided(decision=decision, scope=scope, request=request, by=by)
    journal_of(store, transaction).record(body, run=run)


def _check_person(by: str | None) -> None:
    from pydantic import TypeAdapter, ValidationError

    from fedseal.compliance.events.fields import Actor

    try:
        if by is not None:
            TypeAdapter(Actor).validate_python(by)
    except ValidationError:
        raise ConfigError("a pseudonym is act_ and 32 hexadecimal digits", next_step="fedseal person list") from None


def _table(found: "list[Waiting]") -> Table:
    table = Table()
    for name in ("no.", "run", "release", "round", "plan", "of the budget", "range", "sites", "asked", "decided"):
        table.add_column(name, no_wrap=name in ("run", "release"))
    for each in found:
        asked = each.asked
        cost = f"{asked.share:g} %" if asked.plan != "none" else "not covered"
        decided = "waits" if each.decision is None else f"{each.decision.value} {_date(each.decided_at)}"
        table.add_row(
            str(each.number),
            f"{asked.run[:8]}...",
            asked.release.value,
            str(asked.round),
            asked.plan,
            cost,
            f"{asked.largest:g}",
            f"{len(asked.cohort)} (sum of {asked.minimum})",
            _date(each.first_at),
            decided,
        )
    return table


def _numbers(each: "Waiting") -> dict[str, Any]:
    """For JSON."""
    return {
        "number": each.number,
        **each.asked.model_dump(mode="json"),
        "first_asked": _date(each.first_at),
        "last_asked": _date(each.last_at),
        "decision": None if each.decision is None else each.decision.value,
        "decided": _date(each.decided_at) or None,
        "by": each.actor,
    }


def _date(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _now() -> int:
    return int(datetime.now(UTC).timestamp())
