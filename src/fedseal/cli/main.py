"""`fedseal`: one function a command, and one place where errors become a message and an exit code."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import click
import typer
from rich.console import Console

from fedseal import __version__
from fedseal.errors import ExitCode, FedsealError

# Nothing that fedseal starts phones home.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

cli = typer.Typer(
    name="fedseal",
    help="Federated learning whose sums are sealed, whose privacy is bounded and whose lineage is proven.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Out = Annotated[Path, typer.Option("--out", help="Folder that gets the run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json to standard output and nothing else there.")]


def main() -> None:
    """Entry point: runs a command and exits with a documented code (docs/exit-codes.md)."""
    os.environ.update(QUIET)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = cli(standalone_mode=False)
    except FedsealError as error:
        _complain(error)
        code = int(error.exit_code)
    except click.ClickException as error:
        error.show()
        code = int(ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        Console(stderr=True).print("[bold]Interrupted.[/bold] Nothing was left behind.")
        code = int(ExitCode.INTERRUPTED)
    sys.exit(code or int(ExitCode.OK))


def _terminated(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: through the clean-up."""
    raise KeyboardInterrupt


def _complain(error: FedsealError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/bold red]", end=" ")
    console.print(error.message, markup=False)
    if error.next_step:
        console.print("[bold]next:[/bold] ", end=" ")
        console.print(error.next_step, markup=False)
    if error.fault == "fedseal":
        console.print("This is a fault of fedseal's own. Please report it.")


@cli.command()
def demo(out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Eight hospitals train a diagnosis model together: sealed, private, compared with everything else."""
    from fedseal.cli.simulating import run_simulation
    from fedseal.simulation.simulate import Options

    # The promise, the skew and the seed are the study's; epsilon 1 and 8 stand beside it.
    folder = Path(__file__).resolve().parents[1] / "examples" / "breast-cancer"
    run_simulation(folder, Options(other_epsilons=(1.0, 8.0)), out, as_json=as_json)


@cli.command()
def simulate(
    study: Annotated[Path, typer.Argument(help="The study's folder.")],
    sites: Annotated[int | None, typer.Option(min=2, max=256, help="How many sites.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=10_000, help="How many rounds.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="The promise; turns plan local on.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes every draw of the simulation.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with one CSV or parquet file a site, or one file to spread.")
    ] = None,
    strategy: Annotated[Literal["fedavg", "fedadam"] | None, typer.Option(help="The server's strategy.")] = None,
    baselines: Annotated[bool, typer.Option(help="Compare with majority, local, pooled and plain training.")] = True,
    out: Out = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Simulate a study on this machine: real protocol, real noise, real ledgers, in one process."""
    from fedseal.cli.simulating import run_simulation
    from fedseal.simulation.simulate import Options

    options = Options(
        sites=sites,
        rounds=rounds,
        epsilon=epsilon,
        seed=seed,
        data=data,
        strategy=strategy,
        baselines=baselines,
    )
    run_simulation(study, options, out, as_json=as_json)


@cli.command()
def new(study: Annotated[Path, typer.Argument(help="The new study's folder; its last part becomes its name.")]) -> None:
    """Make a study that runs at once, to be changed into your own."""
    from fedseal.cli.scaffolding import make_study

    made = make_study(study)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Made {made}. Try it, then change task.py:")
    console.print(f"  fedseal simulate {made}", style="bold")


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
