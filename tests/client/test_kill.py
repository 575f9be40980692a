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
from support.victim import existing

from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.store import Transaction
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

VICTIM = Path(__file__).resolve().parents[1] / "support" / "victim.py"


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def charges(federation: Federation, site: int) -> list[str]:
    """The sessions a site was charged for, in order."""
    with federation.site(site).transaction() as transaction:
        return [e.session.hex() for e in transaction.entries("train") if e.kind == EntryKind.CHARGE]


def run_victim(folder: Path, seconds: float) -> None:
    """Let it train for a while and kill it."""
    environment = {"PYTHONPATH": str(VICTIM.parents[1]), "PATH": "/usr/bin:/bin", "FLWR_TELEMETRY_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, str(VICTIM), str(folder)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        if process.stdout is None or process.stdout.readline() != "training\n":
            pytest.fail("the victim did not start")
        time.sleep(seconds)
        process.kill()


def check_stores(federation: Federation, kills: int) -> int:
    """What must hold after any number of kills; how many masked vectors had left.

    Raises:
        AssertionError: something left without a charge, or a site was charged more than once a release and a kill.
    """
    lines = (federation.folder / "sent.jsonl").read_text(encoding="utf-8").splitlines()
    # The last line may be cut off where the process died; then it is not known to have left.
    sent = [json.loads(line) for line in lines if line.endswith("}")]
    for number in federation.sites:
        federation.site(number).verify_ledgers()
        charged = charges(federation, number)
        left = {line["session"] for line in sent if line["site"] == number and line["kind"] == "masked"}
        assert left <= set(charged), "a masked vector left without a charge"
        assert len(charged) == len(set(charged)), "a release was charged twice"
        assert len(set(charged) - left) <= kills, "more charges than kills are for answers that never left"
    assert not [line for line in sent if line["kind"].startswith("refusal")]
    return sum(line["kind"] == "masked" for line in sent)


def kill_often(folder: Path, times: int, seed: int) -> int:
    federation = make_federation(folder, 3)
    moments = random.Random(seed)
    masked = 0
    for kill in range(1, times + 1):
        run_victim(folder, moments.uniform(0.0, 0.4))
        masked = check_stores(federation, kill)
    return masked


def test_the_check_notices_what_left_without_a_charge(tmp_path: Path) -> None:
    kill_often(tmp_path, times=1, seed=3)
    federation = existing(tmp_path)
    with (tmp_path / "sent.jsonl").open("a", encoding="utf-8") as sent:
        sent.write("\n" + json.dumps({"site": 1, "kind": "masked", "session": "00" * 32}) + "\n")
    with pytest.raises(AssertionError, match="without a charge"):
        check_stores(federation, 1)


def test_a_killed_site_has_charged_what_left(tmp_path: Path) -> None:
    assert kill_often(tmp_path, times=4, seed=1) > 0


@pytest.mark.slow
def test_killed_sixty_times(tmp_path: Path) -> None:
    assert kill_often(tmp_path, times=60, seed=2) > 100


class Crash(BaseException):
    """The process ends here: nothing catches this, as nothing catches a power cut."""


@pytest.mark.parametrize("operation", ["append", "put_state", "put_reply"])
def test_a_crash_inside_the_transaction_leaves_nothing(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At MASK, after each of the three writes in turn: the site is as before, and the repeated round charges once."""
    federation = make_federation(tmp_path, 3)
    calls = {"mask": False}
    original: Any = getattr(Transaction, operation)

    def crash_at_mask(self: Transaction, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if calls["mask"]:
            raise Crash

    script = Script({1: 0.5, 2: -1.0, 3: 2.0})

    class Armed(Script):
        def reply_metrics(self, number: int) -> Any:
            calls["mask"] = True
            return super().reply_metrics(number)

    def sealed(script_: Script) -> SealedGrid:
        grid = local_grid(federation, ordinary_app(script_))
        return SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=CohortRules(minimum=3))

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, operation, crash_at_mask)
        crashing = sealed(Armed(script.change))
        with pytest.raises(Crash):
            list(crashing.send_and_receive(train_messages(crashing, model())))
    federation.site(1).verify_ledgers()
    assert charges(federation, 1) == []
    again = sealed(script)
    assert len(list(again.send_and_receive(train_messages(again, model())))) == 1
    assert len(charges(federation, 1)) == 1
