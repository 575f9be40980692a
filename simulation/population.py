"""Where a simulation's persons come from, and how they get to their sites."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedseal.client.split import person_text
from fedseal.client.task import columns, read_table
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import Indices, class_table, skewed
from fedseal.study import Study
from fedseal.study_code import load_object, study_code

SUFFIXES = {".csv", ".parquet"}
# They become folders.
SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"


@dataclass(frozen=True, slots=True)
class SiteTable:
    """One site's persons before they are written to its folder."""

    name: str
    table: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Population:
    """All sites' tables, and how many persons of each class each holds where the study names a label column."""

    sites: tuple[SiteTable, ...]
    classes: tuple[str, ...]
    class_table: NDArray[np.intp] | None


def gather(study: Study, *, data: Path | None, sites: int | None, seed: int) -> Population:
    """The population of a simulation.

    Args:
        study: names the function that makes a population, and the skew.
        data: a folder with one file a site (nothing is spread), or one file that is spread like a population; None
            uses the study's function.
        sites: how many sites; the study's default if None. With one file a site, the number of files decides.
        seed: fixes the spread.

    Raises:
        ConfigError, DataError: there is no population, a column is missing, or there are too few persons.
    """
    if data is not None and data.is_dir():
        return _natural(study, data, sites)
    table = _spreadable(study, data)
    defaults = study.contract.simulation
    owners = _owners(study, table)
    labels, classes = _labels(table, defaults.label, owners)
    parts = skewed(
        labels,
        sites=sites or defaults.sites,
        label_skew=defaults.label_skew,
        quantity_skew=defaults.quantity_skew,
        smallest=defaults.smallest_site,
        stream=KeyedRandomness(seed, "simulation").stream("partition"),
    )
    width = len(str(len(parts)))
    named = tuple(
        SiteTable(f"hospital-{i + 1:0{width}d}", table.iloc[np.isin(owners, part)].reset_index(drop=True))
        for i, part in enumerate(parts)
    )
    return Population(named, classes, class_table(labels, parts) if classes else None)


def _spreadable(study: Study, data: Path | None) -> pd.DataFrame:
    """One table of all persons."""
    if data is not None:
        if not data.exists():
            raise ConfigError(f"{data} does not exist")
        return _checked(study, read_table(data))
    reference = study.contract.simulation.population
    if reference is None:
        raise ConfigError(
            "this study does not say where a simulation's persons come from",
            next_step="Give --data with a folder of one CSV a site, or one CSV to be spread over sites.",
        )
    make = load_object(reference, study.folder)
    if not isinstance(make, Callable):  # type: ignore[arg-type]
        raise ConfigError(f"{reference} is no function")
    with study_code(f"{reference.partition(':')[2]}()"):
        table = make()  # type: ignore[operator]
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(f"{reference} returned {type(table).__name__}, expected a pandas DataFrame")
    return _checked(study, table)


def _natural(study: Study, folder: Path, sites: int | None) -> Population:
    """One table a site: by the study's own function, or from one file each in the order of the names."""
    reference = study.contract.simulation.natural
    tables = _files(folder) if reference is None else _own_reading(study, reference, folder)
    if sites is not None and sites != len(tables):
        raise ConfigError(f"--sites {sites}, but {folder} holds {len(tables)} sites")
    named = tuple(SiteTable(name, _checked(study, table)) for name, table in tables.items())
    _check_persons(study, [site.table for site in named])
    whole = pd.concat([site.table for site in named], ignore_index=True)
    owners = _owners(study, whole)
    ends = np.cumsum([len(site.table) for site in named])
    parts: list[Indices] = [np.unique(owners[end - len(s.table) : end]) for s, end in zip(named, ends, strict=True)]
    labels, classes = _labels(whole, study.contract.simulation.label, owners)
    return Population(named, classes, class_table(labels, parts) if classes else None)


