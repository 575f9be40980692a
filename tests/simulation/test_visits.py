"""A study of several visits a person, from its table to its report: ids stay texts, the federation normalises records
without their padding, and the study's own metrics are shown.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from support.studies import TINY

from fedseal.cli.live import Watcher, comparison_table
from fedseal.client.task import SiteData, size
from fedseal.errors import DataError
from fedseal.simulation.population import Population, SiteTable
from fedseal.simulation.result import Result
from fedseal.simulation.simulate import Finished, Options, Progress, prepared_material, simulate, write_tables
from fedseal.study import Study, load_study

VISITS = TINY.parent / "visits"


@pytest.fixture(scope="module")
def seen() -> io.StringIO:
    """What a person without a terminal saw."""
    return io.StringIO()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, seen: io.StringIO) -> Finished:
    """The study as it is, but without noise."""
    study = load_study(VISITS)
    plain = study.contract.privacy.model_copy(update={"plan": "none"})
    contract = study.contract.model_copy(update={"privacy": plain})
    with Watcher(Console(file=seen, width=200)) as watcher:
        return simulate(Study(VISITS, contract), Options(), tmp_path_factory.mktemp("visits"), watcher)


def table_of(console_width: int, result: Result) -> str:
    console = Console(file=io.StringIO(), width=console_width, record=True)
    console.print(comparison_table(result))
    return console.export_text()


@pytest.mark.slow
def test_the_studys_own_metrics_are_shown_while_it_runs_and_at_the_end(finished: Finished, seen: io.StringIO) -> None:
    lines = seen.getvalue().splitlines()
    (header,) = (line for line in lines if line.lstrip().startswith("round "))
    names = ["round", "loss", "mean_absolute_error", "r_squared", "sites", "seconds", "epsilon"]
    assert header.split("   (")[0].split() == names
    assert "(loss, mean_absolute_error, r_squared: oracle values)" in header
    first = next(line for line in lines if line.lstrip().startswith("1 ")).split()
    found = Result.model_validate_json((finished.folder / "result.json").read_text())
    assert first[1:4] == [f"{v:.3f}" for v in (found.rounds[0].oracle.loss, *found.rounds[0].oracle.further.values())]
    table = table_of(120, found)
    assert "mean_absolute_error" in table and "r_squared" in table
    assert "accuracy" not in table and "AUC" not in table
    page = (finished.folder / "report.html").read_text()
    assert "<th>mean_absolute_error</th><th>r_squared</th>" in page


def test_a_live_table_has_the_studys_metrics_too(finished: Finished) -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with Watcher(console) as watcher:
        watcher.round(finished.findings.main.rounds[0])
    assert "mean_absolute_error" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_federations_moments_are_those_of_its_persons(finished: Finished, tmp_path: Path) -> None:
    """Each person counts once, by the mean over the visits kept."""
    study = load_study(VISITS)
    gathered = prepared_material(Study(VISITS, study.contract), finished.findings.population, tmp_path / "data", 5)
    firsts, seconds = [], []
    for split in gathered.splits.values():
        for records, mask, _ in (split.train[i] for i in range(size(split.train))):
            kept = records[mask == 1].double().numpy()
            firsts.append(kept.mean(axis=0))
            seconds.append((kept**2).mean(axis=0))
    mean = np.mean(firsts, axis=0)
    moments = finished.findings.main.moments
    assert moments is not None
    np.testing.assert_allclose(moments.mean, mean, atol=1e-3)
    np.testing.assert_allclose(moments.deviation, np.sqrt(np.mean(seconds, axis=0) - mean**2), atol=1e-3)


@pytest.mark.slow
def test_a_private_run_over_records_keeps_its_promise_and_a_large_delta_is_said(
    tmp_path: Path, progress: Progress
) -> None:
    done = simulate(load_study(VISITS), Options(baselines=False), tmp_path, progress)
    found = Result.model_validate_json((done.folder / "result.json").read_text())
    for site in found.privacy.sites.values():
        assert site.epsilon is not None and site.epsilon_enforced is not None
        assert site.epsilon <= site.epsilon_enforced <= 8.0
        assert site.releases == 3
    (note,) = found.notes
    persons = max(site.train for site in found.sites.values())
    assert note.startswith(f"delta 0.01 is large for a site of {persons} training persons")
    assert "Set delta = 0.001 or less" in note and 0.001 * 10 * persons <= 1
    assert note in (done.folder / "report.html").read_text()


def test_a_second_tensor_that_is_no_mask_is_refused_before_training(tmp_path: Path, progress: Progress) -> None:
    """A flag of each record would pass for a mask by its shape; its zeros would hide records."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "pyproject.toml").write_text((VISITS / "pyproject.toml").read_text())
    text = (VISITS / "task.py").read_text()
    flag = "(items.records[p, :, 1] > 0).float()"
    (folder / "task.py").write_text(text.replace("items.mask[p], outcome", f"{flag}, outcome"))
    with pytest.raises(DataError, match=r"is no mask for \d+ of \d+ training persons of hospital-1") as caught:
        simulate(load_study(folder), Options(), tmp_path / "out", progress)
    assert "person_items()" in caught.value.next_step


