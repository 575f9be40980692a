"""What fedseal's secure aggregation costs beside the SecAgg+ that Flower ships, in one process and by turns.

Both sides run their own, unchanged functions, with the same vectors, sites and thresholds, on the complete graph. They
do not promise the same: fedseal signs and verifies every message, commits to every share and masks with AES-256-CTR;
Flower's SecAgg+ takes the server's word and masks with numpy's RandomState from a seed of 32 bits.

The jobs:

masking alone
    One own mask and n - 1 pair masks on a quantised vector, from keys that are there. ``floor`` is what the same AES
    masks take if each one is made and added whole, 4 MB at a time.
client's round
    Everything one client computes from its first message to its last, key generation, quantising and the vector's
    bytes included.
server unmasking
    From the opened shares to the mean of the survivors; Flower's is all of `SecAggPlusWorkflow.unmask_stage`.
    ``fedseal, verifying`` also checks every opened share as it comes in, which Flower's does not. Dropouts go after
    they have dealt their shares and before they send their vectors.
upload
    One client's replies as Flower's messages carry them, beside its vector in float32.

Transport, the disk, and what the other sites and the server do meanwhile are outside of all times.
"""

import argparse
import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flower_side import TARGET, FlowerCohort, flower_masks
from flwr.app import RecordDict
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray
from our_side import (
    MAX_WEIGHT,
    OurRound,
    colluders,
    levels,
    make_float_cohort,
    mean_of,
    our_records,
    run_to_unmasking,
)
from timing import HEADING, Comparison, Stopwatch, Task, alternate, machine, timed

from fedseal.privacy.secagg.masks import apply_masks
from fedseal.privacy.secagg.parameters import threshold

FLOOR_WORDS = 1 << 20
PACKED = (18, 20, 22)


def masking_tasks(n: int, length: int) -> dict[str, Task]:
    """Three ways to add one own mask and n - 1 pair masks to a vector."""
    rng = np.random.default_rng(n)
    keys, vector = [rng.bytes(32) for _ in range(n)], rng.integers(0, TARGET, length, dtype=np.uint32)
    ours, floor, quantised = vector.copy(), vector.copy(), vector.astype(np.int32)
    apply_masks(ours, keys, [])
    floor_masks(floor, keys)
    if not np.array_equal(ours, floor):
        raise RuntimeError("fedseal's masks and the floor's differ")
    # Half of the pair masks are added and half are subtracted, as at the site in the middle.
    added = (n - 1) // 2
    pairs = [base64.urlsafe_b64encode(key) for key in keys[1:]]
    return {
        "fedseal": timed(lambda: apply_masks(ours, keys[: 1 + added], keys[1 + added :])),
        "Flower": timed(lambda: flower_masks(quantised, keys[0], pairs, added)),
        "floor": timed(lambda: floor_masks(floor, keys)),
    }


def floor_masks(vector: NDArray[np.uint32], keys: Sequence[bytes]) -> None:
    """Encrypt zeros and add, a mask after the other, 4 MB at a time."""
    words = np.empty(min(FLOOR_WORDS, len(vector)), dtype=np.uint32)
    zeros, raw = memoryview(bytes(words.nbytes)), words.data.cast("B")
    for key in keys:
        cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        for start in range(0, len(vector), FLOOR_WORDS):
            part = vector[start : start + FLOOR_WORDS]
            cipher.update_into(zeros[: part.nbytes], raw[: part.nbytes])
            np.add(part, words[: len(part)], out=part)


def unmasking_tasks(ours: OurRound, flower: FlowerCohort | None, dropouts: int, grid: "Grid") -> dict[str, Task]:
    """The server's last step with the first sites dropped out."""
    n, length = len(ours.cohort.header.cohort), ours.cohort.header.layout.length - 1
    expected = mean_of(list(range(dropouts + 1, n + 1)), length)
    tasks = {"fedseal": ours.unmasking(expected, receiving=False)}
    if flower is not None:
        checked = n * length < grid.largest_checked
        tasks["Flower"] = flower.unmasking(expected, set(range(1, dropouts + 1)), checked=checked)
    tasks["fedseal, verifying"] = ours.unmasking(expected, receiving=True)
    tasks["fedseal, 2 threads"] = ours.unmasking(expected, receiving=False, workers=2)
    return tasks


def upload(n: int, length: int, ours: OurRound, flower: FlowerCohort) -> dict[str, Any]:
    """How many bytes one client sends in a round."""
    number, watch = middle(n), Stopwatch()
    sent = {"fedseal": serialised(our_records(ours.site(number, watch)))}
    for bits in PACKED:
        if levels(n, bits) >= MAX_WEIGHT:
            packed = run_to_unmasking(make_float_cohort(n, length, 0, bits=bits))
            sent[f"fedseal, {bits} bits"] = serialised(our_records(packed.site(number, watch)))
    sent["Flower"] = serialised(flower.client(number, length, watch))
    for side, size in sent.items():
        print(f"{n:4}  {'upload':24}  {side:19}  {size} bytes, {size / (4 * length):.4f} times float32", flush=True)
    times = {side: size / (4 * length) for side, size in sent.items()}
    return {"sites": n, "length": length, "bytes": sent, "times_float32": times}


def serialised(records: list[RecordDict]) -> int:
    """Bytes on the wire, but for the envelopes of the transport."""
    return sum(len(recorddict_to_proto(record).SerializeToString()) for record in records)


def middle(n: int) -> int:
    """The site that is timed: it adds one half of the pair masks and subtracts the other."""
    return (n + 1) // 2


