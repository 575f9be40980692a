"""`fedseal scenario` and `fedseal simulate SCENARIO`: what is said, what is left, and every exit code."""

import json
from pathlib import Path
from xml.etree.ElementTree import parse as parse_xml

import pytest
from support.commands import Run, left_behind, refused, told
from support.scenarios import SMALL

from fedseal.errors import ExitCode


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A small scenario's file."""
    path = tmp_path / "mine.toml"
    path.write_text(SMALL.replace("steps = 4", "steps = 3").replace("test_rows = 50", "test_rows = 20"), "utf-8")
    return path


def test_list_and_show(fedseal: Run) -> None:
    listed = fedseal("scenario", "list")
    assert listed.returncode == 0
    assert "sudden-global" in listed.stdout
    shown = fedseal("scenario", "show", "sudden-global")
    assert shown.stdout.startswith("# The scenario to begin with")
    resolved = fedseal("scenario", "show", "sudden-global", "--resolved")
    assert "server_momentum = 0.9" in resolved.stdout


def test_check(fedseal: Run, mine: Path) -> None:
    checked = fedseal("scenario", "check", mine)
    assert checked.returncode == 0
    assert "4 sites, 3 features, 2 classes, 3 steps" in checked.stdout
    mine.write_text(mine.read_text("utf-8").replace("when =", "wen ="), "utf-8")
    told(fedseal("scenario", "check", mine), ExitCode.CONFIG, "mine.toml:16:", "Did you mean 'when'?")
    mine.write_text(SMALL.replace("sudden@2", "sudden@9"), "utf-8")
    told(fedseal("scenario", "check", mine), ExitCode.CONFIG, "never comes")
    told(fedseal("scenario", "check", "suden-global"), ExitCode.CONFIG, "Did you mean 'sudden-global'?")


def test_a_run_its_gates_and_its_verification(fedseal: Run, mine: Path, tmp_path: Path) -> None:
    out, gates = tmp_path / "runs", tmp_path / "gates.xml"
    done = fedseal("simulate", mine, "--out", out, "--gate", "--junit", gates, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scenario"] == "small"
    assert "passed accuracy.global >= 0.5" in done.stderr
    assert parse_xml(gates).getroot().attrib["failures"] == "0"  # noqa: S314 - our own file
    (folder,) = out.iterdir()
    again = fedseal("simulate", "verify", folder)
    assert again.returncode == 0
    assert "The same in every number" in again.stdout
    # Another scenario.toml than the one that ran.
    changed = (folder / "scenario.toml").read_text("utf-8").replace("learning_rate = 0.5", "learning_rate = 0.4")
    (folder / "scenario.toml").write_text(changed, "utf-8")
    other = fedseal("simulate", "verify", folder)
    assert other.returncode == ExitCode.FALSIFIED
    assert "steps[0].metrics.loss.global: was " in other.stdout


def test_a_gate_that_does_not_hold(fedseal: Run, mine: Path, tmp_path: Path) -> None:
    mine.write_text(mine.read_text("utf-8").replace("value = 0.5", "value = 1.01"), "utf-8")
    options = ("simulate", mine, "--no-baselines", "--out", tmp_path / "runs")
    failed = fedseal(*options, "--gate")
    assert failed.returncode == ExitCode.GATE
    assert "FAILED accuracy.global >= 1.01" in failed.stdout
    # Without --gate it is only said.
    assert fedseal(*options).returncode == 0


def test_what_is_refused(fedseal: Run, mine: Path, tmp_path: Path) -> None:
    refused(fedseal, tmp_path, ExitCode.CONFIG, "nothing.toml", says=("no scenario 'nothing.toml'",))
    refused(fedseal, tmp_path, ExitCode.CONFIG, mine, "--sites", "5", says=("are for studies",))
    refused(fedseal, tmp_path, ExitCode.CONFIG, mine, "--epsilon", "-1", says=("--epsilon: input should be",))
    refused(fedseal, tmp_path, ExitCode.CONFIG, mine, "--strategy", "fedbn", says=("fedbn",))
    refused(fedseal, tmp_path, ExitCode.CONFIG, tmp_path, "--gate", says=("are for scenarios",))
    refused(fedseal, tmp_path, ExitCode.CONFIG, "heart-natural", says=("--data",))
    told(fedseal("simulate", "verify"), ExitCode.CONFIG, "verify needs a run's folder")
    told(fedseal("simulate", "verify", tmp_path), ExitCode.CONFIG, "is no run of a scenario")
    told(fedseal("simulate", mine, mine), ExitCode.CONFIG, "goes with verify")
    assert left_behind(tmp_path / "out") == []


def test_recording_golden_figures(fedseal: Run, mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    assert fedseal("simulate", mine, "--no-baselines", "--out", out).returncode == 0
    (folder,) = out.iterdir()
    assert fedseal("scenario", "record", folder, "--to", tmp_path / "golden").returncode == 0
    gate = '\n[[gate]]\nmetric = "accuracy.global"\nop = "drop<="\nvalue = 0.0\nbaseline = "golden"\n'
    mine.write_text(mine.read_text("utf-8") + gate, "utf-8")
    assert fedseal("simulate", mine, "--no-baselines", "--gate", "--out", out).returncode == 0
    told(fedseal("scenario", "record", tmp_path), ExitCode.CONFIG, "is no run of a scenario")
