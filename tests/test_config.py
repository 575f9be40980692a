"""What a person wrote wrong is named with its file, its line and the nearest right key; studies do not meet."""

import json
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from fedseal.config import Frozen, line_of, parse_toml, read_toml, validate
from fedseal.errors import (
    BudgetExceeded,
    ConfigError,
    DataError,
    ExitCode,
    FedsealError,
    LocalError,
    OperatorError,
    PeerError,
    PolicyRefused,
    RoundAborted,
)
from fedseal.study import Study, load_study
from fedseal.study_code import load_object, load_task


class Inner(Frozen):
    """A table in a table."""

    rounds: int = Field(ge=1)
    rates: tuple[float, ...] = ()


class Outer(Frozen):
    """A file."""

    version: Literal[1]
    mode: Literal["fast", "slow"] = "fast"
    inner: Inner = Inner(rounds=1)
    step: tuple[Inner, ...] = ()


def refused(text: str) -> ConfigError:
    """The error that a file with this text gets."""
    with pytest.raises(ConfigError) as caught:
        validate(Outer, parse_toml(text, "site.toml"), text=text, source="site.toml")
    assert int(caught.value.exit_code) == 3
    assert caught.value.fault == "operator"
    return caught.value


@pytest.mark.parametrize(
    ("error", "code", "fault"),
    [
        (OperatorError("m"), 2, "operator"),
        (ConfigError("m"), 3, "operator"),
        (DataError("m"), 4, "operator"),
        (BudgetExceeded("m"), 5, "budget"),
        (PolicyRefused("m"), 6, "policy"),
        (PeerError("m", peer="server"), 7, "peer"),
        (RoundAborted("m"), 8, "peer"),
        (LocalError("m"), 70, "fedseal"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_exit_code_and_says_whose_fault_it_is(error: FedsealError, code: int, fault: str) -> None:
    assert (int(error.exit_code), error.fault) == (code, fault)
    assert error.explain() == str(error) == "m"
    error.next_step = "n"
    assert error.explain() == "m\nn"


def test_a_right_file_is_read() -> None:
    text = 'version = 1\nmode = "slow"\n[inner]\nrounds = 3\nrates = [0.5, 1]\n'
    outer = validate(Outer, parse_toml(text, "x"), text=text, source="x")
    assert outer == Outer(version=1, mode="slow", inner=Inner(rounds=3, rates=(0.5, 1.0)))


def test_what_is_no_toml_is_named_with_its_file() -> None:
    with pytest.raises(ConfigError, match=r"site\.toml: not TOML: .*line 2"):
        parse_toml("version = 1\nmode = \n", "site.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 1\n\n# a comment\nmode = 3\n", "site.toml:4: 'mode'"),
        ("version = 2\n", "site.toml:1: 'version'"),
        ("version = 1\n[inner]\nrounds = 0\n", "site.toml:3: 'inner.rounds'"),
        ('version = 1\n[inner]\nrounds = "many"\n', "site.toml:3: 'inner.rounds'"),
        ('version = 1\n\n[inner]\nrounds = 1\nrates = [1.0, "x"]\n', "site.toml:5: 'inner.rates.1'"),
        ('version = 1\n\n[ inner ]  # spaces\n"rounds" = 0\n', "site.toml:4: 'inner.rounds'"),
        ("version = 1\ninner = { rounds = 0 }\n", "site.toml:2: 'inner.rounds'"),
        ("version = 1\ninner.rounds = 0\n", "site.toml: 'inner.rounds'"),
        ("version = 1\n[inner]\nrates = [inf]\nrounds = 1\n", "site.toml:3: 'inner.rates.0'"),
        ("version = 1\ninner = 4\n", "site.toml:2: 'inner'"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(text: str, message: str) -> None:
    assert refused(text).message.startswith(message + ": ")


def test_a_missing_key_is_named_with_its_table() -> None:
    assert refused('mode = "fast"\n').message == "site.toml: 'version' is missing"
    assert refused("version = 1\n\n[inner]\nrates = []\n").message == "site.toml:3: 'inner.rounds' is missing"


def test_an_unknown_key_is_named_with_the_nearest_one() -> None:
    error = refused("version = 1\n[inner]\nrounds = 1\nround = 2\n")
    assert error.message == "site.toml:4: unknown key 'inner.round'"
    assert error.next_step == "Did you mean 'rounds'?"
    assert error.explain() == "site.toml:4: unknown key 'inner.round'\nDid you mean 'rounds'?"


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    error = refused("version = 1\nzzz = 2\n")
    assert error.message == "site.toml:2: unknown key 'zzz'"
    assert error.next_step == "Known keys: inner, mode, step, version."


def test_the_line_is_that_of_the_right_table() -> None:
    text = "[a]\nkey = 1\n[b]\nother = 1\nkey = 2\n[b.c]\nkey = 3\n"
    assert [line_of(text, place) for place in (("a", "key"), ("b", "key"), ("b", "c", "key"))] == [2, 5, 7]
    assert line_of(text, ("b", "c")) == 6
    assert line_of(text, ("b", "c", "absent")) == 6
    assert line_of(text, ("absent",)) is None
    assert line_of("", ()) is None


def test_a_file_that_is_not_there_or_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.toml", "", "binary.toml/inside"):
        with pytest.raises(ConfigError, match=r"does not exist"):
            read_toml(tmp_path / name)
    with pytest.raises(ConfigError, match=r"binary\.toml cannot be read as text"):
        read_toml(tmp_path / "binary.toml")


# Studies

CONTRACT = """\
[tool.fedseal]
version = 1
name = "study"

[tool.fedseal.training]
rounds = 2
learning_rate = 0.1
"""
NEAR = "Did you mean 'local_steps'?"
METHODS = "".join(f"    def {name}(self): return None\n" for name in ("model", "data", "loss", "metrics"))
TASK = f"class Task:\n{METHODS}"


def study_at(folder: Path, contract: str = CONTRACT, **files: str) -> Path:
    """A study's folder with a task."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(contract)
    for name, text in ({"task": TASK} | files).items():
        (folder / f"{name}.py").write_text(text)
    return folder


def study_error(folder: Path) -> ConfigError:
    """The error that a study's folder gets."""
    with pytest.raises(ConfigError) as caught:
        load_study(folder)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert isinstance(caught.value, OperatorError)
    return caught.value


def test_a_study_is_read_with_the_defaults_of_its_contract(tmp_path: Path) -> None:
    study = load_study(study_at(tmp_path / "s"))
    assert study == Study(tmp_path / "s", study.contract)
    assert (study.contract.name, study.contract.training.rounds) == ("study", 2)
    assert (study.contract.privacy.plan, study.contract.cohort.minimum) == ("local", 3)


def test_a_folder_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    error = study_error(tmp_path / "absent")
    assert error.message == f"{tmp_path / 'absent'} is not a folder"
    assert "fedseal new" in error.next_step


def test_a_folder_without_a_project_file_says_so(tmp_path: Path) -> None:
    assert study_error(tmp_path).message == f"{tmp_path / 'pyproject.toml'} does not exist"


@pytest.mark.parametrize("text", ["", '[project]\nname = "x"\n', "[tool.other]\nx = 1\n"])
def test_a_project_without_a_contract_says_how_to_make_one(tmp_path: Path, text: str) -> None:
    error = study_error(study_at(tmp_path / "s", text))
    assert error.message == f"{tmp_path / 's' / 'pyproject.toml'} has no table [tool.fedseal]"
    assert "fedseal new" in error.next_step


@pytest.mark.parametrize("text", ["tool = 1\n", "[tool]\nfedseal = 1\n", '[[tool]]\nname = "x"\n'])
def test_a_contract_that_is_no_table_is_a_config_error(tmp_path: Path, text: str) -> None:
    assert "pyproject.toml" in study_error(study_at(tmp_path / "s", text)).message


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "advice"),
    [
        ("rounds =", "local_step = 1\nrounds =", 6, "unknown key 'tool.fedseal.training.local_step'", NEAR),
        ("name", 'titel = "x"\nname', 3, "unknown key 'tool.fedseal.titel'", "Did you mean 'title'?"),
        ("rounds = 2", 'rounds = "two"', 6, "'tool.fedseal.training.rounds': input should be a valid integer", ""),
        ("rounds = 2\n", "", 5, "'tool.fedseal.training.rounds' is missing", ""),
        ("version = 1\n", "", 1, "'tool.fedseal.version' is missing", ""),
        ("version = 1", "version = 2", 2, "'tool.fedseal.version': input should be 1", ""),
        ('"study"', '"A Study"', 3, "'tool.fedseal.name': string should match pattern", ""),
        ("0.1", "nan", 7, "'tool.fedseal.training.learning_rate': input should be", ""),
    ],
)
def test_a_wrong_contract_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str, advice: str
) -> None:
    assert old in CONTRACT
    folder = study_at(tmp_path / "s", CONTRACT.replace(old, new))
    error = study_error(folder)
    assert error.message.startswith(f"{folder / 'pyproject.toml'}:{line}: {message}")
    assert error.next_step == advice


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [("", "", "low and high"), ("[0.0, 1.0]", "[1.0]", "low and high"), ("[1.0]", "[1.0]", "below its high")],
)
def test_ranges_that_do_not_fit_each_other_are_refused(tmp_path: Path, low: str, high: str, message: str) -> None:
    lines = [f"{k} = {v}" for k, v in (("low", low), ("high", high)) if v]
    table = "\n".join(["[tool.fedseal.normalisation]", 'kind = "federated"', *lines])
    error = study_error(study_at(tmp_path / "s", CONTRACT + table))
    assert message in error.message
    assert "pyproject.toml:8: 'tool.fedseal.normalisation'" in error.message


