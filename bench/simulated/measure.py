"""What a run takes: CPU of a whole tree of processes, memory, and the rounds' wall times. Linux's /proc only."""

import json
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")
STARTED, ROOT = "BENCH_STARTED", "BENCH_ROOT"


def tree(root: int) -> list[int]:
    """A process and all below it."""
    found, open_ = [], [root]
    while open_:
        process = open_.pop()
        try:
            threads = list((PROC / str(process) / "task").iterdir())
            found.append(process)
            open_ += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except FileNotFoundError:
            continue
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of a tree, with that of its processes that have ended and were waited for."""
    total = 0
    for process in tree(root):
        try:
            fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += sum(int(fields[i]) for i in (11, 12, 13, 14))
    return total / TICK


def pss_mib(root: int) -> tuple[float, int]:
    """The proportional set size of a tree, in MiB, and how many processes it has."""
    total, processes = 0, tree(root)
    for process in processes:
        try:
            lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024, len(processes)


@dataclass(slots=True)
class Watch:
    """Told when each round ends; prints what the run took."""

    engine: str
    workload: str
    clients: int
    rounds: int
    root: int = field(default_factory=lambda: int(os.environ.get(ROOT, os.getpid())))
    started: float = field(default_factory=lambda: float(os.environ[STARTED]))
    stamps: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: tuple[float, int] = (0.0, 0)

    def round_over(self) -> None:
        """A round is over: whatever it made is the model."""
        self.stamps.append(time.time())
        if len(self.stamps) in (1, self.rounds):
            self.cpu.append(cpu_seconds(self.root))
            self.memory = pss_mib(self.root)

    def report(self, accuracy: float) -> None:
        """Print one line of JSON.

        CPU is of the rounds after the first. Start-up is the time to the end of the first round less a median round.
        """
        walls = [b - a for a, b in zip(self.stamps, self.stamps[1:], strict=False)]
        memory, processes = self.memory
        found = {
            "engine": self.engine,
            "workload": self.workload,
            "rounds": self.rounds,
            "cpu_ms_per_client": 1000 * (self.cpu[1] - self.cpu[0]) / (self.clients * (self.rounds - 1)),
            "round_seconds": walls,
            "clients_per_second": self.clients / statistics.median(walls),
            "startup_seconds": self.stamps[0] - self.started - statistics.median(walls),
            "startup_cpu_seconds": self.cpu[0],
            "pss_mib": memory,
            "processes": processes,
            "accuracy": accuracy,
            "load": os.getloadavg()[0],
        }
        print("RESULT " + json.dumps(found), flush=True)
