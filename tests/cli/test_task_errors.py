"""Whatever is wrong with a study's own code, the message names the function, the site and the line. No traceback."""

from pathlib import Path

import pytest
from support.commands import Changed, Run, refused

from fedseal.errors import ExitCode


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("class Blobs:", "class Blobs(:", ("task.py cannot be imported: SyntaxError", "Run it with python")),
        ("import numpy as np", "import nunpy as np", ("task.py cannot be imported: ModuleNotFoundError",)),
        ("class Blobs:", "class Other:", ("task.py defines no 'Blobs'",)),
        ("def loss(", "def lose(", ("task:Blobs has no method loss", "model, data, loss and metrics")),
        ("columns(table, FEATURES)", "columns(table, ['a', 'age'])", ("the table lacks column 'age'",)),
        ("class Blobs:", "assert False, 'no accelerator'\n\nclass Blobs:", ("task.py cannot be imported",)),
    ],
    ids=["syntax", "import", "class", "method", "column", "assertion"],
)
def test_a_task_that_cannot_be_used(
    before: str, after: str, says: tuple[str, ...], fedseal: Run, changed: Changed, tmp_path: Path
) -> None:
    code = ExitCode.DATA if "column" in says[0] else ExitCode.CONFIG
    refused(fedseal, tmp_path, code, changed("task.py", before, after), says=says)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("class Blobs:\n", "class Blobs:\n    def __init__(self) -> None:\n        raise ValueError('my own')\n\n"),
        ("    rng = np", "    raise ValueError('my own')\n    rng = np"),
        ("        table = site.table()", "        raise ValueError('my own')"),
        ("        return nn.Linear(3, 1)", "        raise ValueError('my own')"),
        ("        return [accuracy(), auc(bins=20)]", "        raise ValueError('my own')"),
    ],
    ids=["init", "population", "data", "model", "metrics"],
)
def test_a_task_that_raises_is_told_as_the_studys_fault(
    before: str, after: str, fedseal: Run, changed: Changed, tmp_path: Path
) -> None:
    """The study's code is the operator's: its error is shown like that of an import, and is no traceback."""
    says = ("ValueError: my own",)
    refused(fedseal, tmp_path, ExitCode.CONFIG, changed("task.py", before, after), says=says)


def test_an_error_of_the_study_names_the_site_and_the_line(fedseal: Run, changed: Changed, tmp_path: Path) -> None:
    study = changed("task.py", "        table = site.table()", "        table = site.table()['age']")
    says = ("data() for hospital-1 raised KeyError: 'age'", "next: Look at line 23 of task.py.")
    refused(fedseal, tmp_path, ExitCode.CONFIG, study, says=says)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("        return nn.Linear(3, 1)", "        return None", "model() returned NoneType, expected a torch Module"),
        ("        return Split(train, validation, test, judged, groups)", "        return train", "expected a Split"),
        (
            "        return Split(train, validation, test, judged, groups)",
            "        return None",
            "data() for hospital-1 returned NoneType",
        ),
        (
            "Split(train, validation, test, judged, groups)",
            "Split(train, validation, None, judged, groups)",
            "data() for hospital-1, test persons",
        ),
        (
            "Split(train, validation, test, judged, groups)",
            "Split(train, features, test, judged, groups)",
            "validation persons: an item is not a tuple",
        ),
        ("        return [accuracy(), auc(bins=20)]", "        return None", "metrics() raised TypeError"),
        ("[accuracy(), auc(bins=20)]", "['accuracy']", "metrics() returned str, expected a list of Metric"),
        ("[accuracy(), auc(bins=20)]", "[accuracy(), accuracy()]", "names a metric twice"),
        ("[accuracy(), auc(bins=20)]", "[Metric('loss', 0, 1, 1, None, None)]", "cannot be called 'loss'"),
        ("[accuracy(), auc(bins=20)]", "[Metric('m', 1, 1, 1, None, None)]", "needs finite bounds"),
        ("[accuracy(), auc(bins=20)]", "[Metric('m', 0, 1, 0, None, None)]", "a length of at least 1"),
        ("    return table\n", "    return None\n", "task:population returned NoneType, expected a pandas DataFrame"),
    ],
    ids=lambda value: value if " " in value and "return" not in value else "",
)
def test_a_task_that_returns_something_else(
    before: str, after: str, says: str, fedseal: Run, changed: Changed, tmp_path: Path
) -> None:
    refused(fedseal, tmp_path, ExitCode.CONFIG, changed("task.py", before, after), says=(says,))


METRIC = "[Metric('mine', 0, 1, 1, lambda o, t: {statistic}, lambda mean: {value}, lambda mean: {error})]"


@pytest.mark.quick("raises")
@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"statistic": "t[1000]"}, "the statistic of metric 'mine' raised IndexError"),
        ({"statistic": "None"}, "the statistic of metric 'mine' returned NoneType, expected a torch Tensor"),
        ({"statistic": "t.double().mean()"}, "the statistic of metric 'mine' has shape ()"),
        ({"value": "1 / 0"}, "the value of metric 'mine' raised ZeroDivisionError"),
        ({"error": "mean['x']"}, "the error of metric 'mine' raised IndexError"),
    ],
    ids=["raises", "none", "shape", "value", "error"],
)
def test_a_metric_that_fails(part: dict[str, str], says: str, fedseal: Run, changed: Changed, tmp_path: Path) -> None:
    """Under a private plan no site measures: it is the oracle that finds out, after the first round."""
    fine = {"statistic": "t.double()", "value": "float(mean[0])", "error": "0.0"}
    study = changed("task.py", "[accuracy(), auc(bins=20)]", METRIC.format(**(fine | part)))
    refused(fedseal, tmp_path, ExitCode.CONFIG, study, says=(says,))


def test_a_loss_that_raises_is_told_before_anything_is_trained(fedseal: Run, changed: Changed, tmp_path: Path) -> None:
    study = changed("task.py", "        features, labels = batch\n", "        raise ZeroDivisionError('my own')\n")
    says = ("loss() raised ZeroDivisionError: my own", "next: Look at line")
    refused(fedseal, tmp_path, ExitCode.CONFIG, study, says=says)


def test_a_loss_that_raises_in_training_ends_the_run_and_is_quoted(
    fedseal: Run, changed: Changed, tmp_path: Path
) -> None:
    """More persons than the start looks at together."""
    raising = (
        "        if torch.is_grad_enabled() and len(batch[0]) > 10:\n            raise ZeroDivisionError('my own')\n"
    )
    study = changed("task.py", "        features, labels = batch\n", f"{raising}        features, labels = batch\n")
    says = ("round 1", "hospital-1 refused (task)", "ZeroDivisionError: my own")
    refused(fedseal, tmp_path, ExitCode.ABORTED, study, says=says)
