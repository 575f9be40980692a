"""From an installed fedseal to the first trained round, by commands alone: how many at which seat, and seconds.

Three sites, the root, and the coordinator on this machine, in folders of their own, over TLS with node authentication.
The study is what `fedseal new` writes, with made-up patients and its privacy plan. What people do between commands
(reading the code, mail, comparing fingerprints by telephone) is not in the seconds; fingerprints are passed on by this
script. The seconds of a command that stays are those until it said that it was ready.

    PYTHONPATH=tests python bench/first_round.py --out first_round.json
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from support.typed import COORDINATOR, SITES, Walk, walking


def first_round(walk: Walk, begun: float) -> float:
    """Seconds until the first round was over."""
    while not any(event["event"] == "round" for event in events(walk)):
        if time.monotonic() - begun > 900:
            raise TimeoutError
        time.sleep(0.1)
    return time.monotonic() - begun


def events(walk: Walk) -> list[Any]:
    return list(walk.events()) if list(walk.folder.glob("server/runs/2*/events.jsonl")) else []


def measure(folder: Path) -> dict[str, Any]:
    """One walk."""
    load = os.getloadavg()
    with walking(folder) as walk:
        walk.prepare()
        begun = time.monotonic()
        walk.enrol()
        enrolled = time.monotonic() - begun
        walk.start_server()
        for name in SITES:
            walk.type(name, f"site check --config {name}/site.toml")
        # At different places they start at the same time.
        starting = [threading.Thread(target=walk.start_site, args=(name,)) for name in SITES]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        connected, ordered = time.monotonic() - begun, time.monotonic()
        order = threading.Thread(
            target=walk.type, args=(COORDINATOR, "server run readmission --config server/server.toml")
        )
        order.start()
        round_one = first_round(walk, ordered)
        whole = time.monotonic() - begun
        order.join()
        seats = {seat: [s for s in walk.steps if s.seat == seat] for seat in (COORDINATOR, *SITES)}
    return {
        "load": load,
        "load_after": os.getloadavg(),
        "commands": {seat: len(steps) for seat, steps in seats.items()},
        "seconds_in_commands": {
            seat: sum(s.seconds for s in steps if not s.command.startswith("server run"))
            for seat, steps in seats.items()
        },
        "steps": [[s.seat, s.command, round(s.seconds, 2)] for s in walk.steps],
        "enrolled_after": enrolled,
        "connected_after": connected,
        "order_to_first_round": round_one,
        "whole": whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(measure(Path(folder)), indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
