"""How much a simulated client costs: fedseal's engines beside plain PyTorch, Flower's Ray engine and Apple's pfl.

Every engine runs in a process of its own on the same data, from the same first model, with the same users in each
round and the same order of batches, so that all end with the same accuracy. They take turns, A B C A B C: what else the
machine does hits all. CPU is that of the whole tree of processes in the rounds after the first, the median over turns.

    python bench/simulation.py --python PEERS/bin/python --quick
    python bench/simulation.py --python PEERS/bin/python --workloads W1m --engines plain pool pfl-2 --turns 5
    python bench/simulation.py --report

PEERS is an environment with the `ray` extra's flwr[simulation], and pfl. Results are added to a file and reported
from it, so that parts can run at different times; a ratio is taken between turns of the same part only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RUN = HERE / "simulated" / "run.py"
OUT = HERE / "results" / "simulation.json"
WORKLOADS = ("W1m", "W1c", "W2")
# What needs an environment of its own.
PEERS = ("flower-ray", "pfl-2")
ENGINES = (
    "plain",
    "flower-ray",
    "pfl-2",
    "local",
    "pool",
    "pool-sums",
    "pool-reuse",
    "pool-reuse-sums",
    "sealed",
    "vectorised",
)
# Rounds: enough for a hundredth of a second, which is as fine as CPU is counted, to be nothing.
ROUNDS = {"W1m": 12, "W1c": 12, "W2": 12}
QUICK = {"W1m": 6, "W1c": 5, "W2": 6}
# Its rounds are long, and alike.
SEALED_ROUNDS = 3
# Where no engine of a part is asked for, in a hurry: what the goals are about.
QUICK_ENGINES = ("plain", "flower-ray", "pfl-2", "pool-sums", "pool-reuse-sums", "sealed", "vectorised")
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}
LONGEST_RUN = 400

Result = dict[str, Any]


def run(engine: str, workload: str, rounds: int, peers: str | None) -> Result:
    """One engine on one workload; what it took, or why there is nothing."""
    python = sys.executable
    if engine in PEERS:
        if peers is None:
            return {"engine": engine, "workload": workload, "missing": "no --python with the peers"}
        python = peers
    environment = {**os.environ, **QUIET, "BENCH_STARTED": repr(time.time())}
    command = [python, str(RUN), engine, workload, str(rounds)]
    try:
        done = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, timeout=LONGEST_RUN, check=False
        )
    except subprocess.TimeoutExpired:
        return {"engine": engine, "workload": workload, "missing": f"more than {LONGEST_RUN} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {"engine": engine, "workload": workload, "missing": last[:200]}
    found: Result = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def part(workload: str, engines: list[str], turns: int, rounds: int, peers: str | None) -> list[Result]:
    """All engines by turns on one workload."""
    began, found = time.time(), []
    for turn in range(turns):
        for engine in engines:
            many = min(rounds, SEALED_ROUNDS) if engine == "sealed" else rounds
            result = {**run(engine, workload, many, peers), "turn": turn, "part": began}
            found.append(result)
            said = result.get("missing") or f"{result['cpu_ms_per_client']:.2f} ms a client"
            print(f"{workload} turn {turn + 1}: {engine}: {said}", file=sys.stderr, flush=True)
    return found


def report(results: list[Result]) -> list[Result]:
    """One row for each workload and engine, of the last part in which it ran, and the ratios to others of that part."""
    rows = []
    for workload in WORKLOADS:
        runs: dict[str, dict[float, list[Result]]] = defaultdict(lambda: defaultdict(list))
        for result in results:
            if result["workload"] == workload and "missing" not in result:
                runs[result["engine"]][result["part"]].append(result)
        for engine in (e for e in ENGINES if e in runs):
            last = max(runs[engine])
            own = runs[engine][last]
            row: Result = {"workload": workload, "engine": engine, "turns": len(own)}
            for key in ("cpu_ms_per_client", "clients_per_second", "startup_seconds", "pss_mib", "accuracy", "load"):
                values = [float(r[key]) for r in own]
                row[key] = statistics.median(values)
                row[f"{key}_range"] = [min(values), max(values)]
            row["processes"] = own[0]["processes"]
            for other, key in (("plain", "plain"), ("flower-ray", "flower"), ("pfl-2", "pfl")):
                if last in runs.get(other, {}):
                    row[f"cpu_of_{key}_divided"] = ratio(runs[other][last], own, "cpu_ms_per_client")
            if last in runs.get("plain", {}):
                row["startup_to_plain"] = ratio(own, runs["plain"][last], "startup_seconds")
            rows.append(row)
    return rows


def ratio(over: list[Result], under: list[Result], key: str) -> float:
    """Between two medians."""
    return statistics.median(float(r[key]) for r in over) / statistics.median(float(r[key]) for r in under)


HEADING = (
    f"{'':4} {'engine':16} {'n':>2} {'CPU ms/client [range]':>24} {'plain/':>7} {'Flower/':>8} {'pfl/':>6} "
    f"{'clients/s':>9} {'start-up s':>10} {'x plain':>7} {'PSS MiB':>8} {'':4} {'accuracy':>8} {'load':>5}"
)


def print_rows(rows: list[Result]) -> None:
    """The table. plain/, Flower/ and pfl/: that engine's CPU divided by this one's."""
    print(HEADING)
    for row in rows:
        low, high = row["cpu_ms_per_client_range"]
        spans = f"{row['cpu_ms_per_client']:8.2f} [{low:.2f}, {high:.2f}]"
        divided = [row.get(f"cpu_of_{key}_divided") for key in ("plain", "flower", "pfl")]
        shown = [f"{value:.2f}" if value else "" for value in (*divided, row.get("startup_to_plain"))]
        print(
            f"{row['workload']:4} {row['engine']:16} {row['turns']:2} {spans:>24} {shown[0]:>7} {shown[1]:>8} "
            f"{shown[2]:>6} {row['clients_per_second']:9.0f} {row['startup_seconds']:10.1f} {shown[3]:>7} "
            f"{row['pss_mib']:8.0f} {row['processes']:3}p {row['accuracy']:8.4f} {row['load']:5.1f}"
        )


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="an interpreter that has ray and pfl; without one those rows are left out")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, turns and engines: in nine minutes")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is in the file")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def main() -> None:
    """Run what is asked for, add it to the file, report the file."""
    asked = arguments()
    results: list[Result] = json.loads(asked.out.read_text())["runs"] if asked.out.exists() else []
    engines = asked.engines or list(QUICK_ENGINES if asked.quick else ENGINES)
    if not asked.report:
        for workload in asked.workloads:
            rounds = asked.rounds or (QUICK if asked.quick else ROUNDS)[workload]
            results += part(workload, engines, asked.turns or (2 if asked.quick else 5), rounds, asked.python)
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps({"rows": report(results), "runs": results}, indent=1) + "\n")
    print_rows(report(results))


main()
