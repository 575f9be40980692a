"""How much memory a client and the server hold at most, in vectors of float32.

Two ways, each in a process of its own. *traced*: `tracemalloc`, which sees what numpy and Python allocate. *resident*:
the peak of the process's resident memory (VmHWM, reset just before), minus what was resident before; it also sees what
SQLite and OpenSSL take. Linux only.

The client: from the bounded update, which counts, over masking and the site's store to the reply as Flower carries it.
`with quantising` begins with the update in doubles, which counts too. The server: replies come one at a time, as bytes
that are read from a file and count; then the masks are taken off and the mean is made, in doubles.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from our_side import FloatCohort, make_float_cohort, our_mean, site_vector
from support.flower import make_federation
from support.keys import SERVER

from fedseal.client.records import VECTOR, vector_array
from fedseal.client.requests import encode_answer
from fedseal.privacy.npy import to_npy
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg import client, server
from fedseal.privacy.secagg.client_states import MaskedUpdate, Ready, Vector
from fedseal.privacy.secagg.masks import MaskedSum
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.server_states import MaskedReply
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import StoredReply
from fedseal.server.exchange import vector_of

ROLES = ("client", "client, with quantising", "server")


@dataclass
class Peak:
    """What is held at most between `begin` and `end`, beyond what was there, in bytes."""

    traced: bool
    before: int = 0
    found: int = 0

    def begin(self) -> None:
        """From here on."""
        gc.collect()
        if self.traced:
            tracemalloc.start()
        else:
            self.before = _status("VmRSS")
            # Writing 5 resets the peak (Linux, proc(5)).
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def end(self) -> None:
        """Up to here."""
        self.found = tracemalloc.get_traced_memory()[1] if self.traced else _status("VmHWM") - self.before
        tracemalloc.stop()


def _status(field_: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field_ + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field_}")


def prepared(length: int, bits: int) -> tuple[FloatCohort, server.Step]:
    """Ten sites that have dealt their shares, and what they are asked at MASK."""
    cohort = make_float_cohort(10, length, 0, bits=bits)
    step = server.open_round(cohort.header, cohort.roster, SERVER)
    for _ in range(2):
        step = server.close(cohort.collect(step))
    return cohort, step


def client_peak(peak: Peak, length: int, bits: int, folder: Path, *, quantising: bool) -> None:
    """Site 1's."""
    cohort, step = prepared(length, bits)
    site, header = cohort.sites[1], cohort.header
    ready = client.step(site, cohort.states[1], step.requests[1]).state
    if not isinstance(ready, Ready):
        raise TypeError("a site that is not ready for its vector")
    store = SiteStore.open(make_federation(folder, 10).sites[1])
    receipt = Receipt(header.digest(), header.plan, 1)
    update = None if quantising else cohort.vector(1)
    site_vector(1, length)  # keeps what all sites' vectors are made of
    peak.begin()
    masked = client.step(site, ready, Vector(update or cohort.vector(1), receipt)).reply
    if not isinstance(masked, MaskedUpdate):
        raise TypeError("a site that sends no vector")
    answer = encode_answer(masked)
    with store.transaction() as transaction:
        transaction.put_reply(header.digest(), int(Stage.MASK), StoredReply(bytes(32), answer.control, answer.vector))
    sent = sealed_content(answer.vector)
    peak.end()
    if update is not None:
        peak.found += update.vector.nbytes
    if len(sent) != 1:
        raise RuntimeError("no vector was sent")


def sealed_content(vector: Any) -> RecordDict:
    """The part of a reply that holds the vector."""
    return RecordDict({VECTOR: ArrayRecord({VECTOR: vector_array(vector)})})


def server_peak(peak: Peak, length: int, bits: int, folder: Path) -> None:
    """From the first masked vector to the mean."""
    cohort, step = prepared(length, bits)
    messages = {}
    for number, request in step.requests.items():
        reply: Any = cohort.answer(number, request)
        messages[number] = reply.message
        (folder / str(number)).write_bytes(to_npy(reply.vector))
        shape = reply.vector.shape
    del reply
    layout = cohort.header.layout
    peak.begin()
    state: Any = replace(step.state, total=MaskedSum(layout.length, layout.ring_bits))  # type: ignore[type-var]
    for number, message in messages.items():
        array = Array("uint32", shape, "numpy.ndarray", (folder / str(number)).read_bytes())
        came: Any = SimpleNamespace(content=RecordDict({VECTOR: ArrayRecord({VECTOR: array})}))
        vector = vector_of(came)
        if vector is None:
            raise RuntimeError("a reply without a vector")
        state = server.receive(state, number, MaskedReply(message, vector))
        del array, came, vector
    step = server.close(state)
    del state
    for _ in range(2):
        step = server.close(cohort.collect(step))
    mean = our_mean(step.state)
    peak.end()
    if not np.isfinite(mean).all():
        raise RuntimeError("no mean")


def measure(role: str, length: int, bits: int, *, traced: bool) -> float:
    """One row, in this process; in vectors of float32."""
    peak = Peak(traced)
    with tempfile.TemporaryDirectory() as folder:
        if role == "server":
            server_peak(peak, length, bits, Path(folder))
        else:
            client_peak(peak, length, bits, Path(folder), quantising=role != "client")
    return peak.found / (4 * length)


def main() -> None:
    """All rows, each in a process of its own; or one of them."""
    parser = argparse.ArgumentParser(description="peak memory of fedseal's secure aggregation, in vectors of float32")
    parser.add_argument("--length", type=int, default=10**7, help="coordinates of the vector")
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 20], help="rings")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--row", nargs=2, metavar=("ROLE", "HOW"), help="one row, in this process")
    options = parser.parse_args()
    if options.row is not None:
        role, how = options.row
        print(measure(role, options.length, options.bits[0], traced=how == "traced"))
        return
    rows = []
    print(f"{'bits':>4}  {'whose':24}  traced  resident   (vectors of {options.length} float32)")
    for bits in options.bits:
        for role in ROLES:
            base = [sys.executable, __file__, "--length", str(options.length), "--bits", str(bits), "--row", role]
            found = {}
            for how in ("traced", "resident"):
                # This very program, with arguments of its own.
                done = subprocess.run([*base, how], check=True, capture_output=True, text=True)  # noqa: S603
                found[how] = float(done.stdout.split()[-1])
            print(f"{bits:4}  {role:24}  {found['traced']:6.2f}  {found['resident']:8.2f}", flush=True)
            rows.append({"bits": bits, "role": role, **found})
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"length": options.length, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
