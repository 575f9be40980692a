"""Killed at any moment: what left a site was charged before, nothing is charged twice, and the ledgers stay whole."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    Federation,
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    ordinary_app,
    train_messages,
)
from support.victim import PLANS

from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.transaction import Transaction
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

VICTIM = Path(__file__).resolve().parents[1] / "support" / "victim.py"
# Seconds; a machine may be busy with other things.
PATIENCE = 120.0
CHANGE = {1: 0.5, 2: -1.0, 3: 2.0}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def charges(federation: Federation, site: int) -> list[str]:
    """The sessions a site was charged for, in order."""
    with federation.site(site).transaction() as transaction:
        return [e.session.hex() for e in transaction.entries("train") if e.kind == EntryKind.CHARGE]


def sent(folder: Path) -> list[dict[str, str | int]]:
    """What is known to have left; a line that was cut off where the process died is not."""
    log = folder / "sent.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def masked(folder: Path) -> int:
    """How many masked vectors have left."""
    return sum(line["kind"] == "masked" for line in sent(folder))


def run_victim(folder: Path, plan: str, *, vectors: int, seconds: float) -> None:
    """Let it train until that many more masked vectors have left, and a while longer, and kill it."""
    environment = {"PYTHONPATH": str(VICTIM.parents[1]), "PATH": "/usr/bin:/bin", "FLWR_TELEMETRY_ENABLED": "0"}
    before = masked(folder)
    with subprocess.Popen(
        [sys.executable, str(VICTIM), str(folder), plan], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "training\n":
                pytest.fail("the victim did not start")
            deadline = time.monotonic() + PATIENCE
            while masked(folder) < before + vectors:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("the victim sent no masked vector")
                time.sleep(0.005)
            time.sleep(seconds)
        finally:
            process.kill()


def check_stores(federation: Federation, kills: int) -> None:
    """What must hold after any number of kills.

    Raises:
        AssertionError: something left without a charge, or a site was charged more than once a release and a kill.
    """
    lines = sent(federation.folder)
    for number in federation.sites:
        federation.site(number).verify_ledgers()
        charged = charges(federation, number)
        left = {line["session"] for line in lines if line["site"] == number and line["kind"] == "masked"}
        assert left <= set(charged), "a masked vector left without a charge"
        assert len(charged) == len(set(charged)), "a release was charged twice"
        assert len(set(charged) - left) <= kills, "more charges than kills are for answers that never left"
    assert not [line for line in lines if str(line["kind"]).startswith("refusal")]


def kill_often(folder: Path, plan: str, times: int, seed: int) -> None:
    """Kill at random times: every other time as soon as the victim trains, else once vectors have left."""
    federation = make_federation(folder, 3)
    chance = random.Random(seed)
    for kill in range(1, times + 1):
        run_victim(folder, plan, vectors=chance.randint(1, 6) if kill % 2 else 0, seconds=chance.uniform(0.0, 0.1))
        check_stores(federation, kill)


def test_the_check_notices_what_left_without_a_charge(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    (tmp_path / "sent.jsonl").write_text("", encoding="utf-8")
    check_stores(federation, 0)
    line = json.dumps({"site": 1, "kind": "masked", "session": "00" * 32})
    (tmp_path / "sent.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="without a charge"):
        check_stores(federation, 1)


@pytest.mark.quick("local")
@pytest.mark.parametrize("plan", PLANS)
def test_a_killed_site_has_charged_what_left(tmp_path: Path, plan: str) -> None:
    kill_often(tmp_path, plan, times=2, seed=1)
    assert masked(tmp_path) > 0


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_killed_thirty_times(tmp_path: Path, plan: str) -> None:
    kill_often(tmp_path, plan, times=30, seed=2)
    assert masked(tmp_path) >= 15


class Crash(BaseException):
    """The process ends here: nothing catches this, as nothing catches a power cut."""


@pytest.mark.quick("append-local", "put_state-none", "put_reply-local")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("operation", ["append", "put_state", "put_reply"])
def test_a_crash_inside_the_transaction_leaves_nothing(
    tmp_path: Path, operation: str, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At MASK, after each of the three writes in turn: what was written is undone, and the repeated round charges
    once. Under a private plan only the charge that came before stays.
    """
    federation = make_federation(tmp_path, 3)
    calls = {"mask": False}
    original: Any = getattr(Transaction, operation)

    def crash_at_mask(self: Transaction, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if calls["mask"]:
            raise Crash

    class Armed(Script):
        def reply_metrics(self, number: int) -> Any:
            calls["mask"] = True
            return super().reply_metrics(number)

    def sealed(script: Script) -> SealedGrid:
        grid = local_grid(federation, ordinary_app(script))
        rules = CohortRules(minimum=3)
        return SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, plan=PLANS[plan], cohort=rules)

    before = int(plan == "local")
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, operation, crash_at_mask)
        crashing = sealed(Armed(CHANGE, done=True))
        with pytest.raises(Crash):
            list(crashing.send_and_receive(train_messages(crashing, model())))
    federation.site(1).verify_ledgers()
    assert len(charges(federation, 1)) == before
    again = sealed(Script(CHANGE, done=True))
    assert len(list(again.send_and_receive(train_messages(again, model())))) == 1
    assert len(charges(federation, 1)) == before + 1
