"""The whole fault matrix: every cell has to give the right sum or a clean abort.

    python bench/fault_matrix.py                  # a minute of CPU
    python bench/fault_matrix.py --out matrix.json

The exit code is 1 where a cell does anything else; each such cell is named on standard error.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from fedseal.simulation.faults.cells import all_cells
from fedseal.simulation.faults.matrix import run_matrix


def main() -> int:
    """Run, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.process_time()
    report = run_matrix(all_cells())
    seconds = time.process_time() - start
    table = report.table()
    outcomes = sorted({outcome for counts in table.values() for outcome in counts})
    print(f"{'':34}" + "".join(f"{outcome:>32}" for outcome in outcomes))
    for kind, counts in table.items():
        print(f"{kind:34}" + "".join(f"{counts[outcome]:>32}" for outcome in outcomes))
    print(f"{len(report.verdicts)} cells, {len(report.broken)} broken, {seconds:.0f} s CPU")
    for verdict in report.broken:
        print(f"{verdict.cell}: {', '.join(b.value for b in verdict.breaches)}", file=sys.stderr)
    if options.out is not None:
        found = {kind: dict(counts) for kind, counts in table.items()}
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
