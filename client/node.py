"""A site's resident node: one process that stays, keeps the site's model, data, keys and store warm, and runs only
code that is installed and approved at the site.

To the server it is an ordinary Flower SuperNode. It fetches no bundle: a message says what to do, never by which code.

What it survives without an operator: a server that restarts, which gives it another number; a network that is lost
for a while; its own end at any point, for what it answered is in the store and is answered again; a clock that is
set. It stops between two messages, so that stopping it costs nothing.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedseal.client.fleet import (
    DeclinedError,
    FleetError,
    NotAdmittedError,
    RunRecord,
    UnreachableError,
    identify,
    refusal,
)
from fedseal.client.mod import DATA_KEY, STORE_KEY, STUDY_KEY, sealed_mod
from fedseal.client.site_config import Site
from fedseal.client.telemetry import SiteTelemetry, outcome_of, stage_of
from fedseal.operation.events import (
    AnswerNotArrived,
    AnswerUnwanted,
    Connected,
    ConnectionLost,
    MessageAnswered,
    MessageNotFetched,
    MessageTooLate,
    NumberNotKept,
    OtherTask,
    StudyWithin,
)
from fedseal.operation.logs import say

if TYPE_CHECKING:
    from fedseal.client.app import Warm

log = logging.getLogger("fedseal.node")

# Seconds. A server of ours holds the question for work until there is some; another one is asked again and again.
FASTEST_POLL, SLOWEST_POLL = 0.02, 2.0
HELD = 0.5
FIRST_RETRY, SLOWEST_RETRY = 0.2, 3.0
HEARTBEAT_EVERY, HEARTBEAT_RETRY = 10.0, 2.0
# Runs whose record is kept; a record is asked for again if it is needed.
KNOWN_RUNS = 16
KINDS = ("train", "evaluate")
NOT_APPROVED = "The run names another task than the one that this site has approved."
TASK = "fedseal-task"


class Server(Protocol):
    """What a node needs of its connection; `Fleet` says what each does and raises."""

    @property
    def node(self) -> int: ...

    def join(self, before: int = 0) -> int: ...

    def leave(self) -> None: ...

    def beat(self) -> bool: ...

    def next(self) -> Message | None: ...

    def run(self, run: int) -> RunRecord: ...

    def answer(self, message: Message, reply: Message) -> None: ...


class ResidentNode:
    """One site's node. `run` serves until `stop` is called.

    Args:
        server: the connection.
        site: whose node it is.
        app: what is run on a message; see `resident_app`.
        telemetry: told what happens, if there is one.
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        server: Server,
        site: Site,
        app: ClientApp,
        telemetry: SiteTelemetry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._site = site
        self._app = app
        self._telemetry = telemetry
        self._clock = clock
        self._stopped, self._lost = threading.Event(), threading.Event()
        self._runs: OrderedDict[int, RunRecord] = OrderedDict()
        self._number = NumberFile(site.store)
        self.busy = False

    def run(self) -> None:
        """Serve until stopped, whatever happens to the connection; then leave."""
        beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beating.start()
        pause = FIRST_RETRY
        try:
            while not self._stopped.is_set():
                try:
                    self._join()
                    pause = FIRST_RETRY
                    self._watch(connected=True)
                    self._serve()
                except FleetError as error:
                    say(log, ConnectionLost(str(error)))
                    self._watch(connected=False)
                    self._stopped.wait(pause)
                    pause = min(2 * pause, SLOWEST_RETRY)
        finally:
            self._watch(connected=False)
            self._stopped.set()
            self._server.leave()
            self._number.forget()

    def stop(self) -> None:
        """Stop after the message that is being worked at."""
        self._stopped.set()

    def _join(self) -> None:
        number = self._server.join(self._number.read())
        try:
            self._number.write(number)
        except OSError as error:
            # A full disk: only a server of another make asks for the number of before.
            say(log, NumberNotKept(error.strerror or type(error).__name__))
        self._lost.clear()
        say(log, Connected(self._site.address, number))

    def _watch(self, *, connected: bool) -> None:
        if self._telemetry is not None:
            self._telemetry.connection(connected=connected)

    def _serve(self) -> None:
        pause = FASTEST_POLL
        while not self._stopped.is_set() and not self._lost.is_set():
            asked = self._clock()
            try:
                message = self._server.next()
            except DeclinedError as error:
                say(log, MessageNotFetched(str(error)))
                message = None
            if message is not None:
                self.busy = True
                try:
                    self._answer(message)
                finally:
                    self.busy = False
                pause = FASTEST_POLL
            elif self._clock() - asked < HELD:
                self._stopped.wait(pause)
                pause = min(1.5 * pause, SLOWEST_POLL)

    def _answer(self, message: Message) -> None:
        run = message.metadata.run_id
        try:
            record = self._record(run)
        except DeclinedError:
            say(log, MessageTooLate())
            return
        begun = self._clock()
        reply = self._reply(message, record)
        seconds = self._clock() - begun
        stage, outcome = stage_of(message), outcome_of(reply)
        say(log, MessageAnswered(message.metadata.group_id, stage, outcome, round(seconds, 3)))
        if self._telemetry is not None:
            self._telemetry.answered(stage, outcome, seconds)
        self._send(message, reply)

    def _reply(self, message: Message, record: RunRecord) -> Message:
        if message.metadata.message_type not in KINDS:
            return refusal(message, "This site answers train and evaluate messages only.")
        if record.config.get(TASK, self._site.study.contract.task) != self._site.study.contract.task:
            say(log, OtherTask())
            return refusal(message, NOT_APPROVED)
        run, node = message.metadata.run_id, self._server.node
        context = Context(run, node, node_config(self._site), RecordDict(), dict(record.config), record.series)
        identify(run, node)
        # The mod answers whatever the study's code raises; it lets nothing through but the end of the process.
        return self._app(message, context)

    def _send(self, message: Message, reply: Message) -> None:
        """Until it has arrived: a server of another make does not give a message out twice."""
        pause = FIRST_RETRY
        while True:
            try:
                self._server.answer(message, reply)
            except DeclinedError as error:
                say(log, AnswerUnwanted(str(error)))
            except UnreachableError as error:
                if not self._stopped.wait(pause):
                    say(log, AnswerNotArrived(str(error)))
                    pause = min(2 * pause, SLOWEST_RETRY)
                    continue
            return

    def _record(self, run: int) -> RunRecord:
        if run not in self._runs:
            self._runs[run] = self._server.run(run)
            if len(self._runs) > KNOWN_RUNS:
                self._runs.popitem(last=False)
        return self._runs[run]

    def _beat(self) -> None:
        """In a thread of its own, so that the server hears of a node that trains."""
        pause = HEARTBEAT_EVERY
        while not self._stopped.wait(pause):
            pause = HEARTBEAT_EVERY
            if not self._server.node:
                continue
            try:
                known = self._server.beat()
            except UnreachableError:
                pause = HEARTBEAT_RETRY
            except (NotAdmittedError, DeclinedError):
                self._lost.set()
            else:
                if not known:
                    self._lost.set()


