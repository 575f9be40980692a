"""`fedseal demo --deployed`: a SuperLink and three stock SuperNodes on this machine, from enrolment to comparison."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import safetensors.numpy

from fedseal.client.normalise import Normalisation
from fedseal.client.task import size
from fedseal.errors import FedsealError, RoundAborted
from fedseal.privacy.planning import plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.server.recording import MODEL
from fedseal.simulation.books import Books
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.certificates import LOOPBACK, make_node_key, make_server_certificate
from fedseal.simulation.deployed.comparison import expected_range, simulated_accuracies, simulated_model
from fedseal.simulation.deployed.enrolment import Enrolled, enrol_for_real
from fedseal.simulation.deployed.processes import Program, Programs, free_ports
from fedseal.simulation.deployed.submission import Event, Submission, prepare, submit
from fedseal.simulation.folders import run_folder
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import prepared_material
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material
from fedseal.study import Contract, Study

SITES = 3
ROUNDS = 2
# Seconds. Several times what a busy laptop needs.
READY, CONNECTED, SILENCE = 90.0, 120.0, 600.0
RESULT = "deployment.json"
PlanName = Literal["none", "local"]


class Progress(Protocol):
    """Who watches a deployed demo."""

    def begin(self, contract: Contract, run: str) -> None:
        """The first step is about to begin."""

    def step(self, title: str) -> None:
        """A step begins."""

    def took(self, step: "Step") -> None:
        """A step is over."""


@dataclass(frozen=True, slots=True)
class Step:
    """What took how many seconds; of a round also each exchange."""

    name: str
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Deployed:
    """What a deployed demo found.

    ``byte_identical`` is None under a private plan; ``seeds`` then holds the simulated accuracies, and ``expected``
    where they let a further run be expected, see `comparison.expected_range`.
    """

    run: str
    plan: PlanName
    roster_hash: str
    steps: list[Step] = field(default_factory=list)
    model_sha256: str = ""
    byte_identical: bool | None = None
    accuracy: float | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    expected: tuple[float, float] | None = None


def demo_contract(contract: Contract, plan: PlanName) -> Contract:
    """The study's contract for three sites and two rounds.

    Without a private plan everyone is in every step: there is no sampling, so nothing in the run is random but keys
    and masks, which cancel.
    """
    tables = contract.model_dump()
    tables["training"]["rounds"] = ROUNDS
    tables["privacy"]["plan"] = plan
    tables["cohort"] |= {"minimum": SITES, "colluders": 1}
    tables["simulation"]["sites"] = SITES
    if plan == "none":
        tables["training"]["sample_rate"] = 1.0
    return Contract.model_validate(tables)


def deployed_demo(study: Study, plan: PlanName, out: Path, progress: Progress) -> tuple[Path, Deployed]:
    """Deploy a study on this machine, train, stop everything, and compare with a simulation.

    Args:
        study: its population is spread over three sites.
        plan: which promise.
        out: the folder that holds runs.
        progress: told what happens.

    Returns:
        The run's folder, and what was found.

    Raises:
        FedsealError: says whose fault it is. No process is left; of the run's folder, what the programs said.
    """
    contract = demo_contract(study.contract, plan)
    changed = Study(study.folder, contract)
    population = gather(changed, data=None, sites=None, seed=contract.simulation.seed)
    with run_folder(out.resolve(), f"{contract.name}-deployed") as (folder, run), one_thread():
        progress.begin(contract, run)
        with kept_logs(folder, out.resolve() / f"{run}-failed"):
            material = prepared_material(changed, population, folder / "data", contract.simulation.seed)
            found = Deployment(folder, changed, plan, material, progress, out.resolve() / f"{run}-failed").run(run)
        shutil.rmtree(folder / "data")
        shutil.rmtree(folder / "flower")
        (folder / RESULT).write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return out / run, found


@contextmanager
def kept_logs(folder: Path, failed: Path) -> Iterator[None]:
    """Keep what programs said if the block fails; a run's folder does not survive that."""
    try:
        yield
    except FedsealError:
        if (folder / "logs").is_dir():
            failed.mkdir()
            (folder / "logs").replace(failed / "logs")
        raise


