"""Whatever is wrong, there is one clear message, a next step where there is one, the documented exit code, no
traceback, and nothing left in the folder for runs.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.commands import Changed, Run, left_behind, refused, told
from support.studies import TINY, FirstAttemptFails

from fedseal.errors import (
    BudgetExceeded,
    ConfigError,
    DataError,
    ExitCode,
    FedsealError,
    LocalError,
    PeerError,
    PolicyRefused,
    RoundAborted,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md"


# A study that cannot be read.


def test_no_such_folder(fedseal: Run, tmp_path: Path) -> None:
    says = ("nowhere is not a folder", "next: Make a study with: fedseal new MY-STUDY")
    refused(fedseal, tmp_path, ExitCode.CONFIG, tmp_path / "nowhere", says=says)


def test_a_folder_without_a_study(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(fedseal, tmp_path, ExitCode.CONFIG, tmp_path / "empty", says=("pyproject.toml does not exist",))


def test_a_project_that_is_no_study(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    says = ("has no table [tool.fedseal]", "next: Make a study with")
    refused(fedseal, tmp_path, ExitCode.CONFIG, tmp_path, says=says)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "rounds = 3",
            "rounds = 3\nlocal_step = 2",
            ("pyproject.toml:9:", "unknown key 'tool.fedseal.training.local_step'", "Did you mean 'local_steps'?"),
        ),
        ("epsilon = 8.0", "epsilon = 0.0", ("pyproject.toml:15:", "'tool.fedseal.privacy.epsilon'", "greater than 0")),
        ("epsilon = 8.0", "epsilon = 'eight'", ("pyproject.toml:15:", "valid number")),
        ('plan = "local"', 'plan = "central"', ("pyproject.toml:14:", "'none', 'local', 'distributed' or 'client'")),
        ("learning_rate = 0.5\n", "", ("'tool.fedseal.training.learning_rate' is missing",)),
        ("sites = 4", "sites = 1", ("pyproject.toml:27:", "greater than or equal to 2")),
        ('name = "tiny"', 'name = "Tiny Study"', ("pyproject.toml:3:", "'tool.fedseal.name'")),
        ("version = 1", "version = 1 1", ("pyproject.toml: not TOML", "line 2")),
        ("[tool.fedseal.cohort]", "[tool.fedseal.cohorts]", ("unknown key", "Did you mean 'cohort'?")),
        ("clip_norm = 1.0", "clip_norm = 1e-7", ("pyproject.toml:17:", "'tool.fedseal.privacy.clip_norm'")),
        ("sample_rate = 0.5", "sample_rate = 1e-7", ("'tool.fedseal.training.sample_rate'", "0.000001")),
    ],
    ids=["key", "range", "type", "choice", "missing", "sites", "name", "toml", "table", "clip", "rate"],
)
def test_a_contract_that_is_wrong_is_told_by_line_and_key(
    before: str, after: str, says: tuple[str, ...], fedseal: Run, changed: Changed, tmp_path: Path
) -> None:
    refused(fedseal, tmp_path, ExitCode.CONFIG, changed("pyproject.toml", before, after), says=says)


# Data.


def persons(path: Path, **columns: Any) -> Path:
    table = pd.DataFrame({"a": 0.5, "b": 1.0, "c": -0.5, "label": [0, 1] * 60, "person": range(120)})
    table.assign(**columns).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("lost", ["label", "person", "b"])
def test_a_missing_column(lost: str, fedseal: Run, tmp_path: Path) -> None:
    table = pd.read_csv(persons(tmp_path / "all.csv")).drop(columns=[lost])
    table.to_csv(tmp_path / "all.csv", index=False)
    says = (f"the table lacks column '{lost}'", "next: Compare the table's header")
    refused(fedseal, tmp_path, ExitCode.DATA, TINY, "--data", tmp_path / "all.csv", says=says)


def test_a_person_twice(fedseal: Run, tmp_path: Path) -> None:
    path = persons(tmp_path / "all.csv", person=["canary-4711"] * 120)
    done = fedseal("simulate", TINY, "--data", path, "--out", tmp_path / "out")
    told(done, ExitCode.DATA, "column 'person' names a person more than once")
    assert "canary" not in done.stdout + done.stderr


def test_data_that_is_not_there_or_no_table(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00")
    refused(fedseal, tmp_path, ExitCode.CONFIG, TINY, "--data", tmp_path / "no.csv", says=("no.csv does not exist",))
    says = ("broken.csv is no readable table",)
    refused(fedseal, tmp_path, ExitCode.DATA, TINY, "--data", tmp_path / "broken.csv", says=says)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "a"])
def test_a_files_name_may_be_any_sites_name(name: str, fedseal: Run, tmp_path: Path) -> None:
    """Also that of a file which the run itself makes."""
    (tmp_path / "data").mkdir()
    for i, site in enumerate((name, "b", "c")):
        persons(tmp_path / "data" / f"{site}.csv", person=range(1000 * i, 1000 * i + 120))
    arguments = ("simulate", TINY, "--data", tmp_path / "data", "--rounds", "1", "--no-baselines")
    done = fedseal(*arguments, "--out", tmp_path / "out")
    assert done.returncode == ExitCode.OK, done.stderr


# Options.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sites", "2"), ("2 sites, but the study's cohorts need at least 3", "next: Use more sites")),
        (("--sites", "200"), ("240 persons cannot fill 200 sites", "smallest_site")),
        (("--epsilon", "0"), ("--epsilon has to be above 0", 'plan = "none"')),
        (("--epsilon", "-3"), ("--epsilon has to be above 0",)),
        (("--epsilon", "1e-7"), ("epsilon", "next:")),
        (("--epsilon", "5000"), ("--epsilon", "1000")),
        (("--epsilon", "nan"), ("--epsilon",)),
        (("--epsilon", "inf"), ("--epsilon",)),
        (("--seed", str(2**70)), ("--seed",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value[0].startswith("--") else "",
)
def test_an_option_that_makes_no_sense_for_the_study(
    options: tuple[str, ...], says: tuple[str, ...], fedseal: Run, tmp_path: Path
) -> None:
    refused(fedseal, tmp_path, ExitCode.CONFIG, TINY, "--no-baselines", *options, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulate", str(TINY), "--round", "1"), "No such option"),
        (("simulate", str(TINY), "--rounds", "0"), "Invalid value for '--rounds'"),
        (("simulate", str(TINY), "--rounds", "many"), "Invalid value for '--rounds'"),
        (("simulate", str(TINY), "--sites", "1"), "Invalid value for '--sites'"),
        (("simulate", str(TINY), "--strategy", "krum"), "Invalid value for '--strategy'"),
        (("simulate", str(TINY), "--epsilon", "much"), "Invalid value for '--epsilon'"),
        (("simulate", str(TINY), "--seed", "-1"), "Invalid value for '--seed'"),
        (("simulate",), "Missing argument"),
        (("train",), "No such command"),
        (("--verbose",), "No such option"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_a_command_line_that_cannot_be_read(
    arguments: tuple[str, ...], says: str, fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told(fedseal(*arguments), ExitCode.USAGE, says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/runs", "/proc/runs"])
def test_a_folder_for_runs_that_cannot_be_one(place: str, fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / place
    told(fedseal("simulate", TINY, "--out", out), ExitCode.CONFIG, "cannot hold runs", "next: Give another --out")
    assert (tmp_path / "file").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# The ledger, and every other class of error.


@pytest.mark.slow
def test_a_ledger_that_refuses_ends_the_run_and_says_budget(
    fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt is charged. A network that spoils the first attempt of every round makes it two; the budget holds
    one retry, so the third round is refused.
    """
    monkeypatch.setattr("fedseal.simulation.engine.processes.LocalGrid", FirstAttemptFails)
    done = fedseal("simulate", TINY, "--no-baselines", "--out", tmp_path / "out")
    assert re.search(r"^\s+2 ", done.stdout, flags=re.MULTILINE)
    assert left_behind(tmp_path / "out") == []
    told(done, ExitCode.BUDGET, "round 3", "hospital-1 refused (budget)", "next: Start a new run")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("what happened", next_step="do this"), 3),
        (DataError("what happened", next_step="do this"), 4),
        (BudgetExceeded("what happened", next_step="do this"), 5),
        (PolicyRefused("what happened", next_step="do this"), 6),
        (PeerError("what happened", peer="site 3", next_step="do this"), 7),
        (RoundAborted("what happened", next_step="do this"), 8),
        (LocalError("what happened", next_step="do this"), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_class_of_error_has_its_code_message_and_next_step(
    error: FedsealError, code: int, fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(*_: object) -> None:
        raise error

    monkeypatch.setattr("fedseal.simulation.simulate.simulate", simulate)
    done = fedseal("simulate", TINY, "--out", tmp_path / "out")
    told(done, ExitCode(code), "error: what happened", "next: do this")
    assert ("Please report it" in done.stderr) == (code == ExitCode.INTERNAL)


@pytest.mark.parametrize("error", [KeyError("what"), ZeroDivisionError("what")], ids=["key", "zero"])
def test_what_nobody_foresaw_is_a_fault_of_ours_and_the_only_traceback(
    error: Exception, fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(*_: object) -> None:
        raise error

    monkeypatch.setattr("fedseal.simulation.simulate.simulate", simulate)
    done = fedseal("simulate", TINY, "--out", tmp_path / "out")
    assert done.returncode == ExitCode.INTERNAL
    first, second, *rest = done.stderr.splitlines()
    assert first == f"error: unexpected {type(error).__name__}"
    assert second.startswith("next:") and "Please report it" in second
    assert rest[0] == "Traceback (most recent call last):"


def test_a_policy_that_refuses_ends_the_run_and_says_so(
    fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'version = 1\n[releases]\nupdate = ["none"]\nmoments = []\nevaluation = []\n'
    monkeypatch.setattr("fedseal.simulation.federation.default_policy", lambda _: text)
    refused(fedseal, tmp_path, ExitCode.POLICY, TINY, says=("hospital-1 refused (policy)", "next:"))


@pytest.mark.slow
def test_a_server_that_breaks_the_protocol_ends_the_run_and_is_named(
    fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends every site another task than the one in its signed header."""
    monkeypatch.setattr("fedseal.server.contents.task_digest", lambda *_: bytes(32))
    refused(
        fedseal,
        tmp_path,
        ExitCode.PEER,
        TINY,
        says=("round 1", "refused (protocol)", "not the one in the signed header"),
    )


def test_square_brackets_in_a_message_are_text(fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(*_: object) -> None:
        raise ConfigError("[bold]not markup[/bold] [/]", next_step="[tool.fedseal] [red]")

    monkeypatch.setattr("fedseal.simulation.simulate.simulate", simulate)
    done = fedseal("simulate", TINY, "--out", tmp_path / "out")
    told(done, ExitCode.CONFIG, "[bold]not markup[/bold] [/]", "[tool.fedseal] [red]")


def test_every_code_is_documented() -> None:
    documented = {int(n) for n in re.findall(r"^\|\s*(\d+)\s*\|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}
