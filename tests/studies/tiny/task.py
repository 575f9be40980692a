"""Two overlapping blobs in three dimensions: trains in milliseconds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy, auc
from fedseal.client.split import by_hash
from fedseal.client.task import Batch, Metric, SiteData, Split, columns

FEATURES = ["a", "b", "c"]


class Blobs:
    def model(self) -> nn.Module:
        return nn.Linear(3, 1)

    def data(self, site: SiteData) -> Split:
        table = site.table()
        features = torch.tensor(columns(table, FEATURES).to_numpy(dtype=np.float32))
        labels = torch.tensor(columns(table, ["label"])["label"].to_numpy(dtype=np.float32))
        parts = by_hash(columns(table, ["person"])["person"], study="tiny")
        train, validation, test = (TensorDataset(features[p], labels[p]) for p in parts)
        # What two annotators said of the training persons: the second has other words for some.
        said = labels[parts[0]].double().numpy()
        second = np.where(np.arange(len(said)) % 5 == 0, 1 - said, said)
        judged = {"first": said, "second": second}
        # Groups for the evaluation of test persons: two of many, two of few.
        groups = {"ward": np.minimum(parts[2].astype(np.float64) % 10, 3)}
        return Split(train, validation, test, judged, groups)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc(bins=20)]


def population() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 240)
    points = rng.normal(size=(240, 3)) + 1.2 * labels[:, None]
    table = pd.DataFrame(points.round(4), columns=FEATURES)
    table["label"] = labels
    table["person"] = np.arange(240)
    return table
