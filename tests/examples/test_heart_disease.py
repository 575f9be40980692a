"""The four UCI hospitals: how their files become persons, and FLamby's table run again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedseal.client.task import SiteData, batch_of, size
from fedseal.errors import ConfigError, DataError
from fedseal.simulation import flamby
from fedseal.simulation.flamby import Published, Row, Score
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import write_tables
from fedseal.study import load_study
from fedseal.study_code import load_object, load_task

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "examples" / "heart-disease"
SHARED = ROOT.parent / "shared" / "data" / "heart-disease"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="UCI's files are not beside this checkout")


def lines(persons: int, seed: int) -> list[str]:
    """Patients in the form of UCI's files."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(persons):
        sick = draw.random() < 0.5
        numbers = [draw.integers(30, 75), draw.integers(0, 2), draw.integers(1, 5), draw.integers(100, 180)]
        numbers += [draw.integers(150, 350), draw.integers(0, 2), draw.integers(0, 3), draw.integers(90, 190)]
        rest = [draw.integers(0, 2), round(float(draw.normal(1 + sick, 0.5)), 1)]
        rows.append(",".join([*(f"{n:.1f}" for n in numbers), *map(str, rest), "?", "?", "?", str(int(sick) * 2)]))
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files like UCI's."""
    made = tmp_path / "uci"
    made.mkdir()
    for i, name in enumerate(HOSPITALS):
        (made / f"processed.{name}.data").write_text("\n".join(lines(40, i)) + "\n", encoding="utf-8")
    return made


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """What the study's own reader makes of a folder."""
    reader: Any = load_object("task:hospitals", STUDY)
    tables: dict[str, pd.DataFrame] = reader(folder)
    return tables


def prepared(table: pd.DataFrame, task: str = "task:HeartDisease") -> tuple[Any, Any]:
    """Features and labels of a table."""
    made: Any = load_task(task, STUDY)
    features, labels = made.prepared(table)
    return features, labels


def test_the_folder_of_four_files_is_four_sites(folder: Path) -> None:
    population = gather(load_study(STUDY), data=folder, sites=None, seed=1)
    assert [site.name for site in population.sites] == list(HOSPITALS)
    assert [len(site.table) for site in population.sites] == [40] * 4


def change(folder: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path = folder / "processed.va.data"
    path.write_text("\n".join(edit(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")


def test_a_header_and_minus_nine_are_understood(folder: Path) -> None:
    before = prepared(read(folder)["va"])
    change(folder, lambda rows: ["age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num", *rows])
    change(folder, lambda rows: [row.replace("?", "-9") for row in rows])
    after = prepared(read(folder)["va"])
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])


@pytest.mark.parametrize("missing", ["?", "-9", "-9.0"])
def test_an_incomplete_patient_is_left_out(folder: Path, missing: str) -> None:
    change(folder, lambda rows: [",".join([missing, *rows[0].split(",")[1:]]), *rows[1:]])
    features, labels = prepared(read(folder)["va"])
    assert len(features) == len(labels) == 39


def test_features_are_numbers_and_categories_without_their_first_code(folder: Path) -> None:
    row = "63.0,1.0,3.0,145.0,0.0,1.0,2.0,150.0,0.0,2.3,?,?,?,4"
    change(folder, lambda _: [row] * 10)
    features, labels = prepared(read(folder)["va"], "task:AsPublished")
    assert np.allclose(features[0], [63, 1, 145, 0, 1, 150, 0, 2.3, 0, 1, 0, 0, 1])
    assert set(labels) == {1.0}
    imputed, _ = prepared(read(folder)["va"])
    assert imputed[0][3] == 220.0


def test_per_hospital_normalisation_looks_at_training_patients_only(folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    read(folder)["va"].to_csv(site / "persons.csv", index=False)
    task: Any = load_task("task:PerHospital", STUDY)
    split = task.data(SiteData("va", site))
    train = batch_of(split.train, np.arange(size(split.train)))[0]
    # Two features are constant here: codes that nobody has would divide by nothing.
    assert np.allclose(train.mean(dim=0), 0.0, atol=1e-4)
    assert np.allclose(train.std(dim=0), 1.0, atol=1e-3)
    assert size(split.validation) == 0
    assert size(split.train) + size(split.test) == 40


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "processed.hungarian.data").unlink()
    with pytest.raises(DataError, match=r"lacks processed.hungarian.data"):
        gather(load_study(STUDY), data=folder, sites=None, seed=1)


def test_flamby_needs_a_study_with_its_preparations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--flamby needs a study"):
        flamby.prepare(load_study(ROOT / "examples" / "breast-cancer"), {})


@pytest.mark.parametrize(
    ("centres", "pooled", "within"),
    [(0.70, 0.75, True), (0.68, 0.78, False), (0.72, 0.75, False), (0.6851, 0.7212, True), (0.65, 0.75, False)],
)
def test_a_row_is_reproduced_when_both_columns_are(centres: float, pooled: float, within: bool) -> None:
    row = Row("FedAvg", (Score(centres, pooled),) * 5, Published(0.6850, 0.0283, 0.7480, 0.0269))
    assert row.reproduced is within
    assert Row("new", row.scores, None).reproduced is None


@needs_data
def test_the_hospitals_have_as_many_patients_as_flambys(tmp_path: Path) -> None:
    study = load_study(STUDY)
    data = write_tables(gather(study, data=SHARED, sites=None, seed=42), tmp_path)
    prepared_data = flamby.prepare(study, data)
    for material in prepared_data.materials.values():
        found = [(size(s.train), size(s.test)) for s in material.splits.values()]
        assert found == [(199, 104), (172, 89), (30, 16), (85, 45)]
    majority = flamby.majority_per_centre(prepared_data)
    assert majority.centres == pytest.approx(0.7207, abs=5e-4)
    assert majority.pooled == pytest.approx(0.638, abs=5e-4)


@needs_data
def test_cholesterol_zero_is_a_missing_value(tmp_path: Path) -> None:
    table = read(SHARED)["switzerland"]
    assert (table["cholesterol"] == 0).all()
    assert (prepared(table)[0][:, 3] == 220.0).all()
    assert (prepared(table, "task:AsPublished")[0][:, 3] == 0.0).all()
