"""Strangers enrol by commands, train, change keys and members while the server runs, and train again."""

from pathlib import Path

import pytest
from support.typed import COORDINATOR, SITES, walking

pytestmark = pytest.mark.slow


def test_from_empty_folders_to_a_run_and_on_to_the_next_epoch(tmp_path: Path) -> None:
    with walking(tmp_path) as walk:
        walk.prepare()
        contract = tmp_path / "readmission" / "pyproject.toml"
        contract.write_text(contract.read_text(encoding="utf-8").replace("rounds = 15", "rounds = 2"), "utf-8")
        walk.enrol()
        typed = [step.seat for step in walk.steps]
        assert typed.count(COORDINATOR) == 4
        assert {typed.count(name) for name in SITES} == {2}
        walk.start_server()
        for name in SITES:
            walk.type(name, f"site check --config {name}/site.toml")
            walk.start_site(name)
        walk.type(COORDINATOR, "server run readmission --config server/server.toml")
        assert [event["event"] for event in walk.events()].count("round") == 2
        # Everybody gets new keys, while the server runs.
        walk.ask(COORDINATOR, "server rotate")
        for name in SITES:
            walk.ask(name, f"site rotate --folder {name}")
        requests = " ".join(f"{name}/{name}.request" for name in SITES)
        walk.move(f"federation admit server/server.request {requests}", 2, SITES)
        for name in SITES:
            walk.stop(name)
            walk.start_site(name)
        for command in ("server/server.sqlite", "north/site.sqlite"):
            assert '"epoch": 2' in walk.type(COORDINATOR, f"federation status {command} --json")
        # The study promises one run's budget, and it is spent: what is left to see is that all answer, and refuse.
        walk.type(COORDINATOR, "audit verify --log server/server.sqlite")
        assert "epoch 2 of the federation: 3 sites" in walk.said(COORDINATOR)