# Tasks


def task_error(folder: Path | None, reference: str = "task:Task") -> ConfigError:
    """The error that loading a task gets."""
    with pytest.raises(ConfigError) as caught:
        load_task(reference, folder)
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value


def test_a_task_is_a_class_or_an_object_with_four_methods(tmp_path: Path) -> None:
    folder = study_at(tmp_path / "s", task=TASK + "made = Task()\n")
    assert type(load_task("task:Task", folder)).__name__ == "Task"
    assert load_task("task:made", folder) is load_object("task:made", folder)


def test_a_missing_module_class_or_method_is_named(tmp_path: Path) -> None:
    folder = study_at(tmp_path / "s", half="class Task:\n    def model(self): ...\n    loss = 3\n")
    absent = task_error(folder, "absent:Task")
    assert absent.message.startswith("absent.py cannot be imported: FileNotFoundError")
    assert "python" in absent.next_step
    assert task_error(folder, "task:Tusk").message == "task.py defines no 'Tusk'"
    half = task_error(folder, "half:Task")
    assert half.message == "half:Task has no method data, loss, metrics"
    assert "docs/studies.md" in half.next_step
    assert task_error(None, "no_such_module_at_all:Task").message.startswith("no_such_module_at_all.py cannot be")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("def", "SyntaxError"),
        ("undefined", "NameError"),
        ("{}['x']", "KeyError"),
        ("1 / 0", "ZeroDivisionError"),
        ("int('x')", "ValueError"),
        ("open('/no/such/file')", "FileNotFoundError"),
        ("raise RuntimeError('boom')", "RuntimeError"),
        ("assert False, 'a rule of the study'", "AssertionError"),
    ],
)
def test_an_error_in_the_module_is_the_operators_and_is_named(tmp_path: Path, code: str, error: str) -> None:
    folder = study_at(tmp_path / "s", task=f"{code}\n")
    before = set(sys.modules)
    assert task_error(folder).message.startswith(f"task.py cannot be imported: {error}")
    assert set(sys.modules) == before
    assert str(folder) not in sys.path


