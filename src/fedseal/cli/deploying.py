"""Deployed runs from the command line: a demo with processes of its own, and a study on a running SuperLink."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from fedseal.cli.simulating import need_packages
from fedseal.study import load_study

if TYPE_CHECKING:
    from fedseal.simulation.deployed.demo import Deployed, Step
    from fedseal.simulation.deployed.submission import Event
    from fedseal.study import Contract

# The short form of docs/deploy.md, shown where the reader sees the result.
STOCK = (
    "Stock SuperNodes run the code that the server ships, in a new process for every message. Against a server that "
    "follows the protocol the sums are sealed and the budget holds; a server that ships other code has left it. To run "
    "only reviewed code a site needs --trusted-entities. Details: docs/deploy.md."
)


class Teller:
    """Says each step as it comes, one line each.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, contract: "Contract", run: str) -> None:
        """What will run."""
        promise = (
            f"epsilon {contract.privacy.epsilon:g} and delta {contract.privacy.delta:g} to every person"
            if contract.privacy.plan == "local"
            else "no privacy plan, deterministic rounding, everyone in every step"
        )
        self._console.print(f"{contract.title or contract.name}")
        self._console.print(f"A SuperLink and three stock SuperNodes on this machine, run {run}: {promise}.")
        self._console.print("It takes minutes, for Flower starts a new process for every message.")

    def step(self, title: str) -> None:
        """A step begins."""
        self._console.print(f"... {title}")

    def took(self, step: "Step") -> None:
        """A step is over."""
        self._console.print(f"    {step.name}: {step.seconds:.1f} s")


def run_deployed_demo(folder: Path, plan: Literal["none", "local"], out: Path, *, as_json: bool) -> None:
    """Deploy a study's population on this machine, train, stop everything, and say what came of it.

    Args:
        folder: the study's folder.
        plan: which promise.
        out: the folder for runs.
        as_json: print deployment.json on standard output; everything for people then goes to standard error.
    """
    need_packages()
    from fedseal.simulation.deployed.demo import RESULT, deployed_demo

    quiet_logs()
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    path, found = deployed_demo(load_study(folder), plan, out, Teller(console))
    console.print(steps_table(found))
    console.print(verdict(found))
    console.print(STOCK)
    console.print(f"Model: {path / 'model.safetensors'}", soft_wrap=True)
    console.print(f"Numbers: {path / RESULT}", soft_wrap=True)
    if as_json:
        print((path / RESULT).read_text(encoding="utf-8"), end="")


def run_on_superlink(folder: Path, address: str, certificates: Path, store: Path, out: Path) -> None:
    """Run a study on a running SuperLink and say where the model is.

    Args:
        folder: the study's folder.
        address: the SuperLink's, as host:port.
        certificates: of the authority that signed the SuperLink's certificate.
        store: the server's store.
        out: the folder for runs.
    """
    need_packages()
    from fedseal.simulation.deployed.coordinator import run_study

    quiet_logs()
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)

    begun: list[str] = []
    path = None
    try:
        path = run_study(load_study(folder), address, certificates, store, out, tell_run(console, begun))
    finally:
        if path is None and begun:
            console.print(
                f"Run {begun[0]} has not come to its end. Sites keep the budget that it has reserved until they end "
                f"it: fedseal site close-run STORE {begun[0]}",
                soft_wrap=True,
            )
    console.print(STOCK)
    console.print(f"Model: {path / 'model.safetensors'}", soft_wrap=True)


def tell_run(console: Console, begun: list[str] | None = None) -> "Callable[[Event], None]":
    """Says the events of a run as they come.

    Args:
        console: where to.
        begun: gets the run's number once there is one.
    """
    from fedseal.simulation.figures import score

    def tell(event: "Event") -> None:
        match event["event"]:
            case "started":
                console.print("... the ServerApp runs and waits for the sites")
            case "planned":
                if begun is not None:
                    begun.append(str(event["run"]))
                console.print(f"... run {event['run']}, plan {event['plan']}")
            case "round":
                text = f"round {event['number']}: {event['sites']} sites, {event['seconds']:.1f} s"
                console.print(text if event["attempts"] == 1 else f"{text}, {event['attempts']} attempts")
            case "evaluated":
                console.print("Private evaluation of the final model, with 95 % noise intervals:")
                for name, found in event["estimates"].items():
                    console.print(
                        f"  {name}: {score(found['value'])} ({score(found['low'])} to {score(found['high'])})"
                    )

    return tell


def quiet_logs() -> None:
    """Flower logs every step on the console."""
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def steps_table(found: "Deployed") -> Table:
    """Where the time went; a round's exchanges below it."""
    table = Table(title="Where the time went", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step in found.steps:
        table.add_row(step.name, f"{step.seconds:.1f}")
        for stage, seconds in step.stages.items():
            table.add_row(f"  {stage}", f"{seconds:.1f}", style="dim")
    return table


def verdict(found: "Deployed") -> str:
    """How the deployed run compares with the simulation."""
    if found.byte_identical is not None:
        return f"byte-identical to the simulation: {'yes' if found.byte_identical else 'no'}"
    if found.accuracy is None or found.expected is None:
        return "The study has no accuracy to compare."
    low, high = found.expected
    within = "within" if low <= found.accuracy <= high else "outside"
    return (
        f"accuracy {found.accuracy:.3f} deployed, {min(found.seeds.values()):.3f} to {max(found.seeds.values()):.3f} "
        f"in simulations with {len(found.seeds)} seeds: {within} {low:.3f} to {high:.3f}, where these let 99 of 100 "
        "further runs be expected (oracle values)"
    )
