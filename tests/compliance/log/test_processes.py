"""Several processes append to one log; some are killed. Nothing that was acknowledged is lost, nothing is half there.

A damaged write-ahead log reopens as a valid, shorter log: only what a witness has seen tells.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.appender import BATCH
from support.keys import SERVER
from support.logs import LOG, ORIGIN, TIME, leaves, witness

from fedseal.compliance.log import tree
from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.witness import Outcome, WitnessState, answer, encode_request

TESTS = Path(__file__).resolve().parents[2]


def start(path: Path, name: str, batches: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-m", "support.appender", str(path), name, str(batches)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def check(path: Path, acknowledged: int) -> list[bytes]:
    """The log's leaves, after its hashes, tiles and newest checkpoint were found to belong to them."""
    engine = open_database(path)
    with transaction(engine, ORIGIN) as log:
        found = log.leaves(0, log.size)
        assert len(found) >= acknowledged
        assert log.root() == log.root(log.size) == tree.root_of(found)
        checkpoint, _ = read_checkpoint(log.checkpoint() or "")
        assert (checkpoint.size, checkpoint.root) == (log.size, log.root())
    engine.dispose()
    return found


def test_four_processes_append_to_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    processes = [start(path, f"p{i}", 25) for i in range(4)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    sizes = sorted(int(size) for lines in printed for size in lines.split())
    assert sizes == [BATCH * (i + 1) for i in range(100)]
    found = check(path, 300)
    for i in range(4):
        own = [leaf for leaf in found if leaf.startswith(b"p%d " % i)]
        assert own == [f"p{i} {n} {j}".encode() for n in range(25) for j in range(BATCH)]


def test_whoever_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    rng, acknowledged = random.Random(3), 0
    for turn in range(4):
        process = start(path, f"victim {turn}", 100_000)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 12)):
            acknowledged = int(process.stdout.readline())
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=60)[0].split("\n")
        # The last line may be cut in the middle.
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        assert len(check(path, acknowledged)) % BATCH == 0


@pytest.mark.parametrize("cut", ["truncated", "zeroed"])
def test_a_damaged_wal_is_a_shorter_log_that_only_a_witness_notices(tmp_path: Path, cut: str) -> None:
    path, state = tmp_path / "log.sqlite", WitnessState(ORIGIN)
    engine = open_database(path)
    keep = engine.connect()
    for step in range(10):
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(5 * step, 5 * step + 5))
            note = log.sign_checkpoint(SERVER)
            raw = encode_request(state.size, log.consistency(state.size, log.size), note)
        state, response = answer(state, raw, LOG, witness(1), TIME)
        assert response.outcome is Outcome.COSIGNED
    # As the disk is at this moment, with the log not yet copied into the file; then the last part of it is lost.
    for file in (path, Path(f"{path}-wal")):
        shutil.copy(file, tmp_path / f"copy{file.name.removeprefix('log')}")
    keep.close()
    engine.dispose()
    wal = tmp_path / "copy.sqlite-wal"
    raw_wal = wal.read_bytes()
    half = len(raw_wal) * 3 // 4
    wal.write_bytes(raw_wal[:half] + (b"" if cut == "truncated" else bytes(len(raw_wal) - half)))
    found = check(tmp_path / "copy.sqlite", 0)
    assert 0 < len(found) < state.size == 50
    assert found == leaves(0, len(found))
    # So a server asks its witnesses at its start; and if it did not, its next checkpoint would be refused.
    again = open_database(tmp_path / "copy.sqlite")
    with transaction(again, ORIGIN) as log:
        log.append([b"another history"])
        short = encode_request(state.size, (), log.sign_checkpoint(SERVER))
        log.append([b"another history"] * 60)
        longer = encode_request(state.size, log.consistency(state.size, log.size), log.sign_checkpoint(SERVER))
    again.dispose()
    assert answer(state, short, LOG, witness(1), TIME)[1].outcome is Outcome.MALFORMED
    assert answer(state, longer, LOG, witness(1), TIME)[1].outcome is Outcome.INCONSISTENT
