"""`fedseal new` makes a study that runs at once; `--json` is for machines; help and version cost nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.studies import TINY

import fedseal as package
from fedseal.errors import ExitCode
from fedseal.simulation.result import Result
from fedseal.study import load_study

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FILES = ["LICENSE", "README.md", "pyproject.toml", "task.py"]

HELP = """
import sys
from fedseal.cli.main import main
sys.argv = ["fedseal", *{arguments!r}]
try:
    main()
except SystemExit as ended:
    assert ended.code == 0, ended.code
print("LOADED", sorted({{m.split(".")[0] for m in sys.modules}} & {{"torch", "flwr", "pandas", "opacus"}}))
"""


# New.


@pytest.mark.slow
def test_a_new_study_runs_at_once(fedseal: Run, tmp_path: Path) -> None:
    made = fedseal("new", tmp_path / "my-study")
    assert made.returncode == ExitCode.OK, made.stderr
    assert f"fedseal simulate {tmp_path / 'my-study'}" in made.stdout
    assert sorted(p.name for p in (tmp_path / "my-study").iterdir()) == FILES
    done = fedseal("simulate", tmp_path / "my-study", "--rounds", "2", "--no-baselines", "--out", tmp_path / "runs")
    assert done.returncode == ExitCode.OK, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    found = Result.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    assert (found.study, len(found.rounds), len(found.sites)) == ("my-study", 2, 5)


def test_a_new_studys_name_is_its_folders_and_nothing_of_the_template_is_left(fedseal: Run, tmp_path: Path) -> None:
    fedseal("new", tmp_path / "parents" / "heart-attack-2")
    folder = tmp_path / "parents" / "heart-attack-2"
    assert load_study(folder).contract.name == "heart-attack-2"
    for file in folder.iterdir():
        assert "{{" not in file.read_text(encoding="utf-8")
    assert 'study="heart-attack-2"' in (folder / "task.py").read_text(encoding="utf-8")


def test_an_empty_folder_may_become_a_study(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fedseal("new", tmp_path / "empty").returncode == ExitCode.OK
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == FILES


def test_here_may_become_a_study(fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fedseal("new", ".").returncode == ExitCode.OK
    assert load_study(tmp_path / "here").contract.name == "here"


@pytest.mark.parametrize("name", ["My-Study", "my_study", "-study", "my study", "stüdy", "a" * 64, "study.v2"])
def test_a_name_that_a_study_cannot_have(name: str, fedseal: Run, tmp_path: Path) -> None:
    done = fedseal("new", "--", tmp_path / name)
    assert done.returncode == ExitCode.CONFIG
    assert f"{name!r} cannot be a study's name" in done.stderr
    assert "next:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text("precious")
    done = fedseal("new", tmp_path / "mine")
    assert done.returncode == ExitCode.CONFIG
    assert "exists and is not an empty folder" in done.stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["task.py"]
    assert (tmp_path / "mine" / "task.py").read_text() == "precious"


def test_a_file_in_the_way_is_left_alone(fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = fedseal("new", tmp_path / "mine")
    assert done.returncode == ExitCode.CONFIG
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("place", ["file/study", "/proc/study"])
def test_a_place_where_no_folder_can_be_made(place: str, fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    done = fedseal("new", tmp_path / place)
    assert done.returncode == ExitCode.CONFIG
    assert "error:" in done.stderr


# For machines.


@pytest.mark.slow
def test_json_is_the_whole_of_standard_output(fedseal: Run, tmp_path: Path) -> None:
    done = fedseal("simulate", TINY, "--rounds", "1", "--json", "--out", tmp_path)
    assert done.returncode == ExitCode.OK
    (folder,) = tmp_path.iterdir()
    assert done.stdout == (folder / "result.json").read_text(encoding="utf-8")
    found = json.loads(done.stdout)
    assert Result.model_validate(found).run == folder.name
    assert f"Report: {folder / 'report.html'}" in done.stderr
    assert "Two blobs" in done.stderr


def test_an_error_under_json_leaves_standard_output_empty(fedseal: Run, tmp_path: Path) -> None:
    done = fedseal("simulate", TINY, "--sites", "2", "--json", "--out", tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert done.stdout == ""
    assert "error:" in done.stderr


# For people.


def test_a_run_shows_each_round_the_comparison_and_where_its_files_are(fedseal: Run, tmp_path: Path) -> None:
    done = fedseal("simulate", TINY, "--rounds", "2", "--out", tmp_path)
    (folder,) = tmp_path.iterdir()
    found = Result.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    for entry in found.rounds:
        row = lines[str(entry.number)]
        assert (row[1], row[4]) == (f"{entry.oracle.loss:.3f}", "4")
        assert row[6] == f"{entry.epsilon:.2f}"
    assert "oracle values" in done.stdout
    for name in ("majority class", "all data pooled", "sealed, without privacy"):
        assert name in done.stdout
    assert f"Report: {folder / 'report.html'}" in done.stdout
    assert f"Numbers: {folder / 'result.json'}" in done.stdout
    assert "Traceback" not in done.stderr


# Help and version.


def test_version(fedseal: Run) -> None:
    done = fedseal("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{package.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"], ["version"]], ids=" ".join)
def test_help_and_version_load_neither_torch_nor_flower(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(arguments=arguments)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_names_every_command(fedseal: Run) -> None:
    done = fedseal("--help")
    assert done.returncode == ExitCode.OK
    for command in ("demo", "simulate", "new", "version"):
        assert command in done.stdout
