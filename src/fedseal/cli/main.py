"""`fedseal`: one function a command, and one place where errors become a message and an exit code."""

import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import click
import typer
from rich.console import Console

from fedseal import __version__
from fedseal.cli.audit import audit
from fedseal.cli.console import console
from fedseal.cli.data import data
from fedseal.cli.erase import erase
from fedseal.cli.federation import federation
from fedseal.cli.health import health
from fedseal.cli.labels import labels
from fedseal.cli.lineage import lineage
from fedseal.cli.monitor import monitor
from fedseal.cli.person import person
from fedseal.cli.predicting import predict
from fedseal.cli.privacy import privacy
from fedseal.cli.report import report
from fedseal.cli.scenario import scenario
from fedseal.cli.server import server
from fedseal.cli.signing import model
from fedseal.cli.site_operator import site
from fedseal.errors import ConfigError, ExitCode, FedsealError
from fedseal.study import Strategy

# Nothing that fedseal starts phones home.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# Windows has no SIGHUP.
INTERRUPTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

cli = typer.Typer(
    name="fedseal",
    help="Federated learning whose sums are sealed, whose privacy is bounded and whose lineage is proven.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cli.add_typer(privacy, name="privacy")
cli.add_typer(site, name="site")
cli.add_typer(server, name="server")
cli.add_typer(federation, name="federation")
cli.add_typer(labels, name="labels")
cli.add_typer(data, name="data")
cli.add_typer(erase, name="erase")
cli.add_typer(lineage, name="lineage")
cli.add_typer(audit, name="audit")
cli.add_typer(report, name="report")
cli.add_typer(scenario, name="scenario")
cli.add_typer(model, name="model")
cli.add_typer(person, name="person")
cli.add_typer(monitor, name="monitor")
cli.command()(health)
cli.add_typer(console, name="console")
cli.command()(predict)

Out = Annotated[Path, typer.Option("--out", help="Folder that gets the run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json to standard output and nothing else there.")]


def main() -> None:
    """Entry point: runs a command and exits with a documented code (docs/exit-codes.md)."""
    os.environ.update(QUIET)
    for number in INTERRUPTS:
        # What whoever started us wants ignored (nohup, a job in the background) stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        code = _run()
    # What nobody foresaw ends with a message and code 70, in place of Python's own end with code 1.
    except Exception as error:  # noqa: BLE001
        _confess(error)
        code = int(ExitCode.INTERNAL)
    sys.exit(code)


def _run() -> int:
    """Run the command and say how it ended; the exit code."""
    try:
        code = cli(standalone_mode=False)
        # Typer has made an exit code of an interrupt.
        return _say_interrupted() if code == ExitCode.INTERRUPTED else int(code or ExitCode.OK)
    except FedsealError as error:
        _complain(error)
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _say_interrupted()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end through the clean-up; impatient further ones do not cut it short.

    One that comes while the first is being dealt with is ignored, and only then: an interrupt may get lost in code that
    cannot be interrupted, and the next one has to work.
    """
    handled = sys.exc_info()[1]
    while handled is not None:
        if isinstance(handled, KeyboardInterrupt):
            return
        handled = handled.__context__
    # A connection whose closing is interrupted is no news; SQLAlchemy would log a traceback.
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    raise KeyboardInterrupt


def _say_interrupted() -> int:
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    Console(stderr=True).print("[bold]Interrupted.[/bold] Nothing was left behind.")
    return int(ExitCode.INTERRUPTED)


def _confess(error: Exception) -> None:
    """The one case in which a person is shown a traceback."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/bold red] unexpected {type(error).__name__}")
    console.print(
        "[bold]next:[/bold]  If the lines below end in your study's own code, look there. Otherwise this is a fault of "
        "fedseal's own. Please report it, with the command and these lines, once no person's data is in them."
    )
    console.print("".join(traceback.format_exception(error)), markup=False)


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
def demo(
    out: Out = Path("runs"),
    as_json: AsJson = False,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Three hospitals, with Flower's own programs as processes.")
    ] = False,
    plan: Annotated[
        Literal["none", "local"] | None, typer.Option(help="With --deployed: the privacy plan; none if not given.")
    ] = None,
) -> None:
    """Eight hospitals train a diagnosis model together: sealed, private, compared with everything else."""
    # The promise, the skew and the seed are the study's; epsilon 1 and 8 stand beside it.
    folder = Path(__file__).resolve().parents[1] / "examples" / "breast-cancer"
    if deployed:
        from fedseal.cli.deploying import run_deployed_demo

        run_deployed_demo(folder, plan or "none", out, as_json=as_json)
        return
    if plan is not None:
        raise ConfigError("--plan goes with --deployed", next_step="The other demo trains with and without privacy.")
    from fedseal.cli.simulating import run_simulation
    from fedseal.simulation.simulate import Options

    run_simulation(folder, Options(other_epsilons=(1.0, 8.0)), out, as_json=as_json)


