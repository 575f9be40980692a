"""Run tasks by turns, keep every repetition, print medians and ranges."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass
class Stopwatch:
    """CPU and wall seconds, added up over every `running` block."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run. CPU seconds are the whole process's, those of its threads included."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


Task = Callable[[Stopwatch], object]


def timed(job: Callable[[], object]) -> Task:
    """A task that is timed from its first line to its last."""

    def task(watch: Stopwatch) -> None:
        with watch.running():
            job()

    return task


@dataclass
class Comparison:
    """What several tasks took that do one job for ``sites`` sites. The tasks are known by whose code they run."""

    sites: int
    job: str
    watches: dict[str, list[Stopwatch]] = field(default_factory=dict)

    def seconds(self, task: str, clock: str) -> list[float]:
        """Every repetition of one task."""
        return [float(getattr(watch, clock)) for watch in self.watches[task]]

    def ratio(self, over: str, under: str, clock: str) -> float:
        """Between two medians."""
        return statistics.median(self.seconds(over, clock)) / statistics.median(self.seconds(under, clock))

    def print(self) -> None:
        """A row for each task."""
        for task, watches in self.watches.items():
            spans = "  ".join(_span(self.seconds(task, clock)) for clock in ("cpu", "wall"))
            ratios = "  ".join(self._ratios(task, clock) for clock in ("cpu", "wall"))
            print(f"{self.sites:4}  {self.job:24}  {task:19}  {len(watches)}  {spans}  {ratios}", flush=True)

    def _ratios(self, task: str, clock: str) -> str:
        """Flower's divided by this task's, turn by turn: the smallest, the median, the largest."""
        if "Flower" not in self.watches:
            return f"{'':>20}"
        pairs = zip(self.seconds("Flower", clock), self.seconds(task, clock), strict=True)
        found = [flower / own for flower, own in pairs]
        return f"{statistics.median(found):6.2f} [{min(found):.2f}, {max(found):.2f}]"

    def record(self) -> dict[str, Any]:
        """The same for a file, with every repetition."""
        ratios = {
            task: {clock: self.ratio("Flower", task, clock) for clock in ("cpu", "wall")}
            for task in self.watches
            if task != "Flower" and "Flower" in self.watches
        }
        watches = {task: [asdict(watch) for watch in all_] for task, all_ in self.watches.items()}
        return {"sites": self.sites, "job": self.job, "seconds": watches, "flower_divided_by": ratios}


HEADING = (
    f"{'n':>4}  {'job':24}  {'whose code':19}  #  {'CPU s: median [range]':28}  {'wall s: median [range]':28}  "
    "Flower's / this, turn by turn: CPU, wall"
)


# Seconds after which a first pass is not thrown away, and after which there is no further turn.
LONG_PASS, LONG_JOB = 15.0, 40.0


def alternate(sites: int, job: str, tasks: dict[str, Task], repeat: int) -> Comparison:
    """Run the tasks A B A B ..., after one pass that is not counted, and print what they took.

    A pass of more than `LONG_PASS` seconds counts at once, and after `LONG_JOB` seconds there is no other turn: the
    column # says how many were counted.
    """
    found = Comparison(sites, job, {name: [] for name in tasks})
    start = time.perf_counter()
    for turn in range(repeat + 1):
        began, watches = time.perf_counter(), {name: Stopwatch() for name in tasks}
        for name, task in tasks.items():
            gc.collect()
            task(watches[name])
        if turn or time.perf_counter() - began > LONG_PASS:
            for name, watch in watches.items():
                found.watches[name].append(watch)
        counted = any(found.watches.values())
        if counted and time.perf_counter() - start > LONG_JOB:
            break
    found.print()
    return found


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = sorted({line.partition(":")[2].strip() for line in lines if line.startswith("model name")})
    return {
        "processor": models or platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("fedseal", "flwr", "numpy", "cryptography", "pycryptodome")},
    }


def _span(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):8.4f} [{min(seconds):7.4f}, {max(seconds):7.4f}]"
