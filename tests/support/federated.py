"""A federation that really ran: sites' stores, sealed rounds, a log that the sites witnessed; some answers are lost."""

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from support.flower import PRIVATE, Federation, Script, flower_task, local_grid, make_federation, model, ordinary_app

from fedseal.server.grid import SealedGrid
from fedseal.server.logbook import RunFacts
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import answer_of

STAGES = 5
FACTS = RunFacts(study="study", contract="sha256:" + 64 * "c", strategy="FedAvg", rounds=2)


def run(federation: Federation, *, rounds: int = 2, runs: int = 1, lost: Collection[int] = ()) -> None:
    """Train for some rounds. ``lost``: which answers of site 1, counted from its first, never arrive."""
    count = 0

    def deliver(app: ClientApp, message: Message, context: Context) -> Message | None:
        nonlocal count
        answer = answer_of(app, message, context)
        if int(context.node_config["number"]) != 1:
            return answer
        count += 1
        return None if count - 1 in lost else answer

    arrays = model()
    with flower_task():
        for _ in range(runs):
            strategy = FedAvg(fraction_evaluate=0.0)
            script = Script({n: float(n) for n in federation.sites}, done=True)
            sealed = SealedGrid(
                local_grid(federation, ordinary_app(script), deliver=deliver),
                strategy,
                store=federation.server,
                max_examples=100,
                plan=PRIVATE,
                cohort=CohortRules(minimum=2),
                facts=FACTS,
            )
            result = strategy.start(sealed, arrays, num_rounds=rounds, train_config=ConfigRecord())
            arrays = ArrayRecord(dict(result.arrays))
            sealed.close(rounds=rounds, model={name: np.asarray(a.numpy()) for name, a in arrays.items()})


def trained(folder: Path, *, sites: int = 3) -> Federation:
    """A new federation that has run once."""
    federation = make_federation(folder, sites, epsilon=50.0)
    run(federation)
    return federation


def copied(federation: Federation, folder: Path) -> Federation:
    """The same stores in another folder, to be changed."""
    shutil.copytree(federation.folder, folder)
    sites = {number: folder / path.name for number, path in federation.sites.items()}
    return Federation(folder, federation.roster, sites, folder / federation.server.name)
