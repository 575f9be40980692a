"""Who computes a job: this process or several, each site on its own or many together.

Several processes are forked, so they have the sites' data without a copy. Each gets whole chunks of sites and gives
back their sum in the ring, so neither how many there are nor which finishes first changes a bit of what comes out.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

import torch

from fedseal.client.trainer import Arrays
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.secagg.header import Header
from fedseal.simulation.engine.gradients import Batched, Mapped
from fedseal.simulation.engine.portions import Job, OneByOne, Portion
from fedseal.simulation.engine.rows import RowSource, Streams
from fedseal.simulation.engine.sites import Sites
from fedseal.simulation.engine.together import NOT_TOGETHER, Asked, Together, agrees, chunks, read
from fedseal.simulation.grid import NodeList

ONE_BY_ONE = "one-by-one"
Engine = Literal["auto", "one-by-one", "batched", "vmap"]
# Below this many sites in a cohort `auto` does not look for a faster way: one by one is what the protocol gives.
MANY_SITES = 32
# How many sites' training is compared before any is trusted, and how far it may be off relative to a site's way.
COMPARED, TOLERANCE = 3, 1e-3


class Methods:
    """The ways in which sites can compute, and which of them a run uses.

    Args:
        sites: the federation's.
        nodes: makes the messages that sites' code expects.
        engine: the way, or ``auto``: many together where it is faster and gives the same.
    """

    def __init__(self, sites: Sites, nodes: NodeList, engine: Engine) -> None:
        self._sites = sites
        self._nodes = nodes
        self._alone = OneByOne(sites, nodes)
        self._engine = engine
        source = RowSource(sites)
        self._ways: dict[str, Together] = {}
        makers: Mapping[str, Callable[[], Together]] = {
            "batched": lambda: Together(sites, source, Batched(sites.task)),
            "vmap": lambda: Together(sites, source, Mapped(sites.task)),
        }
        for name, make in makers.items():
            if engine not in ("auto", name):
                continue
            try:
                self._ways[name] = make()
            except ConfigError:
                if engine == name:
                    raise
        self.chosen: str | None = ONE_BY_ONE if engine == ONE_BY_ONE else None
        # The last job that was read: its arrays are decoded once.
        self._last: tuple[Header, Asked | None] | None = None

    def split(self, job: Job) -> tuple[str, list[tuple[int, ...]]]:
        """How a job is computed, and its chunks."""
        asked = self._read(job) if self.chosen != ONE_BY_ONE else None
        if asked is None:
            return ONE_BY_ONE, [(site,) for site in job.sites]
        if self.chosen is None:
            self.chosen = self._choose(job, asked)
        if self.chosen == ONE_BY_ONE:
            return ONE_BY_ONE, [(site,) for site in job.sites]
        return self.chosen, chunks(job.sites, sum(a.size for a in asked.received.values()))

    def portion(self, way: str, job: Job, parts: list[tuple[int, ...]]) -> Portion:
        """What some chunks of a job come to."""
        found = Portion.empty(job.header)
        asked = self._read(job) if way != ONE_BY_ONE else None
        for part in parts:
            found.add(self._part(way, job.part(part), asked))
        return found

    def _read(self, job: Job) -> Asked | None:
        if self._last is None or self._last[0] is not job.header:
            self._last = job.header, read(job, self._nodes)
        return self._last[1]

    def _part(self, way: str, job: Job, asked: Asked | None) -> Portion:
        if asked is None:
            return self._alone.portion(job)
        try:
            return self._ways[way].portion(job, asked)
        except NOT_TOGETHER:
            # One by one it shows whose fault it is, and the others' work is kept.
            return self._alone.portion(job)

    def _choose(self, job: Job, asked: Asked) -> str:
        """The first way, batched before vmap, that is faster than one by one and comes out as it does on a few sites.

        Raises:
            ConfigError: a way that was asked for by name does not come out so.
        """
        if self._engine == "auto" and len(job.sites) < MANY_SITES:
            return ONE_BY_ONE
        few = job.sites[:COMPARED]
        alone = [self._fit(site, asked) for site in few]
        parameters = sum(a.size for a in asked.received.values())
        for name, way in self._ways.items():
            same = self._same(way, few, asked, [one for one, _ in alone])
            if self._engine == name:
                if not same:
                    raise ConfigError(
                        f"sites that train together ({name}) do not come out as on their own",
                        next_step='Leave it at "auto", or take "one-by-one".',
                    )
                return name
            # Not the two ways with one another: which is faster by a little would be up to what else the machine does.
            if same and self._seconds(way, chunks(job.sites, parameters)[0], asked) < min(s for _, s in alone):
                return name
        return ONE_BY_ONE

    @staticmethod
    def _same(way: Together, few: tuple[int, ...], asked: Asked, alone: list[Arrays]) -> bool:
        try:
            stacked = way.trained(few, asked)
        except NOT_TOGETHER:
            return False
        return all(agrees(one, stacked, k, asked.received, TOLERANCE) for k, one in enumerate(alone))

    @staticmethod
    def _seconds(way: Together, chunk: tuple[int, ...], asked: Asked) -> float:
        """How many seconds a site takes in a chunk."""
        taken = []
        # Twice: the first time pays for memory that the next ones find.
        for _ in range(2):
            start = time.perf_counter()
            way.trained(chunk, asked)
            taken.append(time.perf_counter() - start)
        return min(taken) / len(chunk)

    def _fit(self, site: int, asked: Asked) -> tuple[Arrays, float]:
        """One site's training on its own, and how many seconds it takes once it is warm."""
        trainer = self._sites.work(site).trainer(asked.normalisation)
        streams, plan = Streams(self._sites.seed, site, asked.release), NoPrivacy(releases=1, retries=0)
        trainer.fit(asked.received, asked.settings, plan, streams)
        start = time.perf_counter()
        trained = trainer.fit(asked.received, asked.settings, plan, streams)
        return trained, time.perf_counter() - start


