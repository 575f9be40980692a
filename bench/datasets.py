"""What registering a dataset and looking at it before a round cost: seconds of CPU, and as ratios to a floor.

    python bench/datasets.py                   # a million persons, two minutes; --persons 100000 for a first look

One row a person, twelve columns. *floor* hashes the same canonical bytes, one SHA-256 a person and one a node of the
tree, and does nothing else; it takes turns with the step that makes leaves and root.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from fedseal.client.datasets.checks import quality_report
from fedseal.client.datasets.encoding import content_of, row_matrix, subjects_of
from fedseal.client.datasets.files import FileState, file_states
from fedseal.client.datasets.table import read_typed
from fedseal.compliance.data.contract import DataContract
from fedseal.compliance.data.keys import data_keys
from fedseal.privacy.secret import Secret

KEYS = data_keys(Secret(b"s" * 32), Secret(b"e" * 32))
REALS = [f"x{i}" for i in range(8)]
CONTRACT = DataContract.model_validate(
    {
        "dataset": {
            "name": "bench",
            "subject": "person",
            "purpose": "research",
            "legal_basis": ["6-1-e"],
            "retention_until": date(2040, 1, 1),
            "source": {"system": "registry", "extracted_at": date(2026, 1, 1)},
        },
        "columns": {
            "person": {"type": "integer", "unique": True},
            **{name: {"type": "real"} for name in REALS},
            "age": {"type": "integer", "low": 0, "high": 120},
            "sex": {"type": "text", "allowed": ["f", "m"]},
            "seen": {"type": "date"},
        },
    }
)


def table(persons: int) -> pd.DataFrame:
    """Persons drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "person": rng.permutation(persons),
            **{name: rng.normal(size=persons) for name in REALS},
            "age": rng.integers(0, 99, persons),
            "sex": rng.choice(["f", "m"], persons),
            "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 300, persons), unit="D"),
        }
    )


def cpu(step: Callable[[], object]) -> float:
    """Seconds of CPU of this process, all threads."""
    start = time.process_time()
    step()
    return time.process_time() - start


def floor(rows: bytes, width: int) -> None:
    """A hash a person and a hash a node, over the same bytes."""
    leaves = [hashlib.sha256(rows[at : at + width]).digest() for at in range(0, len(rows), width)]
    while len(leaves) > 1:
        leaves = [hashlib.sha256(a + b).digest() for a, b in zip(leaves[::2], leaves[1::2], strict=False)]


def settled(state: FileState) -> FileState:
    """A state as it would be had it been taken long after the file was written."""
    return replace(state, hashed_ns=state.hashed_ns + 10**11)


def measured_file(people: pd.DataFrame, form: str) -> pd.DataFrame:
    """Read the table from a file and look at the file, timed; the table as it was read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"persons.{form}"
        people.to_csv(path, index=False) if form == "csv" else people.to_parquet(path, index=False)
        print(f"{form}: read {cpu(lambda: read_typed(folder, CONTRACT)):.2f} s, ", end="")
        print(f"hash {cpu(lambda: file_states(folder)):.2f} s, ", end="")
        known = {n: settled(s) for n, s in file_states(folder).items()}
        print(f"unchanged {1e3 * cpu(lambda: file_states(folder, known)):.2f} ms", flush=True)
        return read_typed(folder, CONTRACT)


def main() -> None:
    """Measure and print one line a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    people, columns = table(options.persons), CONTRACT.schema_of_rows
    for form in ("csv", "parquet"):
        typed = measured_file(people, form)
    who = subjects_of(typed, columns)
    print(f"quality {cpu(lambda: quality_report(typed, who, CONTRACT, date(2026, 12, 1))):.2f} s", flush=True)
    rows = row_matrix(typed, columns).tobytes()
    turns = [
        (cpu(lambda: content_of(typed, columns, KEYS).root), cpu(lambda: floor(rows, columns.row_width)))
        for _ in range(options.turns)
    ]
    ratios = [ours / bare for ours, bare in turns]
    print(f"leaves and root {statistics.median(t[0] for t in turns):.2f} s, floor ", end="")
    print(f"{statistics.median(t[1] for t in turns):.2f} s, ratio {statistics.median(ratios):.2f} ", end="")
    print(f"[{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)
    content = content_of(typed, columns, KEYS)
    content.prove(bytes(32))
    print(f"a proof, leaves in memory {cpu(lambda: content.prove(bytes((128,)) * 32)):.2f} s")


if __name__ == "__main__":
    main()
