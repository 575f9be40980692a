"""Honest runs while others flood the server, by turns with calm; and what recorded bodies of honest sites give away."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.flood import Attack, Flooded, attacks, flood
from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.kills import Follower, spread
from support.trials.load import Gauge
from support.trials.network import port_of, redirect
from support.trials.oracle import Invariant, Oracle, found_in
from support.trials.recorder import Recorder, canaries
from support.trials.results import Chunk, row_of
from support.trials.steps import BOUND, finish, judge_runs, pass_time, until_round
from support.trials.study import PLANS, Plan, Shape, make_federation

TURNS = 3
SECONDS = 25.0


def flood_chunks() -> Iterator[Chunk]:
    """One chunk a plan."""
    for plan in PLANS:
        yield Chunk(f"flood, plan {plan}", 250, partial(flooded, plan))


def flooded(plan: Plan, folder: Path, left: float) -> list[dict[str, Any]]:
    """Make runs of four sites in calm and flood by turns; the fourth's key is in the attackers' hands, too."""
    shape = Shape(sites=4, rounds=8 if plan == "none" else 40, plan=plan, retries=20 if plan == "none" else 40)
    federation = make_federation(folder / "federation", shape)
    tls = federation.files.server.parent / "tls"
    with ExitStack() as stack:
        keeper = stack.enter_context(Keeper(folder / "logs"))
        serve(keeper, federation)
        port = port_of(federation)
        until_listening(keeper)
        recorder = stack.enter_context(Recorder(port, tls))
        for name in shape.names:
            redirect(federation, name, recorder.port)
        notes = join(keeper, federation, folder / "notes")
        oracle = Oracle(federation, None, notes)
        follower = Follower(federation, notes[shape.names[0]])
        gauge = stack.enter_context(Gauge(keeper, [SERVER]))
        until_round(follower, BOUND)
        calm, busy, found = _by_turns(follower, Recorded(recorder, tls, shape.names[-1]), port)
        finish(follower)
        server_ends = keeper.codes(SERVER)
    judge_runs(folder, federation, follower, oracle)
    oracle.everything([])
    oracle.findings.check(Invariant.RECOVERY, not server_ends, f"the server ended: {server_ends}")
    bodies = [request.body for request in recorder.requests()]
    for name, pattern in canaries(federation).items():
        oracle.findings.check(Invariant.DATA, not any(pattern in body for body in bodies), f"{name} left the site")
    accepted = {kind: statuses.get("200", 0) for kind, statuses in found.statuses.items()}
    for kind in ("no key", "unknown key", "other calls", "17 MB", "16 MB without a key"):
        oracle.findings.check(Invariant.DATA, not accepted[kind], f"{accepted[kind]} accepted: {kind}")
    figures = {
        "requests": found.requests,
        "per_second": round(found.requests / max(found.seconds, 1)),
        "statuses": {kind: dict(sorted(statuses.items())) for kind, statuses in found.statuses.items()},
        "round_in_calm": spread(calm),
        "round_in_flood": spread(busy),
        "server_mb": gauge.figures()[SERVER],
        "recorded_bodies": len(bodies),
        "recorded_bytes": sum(map(len, bodies)),
        "rounds": follower.rounds,
        "attempts": follower.attempts,
    }
    states = {how.partition(":")[0] for how in follower.runs.values()}
    happened = "all runs finished" if states == {"finished"} else ", ".join(sorted(states))
    return [row_of(f"flood of requests, plan {plan}", found.requests, happened, oracle.findings, figures)]


class Recorded:
    """What the attackers have: recorded requests, the authority's certificate, and a registered node's key."""

    def __init__(self, recorder: Recorder, tls: Path, insider: str) -> None:
        self.recorder = recorder
        self.authority = tls / "authority.pem"
        self.insider = tls / insider


def _by_turns(follower: Follower, known: Recorded, port: int) -> tuple[list[float], list[float], Flooded]:
    calm: list[float] = []
    busy: list[float] = []
    whole = Flooded()
    for turn in range(TURNS):
        calm += rounds_of(follower, SECONDS)
        kinds = list(attacks(known.recorder.requests(), known.insider, turn))
        found: list[Flooded] = []
        peers = threading.Thread(target=_send, args=(kinds, port, known.authority, found))
        peers.start()
        busy += rounds_of(follower, SECONDS)
        peers.join()
        whole.seconds += found[0].seconds
        for kind, statuses in found[0].statuses.items():
            whole.statuses.setdefault(kind, statuses.__class__()).update(statuses)
    return calm, busy, whole


def _send(kinds: list[Attack], port: int, authority: Path, found: list[Flooded]) -> None:
    found.append(flood(kinds, port, authority, SECONDS))


def rounds_of(follower: Follower, seconds: float) -> list[float]:
    """Seconds of the rounds that end in so much time."""
    known = len(follower.seconds)
    pass_time(follower, seconds)
    return follower.seconds[known:]


def until_listening(keeper: Keeper) -> None:
    """Wait until the server listens."""
    end = time.monotonic() + BOUND
    while not keeper.said(SERVER, "listening at") and time.monotonic() < end:
        time.sleep(0.1)


def secrets_in(recorder: Recorder, patterns: dict[str, bytes]) -> set[str]:
    """Which canaries are in what was recorded."""
    return set(found_in((request.body for request in recorder.requests()), patterns))
