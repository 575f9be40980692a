"""Is a breast mass malignant? Thirty measurements of cell nuclei from a fine-needle aspirate, one row a patient.

Data: Breast Cancer Wisconsin (Diagnostic), W. Wolberg, O. Mangasarian, N. Street and W. Street, UCI Machine Learning
Repository, 1993, CC BY 4.0; it ships with scikit-learn.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy, auc
from fedseal.client.split import by_hash
from fedseal.client.task import Batch, Metric, SiteData, Split, columns

LABEL = "malignant"
PERSON = "patient"

# Ranges of the ten measurements, rounded outwards from the table in the data set's published documentation: of the mean
# over a patient's nuclei, of its standard error, and of the mean of the three worst nuclei. A range that is public
# already costs no privacy.
RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "radius": ((5, 30), (0.1, 3), (5, 40)),
    "texture": ((5, 40), (0.3, 5), (10, 50)),
    "perimeter": ((40, 200), (0.5, 25), (50, 300)),
    "area": ((100, 3000), (5, 600), (100, 5000)),
    "smoothness": ((0.05, 0.2), (0.001, 0.04), (0.05, 0.3)),
    "compactness": ((0.01, 0.4), (0.002, 0.2), (0.02, 1.2)),
    "concavity": ((0, 0.5), (0, 0.4), (0, 1.3)),
    "concave points": ((0, 0.25), (0, 0.06), (0, 0.3)),
    "symmetry": ((0.1, 0.35), (0.005, 0.08), (0.15, 0.7)),
    "fractal dimension": ((0.04, 0.1), (0.0005, 0.03), (0.05, 0.25)),
}
FORMS = ("mean {}", "{} error", "worst {}")
FEATURES = [form.format(name) for form in FORMS for name in RANGES]
LOW = np.array([RANGES[name][i][0] for i in range(3) for name in RANGES])
HIGH = np.array([RANGES[name][i][1] for i in range(3) for name in RANGES])


def scaled(table: pd.DataFrame) -> Tensor:
    """The features in [-1, 1]: sizes and ratios on a logarithmic scale, those that can be zero by their square root."""
    values = np.clip(columns(table, FEATURES).to_numpy(dtype=np.float64), LOW, HIGH)
    places = [
        np.log(column / low) / np.log(high / low) if low > 0 else np.sqrt(column / high)
        for column, low, high in zip(values.T, LOW, HIGH, strict=True)
    ]
    return torch.from_numpy(2 * np.stack(places, axis=1) - 1).float()


class BreastCancer:
    """Logistic regression, the model that thirty features and a few hundred patients carry."""

    def model(self) -> nn.Module:
        return nn.Linear(len(FEATURES), 1)

    def data(self, site: SiteData) -> Split:
        table = site.table()
        features = scaled(table)
        labels = torch.tensor(columns(table, [LABEL])[LABEL].to_numpy(dtype=np.float32))
        parts = by_hash(columns(table, [PERSON])[PERSON], study="breast-cancer")
        train, validation, test = (TensorDataset(features[part], labels[part]) for part in parts)
        return Split(train, validation, test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc()]


def population() -> pd.DataFrame:
    """All patients in one table, for a simulation that spreads them over hospitals."""
    from sklearn.datasets import load_breast_cancer

    bundle = load_breast_cancer()
    table = pd.DataFrame(bundle.data, columns=list(bundle.feature_names))
    # scikit-learn codes malignant as 0.
    table.insert(0, LABEL, (bundle.target == 0).astype(int))
    table.insert(0, PERSON, range(len(table)))
    return table
