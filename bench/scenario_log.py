"""What a watched scenario's log costs: the same run with and without it, in turn.

    python bench/scenario_log.py            # two scenarios of 12 steps, 20 seconds of CPU

Prints seconds of CPU and of the clock, the fewest of all turns, and how many entries there are. Digests have to agree.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

from fedseal.compliance.log.exported import ExportedLog
from fedseal.simulation.scenario.files import library, load
from fedseal.simulation.scenario.logbook import LOG
from fedseal.simulation.scenario.runner import Silent, run_scenario
from fedseal.simulation.scenario.setting import setting_of

SCENARIOS = ("sea4-d", "recurring-season")
STEPS = 12


def turn(name: str, *, logged: bool) -> tuple[float, float, str, int]:
    """One run: seconds of CPU, seconds of the clock, digest, entries of the log."""
    scenario = load(name)
    scenario = scenario.model_copy(update={"scenario": scenario.scenario.model_copy(update={"steps": STEPS})})
    setting = setting_of(scenario, library()[name].parent)
    with tempfile.TemporaryDirectory() as folder:
        cpu, clock = time.process_time(), time.perf_counter()
        result, _ = run_scenario(setting, Path(folder), "run", Silent(), baselines=False, logged=logged)
        spent = time.process_time() - cpu, time.perf_counter() - clock
        entries = ExportedLog(Path(folder) / LOG).size if logged else 0
    return *spent, result.digest, entries


def main() -> None:
    """Run all turns and print a row for each scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=4)
    turns = parser.parse_args().turns
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in SCENARIOS:
        # The first turn loads modules.
        turn(name, logged=True)
        found = {logged: [turn(name, logged=logged) for _ in range(turns)] for logged in (True, False)}
        digests = {row[2] for rows in found.values() for row in rows}
        if len(digests) != 1:
            raise SystemExit(f"{name}: the log changes the run")
        (cpu, clock), (less, sooner) = (
            (min(r[0] for r in found[logged]), min(r[1] for r in found[logged])) for logged in (True, False)
        )
        print(
            f"{name}, {STEPS} steps, {found[True][0][3]} entries: CPU {less:.2f} s without, {cpu:.2f} s with a log; "
            f"clock {sooner:.2f} s and {clock:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
