"""Record the library's golden figures anew, after a change that is meant to change them. Prints what moved.

python bench/golden_scenarios.py [NAME ...] [--data FOLDER]
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

from fedseal.simulation.scenario.execute import Sources, execute
from fedseal.simulation.scenario.files import GOLDEN, library, load
from fedseal.simulation.scenario.golden import departures, read, write
from fedseal.simulation.scenario.runner import Silent
from fedseal.simulation.scenario.sweep import single


def main() -> None:
    """Record all scenarios, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in given.names or library():
        scenario = load(name)
        if scenario.population.source == "heart" and given.data is None:
            print(f"{name}: left out, needs --data")
            continue
        before, start = read(name), time.process_time()
        with tempfile.TemporaryDirectory() as out:
            result = execute(single(scenario), Sources(library()[name].parent, given.data), Path(out), Silent()).result
        failed = [gate.gate for gate in result.gates if not gate.passed]
        moved = [] if before is None else departures(before, result)
        write(result, GOLDEN)
        print(
            f"{name}: {time.process_time() - start:.1f} s, {len(moved)} moved, failed gates: {failed or 'none'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
