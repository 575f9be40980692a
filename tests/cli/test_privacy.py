"""`fedseal privacy`: verdicts, exit codes, and a JSON that says the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Run, told
from support.sabotage import half_variance
from support.studies import TINY

from fedseal.errors import ExitCode

QUICK = ("--rounds", "1", "--canaries", "400", "--seed", "5")


@pytest.mark.slow
def test_an_audit_that_finds_nothing_says_so_and_what_it_could_have_found(fedseal: Run) -> None:
    done = fedseal("privacy", "audit", *QUICK)
    assert done.returncode == ExitCode.OK, done
    said = " ".join(done.stdout.split())
    for text in ("Not falsified.", "can falsify a claim, never prove it", "ceiling of this audit", "4.19", "seed"):
        assert text in said


@pytest.mark.slow
def test_a_studys_own_plan_is_audited(fedseal: Run) -> None:
    done = fedseal("privacy", "audit", TINY, "--epsilon", "2", "--delta", "1e-6", *QUICK, "--json")
    assert done.returncode == ExitCode.OK, done
    found = json.loads(done.stdout)
    assert (found["promise"], found["delta"], found["rounds"], found["falsified"]) == (2.0, 1e-6, 1, False)
    assert found["guesses"]["canaries"] == 400
    assert found["guesses"]["made"] == 200
    assert "Not falsified." in done.stderr


def test_a_falsified_claim_has_an_exit_code_of_its_own(fedseal: Run) -> None:
    with half_variance():
        done = fedseal("privacy", "audit", *QUICK)
    assert done.returncode == ExitCode.FALSIFIED, done
    assert "FALSIFIED" in done.stdout
    assert "of the variance that the plan states" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_a_self_test_that_is_caught_ends_well(fedseal: Run) -> None:
    done = fedseal("privacy", "audit", *QUICK, "--self-test", "--json")
    assert done.returncode == ExitCode.OK, done
    assert json.loads(done.stdout)["falsified"]
    assert "Self-test passed" in done.stderr


def test_a_self_test_that_is_not_caught_ends_badly(fedseal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The lax build is as good as the claim.
    monkeypatch.setattr("fedseal.simulation.audit.run.SELF_TEST_EPSILON", 3.0)
    done = fedseal("privacy", "audit", *QUICK, "--self-test")
    assert done.returncode == ExitCode.FALSIFIED, done
    assert "Self-test FAILED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--epsilon", "0"), "--epsilon has to be above 0"),
        (("--delta", "2"), "--delta has to be above 0"),
        (("--canaries", "3"), "from 10 to 4096 canaries"),
    ],
)
def test_an_option_out_of_range_is_refused(fedseal: Run, arguments: tuple[str, str], says: str) -> None:
    told(fedseal("privacy", "audit", *arguments), ExitCode.CONFIG, says)


def test_a_study_without_a_promise_is_refused(fedseal: Run, changed: Callable[..., Path]) -> None:
    folder = changed("pyproject.toml", 'plan = "local"', 'plan = "none"')
    told(fedseal("privacy", "audit", folder), ExitCode.CONFIG, "plan is none", "--plan local")


@pytest.mark.slow
def test_inversion_shows_every_scene_and_the_lesson(fedseal: Run) -> None:
    done = fedseal("privacy", "invert", "--trials", "1", "--json")
    assert done.returncode == ExitCode.OK, done
    rows = json.loads(done.stdout)
    assert [(r["sites"], r["batch"]) for r in rows] == [(1, 1), (1, 8), (1, 32), (5, 1), (5, 8), (5, 8), (5, 1), (5, 8)]
    assert rows[0]["recovered"] == rows[0]["records"] == 1
    assert all(r["recovered"] == 0 for r in rows if r["noisy"])
    said = " ".join(done.stderr.split())
    assert "It does not hide the record" in said
    assert "Protection is all of these together" in said
