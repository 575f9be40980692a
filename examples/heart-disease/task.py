"""Who has heart disease? Thirteen features of an examination, from four hospitals that differ in nearly everything.

Data: Heart Disease, UCI Machine Learning Repository, 1988, doi 10.24432/C52P4X, CC BY 4.0. Investigators: Andras
Janosi, M.D. (Hungarian Institute of Cardiology, Budapest); William Steinbrunn, M.D. (University Hospital, Zurich);
Matthias Pfisterer, M.D. (University Hospital, Basel); Robert Detrano, M.D., Ph.D. (V.A. Medical Center, Long Beach and
Cleveland Clinic Foundation).

Preparation and split are those of FLamby's Fed-Heart-Disease (Ogier du Terrail et al., NeurIPS 2022), so that results
can be set beside its published ones: three sparse columns are dropped, incomplete patients too, 66 % are trained on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy, auc
from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.errors import DataError

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
# The files' fourteen columns, in their order.
NAMES = (
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
    "disease",
)
# Missing for most patients of three hospitals.
SPARSE = ("st slope", "vessels", "thal")
NUMBERS = (
    "age",
    "sex",
    "resting blood pressure",
    "cholesterol",
    "fasting blood sugar",
    "largest heart rate",
    "angina from exercise",
    "st depression",
)
# Codes of the two categories. The first of each is the one that the others are compared with, so it has no feature.
CATEGORIES = {"chest pain": (1, 2, 3, 4), "resting ecg": (0, 1, 2)}
FEATURES = len(NUMBERS) + sum(len(codes) - 1 for codes in CATEGORIES.values())

LABEL, PERSON = "disease", "patient"
# A cholesterol of 0 is a missing one: all of Switzerland's, a quarter of Long Beach's. Left as it is it says which
# hospital a patient comes from. This is a usual value of adults, in mg/dl; it is not computed from the data.
USUAL_CHOLESTEROL = 220.0
TRAIN_SHARE, SPLIT_SEED = 0.66, 43

# What is 0 and what is 1 unit of each feature, from textbooks and code books; nothing of the data went into it. A unit
# of a measurement is about two standard deviations among adults, so that it weighs as much as a yes or no (Gelman
# 2008, Scaling regression inputs by dividing by two standard deviations).
PUBLIC = {
    # Pre-test probabilities are tabulated for ages 30 to 69 (Diamond and Forrester 1979).
    "age": (50.0, 20.0),
    # mmHg. Between normal, below 120, and hypertension, from 140 on (JNC 7, 2003).
    "resting blood pressure": (130.0, 40.0),
    # mg/dl. The middle of what is called borderline, 200 to 239 (NCEP ATP III, 2002).
    "cholesterol": (USUAL_CHOLESTEROL, 80.0),
    # Beats a minute, from what is fast at rest, 100, to the largest at 30 years, 220 - 30 (Fox, Naughton and Haskell).
    "largest heart rate": (145.0, 45.0),
    # mm. From 1 mm on an exercise test is positive (ACC/AHA 2002).
    "st depression": (1.0, 2.0),
}
# Yes or no: half a unit either way. A code among k: as if all were equally frequent.
YES_OR_NO = (0.5, 1.0)
# The row says in which hospital a patient was, twice as loud as a yes or no, for a hospital may have few patients.
LOUDNESS = 2.0
# The ranges of features in their own units from which the federation's mean and deviation are summed, see --flamby.
FEDERATED_LOW = (20, 0, 80, 100, 0, 60, 0, -3, 0, 0, 0, 0, 0)
FEDERATED_HIGH = (90, 1, 200, 600, 1, 220, 1, 7, 1, 1, 1, 1, 1)


def hospitals(folder: Path) -> dict[str, pd.DataFrame]:
    """The four hospitals' tables, from UCI's files as they are (with or without a header, ? or -9 for missing)."""
    tables = {}
    for name in HOSPITALS:
        path = folder / f"processed.{name}.data"
        if not path.is_file():
            raise DataError(
                f"{folder} lacks {path.name}",
                next_step="Download the four processed files of UCI's Heart Disease (doi 10.24432/C52P4X) into it.",
            )
        table = pd.read_csv(path, header=None, names=list(NAMES), na_values=["?", "-9", "-9.0"], dtype=str)
        # Some copies have a header line.
        table = table[table["age"] != "age"].apply(pd.to_numeric, errors="coerce")
        table.insert(0, PERSON, [f"{name}-{i}" for i in range(len(table))])
        tables[name] = table
    return tables


class HeartDisease:
    """Logistic regression on features in their own units, for federations that agree on their mean and deviation."""

    # Whether a cholesterol of 0 becomes a usual value.
    impute = True

    def model(self) -> nn.Module:
        return nn.Linear(FEATURES, 1)

    def data(self, site: SiteData) -> Split:
        table = site.table()
        features, labels = self.prepared(table)
        train, test = split(labels)
        features = self.normalised(features, train)
        parts = (train, train[:0], test)
        return Split(*(TensorDataset(torch.from_numpy(features[p]), torch.from_numpy(labels[p])) for p in parts))

    def prepared(self, table: pd.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features and labels of the complete patients."""
        kept = columns(table, [n for n in NAMES if n not in SPARSE]).dropna()
        numbers = kept[list(NUMBERS)].to_numpy(dtype=np.float64, copy=True)
        if self.impute:
            place = NUMBERS.index("cholesterol")
            numbers[numbers[:, place] == 0, place] = USUAL_CHOLESTEROL
        codes = [(kept[name] == code).to_numpy(dtype=np.float64) for name, c in CATEGORIES.items() for code in c[1:]]
        features = np.column_stack([numbers, *codes]).astype(np.float32)
        return features, (kept[LABEL] > 0).to_numpy(dtype=np.float32)

    def normalised(self, features: NDArray[np.float32], train: NDArray[np.intp]) -> NDArray[np.float32]:
        """As they are; fedseal normalises with the federation's own statistics."""
        return features

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc()]


