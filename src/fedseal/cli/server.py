"""`fedseal server`: the coordination server that resident nodes connect to, and its runs."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli import enrolling
from fedseal.cli.server_upkeep import backup, restore, stop
from fedseal.cli.services import LogOption, operated, warn
from fedseal.operation.events import Listening, Stopped, Stopping
from fedseal.operation.logs import log_to_stderr, say

if TYPE_CHECKING:
    from fedseal.simulation.deployed.submission import Event

server = typer.Typer(
    help="Enrol and run a coordination server for resident nodes, and order runs from it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
server.command("init")(enrolling.init_server)
server.command("adopt")(enrolling.adopt)
server.command("rotate")(enrolling.rotate_server)

Config = Annotated[Path, typer.Option("--config", help="The server's file; see docs/deploy.md.")]
log = logging.getLogger("fedseal.server")
POLL = 0.2
for command in (stop, backup, restore):
    server.command()(command)


@server.command()
def up(config: Config, log_format: LogOption = None) -> None:
    """Listen for the sites, and make the runs that are ordered, until stopped."""
    from fedseal.server.coordination import Coordinator
    from fedseal.server.epochs import EpochWatch
    from fedseal.server.link import Link
    from fedseal.server.server_config import read_server
    from fedseal.server.telemetry import ServerTelemetry

    log_to_stderr(log_format or "text")
    found = read_server(config)
    log_to_stderr(log_format or found.operation.log)
    warn(log, found.check_now(datetime.now(UTC)))
    link = Link(found.listener, found.nodes)
    with link, EpochWatch(link, found.listener, found.store, found.epoch):
        say(log, Listening(found.listener.host, link.port, len(found.nodes)))
        telemetry = ServerTelemetry(found, link)
        with operated(found.operation, telemetry.registry, telemetry.ready):
            try:
                Coordinator(link, found.store, found.runs).serve()
            except KeyboardInterrupt:
                say(log, Stopping("; a run that is under way is gone on with at the next start"))
    say(log, Stopped())


@server.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study's folder; every site has approved its code.")],
    config: Config,
    follow: Annotated[bool, typer.Option(help="Stay until the run is over.")] = True,
) -> None:
    """Order a run of a study, with all sites of the roster, from the server that works with the same file."""
    from fedseal.cli.deploying import tell_run
    from fedseal.cli.simulating import need_packages
    from fedseal.client.task import Task
    from fedseal.server.coordination import ordered
    from fedseal.server.server_config import read_server
    from fedseal.simulation.checked import CheckedTask
    from fedseal.simulation.deployed.submission import settings_of_run
    from fedseal.simulation.simulate import check_cohort
    from fedseal.study import load_study
    from fedseal.study_code import load_task

    need_packages()
    found, what = read_server(config), load_study(study)
    found.check_now(datetime.now(UTC))
    check_cohort(what.contract, len(found.nodes))
    task = CheckedTask(cast(Task, load_task(what.contract.task, what.folder)))
    with ordered(found.runs, what.contract.name) as (folder, order):
        placed = order(settings_of_run(what, task, found.store, len(found.nodes), folder))
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    console.print(f"Ordered: {placed.folder.name}")
    if follow:
        follow_run(placed.folder, tell_run(console))
        console.print(f"Model: {placed.folder / 'model.safetensors'}", soft_wrap=True)


def follow_run(folder: Path, tell: "Callable[[Event], None]") -> None:
    """Tell of a run's events until it is over.

    Raises:
        FedsealError: the run failed with it.
    """
    from fedseal.server.recording import EVENTS
    from fedseal.simulation.deployed.submission import Events, error_of

    events = Events(folder / EVENTS)
    while True:
        for event in events.new():
            tell(event)
            if event["event"] == "failed":
                raise error_of(event)
            if event["event"] == "finished":
                return
        time.sleep(POLL)


@server.command()
def status(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what became of the runs that were ordered."""
    from fedseal.server.coordination import ORDER
    from fedseal.server.server_config import read_server

    runs = read_server(config).runs
    rows = [_state(path.parent) for path in sorted(runs.glob(f"*/{ORDER}")) if not path.parent.name.startswith(".")]
    if as_json:
        print(json.dumps({"schema_version": 1, "runs": rows}, indent=2))
        return
    table = Table()
    for column in ("run", "state", "rounds"):
        table.add_column(column)
    for row in rows:
        table.add_row(str(row["run"]), str(row["state"]), str(row["rounds"]))
    Console(highlight=False, soft_wrap=True).print(table if rows else "No run was ordered yet.")


def _state(folder: Path) -> dict[str, object]:
    from fedseal.server.recording import EVENTS
    from fedseal.simulation.deployed.submission import Events

    events = Events(folder / EVENTS).new()
    names = [event["event"] for event in events]
    last = next((name for name in ("finished", "failed", "started") if name in names), "ordered")
    rounds = max((event["number"] for event in events if event["event"] == "round"), default=0)
    return {"run": folder.name, "state": "running" if last == "started" else last, "rounds": rounds}