@dataclass(frozen=True)
class Grid:
    """What is run: cohort sizes, lengths, shares of dropouts, repetitions; and for how much Flower's server is run.

    ``largest_checked``: above so many coordinates times sites Flower's server gets zeros for a sum.
    ``flower_server``: at which lengths it is run at all.
    """

    sites: list[int]
    lengths: list[int]
    dropouts: list[int]
    repeat: int
    flower_server: list[int]
    largest_checked: int = 10**8


def compare(n: int, length: int, flower: FlowerCohort, grid: Grid) -> tuple[list[Comparison], dict[str, Any]]:
    """All jobs for one number of sites and one length."""
    found = [alternate(n, "masking alone", masking_tasks(n, length), grid.repeat)]
    print(f"{'':33}fedseal / floor, CPU: {found[0].ratio('fedseal', 'floor', 'cpu'):.2f}", flush=True)
    number, sent = middle(n), {}
    for percent in grid.dropouts:
        dropouts = n * percent // 100
        ours = run_to_unmasking(make_float_cohort(n, length, dropouts))
        if dropouts == 0:
            found.append(alternate(n, "client's round", client_tasks(ours, flower, number, length), grid.repeat))
            sent = upload(n, length, ours, flower)
        asked = length in grid.flower_server
        if not asked:
            print(f"{n:4}  server: Flower's is not run at this length, as asked by --flower-server", flush=True)
        tasks = unmasking_tasks(ours, flower if asked else None, dropouts, grid)
        found.append(alternate(n, f"server, {dropouts} dropped out", tasks, grid.repeat))
    return found, sent


def client_tasks(ours: OurRound, flower: FlowerCohort, number: int, length: int) -> dict[str, Task]:
    """One client's whole round."""
    return {
        "fedseal": lambda watch: ours.site(number, watch),
        "Flower": lambda watch: flower.client(number, length, watch),
    }


def many_sites(n: int, length: int, colluding: int, repeat: int) -> list[Comparison]:
    """The sparse graph, which Flower's side has no counterpart of with these promises: fedseal alone."""
    dropouts = n // 10
    gone = set(range(1, n + 1, n // dropouts))
    ours = run_to_unmasking(make_float_cohort(n, length, 0, m=colluding, silent=gone))
    graph = ours.after.masking.graph
    print(f"{n:4}  {graph.degree} neighbours, threshold {graph.threshold}, {len(gone)} dropped out", flush=True)
    number = middle(n) if middle(n) not in gone else middle(n) + 1
    expected = mean_of([i for i in range(1, n + 1) if i not in gone], length)
    one: dict[str, Task] = {"fedseal": lambda watch: ours.site(number, watch)}
    server = {
        "fedseal": ours.unmasking(expected, receiving=False),
        "fedseal, verifying": ours.unmasking(expected, receiving=True),
        "fedseal, 2 threads": ours.unmasking(expected, receiving=False, workers=2),
    }
    return [
        alternate(n, "client's round", one, repeat),
        alternate(n, f"server, {len(gone)} dropped out", server, repeat),
    ]


def main() -> None:
    """Compare, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="fedseal's secure aggregation beside Flower's SecAgg+")
    parser.add_argument("--full", action="store_true", help="10, 50, 100 sites; 10^5, 10^6, 10^7; 0, 10, 30 % dropouts")
    parser.add_argument("--sites", type=int, nargs="*", help="cohort sizes, each at least 3; 10 and 50 if not given")
    parser.add_argument("--length", type=int, nargs="+", help="coordinates of the vector; 10^6 if not given")
    parser.add_argument("--dropout", type=int, nargs="+", help="dropouts in percent, up to 30; 0 and 10 if not given")
    parser.add_argument("--repeat", type=int, default=5, help="counted repetitions; below 5 is for trying out only")
    parser.add_argument(
        "--flower-server", type=int, nargs="*", help="lengths at which Flower's server runs; all up to 10^6"
    )
    parser.add_argument("--many", type=int, help="a cohort of more than 256 sites, fedseal alone, 10 %% dropouts")
    parser.add_argument("--colluders", type=int, default=100, help="of those many sites")
    parser.add_argument("--out", type=Path, help="write every repetition to this JSON file")
    options = parser.parse_args()
    sites = options.sites if options.sites is not None else [10, 50, 100] if options.full else [10, 50]
    lengths = options.length or ([10**5, 10**6, 10**7] if options.full else [10**6])
    dropouts = options.dropout or ([0, 10, 30] if options.full else [0, 10])
    run_flower = options.flower_server if options.flower_server is not None else [d for d in lengths if d <= 10**6]
    grid = Grid(sites, lengths, sorted({0, *dropouts}), options.repeat, run_flower)
    if min([*sites, 3]) < 3 or min(lengths) < 1 or options.repeat < 1 or not 0 <= max(dropouts) <= 30:
        parser.error("expected at least 3 sites, 1 coordinate and 1 repetition, and at most 30 % dropouts")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    run(grid, options.many, options.colluders, options.out)


def run(grid: Grid, many: int | None, colluding: int, out: Path | None) -> None:
    """The whole grid, written down after every part of it."""
    where = machine()
    result: dict[str, Any] = {"machine": where, "grid": asdict(grid), "comparisons": [], "upload": []}

    def note(length: int, found: list[Comparison]) -> None:
        result["comparisons"] += [{"length": length, **c.record()} for c in found]
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    print(json.dumps(where), HEADING, sep="\n", flush=True)
    for n in grid.sites:
        flower = FlowerCohort(n, threshold(n, colluders(n)))
        for length in grid.lengths:
            print(f"length {length}", flush=True)
            found, sent = compare(n, length, flower, grid)
            result["upload"].append(sent)
            note(length, found)
    if many is not None:
        note(10**6, many_sites(many, 10**6, colluding, grid.repeat))


if __name__ == "__main__":
    main()
