"""A few processes that run nodes: forked once, fed greedily, ended whatever happens."""

import logging
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from flwr.clientapp import ClientApp

from fedseal.errors import ConfigError, FedsealError, LocalError
from fedseal.simulation.engine.area import SharedArea
from fedseal.simulation.engine.codec import Reader
from fedseal.simulation.engine.worker import (
    Answer,
    Begin,
    Done,
    Ends,
    Failed,
    Letter,
    Note,
    Part,
    Request,
    Response,
    Total,
    Work,
    run_worker,
)
from fedseal.simulation.grid import Deliver, Setting

if TYPE_CHECKING:
    from fedseal.privacy.secagg.masks import RingVector
    from fedseal.simulation.engine.sums import SumOrder

# A worker has something to do while its last answers are read.
AHEAD = 2
# Seconds that a worker has to end.
PATIENCE = 1.0
# A worker's replies to one piece of work are in memory at once.
WORK_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Unit:
    """The messages of one push to one node, in order. ``home``: the worker where the node left its state."""

    letters: list[Letter]
    home: int | None


class Answered(NamedTuple):
    """An answer, who gave it, and from where its arrays are read; now, before the next one is asked for."""

    answer: Answer
    worker: int
    reader: Reader


@dataclass(slots=True)
class _Hand:
    """One worker, seen from the process that forked it. ``asked``: how much it has not answered."""

    pipe: Connection
    outboxes: tuple[SharedArea, SharedArea]
    process: ForkProcess
    turn: int = 0
    asked: int = 0


