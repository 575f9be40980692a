"""Rows that are read from somewhere: so many, and no more."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedseal.client.task import read_table
from fedseal.errors import ConfigError, DataError
from fedseal.simulation.worlds.population_tables import PopulationTable


@dataclass(frozen=True, slots=True)
class Pool:
    """All rows of a finite population.

    Args:
        x: features, shape (rows, features); what is missing is not a number.
        y: classes, shape (rows,).
        features: names of the columns of ``x``.
        classes: names of the classes.
        persons: whose row it is, shape (rows,), numbers from 0.
        grades: what the label was made of, shape (rows,), if it was: positive from ``threshold`` on.
        threshold: see ``grades``.
        table: the columns that rows can be grouped by; None if there are no others than features.
    """

    x: NDArray[np.float64]
    y: NDArray[np.intp]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    persons: NDArray[np.int64]
    grades: NDArray[np.float64] | None = None
    threshold: float = 0.0
    table: pd.DataFrame | None = None

    def groups(self, column: str) -> tuple[NDArray[np.intp], tuple[str, ...]]:
        """The group of each row by a column, and the groups' names in their order.

        Raises:
            ConfigError: there is no such column.
            DataError: it has missing values.
        """
        if self.table is None or column not in self.table:
            known = "none" if self.table is None else ", ".join(str(c) for c in self.table.columns)
            raise ConfigError(f"there is no column {column!r} to spread by", next_step=f"Columns: {known}.")
        codes, names = pd.factorize(self.table[column], sort=True)
        if (codes < 0).any():
            raise DataError(f"column {column!r} has missing values", next_step="Every row needs a group.")
        return codes.astype(np.intp), tuple(str(name) for name in names)


def read_pool(table: PopulationTable, *, folder: Path | None, data: Path | None) -> Pool:
    """The rows of a source that is not a generator.

    Args:
        table: the population.
        folder: what a relative ``path`` is relative to.
        data: the folder with the files of ``source = "heart"``.

    Raises:
        ConfigError, DataError: a file or a column is missing, or a label is.
    """
    kind, _, name = table.source.partition(":")
    if kind == "sklearn":
        return _sklearn(name)
    if kind == "heart":
        return _heart(data, table.threshold if table.threshold is not None else 1.0)
    path = (folder or Path()) / str(table.path)
    if kind == "csv":
        if not path.is_file():
            raise ConfigError(f"{path} does not exist")
        return _tabular(read_table(path), table)
    files = sorted(path.glob("*.csv")) if path.is_dir() else []
    if not files:
        raise ConfigError(f"{path} is no folder with one CSV a site")
    tables = [read_table(file).assign(**{SITE: file.stem}) for file in files]
    return _tabular(pd.concat(tables, ignore_index=True), table)


# The column that says which file of a folder a row is from.
SITE = "site"


def _sklearn(name: str) -> Pool:
    from sklearn import datasets

    loaded = {"digits": datasets.load_digits, "breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}
    bunch = loaded[name]()
    x = np.asarray(bunch.data, dtype=np.float64)
    return Pool(
        x,
        np.asarray(bunch.target, dtype=np.intp),
        tuple(str(feature) for feature in bunch.feature_names),
        tuple(str(label) for label in bunch.target_names),
        np.arange(len(x), dtype=np.int64),
    )


def _tabular(frame: pd.DataFrame, table: PopulationTable) -> Pool:
    """A table's columns of numbers as features, one column as label."""
    label = str(table.label)
    named = [label, *table.columns, *([table.person] if table.person is not None else [])]
    for column in named:
        if column not in frame:
            known = ", ".join(str(c) for c in frame.columns)
            raise DataError(f"there is no column {column!r}", next_step=f"Columns: {known}.")
    if frame[label].isna().any():
        raise DataError(f"column {label!r} has missing values", next_step="Every row needs a label.")
    others = [c for c in frame.columns if c not in (label, table.person, SITE)]
    features = list(table.columns) or [c for c in others if pd.api.types.is_numeric_dtype(frame[c])]
    for column in features:
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise DataError(f"column {column!r} does not hold numbers", next_step="Leave it out of columns.")
    if not features:
        raise DataError("no column of numbers is left to be a feature")
    x = frame[features].to_numpy(dtype=np.float64, na_value=np.nan)
    persons = np.arange(len(frame), dtype=np.int64)
    if table.person is not None:
        persons = pd.factorize(frame[table.person])[0].astype(np.int64)
        if (persons < 0).any():
            raise DataError(f"column {table.person!r} has missing values", next_step="Every row needs a person.")
    if table.threshold is not None:
        if not pd.api.types.is_numeric_dtype(frame[label]):
            raise DataError(f"column {label!r} does not hold numbers", next_step="Leave threshold out.")
        grades = frame[label].to_numpy(dtype=np.float64)
        y = (grades >= table.threshold).astype(np.intp)
        classes: tuple[str, ...] = ("negative", "positive")
        return Pool(x, y, tuple(map(str, features)), classes, persons, grades, table.threshold, frame)
    codes, names = pd.factorize(frame[label], sort=True)
    if len(names) < 2:
        raise DataError(f"column {label!r} holds one class only")
    return Pool(
        x, codes.astype(np.intp), tuple(map(str, features)), tuple(str(n) for n in names), persons, None, 0.0, frame
    )


HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
# The files' fourteen columns, in their order.
HEART = (
    "age",
    "sex",
    "chest pain",
    "resting blood pressure",
    "cholesterol",
    "fasting blood sugar",
    "resting ecg",
    "largest heart rate",
    "angina from exercise",
    "st depression",
    "st slope",
    "vessels",
    "thal",
    "grade",
)
# Codes of two categories without the first, which the others are compared with.
CATEGORIES = {"chest pain": (2, 3, 4), "resting ecg": (1, 2)}
# Written as 0 where it was not measured.
NEVER_ZERO = ("cholesterol", "resting blood pressure")


def _heart(data: Path | None, threshold: float) -> Pool:
    """920 patients of four hospitals, with what is missing left missing.

    Heart Disease, UCI Machine Learning Repository, 1988, doi 10.24432/C52P4X, CC BY 4.0. Investigators: Andras
    Janosi, M.D. (Hungarian Institute of Cardiology, Budapest); William Steinbrunn, M.D. (University Hospital, Zurich);
    Matthias Pfisterer, M.D. (University Hospital, Basel); Robert Detrano, M.D., Ph.D. (V.A. Medical Center, Long
    Beach and Cleveland Clinic Foundation).
    """
    if data is None:
        raise ConfigError('source = "heart" needs the folder of its four files', next_step="Give it with --data.")
    frames = []
    for hospital in HOSPITALS:
        file = data / f"processed.{hospital}.data"
        if not file.is_file():
            raise ConfigError(f"{file} does not exist", next_step="Get it from doi 10.24432/C52P4X.")
        frame = pd.read_csv(file, header=None, names=list(HEART), na_values="?")
        frames.append(frame.assign(hospital=hospital))
    whole = pd.concat(frames, ignore_index=True)
    for name in NEVER_ZERO:
        whole.loc[whole[name] == 0, name] = np.nan
    columns: dict[str, NDArray[np.float64]] = {}
    for name in HEART[:-1]:
        values = whole[name].to_numpy(dtype=np.float64)
        if name in CATEGORIES:
            for code in CATEGORIES[name]:
                columns[f"{name} {code}"] = np.where(np.isnan(values), np.nan, values == code)
        else:
            columns[name] = values
    grades = whole["grade"].to_numpy(dtype=np.float64)
    return Pool(
        np.column_stack(list(columns.values())),
        (grades >= threshold).astype(np.intp),
        tuple(columns),
        ("healthy", "disease"),
        np.arange(len(whole), dtype=np.int64),
        grades,
        threshold,
        whole[["hospital"]],
    )
