"""`fedseal site isolation`: what keeps the study's code apart on this machine, tried and not guessed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fedseal.client.isolation.messages import Hold

KEEPS = {
    "network": "no socket, no connection",
    "files": "nothing is read but the study, the data and Python's own files",
    "processes": "no other process is seen, started or signalled",
    "calls": "no calls of the kernel that training does not need",
    "privileges": "no rights of a superuser, none gained",
    "memory": "no more memory than the site's file allows",
}


def isolation(
    config: Annotated[
        Path | None, typer.Option("--config", help="The node's file, for its limits and what it requires.")
    ] = None,
) -> None:
    """Start an empty process as the study's code is run in, and print which barriers hold here.

    Fails where a barrier does not hold that the node's file requires, or without a file, that is required by default.
    """
    from fedseal.client.isolation.places import python_places
    from fedseal.client.isolation.process import StudyProcess
    from fedseal.client.isolation.settings import IsolationPart
    from fedseal.client.isolation.supervision import check_required

    limits = IsolationPart()
    if config is not None:
        from fedseal.client.site_config import read_site

        limits = read_site(config).isolation
    process = StudyProcess(limits, python_places(), 1)
    process.end()
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(process.holds, {barrier.value for barrier in limits.require}))
    if limits.mode == "off":
        console.print("The node's file says off: the study's code runs in the node's own process.")
        return
    check_required(process.holds, limits.require)


def _table(holds: "tuple[Hold, ...]", required: set[str]) -> Table:
    table = Table()
    for name in ("barrier", "what it keeps the study's code to", "holds by", "required", "missing here"):
        table.add_column(name)
    for hold in holds:
        needed = "yes" if hold.barrier in required else "no"
        by = hold.by or "[bold]does not hold[/bold]"
        table.add_row(hold.barrier, KEEPS.get(hold.barrier, ""), by, needed, hold.missing)
    return table
