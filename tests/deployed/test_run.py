"""`fedseal run` against a SuperLink that somebody else has started: to its end, refused, and killed half-way."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import told
from support.launched import Process, gone, launch, processes, until
from support.studies import TINY, material

from fedseal.client.task import size
from fedseal.errors import ExitCode
from fedseal.privacy.planning import plan_run
from fedseal.privacy.store import SiteStore
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.certificates import LOOPBACK, make_node_key, make_server_certificate
from fedseal.simulation.deployed.enrolment import Enrolled, enrol_for_real
from fedseal.simulation.deployed.processes import Programs, free_ports
from fedseal.study import load_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find every process"),
]
CHANGES = (("rounds = 3", "rounds = 1"), ('plan = "local"', 'plan = "none"'), ("sites = 4", "sites = 3"))


@dataclass(frozen=True)
class Running:
    """A SuperLink and three connected SuperNodes of an enrolled federation, none of them started by `fedseal run`."""

    folder: Path
    study: Path
    link: flower.SuperLink
    enrolled: Enrolled

    def run(self, out: Path, *, authority: Path | None = None) -> Process:
        """`fedseal run` of the study."""
        where = ("--superlink", self.link.address, "--root-certificates", authority or self.link.authority)
        return launch("run", self.study, *where, "--server-store", self.enrolled.server_store, "--out", out)

    def site(self, command: str, *arguments: str) -> str:
        """What `fedseal site` says of the first site."""
        store = next(iter(self.enrolled.site_stores.values()))
        process = launch("site", command, store, *arguments)
        said, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return said

    def server_apps(self) -> list[str]:
        """The ServerApps that the SuperLink is running."""
        return [command for command in processes(self.folder / "flower").values() if "flwr-serverapp" in command]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    study = folder / "study"
    shutil.copytree(TINY, study, ignore=shutil.ignore_patterns("__pycache__"))
    text = (study / "pyproject.toml").read_text(encoding="utf-8")
    for before, after in CHANGES:
        assert before in text
        text = text.replace(before, after)
    (study / "pyproject.toml").write_text(text, encoding="utf-8")
    loaded = load_study(study)
    persons = material(loaded, folder / "data")
    sizes = {name: size(split.train) for name, split in persons.splits.items()}
    enrolled = enrol_for_real(folder / "federation", loaded.contract, plan_run(loaded.contract), sizes)
    (folder / "tls").mkdir()
    certificate = make_server_certificate(folder / "tls")
    link_port, *ports = free_ports(1 + len(sizes))
    link = flower.SuperLink(f"{LOOPBACK}:{link_port}", certificate.authority)
    with Programs(folder / "logs") as programs:
        command = flower.superlink_command(certificate, link_port, folder / "flower" / "superlink.sqlite")
        superlink = programs.start(
            "superlink", command, environment=flower.environment(folder / "flower" / "superlink")
        )
        programs.wait_until(lambda: flower.answers(link), [superlink], within=90, what="ready")
        flower.write_connection(folder / "flower" / "coordinator", link)
        started, environment = [], flower.environment(folder / "flower" / "coordinator")
        for port, (site, store) in zip(ports, enrolled.site_stores.items(), strict=True):
            node = flower.Node(site, port, make_node_key(folder / "tls", site), store, persons.data[site])
            registering = programs.start(
                f"register {site}", flower.register_command(node.key.public), environment=environment
            )
            programs.wait_for_end([registering], within=90)
            home = flower.environment(folder / "flower" / site)
            started.append(programs.start(site, flower.supernode_command(node, link), environment=home))
        logs = [folder / "logs" / f"{site}.log" for site in enrolled.site_stores]
        programs.wait_until(lambda: all(map(flower.is_connected, logs)), started, within=120, what="connected")
        yield Running(folder, study, link, enrolled)
    assert gone(folder)


def ended(process: Process, within: float = 300) -> "subprocess.CompletedProcess[str]":
    out, err = process.communicate(timeout=within)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_an_authority_that_did_not_sign_the_superlinks_certificate_is_named(running: Running, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_server_certificate(tmp_path / "other").authority
    done = ended(running.run(tmp_path / "out", authority=other))
    told(
        done, ExitCode.CONFIG, f"the server at {running.link.address} is not trusted", str(other), "the authority that"
    )
    assert list((tmp_path / "out").iterdir() if (tmp_path / "out").exists() else []) == []
    assert processes(tmp_path / "out") == {}
    # The twin: that of the SuperLink's own authority is.
    assert flower.answers(running.link)


def test_a_study_runs_to_its_end_and_the_superlink_goes_on(running: Running, tmp_path: Path) -> None:
    before = processes(running.folder)
    done = ended(running.run(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "round 1: 3 sites" in done.stdout
    assert "Stock SuperNodes run the code that the server ships" in done.stdout
    (run,) = (tmp_path / "out").iterdir()
    assert (run / "model.safetensors").is_file()
    assert not (run / "flower").exists()
    assert gone(tmp_path / "out")
    assert set(before) <= set(processes(running.folder))
    number = planned(run / "events.jsonl")
    row = next(line for line in running.site("runs").splitlines() if number in line)
    assert "closed" in row
    assert "nothing" in row


def planned(events: Path) -> str:
    """The run's number, as the server announced it."""
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    return str(next(line["run"] for line in lines if line["event"] == "planned"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_killed_command_leaves_no_process_and_stops_the_run(
    running: Running, tmp_path: Path, number: signal.Signals
) -> None:
    before = open_runs(running)
    process = running.run(tmp_path / "out")
    until(process, "... run")
    assert processes(tmp_path / "out")
    assert running.server_apps()
    assert soon(lambda: open_runs(running) != before)
    (run,) = open_runs(running) - before
    process.send_signal(number)
    done = ended(process, within=90)
    assert done.returncode == ExitCode.INTERRUPTED, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert f"fedseal site close-run STORE {run}" in done.stdout
    assert gone(tmp_path / "out"), processes(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    # The SuperLink goes on, but not with this run: its ServerApp is told so when it next asks for answers.
    assert soon(lambda: not running.server_apps()), running.server_apps()
    assert flower.answers(running.link)
    # A site keeps what the run has reserved, until its operator ends the run.
    assert "attempts without privacy" in next(line for line in running.site("runs").splitlines() if run in line)
    assert f"Run {run} is closed. Given back: train: " in running.site("close-run", run)
    assert open_runs(running) == before


def soon(holds: Callable[[], bool], *, within: float = 60) -> bool:
    """Whether something comes to hold in time."""
    end = time.monotonic() + within
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


def open_runs(running: Running) -> set[str]:
    """The runs that are open at the first site."""
    store = next(iter(running.enrolled.site_stores.values()))
    with SiteStore.open(store).transaction() as transaction:
        return {record.run.hex() for record in transaction.runs() if not record.closed}
