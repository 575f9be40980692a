"""What a trial's model has to be: that of a simulation of the same contract, with the very app that the nodes run."""

from pathlib import Path

import safetensors.numpy
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from support.trials.light import light_app
from support.trials.oracle import Absent
from support.trials.study import Federation, run_config
from support.trials.task import PERSONS

from fedseal.client.mod import DATA_KEY, STORE_KEY
from fedseal.client.records import control_bytes
from fedseal.client.requests import STAGES, decode_request
from fedseal.privacy.secagg.header import AdvertiseRequest
from fedseal.privacy.secagg.messages import Stage
from fedseal.server.app import app as server_app
from fedseal.simulation.federation import FIRST_NODE, enrol
from fedseal.simulation.grid import LocalGrid, Observer, answer_of


def simulated(federation: Federation, folder: Path, missing: Absent | None = None) -> bytes:
    """The model's bytes, as a run's folder would hold them. Only under plan none are they those of every run.

    Args:
        federation: whose contract and data.
        folder: a new folder for the simulation's stores.
        missing: who falls silent in which round, once they have advertised, and who declines before which round.
    """
    absent, reached = missing or Absent(), 0

    def deliver(app: ClientApp, message: Message, context: Context) -> Message | None:
        nonlocal reached
        stage = stage_of(message)
        group, site = message.metadata.group_id, context.node_id - FIRST_NODE + 1
        if stage is None:
            # What greets a site stands before the round that it is greeted for.
            return None if site in absent.unasked.get(reached + 1, ()) else answer_of(app, message, context)
        number = int(group) if group.isdigit() else 0
        reached = max(reached, number)
        if stage is not Stage.ADVERTISE and site in absent.silent.get(number, ()):
            return None
        return answer_of(app, message, context)

    shape, contract = federation.shape, federation.study.contract
    made = enrol(folder, contract, federation.plans, dict.fromkeys(shape.names, PERSONS), seed=1)
    nodes = {
        FIRST_NODE + number: {STORE_KEY: str(store), DATA_KEY: str(federation.data[name])}
        for number, (name, store) in enumerate(made.site_stores.items())
    }
    found: list[bytes] = []
    observer = Observer(
        planned=lambda *_: None,
        round_finished=lambda _: None,
        finished=lambda model: found.append(safetensors.numpy.save(model)),
    )
    config = run_config(shape, made.server_store, made.folder, contract)
    LocalGrid(light_app(), nodes, run_config=config, observer=observer, deliver=deliver).serve(server_app, seed=1)
    return found[-1]


def stage_of(message: Message) -> Stage | None:
    """The stage of a request; None for one outside a round."""
    request = decode_request(control_bytes(message))
    if isinstance(request, AdvertiseRequest):
        return Stage.ADVERTISE
    return next((stage for kind, stage in STAGES.items() if isinstance(request, kind)), None)
