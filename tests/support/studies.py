"""The tests' own study, and federations that run it with torch and Opacus."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedseal.client.records import control_bytes
from fedseal.client.task import SiteData, Task
from fedseal.privacy.ledger import epsilon_spent
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.messages import ConsistencyRequest
from fedseal.privacy.store import SiteStore
from fedseal.simulation.grid import Deliver, LocalGrid, Observer, Setting
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.population import gather
from fedseal.simulation.training import Material, RoundView, Trained, train
from fedseal.study import Contract, Study, load_study
from fedseal.study_code import load_task
from fedseal.wire import decode

RANGES = {"kind": "federated", "low": [-6.0, -6.0, -6.0], "high": [8.0, 8.0, 8.0]}
# Where a message says what it is.
TAG_PLACE = 3


class FirstAttemptFails(LocalGrid):
    """A network that spoils the answers to CONSISTENCY in the first attempt at every release: all sites have been
    charged by then, and the attempt fails.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: Mapping[int, Mapping[str, Setting]],
        *,
        run_config: Mapping[str, Setting],
        observer: Observer,
        deliver: Deliver | None = None,
    ) -> None:
        super().__init__(client_app, nodes, run_config=run_config, observer=observer, deliver=deliver or self._spoil)
        self._first_attempts: set[bytes] = set()

    def _spoil(self, app: ClientApp, message: Message, context: Context) -> Message:
        raw, answer = control_bytes(message), app(message, context)
        if raw[TAG_PLACE] == AdvertiseRequest.TAG:
            header = decode(decode(raw, AdvertiseRequest).header, Header)
            if header.attempt == 0:
                self._first_attempts.add(header.digest())
            return answer
        if raw[TAG_PLACE] != ConsistencyRequest.TAG:
            return answer
        if decode(raw, ConsistencyRequest).header_hash in self._first_attempts:
            answer.content = RecordDict()
        return answer


TINY = Path(__file__).resolve().parents[1] / "studies" / "tiny"


def tiny(**changes: object) -> Study:
    """The study of two blobs, with parts of its contract changed, e.g. ``privacy={"plan": "none"}``."""
    study = load_study(TINY)
    tables = study.contract.model_dump()
    for table, values in changes.items():
        tables[table] = {**tables[table], **cast(dict[str, object], values)}
    return Study(study.folder, Contract.model_validate(tables))


def material(study: Study, folder: Path, *, seed: int = 5) -> Material:
    """The study's persons, written to site folders."""
    population = gather(study, data=None, sites=None, seed=seed)
    task = cast(Task, load_task(study.contract.task, study.folder))
    data, splits = {}, {}
    for site in population.sites:
        data[site.name] = folder / site.name
        data[site.name].mkdir(parents=True)
        site.table.to_csv(data[site.name] / "persons.csv", index=False)
        splits[site.name] = task.data(SiteData(site.name, data[site.name]))
    return Material(study, task, splits, data, Oracle(task, splits), seed)


@dataclass
class Watched:
    """A training, and what every site's ledger said after each of its rounds."""

    study: Study
    material: Material
    folder: Path
    trained: Trained
    spent: list[dict[str, float]] = field(default_factory=list)


def spent_at(path: Path) -> float:
    """The tight epsilon by a site's own ledger."""
    with SiteStore.open(path).transaction() as transaction:
        return epsilon_spent(transaction.terms("train"), transaction.entries("train"))


def watched(folder: Path, study: Study) -> Watched:
    """Train a study in a folder, and look at every ledger after every round."""
    spent: list[dict[str, float]] = []
    gathered = material(study, folder / "data")

    def look(view: RoundView) -> None:
        spent.append({name: spent_at(folder / "federation" / f"{name}.sqlite") for name in gathered.splits})

    trained = train(gathered, study.contract, folder / "federation", look)
    return Watched(study, gathered, folder / "federation", trained, spent)