@cli.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study's folder.")],
    superlink: Annotated[str, typer.Option(help="Where the SuperLink listens, as host:port.")],
    root_certificates: Annotated[Path, typer.Option(help="PEM file of the authority of the SuperLink's certificate.")],
    server_store: Annotated[Path, typer.Option(help="The server's store, made when the federation was enrolled.")],
    out: Out = Path("runs"),
) -> None:
    """Run a study on a running SuperLink, with all sites of the roster. Start it on the SuperLink's machine."""
    from fedseal.cli.deploying import run_on_superlink

    run_on_superlink(study, superlink, root_certificates, server_store, out)


@cli.command()
def simulate(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="STUDY|SCENARIO|verify",
            help="A study's folder; a scenario's TOML file, or its name in `fedseal scenario list`; or verify.",
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="After verify: a scenario's run, to be run again and compared."),
    ] = None,
    sites: Annotated[int | None, typer.Option(min=2, max=2000, help="How many sites.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=10_000, help="How many rounds.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="The promise; turns plan local on where there is none.")] = None,
    plan: Annotated[
        Literal["none", "local", "distributed", "client"] | None, typer.Option(help="The privacy plan.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes every draw of the simulation.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder with one CSV or parquet file a site, or one file to spread.")
    ] = None,
    strategy: Annotated[
        Strategy | None,
        typer.Option(help="The server's strategy."),
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Compare with majority, local, pooled and plain training.")] = True,
    flamby: Annotated[
        bool, typer.Option("--flamby", help="Run FLamby's published table again (examples/heart-disease, with --data).")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Of a scenario: end with code 1 if one of its gates does not hold.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Of a scenario: also write its gates to this JUnit file.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes. They change no result.")] = 1,
    search: Annotated[
        Path | None,
        typer.Option(help="A file of candidates: a private search for hyper-parameters, each trial charged."),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Of a study: this machine's processes, or Flower's own, on Ray.")
    ] = "local",
    out: Out = Path("runs"),
    as_json: AsJson = False,
) -> int:
    """Simulate a study or a scenario on this machine: real protocol, real noise, real ledgers."""
    from fedseal.cli.scenarios import Asked, run_asked, verify_run
    from fedseal.simulation.scenario.files import is_scenario

    if str(what) == "verify" and not what.is_dir():
        if run is None:
            raise ConfigError("verify needs a run's folder", next_step="For example: fedseal simulate verify runs/RUN")
        return verify_run(run, data, workers)
    if run is not None:
        raise ConfigError(f"{run} goes with verify", next_step="One study or scenario at a time.")
    if is_scenario(str(what)):
        if sites is not None or plan is not None or flamby or search is not None or engine != "local":
            raise ConfigError(
                "--sites, --plan, --flamby, --search and --engine are for studies",
                next_step="Set them in the scenario's file.",
            )
        asked = Asked(str(what), seed, strategy, epsilon, rounds, data, baselines, gate, junit, workers, out, as_json)
        return run_asked(asked)
    if gate or junit is not None:
        raise ConfigError("--gate and --junit are for scenarios", next_step="A study has no gates.")
    from fedseal.cli.simulating import run_flamby, run_simulation
    from fedseal.simulation.simulate import Options

    if flamby:
        if data is None:
            raise ConfigError("--flamby needs --data", next_step="Give the folder with the four hospitals' files.")
        run_flamby(what, data, out, as_json=as_json)
        return ExitCode.OK
    options = Options(
        sites=sites,
        rounds=rounds,
        epsilon=epsilon,
        plan=plan,
        seed=seed,
        data=data,
        strategy=strategy,
        baselines=baselines,
        workers=workers,
        ray=engine == "ray",
    )
    if search is not None:
        if workers != 1 or engine == "ray":
            raise ConfigError("--search runs in one process", next_step="Leave out --workers and --engine.")
        from fedseal.cli.searching import run_search

        run_search(what, search, options, out, as_json=as_json)
        return ExitCode.OK
    run_simulation(what, options, out, as_json=as_json)
    return ExitCode.OK


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
