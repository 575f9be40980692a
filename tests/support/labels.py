"""Labels that tests share: the literature's known answers, and annotators whose errors are known."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection
from support.keys import key, make_roster, signed

from fedseal.compliance.labels.content import LabelKeys
from fedseal.compliance.labels.formats import Annotation, Format, Source
from fedseal.compliance.labels.holdings import Imported
from fedseal.compliance.labels.scale import MISSING, Codes, Floats, LabelSchema, Level, Ratings, Scale
from fedseal.compliance.labels.store import LabelStore
from fedseal.privacy.ledger import open_terms
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secret import Secret
from fedseal.privacy.store import Enrolment, SiteStore

KNOWN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "labels.json").read_text(encoding="utf-8"))


def scale(labels: int, level: Level = Level.NOMINAL) -> Scale:
    """Labels 1, 2, 3, ..."""
    return Scale(level, tuple(float(i) for i in range(1, labels + 1)))


def krippendorff(level: Level) -> Ratings:
    """The twelve units of Krippendorff 2011."""
    observers = KNOWN["krippendorff"]["observers"]
    codes = [[MISSING if digit == "." else int(digit) - 1 for digit in row] for row in observers]
    return Ratings.from_matrix(np.array(codes).T, scale(5, level))


def from_counts(counts: list[list[int]]) -> Ratings:
    """Items of which it is known how often each label was given."""
    rows = [np.repeat(np.arange(len(row)), row) for row in counts]
    return Ratings.from_matrix(np.array(rows), scale(len(counts[0])))


def from_table(table: list[list[int]], level: Level = Level.NOMINAL) -> Ratings:
    """Two annotators whose pairs of labels are counted in a table."""
    pairs = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return Ratings.from_matrix(np.array(pairs), scale(len(table), level))


def anaesthetists() -> Ratings:
    """Dawid and Skene's table 1: seven assessments by five observers, of which the first assessed three times."""
    codes = np.array([[int(digit) - 1 for digit in row] for row in KNOWN["dawid-skene"]["patients"]])
    items = np.repeat(np.arange(45), 7)
    return Ratings(items, np.tile([0, 0, 0, 1, 2, 3, 4], 45), codes.ravel(), 45, 5, scale(4))


def annotated(truth: Codes, confusion: Floats, rng: np.random.Generator, share: float = 1.0) -> Ratings:
    """Annotators with these confusion matrices (annotators, labels, labels), each labelling a share of the items."""
    cumulative = confusion.cumsum(axis=2)[:, truth, :]
    codes = (rng.random((len(confusion), len(truth), 1)) > cumulative).sum(axis=2)
    codes[rng.random(codes.shape) >= share] = MISSING
    return Ratings.from_matrix(codes.T, scale(confusion.shape[1]))


def confusions(annotators: int, labels: int, rng: np.random.Generator, accuracy: float = 0.7) -> Floats:
    """Annotators who are right at least so often, and err each in an own way."""
    right = rng.uniform(accuracy, 0.95, size=(annotators, labels, 1))
    wrong = rng.dirichlet(np.ones(labels), size=(annotators, labels))
    wrong[:, np.arange(labels), np.arange(labels)] = 0
    wrong /= wrong.sum(axis=2, keepdims=True)
    return np.asarray(right * np.eye(labels) + (1 - right) * wrong)


def make_site(path: Path, *, simulated: bool = False) -> SiteStore:
    """A new store of site 1."""
    roster = make_roster(2, simulated=simulated)
    terms = (open_terms("train", epsilon=3.0, delta=1e-5, order=7.25),)
    seed = 7 if simulated else None
    return SiteStore.create(path, Enrolment(1, key("site-1"), signed(roster), roster.digest(), "", terms, seed))


SCHEMA = LabelSchema(level=Level.ORDINAL, labels=("low", "mid", "high"))
KEYS = LabelKeys(Secret(b"k" * 32))


def given(
    item: str, annotator: str, label: str, minute: int | None = None, guideline: str = "", place: int = 1
) -> Annotation:
    """An annotation, at a minute of some hour."""
    time = None if minute is None else datetime(2026, 3, 1, 12, minute, tzinfo=UTC)
    return Annotation(item, annotator, label, time, guideline, place)


SOURCE = Source(Path("labels.csv"), Format.CSV_LONG)
NOW = datetime(2026, 4, 1, tzinfo=UTC)


def open_store(connection: Connection) -> LabelStore:
    """A store of labels with one guideline version."""
    opened = LabelStore.open(connection, KeyedRandomness(1, "site"))
    opened.add_guideline("1", b"how to label", SCHEMA)
    return opened


def add(store: LabelStore, *annotations: Annotation, guideline: str = "1", dataset: str = "d") -> Imported:
    """Store annotations as if a file had brought them."""
    return store.add_batch(dataset, guideline, SOURCE, b"file", list(annotations), NOW)


def holds(store: LabelStore, guideline: str | None = None) -> dict[tuple[str, str], str]:
    """The labels that hold, by item and annotator's name."""
    found, names = store.snapshot("d", guideline), store.names()
    return {
        (found.items[i], names[found.annotators[r]]): SCHEMA.labels[c]
        for i, r, c in zip(found.ratings.items, found.ratings.raters, found.ratings.codes, strict=True)
    }
