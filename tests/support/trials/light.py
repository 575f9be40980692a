"""A resident node whose task is numpy: all of a site's node but torch. As a program: --config FILE, and --note FILE
where it is to write down what it answers; several files for several nodes.

The node, its connection, the seal, the policy, the ledger and the store are those of `fedseal site run`; only the
function behind the seal is this file's.
"""

import argparse
import contextlib
import hashlib
import os
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from support.trials.task import clipped_sums, read_rows, stepped

from fedseal.cli.resident import handle_signals
from fedseal.client.fleet import Fleet
from fedseal.client.mod import DATA_KEY, sealed_mod
from fedseal.client.node import ResidentNode
from fedseal.client.records import CONTROL, arrays_of, control_bytes
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE
from fedseal.client.running import alone
from fedseal.client.site_config import read_site
from fedseal.operation.logs import log_to_stderr
from fedseal.privacy.plan import PlanKind, decode_plan
from fedseal.privacy.runs import ControlMessage
from fedseal.privacy.secagg.messages import Refusal, ShareReply, Signed, Stage
from fedseal.wire import DecodeError, decode

Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]


def train(message: Message, context: Context) -> Message:
    """What a site computes behind the seal."""
    rows = read_rows(Path(str(context.node_config[DATA_KEY])))
    (received,) = (arrays_of(record) for record in message.content.array_records.values())
    facts = message.content.config_records[CONTROL]
    metrics = MetricRecord({"num-examples": len(rows)})
    if decode_plan(cast(bytes, facts["plan"])).kind is PlanKind.DISTRIBUTED:
        (limit,) = cast(list[float], facts["ranges"])
        arrays: dict[str, NDArray[np.float64]] | dict[str, NDArray[np.float32]] = clipped_sums(received, rows, limit)
    else:
        arrays = stepped(received, rows)
    done = ConfigRecord({DONE_RELEASE: facts["release"], DONE_PLAN: facts["plan"]})
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return Message(RecordDict({DONE: done, "arrays": record, "metrics": metrics}), reply_to=message)


def light_app(note: Path | None = None, *, mod: Mod = sealed_mod) -> ClientApp:
    """The ClientApp.

    Args:
        note: gets a line for every answer before it is sent: the digests of the request and of the answer.
        mod: the seal; another one in tests that show what it is good for.
    """

    def noting(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        reply = call_next(message, context)
        if note is not None:
            write_note(note, message, reply)
        return reply

    app = ClientApp(mods=[noting, mod])
    app.train()(train)
    return app


def write_note(note: Path, message: Message, reply: Message) -> None:
    """One line, in one piece: what was asked, what is answered, at which stage of which session. Without what either
    says of the log, which goes on.
    """
    vector = [a.data for record in reply.content.array_records.values() for a in record.values()]
    answer = hashlib.sha256(b"".join([control_bytes(reply), *vector])).hexdigest()
    line = f"{hashlib.sha256(control_bytes(message)).hexdigest()} {answer} {place_of(control_bytes(reply))}\n"
    handle = os.open(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line.encode("ascii"))
    finally:
        os.close(handle)


def place_of(control: bytes) -> str:
    """The stage and session of an answer; dashes for one outside a round, and for a refusal."""
    try:
        said = decode(control, Signed, ShareReply, ControlMessage, Refusal)
    except DecodeError:
        return "- -"
    match said:
        case Signed():
            return f"{said.stage} {said.header_hash.hex()}"
        case ShareReply():
            return f"{int(Stage.SHARE)} {said.head.header_hash.hex()}"
        case _:
            return "- -"


def main() -> None:
    """Serve until SIGTERM. Of several files each gets a process of its own, forked from this one once the program is
    loaded: so many of them start at once on a small machine.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, nargs="+")
    parser.add_argument("--note", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    log_to_stderr("text")
    last = len(options.config) - 1
    for number, (config, note) in enumerate(zip_longest(options.config, options.note)):
        if number == last or os.fork() == 0:
            serve(config, note)
            return


def serve(config: Path, note: Path | None) -> None:
    """One node, as `fedseal site run` has it but for the task."""
    site = read_site(config)
    node = ResidentNode(Fleet(site.address, site.trust, site.key), site, light_app(note))
    handle_signals(node)
    with contextlib.suppress(KeyboardInterrupt), alone(site.store):
        node.run()


if __name__ == "__main__":
    main()