OUTSIDE = ["../task:Task", "..task:Task", ".task:Task", "/task:Task", "a..task:Task", "task.:Task", "deep/task:Task"]
OUTSIDE += ["task", "task:", ":Task", "", "task:Task:Task", "task:Task.inner", "task :Task", "task:Task\n", "task:1"]
OUTSIDE += ["1task:Task", "~:Task", "task\x00:Task", "task:Task()", "C:\\task:Task"]


@pytest.mark.parametrize("reference", OUTSIDE)
def test_a_reference_does_not_lead_out_of_the_studys_folder(tmp_path: Path, reference: str) -> None:
    folder = study_at(tmp_path / "s", CONTRACT.replace("version = 1", f"version = 1\ntask = {json.dumps(reference)}"))
    (tmp_path / "task.py").write_text("raise SystemExit('imported')")
    for place in (folder, str(folder), None):
        with pytest.raises(ConfigError, match=r"is not of the form module:Name") as caught:
            load_object(reference, place)
        assert repr(reference) in caught.value.message
        with pytest.raises(ConfigError, match=r"is not of the form module:Name"):
            load_task(reference, place)
    # The contract that names it is wrong, on its line, before anything is imported.
    error = study_error(folder)
    assert "pyproject.toml:3: 'tool.fedseal.task'" in error.message