class Workers:
    """Processes that run one ClientApp.

    They are forked, so the app may be any object, and before anything else is opened: a database that is open in two
    processes after a fork is not safe.

    Args:
        client_app: the ClientApp that every node runs.
        count: how many processes, each with one thread.
        deliver: as `LocalGrid` takes it; runs in the workers.

    Raises:
        ConfigError: fewer than one, or the system cannot fork.
    """

    def __init__(self, client_app: ClientApp, count: int, *, deliver: Deliver | None = None) -> None:
        if count < 1:
            raise ConfigError("expected at least one worker")
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigError("workers are forked, which this system cannot do", next_step="Run without workers.")
        self.client_app = client_app
        fork = multiprocessing.get_context("fork")
        self._inbox = SharedArea()
        self._hands: list[_Hand] = []
        self._run = 0
        for number in range(count):
            mine, its = fork.Pipe()
            outboxes = SharedArea(), SharedArea()
            others = [hand.pipe for hand in self._hands] + [mine]
            work = (others, Ends(its, self._inbox, outboxes), client_app, deliver)
            # A daemon: should this process end without closing, nothing waits for it.
            process = fork.Process(target=_start, args=work, name=f"worker-{number}", daemon=True)
            process.start()
            its.close()
            self._hands.append(_Hand(mine, outboxes, process))

    def __len__(self) -> int:
        """How many there are; none once closed."""
        return len(self._hands)

    def __enter__(self) -> Self:
        """Themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        self.close()

    @property
    def processes(self) -> list[int]:
        """Their process ids."""
        return [hand.process.pid or 0 for hand in self._hands]

    def begin(self, run_config: Mapping[str, Setting]) -> int:
        """Begin a run in which no node remembers anything; its number."""
        self._inbox.clear()
        for hand in self._open():
            self._ask(hand, Begin(run_config))
        for hand in self._hands:
            self._response(hand)
        self._run += 1
        return self._run

    def clear(self, run: int) -> SharedArea:
        """The memory that the workers read, empty.

        Raises:
            LocalError: another run has begun since.
        """
        if run != self._run:
            raise LocalError("these workers run nodes of another grid by now", next_step="Give each grid its own.")
        self._inbox.clear()
        return self._inbox

    def deliver(self, push: int, units: Sequence[Unit], order: "SumOrder | None", largest: int) -> Iterator[Answered]:
        """Have messages delivered; their answers as they come.

        Which worker runs a node that has no home is a matter of who is free, and decides nothing.

        Args:
            push: a number of its own for each push.
            units: by node.
            order: how to sum replies, if they are summed.
            largest: bytes of the largest message.

        Raises:
            ConfigError: a worker has ended, or the run cannot go on.
            KeyboardInterrupt, SystemExit: as an app raised it.
        """
        free = deque(unit for unit in units if unit.home is None)
        bound = [deque(unit for unit in units if unit.home == n) for n in range(len(self._open()))]
        most = max(1, WORK_BYTES // max(largest, 1))
        finished = False
        try:
            for _ in range(AHEAD):
                for number, hand in enumerate(self._hands):
                    self._give(hand, bound[number], free, push, order, most)
            while busy := {hand.pipe: n for n, hand in enumerate(self._hands) if hand.asked}:
                for pipe in wait(list(busy)):
                    number = busy[pipe]  # type: ignore[index]
                    hand = self._hands[number]
                    turn, response = self._response(hand)
                    if isinstance(response, Done):
                        yield from self._answered(response, number, hand.outboxes[turn])
                    self._give(hand, bound[number], free, push, order, most)
            finished = True
        finally:
            # Interrupted, answers are on their way that nobody will read.
            if not finished:
                self.close()

    def parts(self) -> list["tuple[int, RingVector]"]:
        """What each worker has added up in this push, and of how many sites."""
        found = []
        for hand in self._open():
            self._ask(hand, Total())
        for hand in self._hands:
            _, response = self._response(hand)
            if isinstance(response, Part) and response.vector is not None:
                found.append((response.sites, response.vector))
        return found

    def close(self) -> None:
        """End all of them, busy or not. What was given to them is lost."""
        hands, self._hands = self._hands, []
        for hand in hands:
            # Not by closing its pipe alone: whatever else was forked meanwhile holds that open.
            hand.process.terminate()
            hand.pipe.close()
        for hand in hands:
            hand.process.join(PATIENCE)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
            for area in hand.outboxes:
                area.close()
        self._inbox.close()

    def _open(self) -> list[_Hand]:
        if not self._hands:
            raise LocalError("these workers have ended")
        return self._hands

    def _give(
        self, hand: _Hand, own: deque[Unit], free: deque[Unit], push: int, order: "SumOrder | None", most: int
    ) -> None:
        """Give a worker its next piece, if there is one: large at first, small at last, so that all end together."""
        letters: list[Letter] = []
        share = max(1, (len(own) + len(free) // len(self._hands)) // 2)
        while (own or free) and len(letters) < min(share, most):
            letters += (own or free).popleft().letters
        if letters:
            self._ask(hand, Work(push, letters, order))

    def _ask(self, hand: _Hand, request: Request) -> None:
        raw = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        note = Note(hand.turn, self._inbox.put(raw), len(raw))
        try:
            hand.pipe.send(note)
        except OSError:
            raise self._ended(hand) from None
        hand.turn = (hand.turn + 1) % AHEAD
        hand.asked += 1

    def _response(self, hand: _Hand) -> tuple[int, Response]:
        """A worker's next response, and in which of its memories it stands."""
        try:
            note: Note = hand.pipe.recv()
        except (EOFError, OSError):
            raise self._ended(hand) from None
        hand.asked -= 1
        # Our own worker wrote it.
        response: Response = pickle.loads(hand.outboxes[note.turn].get(note.place, note.length))  # noqa: S301
        if isinstance(response, Failed):
            raise _raised(response)
        return note.turn, response

    def _answered(self, done: Done, number: int, outbox: SharedArea) -> Iterator[Answered]:
        for record in done.logged:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        reader = Reader(outbox)
        for answer in done.answers:
            yield Answered(answer, number, reader)

    def _ended(self, hand: _Hand) -> ConfigError:
        hand.process.join(PATIENCE)
        code = hand.process.exitcode
        how = f"ended with code {code}" if code is None or code >= 0 else f"was ended by {_signal(-code)}"
        return ConfigError(
            f"{hand.process.name} {how} while it ran the ClientApp, and what its nodes knew is lost",
            next_step="If memory was short, use fewer workers. Without workers the app's own error is seen.",
        )


def _start(others: list[Connection], ends: Ends, app: ClientApp, deliver: Deliver | None) -> None:
    # Copies of the other workers' pipes: as long as they are open, those would not learn that we have ended.
    for pipe in others:
        pipe.close()
    run_worker(ends, app, deliver)


def _raised(failed: Failed) -> BaseException:
    """What a worker could not go on with, as it is raised here."""
    if issubclass(failed.kind, FedsealError):
        logging.getLogger(__name__).error("a worker failed\n%s", failed.trace)
        return failed.kind(failed.message, next_step=failed.advice)
    return failed.kind(failed.message)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
