"""Where persons come from: the study's function, one file that is spread, or one file a site. What is wrong is said by
column and file name; a value of the table is never quoted.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.studies import TINY, tiny

from fedseal.errors import ConfigError, DataError, ExitCode, FedsealError
from fedseal.simulation.population import Population, gather

CANARY = "canary-4711"


def persons(count: int = 60, *, first: int = 0, **columns: Any) -> pd.DataFrame:
    """A table as the tiny study wants it, with a column that nobody may hear of."""
    rng = np.random.default_rng(first)
    table = pd.DataFrame(rng.normal(size=(count, 3)).round(4), columns=["a", "b", "c"])
    table["label"] = np.arange(count) % 2
    table["person"] = np.arange(first, first + count)
    table["note"] = CANARY
    for name, values in columns.items():
        table[name] = values
    return table


def stored(path: Path, table: pd.DataFrame) -> Path:
    """The table as a CSV or parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def natural(folder: Path, **tables: pd.DataFrame) -> Path:
    """One CSV a site."""
    for name, table in tables.items():
        stored(folder / f"{name}.csv", table)
    return folder


def gathered(data: Path | None, *, sites: int | None = None, seed: int = 5, **simulation: Any) -> Population:
    return gather(tiny(simulation=simulation), data=data, sites=sites, seed=seed)


@contextmanager
def refused(kind: type[FedsealError], text: str) -> Iterator[pytest.ExceptionInfo[FedsealError]]:
    """The block raises this error, and the error does not quote the table."""
    with pytest.raises(kind) as caught:
        yield caught
    assert text in caught.value.message
    assert CANARY not in caught.value.explain()
    assert CANARY not in str(caught.value.args)


def everybody(population: Population) -> list[int]:
    return sorted(p for site in population.sites for p in site.table["person"].tolist())


# What is gathered.


def test_the_studys_own_function_is_spread_over_the_studys_sites() -> None:
    population = gathered(None)
    assert [s.name for s in population.sites] == [f"hospital-{i}" for i in range(1, 5)]
    assert everybody(population) == list(range(240))
    assert min(len(s.table) for s in population.sites) >= 20


def test_ten_sites_and_more_have_names_that_sort_as_they_count() -> None:
    names = [s.name for s in gathered(None, sites=10, smallest_site=5).sites]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("hospital-01", "hospital-10")


def test_the_seed_fixes_the_spread() -> None:
    one, two, other = gathered(None), gathered(None), gathered(None, seed=6)
    assert all(a.table.equals(b.table) for a, b in zip(one.sites, two.sites, strict=True))
    assert any(not a.table.equals(b.table) for a, b in zip(one.sites, other.sites, strict=True))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_one_file_is_spread_like_a_population(tmp_path: Path, suffix: str) -> None:
    population = gathered(stored(tmp_path / f"all.{suffix}", persons(200)), sites=3)
    assert [s.name for s in population.sites] == ["hospital-1", "hospital-2", "hospital-3"]
    assert everybody(population) == list(range(200))
    assert population.class_table is not None
    assert population.class_table.sum(axis=1).tolist() == [len(s.table) for s in population.sites]
    assert set(population.sites[0].table.columns) == set(persons().columns)


def test_a_file_spreads_the_same_persons_whether_it_is_csv_or_parquet(tmp_path: Path) -> None:
    table = persons(200)
    one = gathered(stored(tmp_path / "all.csv", table))
    two = gathered(stored(tmp_path / "all.parquet", table))
    for a, b in zip(one.sites, two.sites, strict=True):
        assert a.table["person"].tolist() == b.table["person"].tolist()


def test_one_file_a_site_is_not_spread_and_keeps_its_name(tmp_path: Path) -> None:
    tables = {"north": persons(30, first=500), "Coast": persons(50), "alps": persons(40, first=100)}
    folder = natural(tmp_path / "sites", **tables)
    (folder / "README.txt").write_text("not a table")
    population = gathered(folder)
    assert [s.name for s in population.sites] == ["Coast", "alps", "north"]
    for site in population.sites:
        assert site.table.equals(tables[site.name])
    assert population.class_table is not None
    assert population.class_table.tolist() == [[25, 25], [20, 20], [15, 15]]


