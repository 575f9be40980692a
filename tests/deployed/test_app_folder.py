"""The app folder that is submitted: read with tomllib, and accepted by Flower's own builder."""

import tomllib
from pathlib import Path
from typing import cast

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from support.studies import TINY, tiny

from fedseal.client.task import Task
from fedseal.privacy.quantize import Rounding
from fedseal.simulation.deployed.app_folder import toml_value, write_app
from fedseal.simulation.deployed.submission import Submission, prepare
from fedseal.study import Contract, Study
from fedseal.study_code import load_task


def submission(folder: Path) -> Submission:
    study = tiny()
    task = cast(Task, load_task(study.contract.task, study.folder))
    return Submission(study, task, folder / "server.sqlite", 4, folder, Rounding.NEAREST)


@pytest.mark.parametrize("text", ["plain", 'with "quotes" and \\', "line\nbreak\ttab", "Grüße 😀", "del \x7f", ""])
def test_any_text_survives_toml(text: str) -> None:
    assert tomllib.loads(f"key = {toml_value(text)}") == {"key": text}


def test_numbers_stay_numbers() -> None:
    assert tomllib.loads(f"key = {toml_value(3)}") == {"key": 3}


def test_flower_accepts_the_app_of_a_study_that_is_none(tmp_path: Path) -> None:
    """The tiny study has neither [project] nor a licence."""
    made = submission(tmp_path)
    prepare(made)
    config, warnings = load_and_validate(made.app / "pyproject.toml")
    assert warnings == []
    assert config["tool"]["flwr"]["app"]["components"]["clientapp"] == "fedseal.client.stock:app"
    assert len(build_fab_from_disk(made.app)) < 100_000


def test_the_run_is_configured_by_paths_that_hold_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(submission(Path()))
    tables = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text(encoding="utf-8"))
    config = tables["tool"]["flwr"]["app"]["config"]
    for key in ("fedseal-server-store", "fedseal-initial-model", "fedseal-output"):
        assert Path(config[key]).is_absolute()
    assert Path(config["fedseal-initial-model"]).is_file()
    assert (config["fedseal-sites"], config["fedseal-rounding"]) == (4, "nearest")


def test_sites_are_told_the_contract_but_not_how_a_simulation_spreads_persons(tmp_path: Path) -> None:
    made = submission(tmp_path)
    prepare(made)
    tables = tomllib.loads((made.app / "pyproject.toml").read_text(encoding="utf-8"))
    told = Contract.model_validate_json(tables["tool"]["flwr"]["app"]["config"]["fedseal-contract"])
    assert told.privacy == made.study.contract.privacy
    assert told.simulation.population is None


def test_only_code_and_documents_are_shipped(tmp_path: Path) -> None:
    source = tmp_path / "study"
    for name in ("task.py", "part/model.py", "README.md", "data.csv", "key.pem", ".git/hook.py", "__pycache__/task.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("", encoding="utf-8")
    (source / "pyproject.toml").write_text((TINY / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    write_app(tmp_path / "app", Study(source, tiny().contract), {"key": "value"})
    shipped = {str(p.relative_to(tmp_path / "app")) for p in (tmp_path / "app").rglob("*") if p.is_file()}
    assert shipped == {"task.py", "part/model.py", "README.md", "LICENSE", "pyproject.toml"}
