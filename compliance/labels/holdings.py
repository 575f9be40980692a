"""What a site's store of labels gives out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedseal.compliance.labels.formats import Format
from fedseal.compliance.labels.scale import MISSING, Codes, LabelSchema, Ratings


@dataclass(frozen=True, slots=True)
class Guideline:
    """A version of the instructions that annotators follow. ``digest`` is of the document, ``number`` its order."""

    number: int
    version: str
    digest: str
    schema: LabelSchema


@dataclass(frozen=True, slots=True)
class Batch:
    """One imported file. ``file`` is keyed: equal for equal files."""

    number: int
    dataset: str
    format: Format
    guideline: str
    file: str
    imported: str
    annotations: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: annotations added, corrected by a later one of the same annotator, and known before."""

    batch: int
    added: int
    corrected: int
    known: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What holds for a dataset under a guideline version.

    Items and annotators (pseudonyms) in the order of the numbers that ``ratings`` uses, which is that of their names.
    """

    dataset: str
    guideline: Guideline
    items: tuple[str, ...]
    annotators: tuple[str, ...]
    ratings: Ratings

    def codes(self, labels: Mapping[str, str]) -> Codes:
        """Labels by item as places in the schema, shape (items,), -1 where there is none."""
        places = {label: i for i, label in enumerate(self.guideline.schema.labels)}
        return np.array([places.get(labels.get(item, ""), MISSING) for item in self.items], dtype=np.int64)
