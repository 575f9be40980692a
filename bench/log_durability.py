"""Does the audit log survive kill -9, and is it noticed when the disk lost what it had promised?

    python bench/log_durability.py                       # 10 000 of each; --trials 300 for a first look

- *killed*: a process appends, signs, commits and acknowledges, until it is killed at a random moment. Then the log is
  opened again: everything acknowledged has to be there, in order, and hashes, tiles and the newest checkpoint have to
  belong to the leaves.
- *damaged*: the write-ahead log of a database is cut, loses a page or has a sector overwritten, at a random place. The
  log has to open as it was after one of its commits, and where that is shorter than what a witness has cosigned, the
  witness' size has to say so, and the witness has to refuse whatever is appended instead.

Every twentieth of the damaged trials does no damage, and has to find the log whole. Exit code 1 if one trial fails.
SIGKILL leaves the kernel's cache alone: losing power is what the second kind stands for.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from fedseal.compliance.log.check import check_log
from fedseal.compliance.log.checkpoint import Cosigner, log_key, read_checkpoint, server_origin, site_origin
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.witness import Outcome, WitnessState, answer, encode_request
from fedseal.errors import FedsealError
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret

ORIGIN = server_origin("durable")
SERVER, SITE = (SigningKey(Secret(bytes([number]) * 32)) for number in (1, 2))
LOG = log_key(ORIGIN, SERVER.public)
WITNESS = Cosigner(site_origin("durable", "a"), SITE)
# How long a log grows before the next trial begins a new one.
LONGEST = 400


def leaf(index: int) -> bytes:
    """The leaf that has to stand at an index."""
    return b"leaf %d " % index * (1 + index % 20)


def broken(path: Path, acknowledged: int) -> str:
    """What is wrong with a log that acknowledged so many leaves; nothing where it is whole."""
    try:
        engine = open_database(path)
    except FedsealError as error:
        return f"it does not open: {error}"
    try:
        with transaction(engine, ORIGIN) as log:
            found = log.leaves(0, log.size)
            if len(found) < acknowledged:
                return "acknowledged leaves are lost"
            if found != [leaf(i) for i in range(len(found))]:
                return "the leaves are others"
            check_log(log)
            note = log.checkpoint()
            if found and (note is None or read_checkpoint(note)[0].size != len(found)):
                return "the checkpoint is another's"
    except (FedsealError, DatabaseError) as error:
        return f"it contradicts itself: {error}"
    finally:
        engine.dispose()
    return ""


def append_for_ever(path: Path, pipe: int, rng: random.Random) -> None:
    """In a process of its own, until it is killed."""
    engine = open_database(path)
    while True:
        with transaction(engine, ORIGIN) as log:
            start = log.size
            log.append([leaf(i) for i in range(start, start + rng.randrange(1, 9))])
            log.sign_checkpoint(SERVER)
            size = log.size
        os.write(pipe, size.to_bytes(8, "big"))


def killed(path: Path, rng: random.Random) -> int:
    """One process, killed while it opens the log or after a few commits; the last size that it acknowledged."""
    reading, writing = os.pipe()
    child_rng = random.Random(rng.random())  # noqa: S311 - nothing secret
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            append_for_ever(path, writing, child_rng)
        finally:
            os._exit(3)
    os.close(writing)
    raw = b""
    if rng.random() < 0.9:
        for _ in range(rng.randrange(1, 5)):
            raw += os.read(reading, 8)
        time.sleep(rng.random() * 0.005)
    else:
        time.sleep(rng.random() * 0.06)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("the process ended by itself")
    while part := os.read(reading, 1 << 16):
        raw += part
    os.close(reading)
    return int.from_bytes(raw[-8:], "big") if raw else 0


def kill_trials(folder: Path, trials: int, rng: random.Random) -> Counter[str]:
    """How the trials ended."""
    ends: Counter[str] = Counter()
    number = acknowledged = 0
    for trial in range(trials):
        path = folder / f"killed{number}"
        before = acknowledged
        acknowledged = max(acknowledged, killed(path, rng))
        if trial and trial % 1000 == 0:
            print(f"  {trial} killed so far, {ends['FAILED']} failed", file=sys.stderr, flush=True)
        ends["acknowledged something" if acknowledged > before else "killed before it acknowledged"] += 1
        wrong = broken(path, acknowledged)
        if wrong:
            ends["FAILED"] += 1
            files = sorted(file.name for file in folder.iterdir()) if folder.exists() else "the folder is gone"
            print(f"trial {trial}: {wrong}; {files}", file=sys.stderr, flush=True)
        if acknowledged > LONGEST or wrong:
            for file in folder.glob(f"killed{number}*"):
                file.unlink()
            number, acknowledged = number + 1, 0
    return ends


@dataclass(frozen=True)
class Disk:
    """A database whose newest commits are in its write-ahead log, and what it and its witness knew."""

    database: bytes
    wal: bytes
    sizes: frozenset[int]
    witnessed: WitnessState


def make_disk(folder: Path, rng: random.Random) -> Disk:
    """Some commits; a witness cosigned the last."""
    path = folder / "disk"
    engine = open_database(path)
    sizes, state = {0}, WitnessState(ORIGIN)
    # An open connection keeps SQLite from copying the write-ahead log into the file at the end.
    with engine.connect():
        for _ in range(rng.randrange(4, 14)):
            with transaction(engine, ORIGIN) as log:
                start = log.size
                log.append([leaf(i) for i in range(start, start + rng.randrange(1, 40))])
                note = log.sign_checkpoint(SERVER)
                raw = encode_request(state.size, log.consistency(state.size, log.size), note)
                sizes.add(log.size)
            state, response = answer(state, raw, LOG, WITNESS, 1)
            if response.outcome is not Outcome.COSIGNED:
                raise SystemExit("an honest log was refused")
        disk = Disk(path.read_bytes(), Path(f"{path}-wal").read_bytes(), frozenset(sizes), state)
    engine.dispose()
    for file in folder.glob("disk*"):
        file.unlink()
    return disk


def damaged(wal: bytes, rng: random.Random) -> bytes:
    """Cut anywhere, a sector of 512 random bytes, or a page of zeroes."""
    place = rng.randrange(len(wal))
    match rng.randrange(3):
        case 0:
            return wal[:place]
        case 1:
            place -= place % 512
            return wal[:place] + rng.randbytes(min(512, len(wal) - place)) + wal[place + 512 :]
        case _:
            place -= place % 4096
            return wal[:place] + bytes(min(4096, len(wal) - place)) + wal[place + 4096 :]


def damage_trial(folder: Path, disk: Disk, wal: bytes) -> str:
    """How one trial ended."""
    path = folder / "damaged"
    path.write_bytes(disk.database)
    Path(f"{path}-wal").write_bytes(wal)
    try:
        wrong = broken(path, 0)
        if wrong:
            return f"FAILED: {wrong}"
        engine = open_database(path)
        try:
            with transaction(engine, ORIGIN) as log:
                size, witnessed = log.size, disk.witnessed
                if size not in disk.sizes:
                    return "FAILED: a size that was never committed"
                if size == witnessed.size:
                    return "whole"
                # The server that does not ask its witnesses goes on, past what they have seen.
                log.append([b"another history"] * (witnessed.size - size + 3))
                proof = log.consistency(witnessed.size, log.size)
                raw = encode_request(witnessed.size, proof, log.sign_checkpoint(SERVER))
        finally:
            engine.dispose()
        refused = answer(witnessed, raw, LOG, WITNESS, 2)[1].outcome is Outcome.INCONSISTENT
        noticed = size < witnessed.size and refused
        return "shorter, and noticed" if noticed else "FAILED: shorter, and not noticed"
    finally:
        for file in folder.glob("damaged*"):
            file.unlink()


def damage_trials(folder: Path, trials: int, rng: random.Random) -> Counter[str]:
    """How the trials ended; a new database every fifty, no damage every twenty."""
    ends: Counter[str] = Counter()
    disk = make_disk(folder, rng)
    for trial in range(trials):
        if trial and trial % 50 == 0:
            disk = make_disk(folder, rng)
        if trial % 20:
            ends[damage_trial(folder, disk, damaged(disk.wal, rng))] += 1
        else:
            end = damage_trial(folder, disk, disk.wal)
            ends["undamaged, and whole" if end == "whole" else f"FAILED, undamaged: {end}"] += 1
    return ends


KINDS: dict[str, Callable[[Path, int, random.Random], Counter[str]]] = {
    "damaged": damage_trials,
    "killed": kill_trials,
}


def main() -> int:
    """Both kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, help="one kind of trials alone")
    parser.add_argument("--folder", type=Path, help="on which disk; the system's temporary folder where not given")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for title in [args.only] if args.only else KINDS:
            job = KINDS[title]
            start = time.perf_counter()
            ends = job(Path(name), args.trials, random.Random(args.seed))  # noqa: S311 - nothing secret
            failed = failed or any(end.startswith("FAILED") for end in ends)
            print(f"{title}, {args.trials} trials, {time.perf_counter() - start:.0f} s:", flush=True)
            for end, count in ends.most_common():
                print(f"  {count:6}  {end}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
