"""The deployed demo without Flower's programs: what it plans, how it fails, and what it says."""

import sys
from pathlib import Path

import numpy as np
import pytest
from support.studies import material, tiny

from fedseal.cli.deploying import steps_table, verdict
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import SystemRandomness
from fedseal.privacy.store import Identity
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.comparison import SEEDS, expected_range, simulated_model
from fedseal.simulation.deployed.demo import Deployed, Step, demo_contract, deployed_demo
from fedseal.study import Contract


class Silent:
    """Watches and says nothing."""

    def begin(self, contract: Contract, run: str) -> None:
        """Nothing."""

    def step(self, title: str) -> None:
        """Nothing."""

    def took(self, step: Step) -> None:
        """Nothing."""


def test_without_a_plan_nobody_is_drawn_and_with_one_the_studys_rate_stays() -> None:
    contract = tiny().contract
    none, local = demo_contract(contract, "none"), demo_contract(contract, "local")
    assert (none.training.sample_rate, none.privacy.plan) == (1.0, "none")
    assert (local.training.sample_rate, local.privacy.plan) == (0.5, "local")
    assert {c.training.rounds for c in (none, local)} == {2}
    assert {(c.cohort.minimum, c.cohort.colluders, c.simulation.sites) for c in (none, local)} == {(3, 1, 3)}


def test_a_program_that_fails_leaves_its_log_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [sys.executable, "-c", "print('no'); exit(3)"]
    monkeypatch.setattr(flower, "superlink_command", lambda certificate, port, database: fails)
    with pytest.raises(ConfigError) as caught:
        deployed_demo(tiny(), "none", tmp_path / "out", Silent())
    assert caught.value.message == "superlink ended with code 3 before ready"
    (left,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left.read_text(encoding="utf-8") == "no\n"
    assert str(left) in caught.value.next_step


@pytest.mark.slow
def test_with_plan_none_no_randomness_of_a_site_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a site that draws from the operating system gets the same as one with a seed."""
    contract = demo_contract(tiny().contract, "none")
    gathered = material(tiny(simulation={"sites": 3}), tmp_path / "data")
    seeded = simulated_model(gathered, contract, tmp_path / "seeded")
    monkeypatch.setattr(Identity, "randomness", lambda identity: SystemRandomness())
    fresh = simulated_model(gathered, contract, tmp_path / "fresh")
    assert {n: a.tobytes() for n, a in seeded.items()} == {n: a.tobytes() for n, a in fresh.items()}


def found(**changes: object) -> Deployed:
    deployed = Deployed("run", "none", "00")
    for name, value in changes.items():
        setattr(deployed, name, value)
    return deployed


@pytest.mark.parametrize(
    ("deployed", "said"),
    [
        (found(byte_identical=True), "byte-identical to the simulation: yes"),
        (found(byte_identical=False), "byte-identical to the simulation: no"),
        (
            found(accuracy=0.9, seeds={1: 0.88, 2: 0.92}, expected=(0.85, 0.95)),
            "0.900 deployed, 0.880 to 0.920 in simulations with 2 seeds: within 0.850 to 0.950",
        ),
        (found(accuracy=0.87, seeds={1: 0.88, 2: 0.92}, expected=(0.85, 0.95)), "within"),
        (found(accuracy=0.84, seeds={1: 0.88, 2: 0.92}, expected=(0.85, 0.95)), "outside"),
        (found(accuracy=0.84, seeds={1: 0.88}), "no accuracy to compare"),
        (found(), "no accuracy to compare"),
    ],
)
def test_the_verdict_says_how_it_compares(deployed: Deployed, said: str) -> None:
    assert said in verdict(deployed)


def test_a_range_for_one_more_run_is_left_one_time_in_a_hundred() -> None:
    """And the range of five values themselves by far more."""
    draws = np.random.default_rng(1).normal(0.5, 0.03, (4000, len(SEEDS) + 1))
    ranges = [(row[-1], expected_range(list(row[:-1]))) for row in draws]
    outside = np.mean([not low <= last <= high for last, (low, high) in ((x, r) for x, r in ranges if r is not None)])
    assert 0.005 < outside < 0.015
    assert np.mean((draws[:, -1] < draws[:, :-1].min(1)) | (draws[:, -1] > draws[:, :-1].max(1))) > 0.3
    assert expected_range([0.9]) is None
    assert expected_range([0.9, 0.9]) == (0.9, 0.9)


def test_the_table_shows_where_a_rounds_time_went() -> None:
    steps = [Step("SuperLink ready", 1.5), Step("round 1", 60.0, {"mask": 12.0, "unmask": 11.0})]
    assert steps_table(found(steps=steps)).row_count == 4