class UnitRows(nn.Module):
    """Logistic regression on rows of length 1, with a constant among their entries; begins with zeros.

    The gradient of a person's loss is the row times a number between -1 and 1, so it is never longer than 1, and half
    that in the first round. Scaling a row changes no answer of a linear model, as it keeps the sign of the logit.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features + 1, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (persons, 1)."""
        rows = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
        logits: Tensor = self.linear(rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True))
        return logits


class PublicRanges(HeartDisease):
    """Logistic regression on features in public units, so nothing has to be released before training: 14 numbers."""

    def model(self) -> nn.Module:
        return UnitRows(FEATURES)

    def normalised(self, features: NDArray[np.float32], train: NDArray[np.intp]) -> NDArray[np.float32]:
        """In units that textbooks give."""
        units = [PUBLIC.get(name, YES_OR_NO) for name in NUMBERS]
        units += [(1 / len(codes), 1.0) for codes in CATEGORIES.values() for _ in codes[1:]]
        centre, unit = np.array(units, dtype=np.float32).T
        return ((features - centre) / unit).astype(np.float32)


class WithHospitals(PublicRanges):
    """The same with an offset for each hospital, as a trial in several centres has them: 18 numbers, all released.

    How many of its patients are ill is what the hospitals differ in most. A patient of no hospital of the study is
    judged without an offset.
    """

    def model(self) -> nn.Module:
        return UnitRows(FEATURES + len(HOSPITALS))

    def data(self, site: SiteData) -> Split:
        own = torch.tensor([LOUDNESS * (site.name == name) for name in HOSPITALS])
        split = super().data(site)

        def told(persons: TensorDataset) -> TensorDataset:
            features, labels = persons.tensors
            return TensorDataset(torch.cat([features, own.expand(len(features), -1)], dim=1), labels)

        return Split(*(told(part) for part in (split.train, split.validation, split.test)))


class AsPublished(HeartDisease):
    """As FLamby has it before normalisation: a cholesterol of 0 is left as it is."""

    impute = False


class PerHospital(AsPublished):
    """As FLamby has it: every hospital by the mean and deviation of its own training patients."""

    def normalised(self, features: NDArray[np.float32], train: NDArray[np.intp]) -> NDArray[np.float32]:
        mean, deviation = features[train].mean(axis=0), features[train].std(axis=0, ddof=1)
        normal: NDArray[np.float32] = ((features - mean) / (deviation + 1e-9)).astype(np.float32)
        return normal


def split(labels: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """FLamby's fixed split, by class where each has more than two patients; places of training and test patients."""
    stratify = labels if all((labels == c).sum() > 2 for c in (0, 1)) else None
    train, test = train_test_split(
        np.arange(len(labels)),
        train_size=TRAIN_SHARE,
        test_size=1 - TRAIN_SHARE,
        random_state=SPLIT_SEED,
        shuffle=True,
        stratify=stratify,
    )
    return np.sort(train), np.sort(test)
