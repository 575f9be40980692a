"""The same ServerApp, writing down what happens: `app` is what `fedseal run` names as its serverapp.

In a deployed run nobody sits beside the server. So the folder that the run's configuration names as its output gets a
line of JSON in events.jsonl for everything a `RoundObserver` is told, one for an error of ours, and the final model.
Everything in it is public to the coordinator.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import safetensors.numpy
from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from fedseal.errors import FedsealError
from fedseal.privacy.inference.evaluation import estimates
from fedseal.privacy.inference.tally import Tally
from fedseal.privacy.planning import RunPlans
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.server.app import RunConfig
from fedseal.server.app import main as run_study
from fedseal.server.means import Means
from fedseal.server.progress import Progress, write_progress
from fedseal.server.rounds import Arrays, RoundRecord
from fedseal.server.statistics import Moments

OUTPUT_KEY = "fedseal-output"
EVENTS = "events.jsonl"
MODEL = "model.safetensors"
# Bytes. Of a line with all of a round's, several times over.
LONGEST_LINE = 1 << 20

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a study to its end and write it down.

    Raises:
        ConfigError: the run's configuration names no output.
        FedsealError: as the study's run does; written down, too.
    """
    events = Events(Path(RunConfig(context).text(OUTPUT_KEY)))
    events.write("started")
    try:
        run_study(RecordingGrid(grid, events), context)
    except FedsealError as error:
        events.write("failed", error=type(error).__name__, message=error.message, next_step=error.next_step)
        raise


class Events:
    """One line of JSON an event, on disk before the run goes on; whoever follows a run reads whole lines only.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, event: str, **facts: Any) -> None:
        """Add an event with the time of day; OSError if it could not be put on disk."""
        line = json.dumps({"event": event, "time": time.time(), **facts}) + "\n"
        with (self.folder / EVENTS).open("a+b", buffering=0) as file:
            cut_half_a_line(file)
            content = line.encode("utf-8")
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())


def cut_half_a_line(file: FileIO) -> None:
    """Take away what a full disk, or the end of the process, left behind the last whole line."""
    length = file.seek(0, os.SEEK_END)
    start = max(length - LONGEST_LINE, 0)
    file.seek(start)
    rest = file.read(length - start)
    if rest and not rest.endswith(b"\n"):
        file.truncate(start + rest.rfind(b"\n") + 1)


class RecordingGrid(Grid):
    """Any Grid, and a `RoundObserver` that writes events; where a round stands goes into a small file beside them.

    Args:
        grid: carries the messages.
        events: where to write.
    """

    def __init__(self, grid: Grid, events: Events) -> None:
        self._grid = grid
        self._events = events
        self._round = -1
        self._asked = 0
        self._lost: dict[str, int] = {}

    # A StageObserver

    def stage_began(self, header: Header, stage: Stage, asked: int) -> None:
        """Say where the run stands."""
        if header.fl_round != self._round:
            self._round, self._asked, self._lost = header.fl_round, asked, {}
        standing = Progress(time.time(), header.release_name, header.fl_round, header.attempt, stage.label, asked)
        write_progress(self._events.folder, standing)

    def stage_ended(self, header: Header, stage: Stage, lost: int) -> None:
        """Count who fell out."""
        if lost:
            self._lost[stage.label] = self._lost.get(stage.label, 0) + lost

    # A RoundObserver

    def run_planned(self, plans: RunPlans, moments: Moments | None, run: bytes) -> None:
        """Write down the run's id and the federation's moments."""
        found = {} if moments is None else {"mean": list(moments.mean), "deviation": list(moments.deviation)}
        self._events.write("planned", run=run.hex(), plan=plans.update.kind.name.lower(), moments=found)

    def round_finished(self, record: RoundRecord) -> None:
        """Write down what the round took."""
        stages = {name: {"seconds": c.seconds, "up": c.bytes_up} for name, c in record.stages.items()}
        self._events.write(
            "round",
            number=record.number,
            seconds=record.seconds,
            sites=record.sites,
            asked=self._asked,
            lost=self._lost,
            attempts=record.attempts,
            stages=stages,
            metrics=record.metrics,
        )

    def run_evaluated(self, tally: Tally) -> None:
        """Write down what the private evaluation says of the final model, with its noise intervals."""
        found = {name: asdict(estimate) for name, estimate in estimates(tally).items()}
        self._events.write("evaluated", sites=tally.sites, estimates=found)

    def run_personalised(self, means: Means) -> None:
        """Write down what the sites' fine-tuned models came to, on all their test persons together."""
        self._events.write("personalised", means=means)

    def run_finished(self, model: Arrays) -> None:
        """Write the model, then say that it is there."""
        content = safetensors.numpy.save(model)
        (self._events.folder / MODEL).write_bytes(content)
        self._events.write("finished", model_sha256=hashlib.sha256(content).hexdigest())

    # A Grid

    def set_run(self, run: Run) -> None:
        """Pass on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Pass on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Pass on."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Pass on."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass on."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass on."""
        return self._grid.send_and_receive(messages, timeout=timeout)
