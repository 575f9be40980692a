"""Load and faults: a server and resident nodes as real processes, and everything that a machine can do to them.

    PYTHONPATH=tests python bench/faults.py                                # everything that is missing, an hour
    PYTHONPATH=tests python bench/faults.py --parts kills --minutes 9      # go on with some parts for so long
    PYTHONPATH=tests python bench/faults.py --table                        # print what has been found so far

Results are kept in bench/results/faults.json after each trial, and a part that is complete is not run again; --anew
forgets what was found by the parts that are named. The exit code is 1 where an invariant did not hold anywhere.

The sites' task is logistic regression in numpy behind the seal of `fedseal site run`; see `tests/support/trials`.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.trials.certificates import certificate_chunks
from support.trials.chunks import kill_chunks
from support.trials.clock import clock_chunks
from support.trials.disk import disk_chunks
from support.trials.flooded import flood_chunks
from support.trials.load import load_chunks
from support.trials.network import network_chunks
from support.trials.results import Chunk, Results, markdown

OUT = Path(__file__).with_name("results") / "faults.json"
PARTS: dict[str, Callable[[], Iterator[Chunk]]] = {
    "kills": kill_chunks,
    "network": network_chunks,
    "disk": disk_chunks,
    "clock": clock_chunks,
    "certificates": certificate_chunks,
    "flood": flood_chunks,
    "load": load_chunks,
}


def main() -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    # A service's end is an orderly one: nothing is left running or mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = Results(options.out)
    names = options.parts.split(",")
    if options.anew:
        results.forget(names)
    if not options.table:
        run(results, names, time.monotonic() + 60 * options.minutes)
    print(markdown(results.rows))
    for row in results.rows:
        for invariant, what in row["breaches"]:
            print(f"{row['part']} {row['name']}: {invariant}: {what}", file=sys.stderr)
    return 1 if any(row["breaches"] for row in results.rows) else 0


def run(results: Results, names: list[str], end: float) -> None:
    """Run the chunks of these parts that are missing, until the time is over."""
    for part in names:
        for chunk in PARTS[part]():
            left = end - time.monotonic()
            if results.has(part, chunk.name) or left < chunk.least:
                continue
            load = os.getloadavg()
            print(f"... {part} {chunk.name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="fedseal-faults-") as folder:
                begun = time.monotonic()
                found: list[dict[str, Any]] = chunk.run(Path(folder), left)
            facts = {"seconds": round(time.monotonic() - begun, 1), "load": [load[0], os.getloadavg()[0]]}
            rows = [{"part": part, "name": chunk.name, **facts, **row} for row in found]
            results.add(rows)
            print(json.dumps(rows)[:4000], file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