def test_csv_and_parquet_may_lie_side_by_side(tmp_path: Path) -> None:
    stored(tmp_path / "a.csv", persons(30))
    stored(tmp_path / "b.parquet", persons(30, first=100))
    assert [s.name for s in gathered(tmp_path, sites=2).sites] == ["a", "b"]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """The name is the site's: two sites cannot share it."""
    stored(tmp_path / "a.csv", persons(30))
    stored(tmp_path / "a.parquet", persons(30, first=100))
    with refused(DataError, "a"):
        gathered(tmp_path)


def test_two_files_of_one_name_are_found_whatever_lies_between_them(tmp_path: Path) -> None:
    for i, name in enumerate(("a.csv", "a.old.csv", "a.parquet")):
        stored(tmp_path / name, persons(30, first=100 * i))
    with refused(DataError, "a.csv and a.parquet, which would both be site 'a'") as caught:
        gathered(tmp_path)
    assert caught.value.exit_code == ExitCode.DATA
    assert "rename" in caught.value.next_step


def test_hidden_files_are_not_sites(tmp_path: Path) -> None:
    """Some systems leave them beside every file that is copied."""
    folder = natural(tmp_path, a=persons(30), b=persons(30, first=100))
    (folder / "._a.csv").write_bytes(b"\x00\x05\x16\x07")
    assert [s.name for s in gathered(folder).sites] == ["a", "b"]


def test_classes_stand_in_sorted_order_with_the_labels_name(tmp_path: Path) -> None:
    """Twelve whole numbers: 10 comes after 9, not after 1."""
    labels = (np.arange(240) * 7) % 12
    population = gathered(stored(tmp_path / "all.csv", persons(240, label=labels)))
    assert population.classes == tuple(f"label: {i}" for i in range(12))
    assert population.class_table is not None
    for row, site in zip(population.class_table, population.sites, strict=True):
        assert row.tolist() == [int((site.table["label"] == i).sum()) for i in range(12)]


def test_without_a_label_there_are_no_classes(tmp_path: Path) -> None:
    population = gathered(stored(tmp_path / "all.csv", persons(100)), label=None)
    assert (population.classes, population.class_table) == ((), None)
    assert everybody(population) == list(range(100))


# What is refused.


@pytest.mark.parametrize("lost", ["label", "person"])
def test_a_missing_column_is_named(tmp_path: Path, lost: str) -> None:
    path = stored(tmp_path / "all.csv", persons().drop(columns=[lost]))
    with refused(DataError, f"{lost!r}") as caught:
        gathered(path)
    assert caught.value.exit_code == ExitCode.DATA
    assert "header" in caught.value.next_step


def test_a_missing_column_at_one_site_is_named(tmp_path: Path) -> None:
    folder = natural(tmp_path / "sites", a=persons(), b=persons(first=100).drop(columns=["label"]))
    with refused(DataError, "'label'"):
        gathered(folder)


@pytest.mark.parametrize("labels", [[None, *[CANARY, "other"] * 29, "other"], [np.nan, *[0.0, 1.0] * 29, 1.0]])
def test_a_missing_label_is_refused_by_its_column(tmp_path: Path, labels: list[Any]) -> None:
    with refused(DataError, "column 'label' has missing values") as caught:
        gathered(stored(tmp_path / "all.csv", persons(label=labels)))
    assert caught.value.exit_code == ExitCode.DATA


def test_a_person_may_occur_once_in_a_table(tmp_path: Path) -> None:
    names = [CANARY, *range(1, 59), CANARY]
    with refused(DataError, "column 'person' names a person more than once") as caught:
        gathered(stored(tmp_path / "all.csv", persons(person=names)))
    assert "One row is one person" in caught.value.next_step