class NumberFile:
    """The node's number at the server, beside the site's store, while the node is connected.

    A process that finds one there follows one that has not left.
    """

    def __init__(self, store: Path) -> None:
        self._path = store.with_name(f"{store.name}.node")

    def read(self) -> int:
        """The number, or 0."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return 0
        return int(text) if text.isdigit() else 0

    def write(self, number: int) -> None:
        """Keep the number."""
        if number != self.read():
            part = self._path.with_name(f"{self._path.name}.part")
            part.write_text(f"{number}\n", encoding="ascii")
            part.replace(self._path)

    def forget(self) -> None:
        """The node has left."""
        self._path.unlink(missing_ok=True)


class Work(Protocol):
    """The site's own functions for the messages that compute something."""

    def read_data(self) -> None: ...

    def train(self, message: Message, context: Context) -> Message: ...

    def evaluate(self, message: Message, context: Context) -> Message: ...

    def close(self) -> None: ...


class ApprovedWork:
    """The site's own functions in the node's own process: loaded once, from code that is approved.

    Args:
        site: whose code and data.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._warm: Warm | None = None

    def load(self) -> "Warm":
        """Load the study's code and what it trains with.

        Raises:
            ConfigError: the code is not, or no longer, what was approved.
        """
        if self._warm is None:
            from fedseal.client.app import Warm
            from fedseal.study_code import load_task

            _limit_threads(self._site.threads)
            self._site.check_code()
            load_task(self._site.study.contract.task, self._site.study.folder)
            # Again: what was loaded is what was approved, or it is not used.
            self._site.check_code()
            self._warm = Warm()
        return self._warm

    def read_data(self) -> None:
        """Load the code and read the site's data, so that the first message finds them; DataError as for a message."""
        from fedseal.privacy.store import SiteStore

        config: dict[str, bool | float | int | str] = {TASK: self._site.study.contract.task}
        self.load().work(Context(0, 0, node_config(self._site), RecordDict(), config), SiteStore.open(self._site.store))

    def train(self, message: Message, context: Context) -> Message:
        """Train, as `client.app` does."""
        return self.load().train(message, context)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Measure, as `client.app` does."""
        return self.load().evaluate(message, context)

    def close(self) -> None:
        """Nothing to end: it ends with the node."""


def work_of(site: Site) -> Work:
    """The site's own functions, in a process of their own unless the site's file says otherwise.

    Raises:
        ConfigError: that process cannot be kept apart as the file requires.
    """
    if site.isolation.mode == "off":
        say(log, StudyWithin())
        return ApprovedWork(site)
    from fedseal.client.isolation.work import IsolatedWork

    work = IsolatedWork(site)
    work.start()
    return work


def resident_app(site: Site, work: Work) -> ClientApp:
    """The sealed ClientApp that a site's node runs.

    Args:
        site: whose.
        work: what it computes with; to be closed when the node stops.
    """
    app = ClientApp(mods=[sealed_mod])
    app.train()(work.train)
    app.evaluate()(work.evaluate)
    if site.preload:
        work.read_data()
    return app


def node_config(site: Site) -> dict[str, bool | float | int | str]:
    """What a node's app is told by its own side: where its store, its data and its code are."""
    return {STORE_KEY: str(site.store), DATA_KEY: str(site.data), STUDY_KEY: str(site.study.folder)}


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
