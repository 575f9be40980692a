"""A process that trains until it is killed, and writes down everything that has left a site.

    python victim.py FOLDER PLAN

PLAN is none or local.

Each line of FOLDER/sent.jsonl is one answer that a site has given: it is written after the site returned it, as a
network would carry it.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from support.flower import PRIVATE, Federation, Script, flower_task, local_grid, model, ordinary_app, train_messages
from support.keys import make_roster

from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.secagg.messages import Refusal, Signed, Stage
from fedseal.server.exchange import control_of, vector_of
from fedseal.server.grid import UNPLANNED, SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.wire import DecodeError, decode

SITES = 3
# More rounds than are trained before the end.
PLANS: dict[str, PrivacyPlan] = {"none": UNPLANNED, "local": replace(PRIVATE, releases=10_000)}


def existing(folder: Path) -> Federation:
    """The federation whose stores are in a folder."""
    roster = make_roster(SITES)
    return Federation(
        folder, roster, {s.site: folder / f"{s.name}.sqlite" for s in roster.sites}, folder / "server.sqlite"
    )


def main(folder: Path, plan: str) -> None:
    """Round after round."""
    federation = existing(folder)
    with (folder / "sent.jsonl").open("a", encoding="utf-8") as sent:

        def deliver(app: ClientApp, message: Message, context: Context) -> Message:
            reply = app(message, context)
            line = {"site": context.node_config["number"], **_fact(reply)}
            sent.write(json.dumps(line) + "\n")
            sent.flush()
            os.fsync(sent.fileno())
            return reply

        script = Script({1: 0.5, 2: -1.0, 3: 2.0}, done=True)
        grid = local_grid(federation, ordinary_app(script), deliver=deliver)
        sealed = SealedGrid(
            grid,
            FedAvg(),
            store=federation.server,
            max_examples=10,
            plan=PLANS[plan],
            cohort=CohortRules(minimum=3, stage_timeout=0.0),
        )
        print("training", flush=True)
        while True:
            list(sealed.send_and_receive(train_messages(grid, model())))


def _fact(reply: Message) -> dict[str, str]:
    """Which kind of answer this is, of which round."""
    kinds: tuple[type[Signed | Refusal], ...] = (Signed, Refusal)
    try:
        message = decode(control_of(reply) or b"", *kinds)
    except DecodeError:
        return {"kind": "other"}
    if isinstance(message, Refusal):
        return {"kind": f"refusal {message.code}"}
    masked = vector_of(reply) is not None
    return {"kind": "masked" if masked else Stage(message.stage).label, "session": message.header_hash.hex()}


if __name__ == "__main__":
    with flower_task():
        main(Path(sys.argv[1]), sys.argv[2])