def test_a_person_may_occur_at_one_site_only(tmp_path: Path) -> None:
    first, second = [f"p{i}" for i in range(59)], [f"q{i}" for i in range(59)]
    folder = natural(tmp_path / "sites", a=persons(person=[CANARY, *first]), b=persons(person=[*second, CANARY]))
    with refused(DataError, "more than once"):
        gathered(folder)


@pytest.mark.parametrize("ids", [[float(i) for i in range(60)], [str(i) for i in range(60)]], ids=["float", "text"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_person_is_the_same_in_every_type_of_column(tmp_path: Path, ids: list[Any], suffix: str) -> None:
    stored(tmp_path / f"a.{suffix}", persons())
    stored(tmp_path / f"b.{suffix}", persons(person=ids))
    with refused(DataError, "more than once"):
        gathered(tmp_path)


def test_a_missing_id_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "column 'person' has missing values"):
        gathered(stored(tmp_path / "all.csv", persons(person=[None, *range(59)])))


def test_a_person_is_the_same_whether_a_site_writes_numbers_or_texts(tmp_path: Path) -> None:
    """One text among the ids makes a column of texts. `by_hash` knows that 7 and "7" are one person."""
    folder = natural(tmp_path / "sites", a=persons(), b=persons(person=["x", *range(59)]))
    with refused(DataError, "more than once"):
        gathered(folder)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with refused(ConfigError, "nowhere.csv does not exist"):
        gathered(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("files", [0, 1])
def test_a_folder_needs_two_files(tmp_path: Path, files: int) -> None:
    folder = natural(tmp_path / "sites", **dict.fromkeys(["a"][:files], persons()))
    folder.mkdir(exist_ok=True)
    with refused(DataError, f"holds {files} CSV or parquet files") as caught:
        gathered(folder)
    assert "one file for each site" in caught.value.next_step


def test_a_number_of_sites_has_to_be_that_of_the_files(tmp_path: Path) -> None:
    folder = natural(tmp_path / "sites", a=persons(), b=persons(first=100))
    with refused(ConfigError, "--sites 3, but") as caught:
        gathered(folder, sites=3)
    assert "2 sites" in caught.value.message
    assert len(gathered(folder, sites=2).sites) == 2


def test_too_few_persons(tmp_path: Path) -> None:
    with refused(ConfigError, "60 persons cannot fill 4 sites with at least 20 each"):
        gathered(stored(tmp_path / "all.csv", persons(60)))


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("task:FEATURES", "task:FEATURES is no function"),
        ("task:Blobs", "task:Blobs returned Blobs, expected a pandas DataFrame"),
        ("task:nothing", "defines no 'nothing'"),
        ("elsewhere:population", "elsewhere.py cannot be imported"),
    ],
)
def test_a_population_has_to_be_a_function_that_makes_a_table(reference: str, text: str) -> None:
    with refused(ConfigError, text):
        gathered(None, population=reference)


def test_a_study_without_a_population_asks_for_data() -> None:
    with refused(ConfigError, "does not say where") as caught:
        gathered(None, population=None)
    assert "--data" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragged.csv", f"label,person\n1,2\n1,2,{CANARY},4\n".encode()),
        ("empty.csv", b""),
        ("latin.csv", f"label,person\nsch\xf6n,{CANARY}\n".encode("latin-1")),
        ("binary.csv", bytes(range(256)) * 4),
        ("broken.parquet", b"PAR1" + CANARY.encode() * 20 + b"PAR1"),
        ("empty.parquet", b""),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with refused(DataError, f"{name} is no readable table") as caught:
        gathered(path)
    # The kind of the error and nothing of its text, which may quote a line.
    assert re.fullmatch(r"\S+ is no readable table \(\w+\)", caught.value.message)


def test_the_studys_folder_is_not_touched() -> None:
    before = sorted(p.name for p in TINY.iterdir() if p.name != "__pycache__")
    gathered(None)
    assert sorted(p.name for p in TINY.iterdir() if p.name != "__pycache__") == before