class Here:
    """This process alone.

    Args:
        methods: how sites compute.
    """

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    def portion(self, job: Job) -> Portion:
        """The sum of a job's sites."""
        way, parts = self._methods.split(job)
        return self._methods.portion(way, job, parts)

    def close(self) -> None:
        """Nothing to end."""


class Forked:
    """Several processes.

    Args:
        methods: how sites compute.
        workers: how many processes, at least 2.
    """

    def __init__(self, methods: Methods, workers: int) -> None:
        self._methods = methods
        context = multiprocessing.get_context("fork")
        self._lines: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            # Not the earlier workers' lines too: they would keep open what this process closes.
            process = context.Process(target=_work, args=(methods, theirs, [*self._lines, ours]), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(ours)
            self._processes.append(process)

    def portion(self, job: Job) -> Portion:
        """The sum of a job's sites.

        Raises:
            LocalError: a process has ended; if that was an error, it is on standard error.
        """
        way, parts = self._methods.split(job)
        busy: list[Connection] = []
        for k, line in enumerate(self._lines):
            own = parts[k :: len(self._lines)]
            if own:
                whole = job.part(tuple(site for part in own for site in part))
                _told(line, (way, whole, own))
                busy.append(line)
        found = Portion.empty(job.header)
        for line in busy:
            found.add(_heard(line))
        return found

    def close(self) -> None:
        """End the processes."""
        for line in self._lines:
            line.close()
        for process in self._processes:
            # A closed line ends its process, unless it is at work, as after an interruption.
            process.join(timeout=0.5)
            if process.is_alive():
                process.terminate()
                process.join()


def _told(line: Connection, task: tuple[str, Job, list[tuple[int, ...]]]) -> None:
    try:
        line.send(task)
    except OSError:
        raise _ended() from None


def _heard(line: Connection) -> Portion:
    try:
        answer: Portion = line.recv()
    except (EOFError, OSError):
        raise _ended() from None
    return answer


def _ended() -> LocalError:
    return LocalError(
        "a process that computes sites has ended",
        next_step="Its last words are above. If there are none, the system may have ended it: use fewer workers.",
    )


def _work(methods: Methods, line: Connection, others: list[Connection]) -> None:
    """A process's life: jobs in, sums out, until the line is closed."""
    # An interruption reaches all processes; the one that people see ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    for other in others:
        other.close()
    while True:
        try:
            way, job, parts = line.recv()
        except (EOFError, OSError):
            return
        line.send(methods.portion(way, job, parts))
