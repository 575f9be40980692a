"""`fedseal monitor check` and `replay`: what a policy comes to, and whether a log's decisions follow from it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedseal.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from fedseal.compliance.events.monitoring import MonitorDecided
    from fedseal.server.monitoring.replay import Replayed

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def check(
    file: Annotated[Path, typer.Argument(help="A policy: a TOML file with the table [monitor].")],
    classes: Annotated[int, typer.Option(min=2, max=1000, help="Classes of the model that is to be watched.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Read a monitoring policy, and say what it asks of sites, what a window costs and when it cries wolf."""
    from fedseal.privacy.watch import reference_plan
    from fedseal.server.monitoring.facts import policy_digest
    from fedseal.server.monitoring.policy import plan_of, read_policy, watch_of

    table = read_policy(file)
    try:
        watch = watch_of(table, classes=classes)
        plan = plan_of(table, watch, windows=1)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}", next_step="Raise epsilon, lower share, or test less.") from None
    once, levels = reference_plan(watch), table.levels
    persons = table.windows_per_person
    facts = {
        "policy": policy_digest(table),
        "strata": [s.name for s in watch.strata],
        "numbers_of_a_site": watch.length,
        "units_a_person_moves": watch.sensitivity,
        "epsilon_of_a_window": plan.epsilon,
        "epsilon_of_a_year": plan.epsilon * table.windows_per_year,
        "epsilon_of_a_person": None if persons is None else plan.epsilon * persons,
        "epsilon_of_the_reference": 0.0 if once is None else once.epsilon,
        "level_of_an_alarm": levels.alarm,
        "level_of_suspicion": levels.warning,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = Table(show_header=False, box=None)
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else value
        shown.add_row(name.replace("_", " "), "not said" if value is None else str(text))
    Console(highlight=False).print(shown)


def replay(
    log: Annotated[
        str,
        typer.Option(
            "--log",
            help="A run's folder, a server's or a site's store, an exported log's folder, or a PostgreSQL URL.",
            envvar="FEDSEAL_LOG",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make every decision about watched models again, from the log alone. Ends with 9 if one does not follow.

    Whether the log is whole and signed is for `fedseal audit verify` to say.
    """
    from fedseal.compliance.events.leaf import read_event
    from fedseal.compliance.lineage.opening import source_at
    from fedseal.server.monitoring.replay import replay as again

    with source_at(log) as (source, _):
        found = again((index, read_event(leaf)) for index, leaf in enumerate(source.leaves(0, source.size)))
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
    else:
        _tell(found)
    if not found.holds:
        raise typer.Exit(int(ExitCode.FALSIFIED))


def _plain(found: "Replayed") -> dict[str, object]:
    return {
        "windows": found.windows,
        "decisions": [d.model_dump(mode="json") for d in found.decisions],
        "findings": [
            {
                "entry": f.index,
                "what": f.fault.value,
                "expected": None if f.expected is None else f.expected.model_dump(mode="json"),
            }
            for f in found.findings
        ],
        "holds": found.holds,
    }


def _tell(found: "Replayed") -> None:
    console = Console(highlight=False)
    table = Table("window", "model", "alert", "kinds", "tests", "decision", box=None)
    for decision in found.decisions:
        table.add_row(*_row(decision))
    console.print(table)
    for finding in found.findings:
        console.print(f"FOUND entry {finding.index}: {finding.fault.value}", style="bold red", markup=False)
    said = "every decision follows from the log" if found.holds else f"{len(found.findings)} do not hold"
    console.print(f"{found.windows} windows, {len(found.decisions)} decisions: {said}", markup=False)


def _row(decision: "MonitorDecided") -> tuple[str, ...]:
    alert = "not evaluable: " + decision.obstacle if decision.obstacle is not None else decision.alert.value
    action = decision.action.value
    if decision.target is not None:
        action += f" {_short(decision.target)}"
    return (
        str(decision.window),
        _short(decision.model),
        alert,
        ", ".join(decision.kinds),
        ", ".join(decision.speaking),
        action,
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
