"""Submitting a study to a running SuperLink with `flwr run`, and following it to its end.

The coordinator's part of a deployed run: on the SuperLink's machine, because the ServerApp that runs there reads the
server's store and the initial model, and writes what happens and the final model, in folders that are named here.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy

from fedseal.client.task import Task
from fedseal.errors import (
    BudgetExceeded,
    ConfigError,
    DataError,
    FedsealError,
    LocalError,
    PeerError,
    PolicyRefused,
    RoundAborted,
)
from fedseal.privacy.quantize import Rounding
from fedseal.server.recording import EVENTS, OUTPUT_KEY
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.app_folder import write_app
from fedseal.simulation.deployed.processes import POLL, Program, Programs, deferred_interrupts
from fedseal.simulation.training import server_model, study_config
from fedseal.study import Contract, Study

# Seconds that `flwr run` may take to notice that a run is over.
LAST_WORDS = 30.0
Event = Mapping[str, Any]
ERRORS: dict[str, type[FedsealError]] = {
    kind.__name__: kind for kind in (BudgetExceeded, ConfigError, DataError, LocalError, PolicyRefused, RoundAborted)
}


@dataclass(frozen=True, slots=True)
class Submission:
    """One run of a study.

    ``sites`` is how many nodes the run waits for; ``folder`` an existing one that gets the app, the initial model, the
    events and the final model.
    """

    study: Study
    task: Task
    server_store: Path
    sites: int
    folder: Path
    rounding: Rounding = Rounding.STOCHASTIC

    @property
    def app(self) -> Path:
        """The Flower app."""
        return self.folder / "app"


def prepare(submission: Submission) -> None:
    """Write the initial model and the app folder.

    The initial model is public and the same as a simulation's: made from the study's seed.
    """
    folder = submission.folder.resolve()
    run_config = settings_of_run(
        submission.study, submission.task, submission.server_store, submission.sites, folder, submission.rounding
    )
    write_app(submission.app, submission.study, {**run_config, OUTPUT_KEY: str(folder)})


def settings_of_run(
    study: Study,
    task: Task,
    store: Path,
    sites: int,
    folder: Path,
    rounding: Rounding = Rounding.STOCHASTIC,
) -> dict[str, str | int]:
    """Write a run's initial model and return the configuration that the run's two apps read.

    Args:
        study: what is run.
        task: its task.
        store: the server's.
        sites: how many nodes the run waits for.
        folder: gets the model.
        rounding: how values become integers.
    """
    model = folder / "initial.safetensors"
    contract = study.contract
    model.write_bytes(safetensors.numpy.save(server_model(task, contract.training, contract.simulation.seed)))
    return study_config(task, contract.task, contract_json(contract), store.resolve(), model, sites, rounding)


def contract_json(contract: Contract) -> str:
    """The contract without what only a simulation uses: how it spreads a population is no site's business."""
    return contract.model_dump_json(exclude={"simulation"})


def submit(
    submission: Submission,
    programs: Programs,
    environment: Mapping[str, str],
    on_event: Callable[[Event], None],
    *,
    silence: float,
) -> None:
    """Submit a prepared study and follow it to its end.

    Args:
        submission: what to run.
        programs: starts `flwr`, and stops it if this function does not return.
        environment: of the `flwr` program; its Flower folder says where the SuperLink is.
        on_event: told of every event of the run, see `server.recording`.
        silence: seconds without an event after which the run is given up.

    Raises:
        FedsealError: the run failed with it.
        ConfigError: the run was not accepted, ended without a result, or was silent for too long.
    """
    program = programs.start("flwr run", flower.run_command(submission.app), environment=environment)
    events = Events(submission.folder / EVENTS)
    last, over = time.monotonic(), False
    while not over:
        ended = program.process.poll() is not None
        for event in events.new():
            last = time.monotonic()
            on_event(event)
            over = event["event"] in {"finished", "failed"}
            if event["event"] == "failed":
                raise error_of(event)
        if ended and not over:
            raise program.failed("ended, and the run has no result")
        if time.monotonic() - last > silence:
            raise program.failed(f"has had nothing to say about the run for {silence:.0f} seconds")
        time.sleep(POLL)
    programs.wait_for_end([program], within=LAST_WORDS)


class Events:
    """The events of a run, as they are written.

    Args:
        path: their file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[Event]:
        """The events since the last call. A line that is being written is left for the next one."""
        if not self._path.is_file():
            return []
        whole = self._path.read_bytes()[self._read :].rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        return [json.loads(line) for line in whole[0].splitlines()]


def error_of(event: Event) -> FedsealError:
    """The error that a ServerApp wrote down, of its own class."""
    name, message, advice = str(event["error"]), str(event["message"]), str(event["next_step"])
    if name == PeerError.__name__:
        return PeerError(message, peer="a site", next_step=advice)
    return ERRORS.get(name, LocalError)(message, next_step=advice)


@contextmanager
def stopped_if_left(program_log: Path, programs: Programs, environment: Mapping[str, str]) -> Iterator[None]:
    """Tell the SuperLink to stop the run if the block is left before its end.

    Args:
        program_log: what `flwr run` said; it names the run.
        programs: starts `flwr stop`.
        environment: as for `submit`.
    """
    finished = False
    try:
        yield
        finished = True
    finally:
        run = None if finished else run_number(program_log)
        if run is not None:
            with deferred_interrupts():
                stop: Program = programs.start("flwr stop", flower.stop_command(run), environment=environment)
                stop.process.wait(LAST_WORDS)


def run_number(log: Path) -> int | None:
    """Flower's number of a run that `flwr run` has started, from what it said; None if it has started none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    found = re.search(r"Successfully started run (\d+)", text)
    return None if found is None else int(found.group(1))
