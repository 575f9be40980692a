"""The line between sites and server: cut, slow, silent, broken in the middle; for less and for longer than a stage's
deadline and the server's patience.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import Keeper, join, serve
from support.trials.oracle import Oracle
from support.trials.proxy import CALM, Line, Weather
from support.trials.results import Chunk
from support.trials.steps import Step, StepTrial
from support.trials.study import Federation, Plan, Shape, make_federation


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What a line does, for how many seconds, and how often; to one site after the other, or to all at once."""

    name: str
    weather: Weather
    seconds: float
    times: int
    everyone: bool = False


SHORT = (
    Disturbance("cut for 1 s", Weather(cut=True), 1, 6),
    Disturbance("cut for 8 s", Weather(cut=True), 8, 2),
    Disturbance("all sites cut for 4 s", Weather(cut=True), 4, 3, everyone=True),
    Disturbance("every piece 0.15 s late, for 8 s", Weather(delay=0.15), 8, 2, everyone=True),
    Disturbance("30 kB/s, for 8 s", Weather(rate=30_000), 8, 2, everyone=True),
    Disturbance("silent for 6 s", Weather(silent=True), 6, 3),
    Disturbance("connections reset after 6 kB, for 3 s", Weather(drop_after=6_000), 3, 5),
    Disturbance("the way to the server closed after 6 kB, for 3 s", Weather(half_after=6_000), 3, 5),
)
LONG = (
    Disturbance("silent for 70 s", Weather(silent=True), 70, 1),
    Disturbance("cut for 140 s, longer than a stage may take", Weather(cut=True), 140, 1),
)


def network_chunks() -> Iterator[Chunk]:
    """Short disturbances under both plans, long ones without privacy."""
    yield Chunk("short, plan none", 300, partial(disturbed, SHORT, "none"))
    yield Chunk("long, plan none", 400, partial(disturbed, LONG, "none"))
    yield Chunk("short, plan distributed", 300, partial(disturbed, SHORT, "distributed"))


def redirect(federation: Federation, name: str, port: int) -> None:
    """Let a site's node connect to another port."""
    file = federation.files.nodes[name]
    text, count = re.subn(r'(?m)^("?address"? = "127\.0\.0\.1):\d+"', rf'\1:{port}"', file.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError("a node's file without an address")
    file.write_text(text, encoding="utf-8")


def port_of(federation: Federation) -> int:
    """Where the server listens."""
    found = re.search(r'(?m)^"?port"? = (\d+)$', federation.files.server.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("a server's file without a port")
    return int(found[1])


def disturbed(disturbances: tuple[Disturbance, ...], plan: Plan, folder: Path, left: float) -> list[dict[str, Any]]:
    """Disturb runs of four sites, of which three are enough for a sum.

    Args:
        disturbances: of the lines, one after the other.
        plan: of the runs.
        folder: a new one.
        left: not used: it takes what it takes.
    """
    shape = Shape(sites=4, rounds=6 if plan == "none" else 120, plan=plan, retries=20 if plan == "none" else 80)
    federation = make_federation(folder / "federation", shape)
    with ExitStack() as stack:
        lines = {name: stack.enter_context(Line(port_of(federation))) for name in shape.names}
        for name, line in lines.items():
            redirect(federation, name, line.port)
        keeper = stack.enter_context(Keeper(folder / "logs"))
        serve(keeper, federation)
        notes = join(keeper, federation, folder / "notes")
        trial = StepTrial(federation, Oracle(federation, None, notes), notes[shape.names[0]])
        trial.run([_step(disturbance, list(lines.values())) for disturbance in disturbances])
        broken = sum(line.broken for line in lines.values())
    return trial.rows(f"line, plan {plan}", folder, {"broken_connections": broken})


def _step(disturbance: Disturbance, lines: list[Line]) -> Step:
    def change(weather: Weather, turn: int) -> None:
        for line in lines if disturbance.everyone else [lines[turn % len(lines)]]:
            line.set(weather)

    begin, end = partial(change, disturbance.weather), partial(change, CALM)
    return Step(disturbance.name, disturbance.times, disturbance.seconds, begin, end)
