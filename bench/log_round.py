"""What does the log add to a round? Rounds of one federation with and without it, by turns, in one process.

    PYTHONPATH=tests python bench/log_round.py            # 20 sites, 30 rounds of each kind

Without means: nothing is shown, nothing is signed, nothing is written; the rest of the round is the same code. The app
adds a number to its arrays, so nearly all of a round is the protocol: the share of the log in a round that trains is
smaller. All sites run one after another here; where each has a machine of its own, a round waits for the server's part
and one site's, which are clocked apart.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg
from support.flower import OPEN_POLICY, Script, flower_task, local_grid, make_federation, ordinary_app, train_messages

from fedseal.client.logbook import Logbook
from fedseal.server.grid import SealedGrid
from fedseal.server.logbook import ServerLogbook
from fedseal.server.sealing import CohortRules


@contextmanager
def without_log() -> Iterator[None]:
    """The same round, and nobody writes or shows anything."""

    def nothing(*_: object, **__: object) -> None:
        return None

    quiet = dict.fromkeys(("hear", "check_witnessed", "speak", "computes_from", "accepted", "charged"), nothing)
    with (
        patch.multiple(Logbook, **quiet, contributed=nothing, joined=nothing),
        patch.multiple(ServerLogbook, shown=nothing, take=nothing, attempted=nothing, introduced=nothing),
    ):
        yield


SITE = ("hear", "check_witnessed", "computes_from", "accepted", "charged", "contributed", "joined", "speak")
SERVER = ("greeting", "shown", "take", "introduced", "attempted")


@dataclass
class Clocked:
    """Seconds in the log's own parts, by side; calls within calls count once."""

    spent: dict[str, float] = field(default_factory=lambda: {"site": 0.0, "server": 0.0})
    depth: int = 0

    def around(self, side: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The method, with a clock around it."""

        def call(*arguments: Any, **named: Any) -> Any:
            start, self.depth = time.process_time(), self.depth + 1
            try:
                return real(*arguments, **named)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.spent[side] += time.process_time() - start

        return call


@contextmanager
def with_log(clocked: Clocked) -> Iterator[None]:
    """As it is, with a clock on it."""
    site = {name: clocked.around("site", getattr(Logbook, name)) for name in SITE}
    server = {name: clocked.around("server", getattr(ServerLogbook, name)) for name in SERVER}
    with patch.multiple(Logbook, **site), patch.multiple(ServerLogbook, **server):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--parameters", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    parts: list[tuple[float, float]] = []
    found: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder, flower_task():
        federation = make_federation(Path(folder), asked.sites, policy=OPEN_POLICY + "[log]\nrequired = false\n")
        grid = local_grid(federation, ordinary_app(Script()))
        model = ArrayRecord({"w": Array(np.zeros(asked.parameters, dtype=np.float32))})
        rules = CohortRules(retries=0)
        sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=100, cohort=rules)
        for number in range(2 * asked.rounds + 4):
            name, clocked = ("with", "without")[number % 2], Clocked()
            gc.collect()
            with with_log(clocked) if name == "with" else without_log():
                wall, cpu = time.perf_counter(), time.process_time()
                list(sealed.send_and_receive(train_messages(grid, model)))
                spent = time.perf_counter() - wall, time.process_time() - cpu
            # The first rounds introduce sites and compile statements.
            if number >= 4:
                found[name].append(spent)
                if name == "with":
                    parts.append((clocked.spent["site"] / asked.sites, clocked.spent["server"]))
    rows = {
        name: {"wall": statistics.median(w for w, _ in times), "cpu": statistics.median(c for _, c in times)}
        for name, times in found.items()
    }
    rows["added"] = {key: rows["with"][key] - rows["without"][key] for key in ("wall", "cpu")}
    for name, row in rows.items():
        print(f"{name:8}  wall {1000 * row['wall']:8.1f} ms   cpu {1000 * row['cpu']:8.1f} ms")
    share = {key: rows["added"][key] / rows["without"][key] for key in ("wall", "cpu")}
    print(f"share     wall {share['wall']:8.1%}      cpu {share['cpu']:8.1%}    ({asked.sites} sites, in one process)")
    one, server = (statistics.median(values) for values in zip(*parts, strict=True))
    together = 1000 * (one + server)
    print(f"of it: one site {1000 * one:.1f} ms, the server {1000 * server:.1f} ms of CPU: {together:.1f} together")
    rows["parts"] = {"site": one, "server": server}
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(rows | {"sites": {"n": asked.sites}}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
