"""What runs in a worker: nodes of a simulation, one after the other, in a process of its own.

It speaks to the process that forked it through a pipe, in notes of a few bytes that say where in the shared memory
something stands. So neither ever waits for the other to read a long message.
"""

import ctypes
import gc
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedseal.errors import ConfigError, FedsealError
from fedseal.simulation.engine.area import SharedArea
from fedseal.simulation.engine.codec import Reader, Records, Writer, quick_saves
from fedseal.simulation.grid import SERVER_NODE, Contexts, Deliver, Setting, answer_of

# Loaded by the process that forks the workers, if it wants sums.
if TYPE_CHECKING:
    from fedseal.privacy.secagg.masks import RingVector
    from fedseal.simulation.engine.sums import PartialSum, SumOrder

# glibc's names and largest values, see mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGEST_KEPT = 1 << 28, 1 << 25
# Seconds.
PARENT_POLL = 1.0


class Note(NamedTuple):
    """Where something stands in the sender's memory. ``turn`` says in which of a worker's two."""

    turn: int
    place: int
    length: int


class Begin(NamedTuple):
    """A run begins: nobody remembers anything."""

    run_config: Mapping[str, Setting]


class Letter(NamedTuple):
    """A message to a node. ``number``: which of its push."""

    number: int
    config: Mapping[str, Setting]
    metadata: Metadata
    records: Records


class Work(NamedTuple):
    """Messages to be delivered one after the other. ``push`` says which of the run, ``order`` how to sum replies."""

    push: int
    letters: list[Letter]
    order: "SumOrder | None"


class Total(NamedTuple):
    """A worker is asked what it has added up."""


class Answer(NamedTuple):
    """What became of a letter.

    ``kept``: the node left something in this worker, and has to run here again. Without metadata the node did not
    answer, or its reply is in the sum.
    """

    number: int
    kept: bool
    metadata: Metadata | None = None
    records: Records | None = None
    error: tuple[int, str | None] | None = None
    summed: bool = False


class Done(NamedTuple):
    """What became of some work, and what was logged meanwhile."""

    answers: list[Answer]
    logged: list[logging.LogRecord]


class Part(NamedTuple):
    """What a worker has added up, of how many sites."""

    sites: int
    vector: "RingVector | None"


class Failed(NamedTuple):
    """The run cannot go on. ``kind``: how to say so."""

    kind: type[BaseException]
    message: str
    advice: str
    trace: str


Request = Begin | Work | Total
Response = Done | Part | Failed


@dataclass(frozen=True, slots=True)
class Ends:
    """What a worker is given when it is forked: its end of the pipe, the memory it reads and the two it writes."""

    pipe: Connection
    inbox: SharedArea
    outboxes: tuple[SharedArea, SharedArea]


def run_worker(ends: Ends, app: ClientApp, deliver: Deliver | None) -> None:
    """Serve until the other end of the pipe is closed."""
    # Who interrupts a simulation interrupts its first process, which then ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _one_thread()
    _keep_memory()
    # What was loaded before the fork stays: looking through it for garbage costs time, and a copy of each page.
    gc.freeze()
    quick_saves()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER_NODE, 1
    worker = Worker(ends, app, deliver or answer_of, _collected_log())
    while True:
        try:
            note = ends.pipe.recv()
        except (EOFError, OSError):
            return
        worker.respond(note)


class Worker:
    """The nodes of one worker."""

    def __init__(
        self, ends: Ends, app: ClientApp, deliver: Deliver, logged: "queue.SimpleQueue[logging.LogRecord]"
    ) -> None:
        self._ends, self._app, self._deliver, self._logged = ends, app, deliver, logged
        self._configs: dict[int, Mapping[str, Setting]] = {}
        self._contexts = Contexts(self._configs, {})
        self._push = -1
        self._reader = Reader(ends.inbox)
        self._sum: PartialSum | None = None

    def respond(self, note: Note) -> None:
        """Do what is asked and say what became of it."""
        request: Request = pickle.loads(self._ends.inbox.get(note.place, note.length))  # noqa: S301
        outbox = self._ends.outboxes[note.turn]
        outbox.clear()
        response: Response
        try:
            response = self._response(request, Writer(outbox))
        # Whatever it is, it ends the run, and it is for the other process to say so.
        except BaseException as error:  # noqa: BLE001
            response = _failed(error)
        raw = pickle.dumps(response, pickle.HIGHEST_PROTOCOL)
        self._ends.pipe.send(Note(note.turn, outbox.put(raw), len(raw)))

    def _response(self, request: Request, writer: Writer) -> Response:
        match request:
            case Begin(run_config):
                self._configs.clear()
                self._contexts = Contexts(self._configs, run_config)
                self._push = -1
                return Done([], [])
            case Total():
                part, self._sum = self._sum, None
                return Part(0, None) if part is None else Part(part.sites, part.vector)
            case Work(push, letters, order):
                if push != self._push:
                    self._push, self._reader = push, Reader(self._ends.inbox)
                    self._sum = None if order is None else order.begun()
                answers = [self._answer(letter, writer) for letter in letters]
                return Done(answers, [self._logged.get() for _ in range(self._logged.qsize())])

    def _answer(self, letter: Letter, writer: Writer) -> Answer:
        node = letter.metadata.dst_node_id
        self._configs[node] = letter.config
        context = self._contexts.of(node)
        message = make_message(letter.metadata, self._reader.content(letter.records))
        reply = self._deliver(self._app, message, context)
        kept = self._contexts.settle(context)
        if not kept:
            del self._configs[node]
        if reply is None:
            return Answer(letter.number, kept)
        if reply.has_error():
            error: Error = reply.error
            return Answer(letter.number, kept, reply.metadata, None, (error.code, error.reason))
        if self._sum is not None:
            self._sum.add(message, reply)
            return Answer(letter.number, kept, summed=True)
        return Answer(letter.number, kept, reply.metadata, writer.records(reply.content))


def reply_in(answer: Answer, reader: Reader) -> Message | None:
    """A node's reply; None if there is none."""
    if answer.metadata is None:
        return None
    if answer.error is not None:
        return make_message(answer.metadata, error=Error(*answer.error))
    return make_message(answer.metadata, reader.content(answer.records or ()))


def _failed(error: BaseException) -> Failed:
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return Failed(type(error), str(error), "", trace)
    if isinstance(error, FedsealError):
        return Failed(
            ConfigError if isinstance(error, ConfigError) else FedsealError, error.message, error.next_step, trace
        )
    return Failed(FedsealError, f"{type(error).__name__} in a worker: {error}", "", trace)


def _end_with(parent: int) -> None:
    """End this process soon after the one that forked it, also in the middle of an app's work."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL)
    os._exit(1)


def _one_thread() -> None:
    """torch on one thread in each worker, also where the app imports it only later."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _keep_memory() -> None:
    """Have the C library keep what is freed, up to a bound.

    A node's arrays are as large as the last node's. Given back to the system and asked for again, they cost more than
    what is computed on them: each page is cleared and mapped anew.
    """
    library = ctypes.CDLL(None)
    # Not every C library has it, and nothing depends on it.
    if hasattr(library, "mallopt"):
        library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


def _collected_log() -> "queue.SimpleQueue[logging.LogRecord]":
    """What is logged here is handed to the first process, which knows where it goes."""
    logged: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logging.getLogger().handlers = [logging.handlers.QueueHandler(logged)]
    return logged
