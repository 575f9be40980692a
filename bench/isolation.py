"""What it costs to run a study's code in a process of its own: rounds, memory, and one call.

Three sites and their server on this machine, the demo's study without a privacy plan, by turns with isolation and
without, twice each. Memory is PSS after the rounds: of the node, of the process that watches, and of the study's.

    python bench/isolation.py --out isolation.json          # some minutes
    python bench/isolation.py --parts calls                 # one call of a model of 400 kB and of 4 MB, nothing trained
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from support.residents import Residents, outcome, residents
from support.strangers import asking_bytes, stranger

from fedseal.client.isolation.messages import Answered, Failed
from fedseal.client.isolation.records import arrays_in, parts_of
from fedseal.wire import decode

PARTS = ("rounds", "calls")
ROUNDS, TURNS, CALLS = 10, 2, 30
SIZES = {"400 kB": 100_000, "4 MB": 1_000_000}


def rounds(folder: Path, mode: str) -> dict[str, Any]:
    """Seconds of the demo's rounds, and memory of the first site's processes after them."""
    with residents(folder, rounds=ROUNDS) as made:
        for file in made.files.nodes.values():
            file.write_text(f'{file.read_text(encoding="utf-8")}\n[isolation]\nmode = "{mode}"\n', encoding="utf-8")
        made.start_all()
        for name in made.files.nodes:
            made.said(name, "connected to", within=600)
        events = outcome(made.order(), within=900)
        taken = [event["seconds"] for event in events if event["event"] == "round"]
        return {
            "first": taken[0],
            "others": statistics.median(taken[1:]),
            "worst": max(taken[1:]),
            "memory_mb": memory(made, next(iter(made.files.nodes))),
        }


def memory(made: Residents, site: str) -> dict[str, float]:
    """PSS in MB of a site's processes, from the node down."""
    found, at = {}, [made.processes[site].pid]
    for name in ("node", "watch", "study"):
        if not at:
            break
        found[name] = proportional(at[0])
        children = Path(f"/proc/{at[0]}/task/{at[0]}/children").read_text(encoding="ascii").split()
        at = [int(child) for child in children]
    return found


def proportional(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def calls(folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of one call that sends a model and gets it back, encoding and decoding included."""
    for name in ("study", "data"):
        (folder / name).mkdir(parents=True)
    found = {}
    with stranger(folder / "study", folder / "data") as process:
        for name, size in SIZES.items():
            model, taken, used = {"v": np.ones(size, dtype=np.float32)}, [], []
            for _ in range(CALLS):
                begun, cpu = time.monotonic(), time.process_time()
                raw = asking_bytes(process, "behave", parts_of(model), 16 * size)
                answer = decode(raw, Answered, Failed)
                if not isinstance(answer, Answered) or arrays_in(answer.arrays)["v"].shape != (size,):
                    raise ValueError("not what was sent")
                taken.append(1000 * (time.monotonic() - begun))
                used.append(1000 * (time.process_time() - cpu))
            found[name] = {
                "median_ms": statistics.median(taken),
                "worst_ms": max(taken[1:]),
                "node_cpu_ms": statistics.median(used),
            }
    return found


def start(folder: Path) -> dict[str, float]:
    """Seconds from nothing to a process that holds everything it can, without a study."""
    taken = []
    for turn in range(5):
        place = folder / str(turn)
        for name in ("study", "data"):
            (place / name).mkdir(parents=True)
        begun = time.monotonic()
        with stranger(place / "study", place / "data"):
            taken.append(time.monotonic() - begun)
    return {"median": statistics.median(taken), "worst": max(taken)}


def imported() -> dict[str, bool]:
    """What a node's process has loaded that only a study's needs."""
    code = (
        "import sys, json, fedseal.client.isolation.work; "
        "print(json.dumps({m: m in sys.modules for m in sys.argv[1:]}))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, "torch", "opacus", "pandas"], capture_output=True, check=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    parts = options.parts.split(",")
    found: dict[str, Any] = {"load_before": os.getloadavg(), "cpus": os.cpu_count(), "node_imports": imported()}
    with tempfile.TemporaryDirectory() as folder:
        if "calls" in parts:
            found["calls"] = calls(Path(folder) / "calls")
            found["start"] = start(Path(folder) / "start")
        if "rounds" in parts:
            found["rounds"] = [
                {"mode": mode, **rounds(Path(folder) / f"{turn}-{mode}", mode)}
                for turn in range(TURNS)
                for mode in ("process", "off")
            ]
    found["load_after"] = os.getloadavg()
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