# Tables at simulated sites.


def written(tmp_path: Path, *tables: pd.DataFrame) -> list[pd.DataFrame]:
    sites = tuple(SiteTable(f"site-{i}", table) for i, table in enumerate(tables))
    folders = write_tables(Population(sites, (), None), tmp_path / "data")
    return [SiteData(name, folder).table() for name, folder in folders.items()]


@pytest.mark.parametrize(
    "column",
    [
        ["007", "008"],
        ["7", "8"],
        pd.to_datetime(["2024-03-01", "2024-03-31"]),
        ["NA", "ill"],
        ["yes", ""],
        pd.array([1, None], dtype="Int64"),
        pd.Categorical(["b", "a"]),
        ["a", "b"],
        [1, 2],
        [0.1, None],
        [True, False],
    ],
    ids=str,
)
def test_a_sites_table_keeps_its_types(column: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"x": column, "n": [1.5, 2.5]})
    for found in written(tmp_path, table, table.iloc[:1]):
        assert found.dtypes.equals(table.dtypes)
    pd.testing.assert_frame_equal(written(tmp_path / "again", table)[0], table)


def test_a_table_that_a_csv_keeps_is_a_csv(tmp_path: Path) -> None:
    """All sites alike: ids of one would be numbers there and texts elsewhere."""
    plain, odd = pd.DataFrame({"id": ["A1", "A2"]}), pd.DataFrame({"id": ["001", "002"]})
    written(tmp_path / "plain", plain, plain)
    written(tmp_path / "odd", plain, odd)
    assert {p.suffix for p in (tmp_path / "plain").rglob("persons.*")} == {".csv"}
    assert {p.suffix for p in (tmp_path / "odd").rglob("persons.*")} == {".parquet"}


def test_a_column_of_texts_and_numbers_becomes_text(tmp_path: Path) -> None:
    mixed = pd.DataFrame({"id": pd.Series(["007", 8, 9.0, None], dtype=object)})
    assert written(tmp_path, mixed)[0]["id"].fillna("-").tolist() == ["007", "8", "9", "-"]


@pytest.mark.parametrize(
    "table",
    [pd.DataFrame({"x": [1j, 2j]}), pd.DataFrame([["007", "008"]], columns=["x", "x"])],
    ids=["complex", "one name twice"],
)
def test_a_table_that_no_file_keeps_is_the_studys_fault(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the table of site-0 cannot be written"):
        written(tmp_path, table)


# A study that no constant can answer.


def test_a_loss_that_a_constant_cannot_answer_leaves_that_baseline_out(tmp_path: Path, progress: Progress) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "pyproject.toml").write_text((TINY / "pyproject.toml").read_text())
    text = (TINY / "task.py").read_text()
    text = text.replace("return nn.Linear(3, 1)", "return Net()").replace("model(features)", "model.answer(features)")
    net = "class Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 1)\n\n"
    net += "    def answer(self, x):\n        return self(x)\n\n\n"
    (folder / "task.py").write_text(text.replace("class Blobs:", net + "class Blobs:"))
    study = load_study(folder)
    plain = study.contract.privacy.model_copy(update={"plan": "none"})
    contract = study.contract.model_copy(update={"privacy": plain})
    done = simulate(Study(folder, contract), Options(rounds=1), tmp_path / "out", progress)
    found = Result.model_validate_json((done.folder / "result.json").read_text())
    assert found.baselines is not None
    assert found.baselines.majority is None
    assert found.baselines.pooled.global_.accuracy is not None
    (note,) = found.notes
    page = (done.folder / "report.html").read_text()
    assert "There is no best constant to compare with" in note and note.split("'")[0] in page
    assert "majority" not in pd.read_parquet(done.folder / "metrics.parquet")["model"].tolist()
