"""What the audit log costs: appending beside a plain insert, verifying a million entries, proving one of them.

    python bench/log.py --out bench/results/log.json          # about two minutes; --entries 100000 for a first look

- *append*: batches appended and committed (WAL, synchronous FULL), and signed as a checkpoint, by turns with the
  insert of the same leaves into a table of their own in another file, through the same SQLAlchemy; a ratio is taken
  turn by turn.
- *verify*: all leaves are read from the file; root, stored hashes and checkpoints are compared with what is computed
  anew from them.
- *prove*: a proof file with eight cosignatures, made, and checked with the policy alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Engine, Integer, LargeBinary, MetaData, Table, insert
from timing import machine

from fedseal.compliance.log.check import check_log
from fedseal.compliance.log.checkpoint import (
    Cosigner,
    cosign,
    log_key,
    read_checkpoint,
    server_origin,
    site_origin,
)
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.proof import Proof, check_proof, parse_proof
from fedseal.compliance.log.quorum import federation_policy
from fedseal.database import connect
from fedseal.merkle import leaf_hash
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret

FEDERATION = "heart"
ORIGIN = server_origin(FEDERATION)
LEAF = 412
PLAIN = MetaData()
ROWS = Table("rows", PLAIN, Column("id", Integer, primary_key=True), Column("leaf", LargeBinary, nullable=False))


def key(name: str) -> SigningKey:
    """The same in every run."""
    return SigningKey(Secret(sha256(name.encode()).digest()))


SERVER = key("server")
SITES = [Cosigner(site_origin(FEDERATION, f"hospital-{i}"), key(f"hospital-{i}")) for i in range(1, 9)]
POLICY = federation_policy(log_key(ORIGIN, SERVER.public), [site.vkey for site in SITES], 1)


def leaves(start: int, count: int) -> list[bytes]:
    """Leaves of the length of a round's event, none twice."""
    return [(b"%020d" % i) * (LEAF // 20) + b"." * (LEAF % 20) for i in range(start, start + count)]


def append(folder: Path, batch: int, turns: int, sign: bool) -> dict[str, Any]:
    """Both sides' seconds of every turn."""
    ours, plain = open_database(folder / f"ours-{batch}-{sign}"), connect(folder / f"plain-{batch}-{sign}", keep=True)
    with plain.begin() as connection:
        PLAIN.create_all(connection)

    def log(rows: list[bytes]) -> None:
        with transaction(ours, ORIGIN) as found:
            found.append(rows)
            if sign:
                found.sign_checkpoint(SERVER)

    def table(rows: list[bytes]) -> None:
        with plain.begin() as connection:
            connection.execute(insert(ROWS), [{"leaf": leaf} for leaf in rows])

    seconds: dict[str, list[float]] = {"log": [], "plain": []}
    for turn in range(turns + 5):
        rows = leaves(turn * batch, batch)
        for name, job in (("log", log), ("plain", table)) if turn % 2 else (("plain", table), ("log", log)):
            took = seconds_of(partial(job, rows))
            if turn >= 5:
                seconds[name].append(took)
    ours.dispose()
    plain.dispose()
    ratios = [a / b for a, b in zip(seconds["log"], seconds["plain"], strict=True)]
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    quartiles = statistics.quantiles(ratios, n=4)
    print(
        f"append, batch {batch:5}{', signed' if sign else '        '}: log {medians['log'] * 1e3:7.2f} ms, plain"
        f" {medians['plain'] * 1e3:7.2f} ms, ratio of medians {medians['log'] / medians['plain']:.2f}, turn by turn"
        f" {quartiles[1]:.2f} [{quartiles[0]:.2f}, {quartiles[2]:.2f}], {batch / medians['log']:9.0f} entries/s"
    )
    return {"batch": batch, "signed": sign, "medians": medians, "ratio_quartiles": quartiles, "turns": turns}


def seconds_of(job: Callable[[], object]) -> float:
    """Wall seconds: waiting for the disk is part of it."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def build(engine: Engine, entries: int) -> float:
    """Fill the log, in batches of a thousand."""
    start = time.perf_counter()
    for place in range(0, entries, 1000):
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(place, min(1000, entries - place)))
    return time.perf_counter() - start


def verify(engine: Engine, repeat: int) -> dict[str, Any]:
    """Seconds of each repetition."""
    walls, cpus = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        with transaction(engine, ORIGIN) as log:
            check_log(log)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(f"verify: wall {statistics.median(walls):.2f} s [{min(walls):.2f}, {max(walls):.2f}], cpu", end=" ")
    print(f"{statistics.median(cpus):.2f} s [{min(cpus):.2f}, {max(cpus):.2f}]")
    return {"wall": walls, "cpu": cpus}


def prove(engine: Engine, proofs: int) -> dict[str, Any]:
    """The size of a proof file, and how long making and checking one take."""
    with transaction(engine, ORIGIN) as log:
        size = log.size
        note = log.sign_checkpoint(SERVER)
        for site in SITES:
            log.add_cosignature(size, cosign(read_checkpoint(note)[0], site, 1_800_000_000).line)
        made, checked, sizes = [], [], []
        for i in range(proofs):
            index = i * (size - 1) // max(1, proofs - 1)
            start = time.perf_counter()
            raw = str(Proof(index, log.inclusion(index, size), log.checkpoint() or "")).encode()
            made.append(time.perf_counter() - start)
            leaf = log.leaf(index)
            start = time.perf_counter()
            verdict = check_proof(parse_proof(raw), leaf, POLICY)
            checked.append(time.perf_counter() - start)
            sizes.append(len(raw))
            if not verdict.final:
                raise SystemExit("a proof that does not hold")
        found = [seconds_of(lambda: log.find(leaf_hash(leaf))) for _ in range(5)]
    print(
        f"prove: {max(sizes)} bytes with {len(SITES)} cosignatures by names of {len(SITES[0].name)} characters; made in"
    )
    print(f"       {statistics.median(made) * 1e3:.2f} ms, checked in {statistics.median(checked) * 1e3:.2f} ms; find")
    print(f"       the last leaf by its hash: {statistics.median(found) * 1e3:.1f} ms")
    return {"bytes": max(sizes), "made": statistics.median(made), "checked": statistics.median(checked)}


def main() -> None:
    """All three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="on which disk; the system's temporary folder where not given")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        jobs = [(1, True), (10, True), (100, True), (100, False), (1000, True)]
        appended = [
            append(folder, batch, args.turns if batch < 1000 else args.turns // 5, sign) for batch, sign in jobs
        ]
        engine = open_database(folder / "large")
        built = build(engine, args.entries)
        print(f"build: {args.entries} entries in {built:.1f} s, {args.entries / built:.0f} a second")
        result = {"append": appended, "verify": verify(engine, 3), "prove": prove(engine, 200), "build": built}
        engine.dispose()
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": machine(), **result}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
