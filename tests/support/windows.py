"""A federation whose windows lie on disk: real sites of the tiny study, released by the whole protocol."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from support.flower import Federation, flower_task, make_federation
from support.studies import TINY

from fedseal.client.app import client_app
from fedseal.client.facts import WINDOWS_KEY
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.privacy.plan import NoPrivacy, SharedGeometric
from fedseal.privacy.watch import Watch
from fedseal.server.grid import SealedGrid
from fedseal.server.monitoring.outcome import Shares, WindowSum
from fedseal.server.monitoring.policy import MonitorTable, watch_of
from fedseal.server.monitoring.release import Watched, federation_reference, release_window
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import Deliver, LocalGrid

SITES = 5
POLICY = """
version = 1
[cohort]
minimum = 2
[releases]
counts = ["none", "histogram"]
drift = {drift}
"""
RUN_CONFIG = {"fedseal-task": "task:Blobs"}
MODEL = {"weight": np.full((1, 3), 0.8, np.float32), "bias": np.array([-1.4], np.float32)}
TABLE = MonitorTable(epsilon=4.0, reference_epsilon=4.0, bins=8, min_sites=4, k_min=20, windows_per_year=12)
NONE = NoPrivacy(releases=9, retries=0)


def persons(rng: np.random.Generator, count: int, *, shift: float = 0.0, wrong: float = 0.0) -> pd.DataFrame:
    """The tiny study's blobs; ``wrong``: which share of labels is the other one."""
    label = rng.integers(0, 2, count)
    points = rng.normal(size=(count, 3)) + 1.2 * label[:, None] + shift
    table = pd.DataFrame(points.round(4), columns=["a", "b", "c"])
    table["label"] = np.where(rng.random(count) < wrong, 1 - label, label)
    table["person"] = np.arange(count)
    return table


class Watching:
    """A federation with windows on disk."""

    def __init__(
        self,
        folder: Path,
        *,
        drift: str = '["histogram"]',
        epsilon: float = 100.0,
        deliver: Deliver | None = None,
        minimum: int = 3,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        policy = POLICY.format(drift=drift)
        self.federation: Federation = make_federation(folder, SITES, policy=policy, epsilon=epsilon, order=256.0)
        nodes = self.federation.nodes(**{STUDY_KEY: str(TINY)})
        for number, config in zip(self.federation.sites, nodes.values(), strict=True):
            config[DATA_KEY] = str(self.write("data", number, persons(np.random.default_rng(number), 800)))
            config[WINDOWS_KEY] = str(folder / "windows" / str(number))
        self.grid = SealedGrid(
            LocalGrid(client_app(), nodes, run_config=RUN_CONFIG, deliver=deliver),
            FedAvg(),
            store=self.federation.server,
            max_examples=2000,
            cohort=CohortRules(minimum=minimum, colluders=1, retries=0, stage_timeout=0.0),
            run_config=RUN_CONFIG,
        )

    def write(self, kind: str, site: int, table: pd.DataFrame, window: int | None = None) -> Path:
        folder = self.folder / kind / str(site)
        folder = folder if window is None else folder / str(window)
        folder.mkdir(parents=True)
        table.to_csv(folder / "persons.csv", index=False)
        return folder

    def window(self, number: int, *, sites: tuple[int, ...] = (), count: int = 400, **changes: float) -> None:
        """Everyone has a window; only ``sites`` have changed."""
        for site in self.federation.sites:
            rng = np.random.default_rng([number, site])
            table = persons(rng, count, **(changes if site in sites else {}))
            self.write("windows", site, table, number)

    def report(self, site: int, window: int) -> Any:
        store = self.federation.sites[site]
        path = store.with_name(f"{store.stem}-windows") / f"window-{window:06d}.json"
        return json.loads(path.read_text(encoding="utf-8"))


def watch(private: bool = True) -> Watch:
    return watch_of(TABLE, classes=2, private=private)


def released(site: Watching, number: int, plan: NoPrivacy | SharedGeometric, asked: Watch | None = None) -> WindowSum:
    with flower_task():
        return release_window(site.grid, Watched(asked or watch(), MODEL, most=2000), plan, number=number)


def shares(site: Watching) -> Shares:
    with flower_task():
        return federation_reference(site.grid, Watched(watch(), MODEL, most=2000), epsilon=2.0, most=2000)


def gone(*numbers: int) -> Deliver:
    """Sites that never answer."""

    def deliver(app: ClientApp, message: Message, context: Context) -> Message | None:
        return None if int(str(context.node_config["number"])) in numbers else app(message, context)

    return deliver
