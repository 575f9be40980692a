"""Federations in memory around ordinary Flower apps: numpy only, no torch, values that a test can predict."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedseal.client.mod import STORE_KEY, sealed_mod
from fedseal.privacy.ledger import open_terms
from fedseal.privacy.releases import Population
from fedseal.privacy.roster import Roster
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.store import ServerStore
from fedseal.simulation.grid import Deliver, LocalGrid
from support.keys import SERVER, key, make_roster, signed

OPEN_POLICY = """
version = 1
[cohort]
minimum = 2
[releases]
update = ["none", "local"]
moments = ["none", "local"]
evaluation = ["none"]
"""


@dataclass(frozen=True)
class Federation:
    """Stores of one federation, and a grid over them."""

    folder: Path
    roster: Roster
    sites: Mapping[int, Path]
    server: Path

    def site(self, number: int) -> SiteStore:
        """One site's store, opened anew."""
        return SiteStore.open(self.sites[number])

    def nodes(self, **config: str) -> dict[int, dict[str, Any]]:
        """Node 100 + i is site i."""
        return {100 + i: {STORE_KEY: str(path), "number": i, **config} for i, path in self.sites.items()}


def make_federation(
    folder: Path, sites: int, *, policy: str = OPEN_POLICY, epsilon: float = 10.0, order: float = 7.25, seed: int = 1
) -> Federation:
    """Enrol sites 1 to ``sites`` of a simulated federation."""
    roster = make_roster(sites)
    terms = tuple(open_terms(p.value, epsilon=epsilon, delta=1e-5, order=order) for p in Population)
    paths = {}
    for entry in roster.sites:
        paths[entry.site] = folder / f"{entry.name}.sqlite"
        enrolment = Enrolment(entry.site, key(entry.name), signed(roster), roster.digest(), policy, terms, seed)
        SiteStore.create(paths[entry.site], enrolment)
    server = folder / "server.sqlite"
    ServerStore.create(server, key=SERVER, roster=signed(roster), pinned=roster.digest())
    return Federation(folder, roster, paths, server)


@dataclass
class Script:
    """What the ordinary app does at each site: adds ``change[number]`` to every array, and reports some metrics."""

    change: Mapping[int, float] = field(default_factory=dict)
    examples: Mapping[int, int] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    error: Exception | None = None
    calls: list[int] = field(default_factory=list)

    def number(self, context: Context) -> int:
        """Which site this is."""
        value = context.node_config["number"]
        return int(value)

    def reply_metrics(self, number: int) -> MetricRecord:
        """Examples and scripted metrics."""
        record = MetricRecord({"num-examples": self.examples.get(number, 10)})
        for name, by_site in self.metrics.items():
            record[name] = by_site[number]
        return record


def ordinary_app(script: Script, *, sealed: bool = True) -> ClientApp:
    """A Flower app as anyone would write it; one argument seals it."""
    app = ClientApp(mods=[sealed_mod] if sealed else [])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = script.number(context)
        script.calls.append(number)
        if script.error is not None:
            raise script.error
        received = {n: a.numpy() for n, a in _arrays(message).items()}
        trained = {
            n: a + np.asarray(script.change.get(number, 0.0), dtype=a.dtype) * _pattern(a) for n, a in received.items()
        }
        content = RecordDict(
            {
                "arrays": ArrayRecord({n: Array(a.astype(received[n].dtype)) for n, a in trained.items()}),
                "metrics": script.reply_metrics(number),
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        number = script.number(context)
        return Message(RecordDict({"metrics": script.reply_metrics(number)}), reply_to=message)

    return app


def _arrays(message: Message) -> ArrayRecord:
    return next(iter(message.content.array_records.values()))


def _pattern(array: NDArray[Any]) -> NDArray[Any]:
    """A different multiple for every coordinate."""
    return np.linspace(-1, 1, array.size).reshape(array.shape).astype(array.dtype)


@contextmanager
def flower_task() -> Iterator[None]:
    """Flower's messages need a task identity; put back afterwards."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def local_grid(federation: Federation, app: ClientApp, *, deliver: Deliver | None = None) -> LocalGrid:
    """All sites of a federation in this process."""
    return LocalGrid(app, federation.nodes(), run_config={}, deliver=deliver)


def model() -> ArrayRecord:
    """Two small float32 arrays, in an order that is not that of their names."""
    return ArrayRecord(
        {
            "weight": Array(np.arange(12, dtype=np.float32).reshape(3, 4) / 7),
            "bias": Array(np.array([0.5, -0.25, 1.0], dtype=np.float32)),
        }
    )


def numpy_of(record: object) -> dict[str, NDArray[Any]]:
    """The arrays of an ArrayRecord by name."""
    if not isinstance(record, ArrayRecord):
        raise TypeError("not an ArrayRecord")
    return {name: array.numpy() for name, array in record.items()}


def train_messages(grid: Grid, arrays: ArrayRecord, message_type: str = "train") -> list[Message]:
    """What FedAvg would send to all nodes."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1, "lr": 0.1})})
    return [Message(content, dst_node_id=n, message_type=message_type) for n in grid.get_node_ids()]