def _files(folder: Path) -> dict[str, pd.DataFrame]:
    """A table for each CSV or parquet file of a folder."""
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    if len(files) < 2:
        raise DataError(
            f"{folder} holds {len(files)} CSV or parquet files, a federation needs at least two",
            next_step="Put one file for each site there, or give --data one file to be spread over sites.",
        )
    _check_names(folder, files)
    return {path.stem: read_table(path) for path in files}


def _own_reading(study: Study, reference: str, folder: Path) -> dict[str, pd.DataFrame]:
    """What the study's own function makes of a folder."""
    read = load_object(reference, study.folder)
    if not isinstance(read, Callable):  # type: ignore[arg-type]
        raise ConfigError(f"{reference} is no function")
    with study_code(f"{reference.partition(':')[2]}()"):
        tables = read(folder)  # type: ignore[operator]
    if not isinstance(tables, dict) or not all(isinstance(t, pd.DataFrame) for t in tables.values()):
        raise ConfigError(f"{reference} returned something else than pandas DataFrames by the names of the sites")
    if len(tables) < 2 or not all(re.fullmatch(SITE_NAME, str(name)) for name in tables):
        raise ConfigError(f"{reference} has to return at least two sites, with letters, digits, - and _ in their names")
    return tables


def _checked(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the study's columns in which no person occurs twice, unless the study groups a person's rows."""
    defaults = study.contract.simulation
    wanted = [name for name in (defaults.label, defaults.person) if name is not None]
    columns(table, wanted)
    _check_persons(study, [table])
    return table


def _check_persons(study: Study, tables: list[pd.DataFrame]) -> None:
    """That no person occurs twice in these tables together, by the text of the id: one site's column may hold numbers
    and another's texts. Where the study groups a person's rows, that no person occurs in two tables.
    """
    person, grouped = study.contract.simulation.person, study.contract.simulation.grouped
    if person is None:
        return
    if any(table[person].isna().any() for table in tables):
        raise DataError(f"column {person!r} has missing values", next_step="Every person needs an id.")
    each = [[person_text(value) for value in table[person]] for table in tables]
    texts = [text for site in each for text in (set(site) if grouped else site)]
    if len(set(texts)) == len(texts):
        return
    if grouped:
        raise DataError(
            f"column {person!r} names a person at more than one site",
            next_step="The privacy promise is made by one site to its persons: keep all records of a person at one.",
        )
    raise DataError(
        f"column {person!r} names a person more than once",
        next_step="One row is one person: the privacy promise is made to persons. If data() makes one item of all "
        "records of a person, say grouped = true in [tool.fedseal.simulation].",
    )


def _owners(study: Study, table: pd.DataFrame) -> Indices:
    """Which person each row belongs to: a person of its own, unless the study groups rows."""
    defaults = study.contract.simulation
    if not defaults.grouped:
        return np.arange(len(table))
    texts = np.array([person_text(value) for value in table[str(defaults.person)]], dtype=object)
    return pd.factorize(texts)[0].astype(np.intp)


def _check_names(folder: Path, files: list[Path]) -> None:
    """That no two files would be the same site."""
    sites: dict[str, Path] = {}
    for file in files:
        if (other := sites.setdefault(file.stem, file)) != file:
            raise DataError(
                f"{folder} holds {other.name} and {file.name}, which would both be site {file.stem!r}",
                next_step="Keep one of them, or rename one.",
            )


def _labels(table: pd.DataFrame, label: str | None, owners: Indices) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """The class of each person and the names of the classes; one class without a name if the study has no label."""
    persons = int(owners.max(initial=-1)) + 1
    if label is None:
        return np.zeros(persons, dtype=np.intp), ()
    codes, names = pd.factorize(table[label], sort=True)
    if (codes < 0).any():
        raise DataError(f"column {label!r} has missing values", next_step="Every person needs a label.")
    classes = np.zeros(persons, dtype=np.intp)
    classes[owners] = codes
    if not np.array_equal(classes[owners], codes):
        raise DataError(
            f"column {label!r} differs between the records of a person",
            next_step="The label spreads persons over sites: leave it out, or name a column that says one thing a "
            "person.",
        )
    return classes, tuple(f"{label}: {name}" for name in names)
