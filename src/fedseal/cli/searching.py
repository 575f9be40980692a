"""`fedseal simulate STUDY --search FILE`: a private search, with what it costs whom."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fedseal.study import load_study

if TYPE_CHECKING:
    from fedseal.simulation.search import Found, Trial
    from fedseal.simulation.simulate import Options


def run_search(folder: Path, file: Path, options: "Options", out: Path, *, as_json: bool) -> None:
    """Search, show the trials and their cost, and say where the files are.

    Args:
        folder: the study's folder.
        file: the search's.
        options: changes to the study's contract.
        out: the folder for runs.
        as_json: print search.json on standard output; everything for people then goes to standard error.
    """
    from fedseal.cli.simulating import need_packages

    need_packages()
    from fedseal.simulation.search import as_json as numbers
    from fedseal.simulation.search import read_search, simulate_search

    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    wanted = read_search(file)

    def told(at: int, of: int, trial: "Trial") -> None:
        value = "-" if trial.score.value is None else f"{trial.score.value:.3f}"
        console.print(f"... trial {at} of {of}: candidate {trial.candidate + 1}, {wanted.score} {value}", markup=False)

    written, found = simulate_search(load_study(folder), options, wanted, out, told)
    console.print(_trials(found))
    console.print(_costs(found))
    console.print(
        "Server and sites see every trial: their epsilon is the ledgers'. Who sees only the chosen model, and not how "
        "many trials there were, has the other (Papernot and Steinke 2022).",
    )
    console.print(f"Model, contract, numbers: {written}")
    if as_json:
        print(json.dumps(numbers(found), indent=2))


def _trials(found: "Found") -> Table:
    table = Table(title="Trials, in the order they ran", title_justify="left")
    for name in ("trial", "candidate", "changes", found.search.score, "95 % noise interval"):
        table.add_column(name, justify="left" if name == "changes" else "right")
    for at, trial in enumerate(found.trials):
        changes = found.search.candidate[trial.candidate].model_dump(exclude_none=True)
        said = ", ".join(f"{key} {value}" for key, value in changes.items()) or "as the study"
        e = trial.score
        score = "-" if e.value is None else f"{e.value:.3f}"
        interval = "-" if e.low is None or e.high is None else f"{e.low:.3f} to {e.high:.3f}"
        style = "bold" if at == found.best else None
        table.add_row(str(at + 1), str(trial.candidate + 1), said, score, interval, style=style)
    return table


def _costs(found: "Found") -> Table:
    table = Table(title="Epsilon", title_justify="left")
    table.add_column("persons")
    for name in ("one trial", "all trials, charged", "ledgers' budget", "chosen model alone", "at delta"):
        table.add_column(name, justify="right")
    for population, cost in found.costs.items():
        numbers = (cost.one, cost.charged, cost.budget, cost.selected)
        promised = cost.delta_selected < 1
        cells = [f"{n:.2f}" for n in numbers[:3]] + [f"{cost.selected:.2f}" if promised else "no promise"]
        table.add_row(population, *cells, f"{cost.delta_selected:.1g}" if promised else "-")
    return table
