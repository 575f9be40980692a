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
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flower_side import TARGET, FlowerCohort, flower_masks
from flwr.app import RecordDict
from flwr.common import ndarrays_to_parameters
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray
from our_side import Mean, OurRound, colluders, make_float_cohort, our_records, run_to_unmasking, site_vector
from timing import HEADING, Comparison, Stopwatch, Task, alternate, machine, timed

from fedseal.privacy.secagg.masks import apply_masks
from fedseal.privacy.secagg.parameters import threshold

FLOOR_WORDS = 1 << 20


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


def unmasking_tasks(ours: OurRound, flower: FlowerCohort, dropouts: int, length: int) -> dict[str, Task]:
    """The server's last step with the first sites dropped out."""
    dead = set(range(1, dropouts + 1))
    survivors = [i for i in flower.states if i not in dead]
    expected: Mean = sum((site_vector(i, length).astype(np.float64) for i in survivors), np.zeros(length))
    expected /= len(survivors)
    return {
        "fedseal": ours.unmasking(expected, receiving=False),
        "Flower": flower.unmasking(expected, dead),
        "fedseal, verifying": ours.unmasking(expected, receiving=True),
    }


def upload(n: int, length: int, ours: OurRound, flower: FlowerCohort) -> dict[str, Any]:
    """How many bytes one client sends in a round."""
    number, watch = middle(n), Stopwatch()
    sent = {
        "fedseal": serialised(our_records(ours.site(number, watch))),
        "Flower": serialised(flower.client(number, watch)),
    }
    for side, size in sent.items():
        print(f"{n:3}  {'upload':22}  {side:19}  {size} bytes, {size / (4 * length):.4f} times float32", flush=True)
    return {"sites": n, "bytes": sent, "times_float32": {side: size / (4 * length) for side, size in sent.items()}}


def serialised(records: list[RecordDict]) -> int:
    """Bytes on the wire, but for the envelopes of the transport."""
    return sum(len(recorddict_to_proto(record).SerializeToString()) for record in records)


def middle(n: int) -> int:
    """The site that is timed: it adds one half of the pair masks and subtracts the other."""
    return (n + 1) // 2


def compare(n: int, length: int, repeat: int) -> tuple[list[Comparison], dict[str, Any]]:
    """All jobs for one number of sites."""
    found = [alternate(n, "masking alone", masking_tasks(n, length), repeat)]
    print(f"{'':29}fedseal / floor, CPU: {found[0].ratio('fedseal', 'floor', 'cpu'):.2f}", flush=True)
    ours = run_to_unmasking(make_float_cohort(n, length, 0))
    parameters = {i: ndarrays_to_parameters([site_vector(i, length)]) for i in range(1, n + 1)}
    flower = FlowerCohort(parameters, threshold(n, colluders(n)))
    number = middle(n)
    client: dict[str, Task] = {
        "fedseal": lambda watch: ours.site(number, watch),
        "Flower": lambda watch: flower.client(number, watch),
    }
    found.append(alternate(n, "client's round", client, repeat))
    sent = upload(n, length, ours, flower)
    for dropouts in sorted({0, n // 10}):
        if dropouts:
            ours = run_to_unmasking(make_float_cohort(n, length, dropouts))
        tasks = unmasking_tasks(ours, flower, dropouts, length)
        found.append(alternate(n, f"server, {dropouts} dropped out", tasks, repeat))
    return found, sent


def main() -> None:
    """Compare, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="fedseal's secure aggregation beside Flower's SecAgg+")
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 50], help="cohort sizes, each at least 3")
    parser.add_argument("--length", type=int, default=10**6, help="coordinates of the vector")
    parser.add_argument("--repeat", type=int, default=5, help="counted repetitions; below 5 is for trying out only")
    parser.add_argument("--out", type=Path, help="write every repetition to this JSON file")
    options = parser.parse_args()
    if min(options.sites) < 3 or options.length < 1 or options.repeat < 1:
        parser.error("expected at least 3 sites, 1 coordinate and 1 repetition")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    where, comparisons, uploads = machine(), [], []
    print(json.dumps(where), f"length {options.length}, {options.repeat} repetitions", HEADING, sep="\n", flush=True)
    for n in options.sites:
        found, sent = compare(n, options.length, options.repeat)
        comparisons += [c.record() for c in found]
        uploads.append(sent)
    if options.out is not None:
        result = {"machine": where, "length": options.length, "comparisons": comparisons, "upload": uploads}
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
