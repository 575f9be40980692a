"""`fedseal monitor plan`: what a monitor will see, before it is switched on."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support.commands import told

from fedseal.errors import ExitCode
from fedseal.privacy.inference.drift.power import Design, Release, Shift, ShiftKind, power

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def numbers(fedseal: Run, *arguments: str) -> dict[str, Any]:
    done = fedseal("monitor", "plan", "--json", *arguments)
    assert done.returncode == ExitCode.OK, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_says_what_the_planner_says(fedseal: Run) -> None:
    found = numbers(fedseal, "--rows", "2000", "--epsilon", "1", "--weights-part", "0", "--colluders", "1")
    release = Release(1.0, 1, 2.0, shares=10, honest=found["honest_shares"])
    said = power(Design(2000, 10_000, release.noise), Shift(ShiftKind.MEAN, 0.12), 1 / 52)
    assert found["releases"][0]["alarm"] == pytest.approx(said)
    assert found["false_alarms_a_year"] == pytest.approx(1.0)
    assert found["honest_shares"] < 10


def test_releases_stand_in_their_order_of_power(fedseal: Run) -> None:
    found = {one["name"]: one for one in numbers(fedseal, "--rows", "2000")["releases"]}
    own, counted, joint, pooled, unsealed, exact = found.values()
    assert joint["alarm"] < own["alarm"] < counted["alarm"] < pooled["alarm"] < exact["alarm"]
    assert unsealed["alarm"] < pooled["alarm"]
    assert own["smallest"] > exact["smallest"]
    assert own["rows_needed"] > exact["rows_needed"]
    assert own["epsilon_needed"] > pooled["epsilon_needed"]
    assert exact["epsilon_needed"] is None


def test_without_other_features_there_is_no_joint_release(fedseal: Run) -> None:
    assert len(numbers(fedseal, "--features", "1")["releases"]) == 5


@pytest.mark.parametrize("shift", ["scale:1.1", "tail:0.02", "rate:0.2+0.08", "mean:-0.3"])
def test_every_kind_of_shift_is_planned(fedseal: Run, shift: str) -> None:
    assert 0 < numbers(fedseal, "--shift", shift, "--rows", "3000")["releases"][0]["alarm"] <= 1


def test_people_get_a_sentence_and_a_table(fedseal: Run) -> None:
    done = fedseal("monitor", "plan", "--rows", "2000")
    assert done.returncode == ExitCode.OK
    said = " ".join(done.stdout.split())
    assert "one window alarms on a mean shift of 0.12 sd with" in said
    assert "False alarms a year: at most 1;" in said
    assert "13 tables in one window" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shift", "median:3"), "is not a shift"),
        (("--shift", "rate:0.2"), "is not a shift"),
        (("--shift", "scale:-1"), "cannot have size"),
        (("--sites", "4", "--colluders", "3"), "colluders"),
    ],
)
def test_what_cannot_be_planned_is_refused(fedseal: Run, arguments: tuple[str, ...], says: str) -> None:
    told(fedseal("monitor", "plan", *arguments), ExitCode.CONFIG, says)
