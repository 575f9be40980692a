"""`fedseal run`: a study on a SuperLink that is running, for a federation that is enrolled."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

from fedseal.client.task import Task
from fedseal.errors import ConfigError
from fedseal.server.store import ServerStore
from fedseal.simulation.checked import CheckedTask
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.demo import kept_logs
from fedseal.simulation.deployed.processes import Programs
from fedseal.simulation.deployed.submission import Event, Submission, prepare, stopped_if_left, submit
from fedseal.simulation.folders import run_folder
from fedseal.simulation.simulate import check_cohort
from fedseal.study import Study
from fedseal.study_code import load_task

# Seconds without an event: longer than a round may take by the server's own deadlines, so that those come first.
SILENCE = 6 * 3600.0


def run_study(
    study: Study, address: str, certificates: Path, store: Path, out: Path, on_event: Callable[[Event], None]
) -> Path:
    """Submit a study and follow it to its end.

    Args:
        study: what to run, with all its rounds; all sites of the roster take part.
        address: the SuperLink's, as host:port.
        certificates: PEM file of the authority that signed the SuperLink's certificate.
        store: the server's store, on this machine, which is also the SuperLink's.
        out: the folder that holds runs.
        on_event: told of every event.

    Returns:
        The run's folder, with the model.

    Raises:
        FedsealError: says whose fault it is. The run is stopped at the SuperLink; what `flwr` said is kept.
    """
    link = _reachable(address, certificates)
    sites = _sites(store)
    check_cohort(study.contract, sites)
    task = CheckedTask(cast(Task, load_task(study.contract.task, study.folder)))
    with run_folder(out.resolve(), study.contract.name) as (folder, run):
        failed = out.resolve() / f"{run}-failed"
        home = folder / "flower"
        flower.write_connection(home, link)
        environment = flower.environment(home)
        submission = Submission(study, task, store, sites, folder)
        prepare(submission)
        with (
            kept_logs(folder, failed),
            Programs(folder / "logs", shown=failed / "logs") as programs,
            stopped_if_left(folder / "logs" / "flwr-run.log", programs, environment),
        ):
            submit(submission, programs, environment, on_event, silence=SILENCE)
        shutil.rmtree(home)
        text = json.dumps({"schema_version": 1, "run": run, "contract": json.loads(study.contract.model_dump_json())})
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    return out / run


def _sites(store: Path) -> int:
    """How many sites the federation of a server's store has."""
    roster = ServerStore.open(store).identity.roster
    if roster.simulated:
        raise ConfigError(
            f"{store} is a store of a simulated federation", next_step="Enrol a real one; see docs/deploy.md."
        )
    return len(roster.sites)


def _reachable(address: str, certificates: Path) -> flower.SuperLink:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(f"{address!r} is no address", next_step="Give --superlink as host:port.")
    if not certificates.is_file():
        raise ConfigError(f"{certificates} does not exist", next_step="Give the PEM file that the SuperNodes have.")
    link = flower.SuperLink(address, certificates.resolve())
    if not flower.answers(link):
        raise ConfigError(
            f"no SuperLink answers over TLS at {address}",
            next_step="Look whether it runs there and can be reached from here, and whether it was started with TLS.",
        )
    return link
