"""`fedseal scenario`: what scenarios there are, what one says, and whether one's own is right."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.simulation.scenario.language import Scenario

scenario = typer.Typer(
    name="scenario",
    help="Scenarios: what may happen to a federation, as files. Run one with: fedseal simulate SCENARIO.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario's file, or its name in the library.")]


@scenario.command("list")
def list_scenarios() -> None:
    """List the scenarios that ship with fedseal."""
    from fedseal.simulation.scenario.files import library, load

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what happens", "source", "steps", "gates"):
        table.add_column(column, justify="right" if column in ("steps", "gates") else "left")
    for name in library():
        found = load(name)
        head = found.scenario
        table.add_row(name, head.title, found.population.source, str(head.steps), str(len(found.gate)))
    console = Console(highlight=False)
    console.print(table)
    console.print("\nRead one: fedseal scenario show NAME. Run one: fedseal simulate NAME.")


@scenario.command()
def show(
    name: Name,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With every key of [scenario] and [run] written out.")
    ] = False,
) -> None:
    """Print a scenario, to read or to begin one's own with: fedseal scenario show sudden-global > mine.toml."""
    from fedseal.simulation.scenario.files import as_toml, find, load

    read = load(name)
    typer.echo(as_toml(read) if resolved else find(name).read_text(encoding="utf-8"), nl=False)


@scenario.command()
def check(
    name: Name,
    data: Annotated[Path | None, typer.Option(help="The folder of files that the source needs.")] = None,
) -> None:
    """Check a scenario without running it: its file, its world and its plan; names the line of what is wrong."""
    from fedseal.cli.simulating import need_packages
    from fedseal.simulation.scenario.files import load

    need_packages()
    read = load(name)
    from fedseal.simulation.scenario.setting import checked

    for line in _facts(read, *checked(read, Path(name).parent, data)):
        typer.echo(line)


@scenario.command()
def record(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    to: Annotated[Path | None, typer.Option(help="The folder that holds golden figures.")] = None,
) -> None:
    """Record a run's figures, for gates with baseline = "golden": beside the scenario's file, in the folder golden."""
    from fedseal.cli.simulating import need_packages

    need_packages()
    from fedseal.simulation.scenario.golden import write
    from fedseal.simulation.scenario.writing import RESULT, read_result

    if not (run / RESULT).is_file():
        raise ConfigError(f"{run} is no run of a scenario", next_step="Give a folder that holds result.json.")
    typer.echo(f"Recorded: {write(read_result(run), to or Path('golden'))}")


def _facts(read: "Scenario", sites: int, features: int, classes: int, runs: int) -> list[str]:
    """What a checked scenario is, a line each."""
    head, run = read.scenario, read.run
    return [
        f"{head.name}: {head.title or 'no title'}",
        f"  {sites} sites, {features} features, {classes} classes, {head.steps} step{'s' * (head.steps > 1)}",
        f"  {run.strategy} on {run.model}, {run.rounds} rounds, plan {run.privacy.plan}, secagg {run.secagg}",
        f"  {len(read.drift)} drifts, {len(read.fault)} faults, {len(read.gate)} gates, {runs} run{'s' * (runs > 1)}",
    ]
