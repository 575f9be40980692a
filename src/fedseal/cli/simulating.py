"""Running a simulation from the command line. Imports what it needs when it is needed: `fedseal --help` is quick."""

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedseal.errors import ConfigError
from fedseal.study import load_study

if TYPE_CHECKING:
    from fedseal.simulation.simulate import Options

NEEDED = ("torch", "opacus", "pandas", "pyarrow", "sklearn", "matplotlib", "jinja2")


def need_packages() -> None:
    """ConfigError if the packages that a simulation needs are not installed."""
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"a simulation needs {', '.join(missing)}", next_step='Install them with: pip install "fedseal[simulation]"'
        )


def run_simulation(folder: Path, options: "Options", out: Path, *, as_json: bool) -> None:
    """Simulate a study, show it, and say where the files are.

    Args:
        folder: the study's folder.
        options: changes to its contract.
        out: the folder for runs.
        as_json: print result.json on standard output; everything for people then goes to standard error.
    """
    need_packages()
    from fedseal.cli.live import Watcher, comparison_table, evaluation_table, group_table, log_line, summary
    from fedseal.simulation.folders import remove_leftovers
    from fedseal.simulation.result import Result
    from fedseal.simulation.simulate import simulate

    # Flower logs every step on the console; a live table and a log do not share one.
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    study = load_study(folder)
    if removed := remove_leftovers(out):
        console.print(f"Removed what {removed} killed run{'s' if removed > 1 else ''} had left in {out}.", markup=False)
    with Watcher(console) as watcher:
        finished = simulate(study, options, out, watcher)
    text = (finished.folder / "result.json").read_text(encoding="utf-8")
    result = Result.model_validate_json(text)
    if result.baselines is not None:
        console.print(comparison_table(result))
        console.print(summary(result))
    if result.evaluation is not None:
        console.print(evaluation_table(result.evaluation))
        if (groups := group_table(result.evaluation)) is not None:
            console.print(groups)
    for note in result.notes:
        console.print(f"Note: {note}", markup=False)
    if line := log_line(result):
        console.print(line, markup=False)
    console.print(f"Report: {finished.folder / 'report.html'}", soft_wrap=True)
    console.print(f"Numbers: {finished.folder / 'result.json'}", soft_wrap=True)
    if as_json:
        print(text, end="")


def run_flamby(folder: Path, data: Path, out: Path, *, as_json: bool) -> None:
    """Run FLamby's table of Fed-Heart-Disease again, and show it beside the published one.

    Args:
        folder: the study's folder, examples/heart-disease.
        data: the folder with the four hospitals' files.
        out: the folder for runs.
        as_json: print the numbers on standard output; the table then goes to standard error.
    """
    need_packages()
    from fedseal.cli.live import flamby_table
    from fedseal.simulation.flamby import simulate_flamby

    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    console = Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)
    written, rows = simulate_flamby(load_study(folder), data, out, lambda title: console.print(f"... {title}"))
    console.print(flamby_table(rows))
    published = [row for row in rows if row.published is not None]
    within = sum(row.reproduced is True for row in published)
    console.print(f"Within one published standard deviation in both columns: {within} of {len(published)} rows.")
    console.print(f"Numbers: {written}", soft_wrap=True)
    if as_json:
        print(written.read_text(encoding="utf-8"), end="")