class Deployment:
    """One deployed run.

    Args:
        folder: the run's, for everything that is made.
        study: with the contract to run.
        plan: the contract's.
        material: the persons, spread over site folders.
        progress: told what happens.
        failed: where logs will be kept if it fails.
    """

    def __init__(
        self, folder: Path, study: Study, plan: PlanName, material: Material, progress: Progress, failed: Path
    ) -> None:
        self._folder, self._study, self._plan = folder, study, plan
        self._material, self._progress, self._failed = material, progress, failed
        self._persons = {name: size(split.train) for name, split in material.splits.items()}
        self._plans = plan_run(study.contract)
        self._steps: list[Step] = []
        self._moments: dict[str, Any] = {}
        self._since = time.monotonic()

    def run(self, name: str) -> Deployed:
        """From enrolment to comparison."""
        self._begin("enrolment: keys, roster, stores, certificates")
        enrolled = enrol_for_real(self._folder / "federation", self._study.contract, self._plans, self._persons)
        (self._folder / "tls").mkdir(mode=0o700)
        certificate = make_server_certificate(self._folder / "tls")
        link_port, *ports = free_ports(1 + len(self._persons))
        link = flower.SuperLink(f"{LOOPBACK}:{link_port}", certificate.authority)
        nodes = [
            flower.Node(site, port, make_node_key(self._folder / "tls", site), store, self._material.data[site])
            for port, (site, store) in zip(ports, enrolled.site_stores.items(), strict=True)
        ]
        self._end("enrolment")
        with Programs(self._folder / "logs", shown=self._failed / "logs") as programs:
            self._begin("starting the SuperLink")
            command = flower.superlink_command(certificate, link_port, self._folder / "flower" / "superlink.sqlite")
            superlink = programs.start("superlink", command, environment=self._environment("superlink"))
            programs.wait_until(lambda: flower.answers(link), [superlink], within=READY, what="ready")
            self._end("SuperLink ready")
            self._connect(programs, superlink, link, nodes)
            self._train(programs, enrolled)
            self._begin("stopping everything")
        self._end("everything stopped")
        return self._compare(Deployed(name, self._plan, enrolled.roster_hash, self._steps))

    def _connect(
        self, programs: Programs, superlink: Program, link: flower.SuperLink, nodes: list[flower.Node]
    ) -> None:
        self._begin("registering and connecting the nodes")
        flower.write_connection(self._folder / "flower" / "coordinator", link)
        environment = self._environment("coordinator")
        registering = [
            programs.start(f"register {n.name}", flower.register_command(n.key.public), environment=environment)
            for n in nodes
        ]
        programs.wait_for_end(registering, within=READY)
        self._end("nodes registered")
        running = {
            n.name: programs.start(n.name, flower.supernode_command(n, link), environment=self._environment(n.name))
            for n in nodes
        }
        logs = [self._folder / "logs" / f"{name}.log" for name in running]
        programs.wait_until(
            lambda: all(map(flower.is_connected, logs)),
            [*running.values(), superlink],
            within=CONNECTED,
            what="connected",
        )
        self._end("nodes connected")

    def _train(self, programs: Programs, enrolled: Enrolled) -> None:
        self._begin("submitting the study with flwr run")
        rounding = Rounding.NEAREST if self._plan == "none" else Rounding.STOCHASTIC
        submission = Submission(
            self._study, self._material.task, enrolled.server_store, len(self._persons), self._folder, rounding
        )
        prepare(submission)
        books = Books(enrolled.site_stores, self._plans, self._study.contract.privacy.delta)
        try:
            submit(submission, programs, self._environment("coordinator"), self._event, silence=SILENCE)
        except RoundAborted as error:
            # All sites are this operator's: what they wrote down may be read.
            raise books.explain(error) from None

    def _event(self, event: Event) -> None:
        match event["event"]:
            case "started":
                self._end("ServerApp started")
            case "planned":
                self._moments = event["moments"]
                self._begin("round 1")
            case "round":
                stages = {name: cost["seconds"] for name, cost in event["stages"].items()}
                self._end(f"round {event['number']}", stages)
                last = event["number"] == self._study.contract.training.rounds
                self._begin("closing the run" if last else f"round {event['number'] + 1}")
            case "finished":
                self._end("run closed at the sites")

    def _compare(self, found: Deployed) -> Deployed:
        content = (self._folder / MODEL).read_bytes()
        model = safetensors.numpy.load(content)
        found.model_sha256 = hashlib.sha256(content).hexdigest()
        normalisation = Normalisation(**{k: tuple(v) for k, v in self._moments.items()}) if self._moments else None
        found.accuracy = self._material.oracle.judge_arrays(model, normalisation).everyone.get("accuracy")
        contract, folder = self._study.contract, self._folder / "simulation"
        if self._plan == "none":
            self._begin("simulating the same contract")
            simulated = simulated_model(self._material, contract, folder)
            found.byte_identical = safetensors.numpy.save(simulated) == content
        else:
            found.seeds = simulated_accuracies(
                self._material, contract, folder, lambda seed: self._begin(f"simulating seed {seed}")
            )
            found.expected = expected_range(found.seeds.values())
        shutil.rmtree(folder)
        return found

    def _environment(self, name: str) -> dict[str, str]:
        return flower.environment(self._folder / "flower" / name)

    def _begin(self, title: str) -> None:
        self._progress.step(title)
        self._since = time.monotonic()

    def _end(self, name: str, stages: dict[str, float] | None = None) -> None:
        step = Step(name, round(time.monotonic() - self._since, 3), stages or {})
        self._steps.append(step)
        self._progress.took(step)
        self._since = time.monotonic()