@pytest.mark.parametrize("reference", ["task:Task", "_a1.b_2:C_3", "a.b.c:d", "tâche:Tâche"])
def test_a_reference_of_names_and_dots_is_one(tmp_path: Path, reference: str) -> None:
    contract = CONTRACT.replace("version = 1", f"version = 1\ntask = {json.dumps(reference, ensure_ascii=False)}")
    assert load_study(study_at(tmp_path / "s", contract)).contract.task == reference
    with pytest.raises(ConfigError, match=r"cannot be imported|defines no"):
        load_object(reference, tmp_path)


def test_a_class_that_needs_arguments_is_no_task(tmp_path: Path) -> None:
    folder = study_at(tmp_path / "s", task=TASK + "    def __init__(self, x): ...\n")
    assert "task:Task" in task_error(folder).message


def test_a_task_may_import_its_neighbour(tmp_path: Path) -> None:
    folder = study_at(tmp_path / "s", task="from near import N\n" + TASK + "    n = N\n", near="N = 41\n")
    assert getattr(load_task("task:Task", folder), "n", None) == 41
    assert str(folder) not in sys.path


def test_a_task_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = study_at(tmp_path / "s")
    (folder / "deep").mkdir()
    (folder / "deep" / "task.py").write_text(TASK)
    assert load_task("deep.task:Task", folder) is not None


def test_two_studies_in_one_process_do_not_meet(tmp_path: Path) -> None:
    one = study_at(tmp_path / "one", task=TASK + "    n = 1\n")
    two = study_at(tmp_path / "two", task=TASK + "    n = 2\n")
    assert [getattr(load_task("task:Task", f), "n", None) for f in (one, two, one)] == [1, 2, 1]
    assert load_object("task:Task", one) is load_object("task:Task", str(one))


def test_neighbours_of_two_studies_do_not_meet_either(tmp_path: Path) -> None:
    """Both studies call their neighbour the same."""
    task = "from shared_name import N\n" + TASK + "    n = N\n"
    one = study_at(tmp_path / "one", task=task, shared_name="N = 1\n")
    two = study_at(tmp_path / "two", task=task, shared_name="N = 2\n")
    assert [getattr(load_task("task:Task", f), "n", None) for f in (one, two)] == [1, 2]


def test_in_an_array_of_tables_the_line_and_the_nearest_key_are_those_of_the_table() -> None:
    text = "version = 1\n[[step]]\nrounds = 1\n[[step]]\nrounds = 2\nrate = [1.0]\n"
    error = refused(text)
    assert error.message == "site.toml:6: unknown key 'step.1.rate'"
    assert error.next_step == "Did you mean 'rates'?"
    assert line_of("[[step]]\nrounds = 1\n[[step]]\nrounds = 0\n", ("step", "1", "rounds")) == 4
    assert line_of("[[step]]\n[[step]]\n", ("step", "1", "rounds")) == 2
    assert line_of("a = 1\n[[step]]\n", ("step",)) == 2
