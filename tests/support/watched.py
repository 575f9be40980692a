"""Sites' resident nodes in this process, under a server's grid: what both log and count while rounds are made."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from support.federated import FACTS
from support.flower import PRIVATE, Federation, Script, flower_task, local_grid, model, ordinary_app

from fedseal.client.fleet import RunRecord
from fedseal.client.node import ResidentNode
from fedseal.client.site_config import Site
from fedseal.client.telemetry import SiteTelemetry
from fedseal.errors import FedsealError
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

TASK = "task:Task"


class Outlet:
    """What a node needs of its connection; keeps the last answer."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.last: Message | None = None

    def join(self, before: int = 0) -> int:
        return self.node

    def leave(self) -> None:
        pass

    def beat(self) -> bool:
        return True

    def next(self) -> Message | None:
        return None

    def run(self, run: int) -> RunRecord:
        return RunRecord({}, 1)

    def answer(self, message: Message, reply: Message) -> None:
        self.last = reply


def site_of(federation: Federation, number: int) -> Site:
    """As `read_site` would give it."""
    place = federation.sites[number]
    study = SimpleNamespace(folder=federation.folder, contract=SimpleNamespace(task=TASK))
    return cast(
        Site,
        SimpleNamespace(
            address="127.0.0.1:1",
            store=place,
            data=federation.folder,
            study=study,
            epoch=None,
            authority=Path(federation.folder / "authority.pem"),
            check_code=lambda: None,
        ),
    )


@dataclass
class Watched:
    """A federation whose messages pass through a `ResidentNode` at every site."""

    federation: Federation
    script: Script
    telemetry: dict[int, SiteTelemetry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        app = ordinary_app(self.script)
        self.nodes: dict[int, ResidentNode] = {}
        self.outlets: dict[int, Outlet] = {}
        for number in self.federation.sites:
            site = site_of(self.federation, number)
            self.telemetry[number] = SiteTelemetry(site, 60.0)
            self.outlets[number] = Outlet(100 + number)
            self.nodes[number] = ResidentNode(self.outlets[number], site, numbered(app, number), self.telemetry[number])
            self.nodes[number]._join()
            self.nodes[number]._watch(connected=True)

    def deliver(self, app: ClientApp, message: Message, context: Context) -> Message | None:
        """The way of a message, by the node's own functions."""
        number = int(context.node_config["number"])
        with identity_kept():
            self.nodes[number]._answer(message)
        return self.outlets[number].last

    def train(self, rounds: int = 1) -> FedsealError | None:
        """Make rounds; what a run that failed failed with."""
        with flower_task():
            strategy = FedAvg(fraction_evaluate=0.0)
            sealed = SealedGrid(
                local_grid(self.federation, ordinary_app(self.script), deliver=self.deliver),
                strategy,
                store=self.federation.server,
                max_examples=100,
                plan=PRIVATE,
                cohort=CohortRules(minimum=2, retries=1),
                facts=FACTS,
            )
            try:
                result = strategy.start(sealed, model(), num_rounds=rounds, train_config=ConfigRecord())
            except FedsealError as error:
                return error
            sealed.close(rounds=rounds, model={name: np.asarray(a.numpy()) for name, a in dict(result.arrays).items()})
        return None


def numbered(app: ClientApp, number: int) -> ClientApp:
    """The app of one site: the ordinary one asks its node's configuration which site it is."""

    def run(message: Message, context: Context) -> Message:
        config: Mapping[str, bool | int | float | str] = {**context.node_config, "number": number}
        return app(message, Context(context.run_id, context.node_id, dict(config), context.state, context.run_config))

    return cast(ClientApp, run)


@contextmanager
def identity_kept() -> Iterator[None]:
    """A node says who it is to Flower, which holds that for the whole process."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before
