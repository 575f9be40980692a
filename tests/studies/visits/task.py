"""Several visits a person, ids that a CSV would change, a number to predict, and the federation's own normalisation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.items import person_items
from fedseal.client.metrics import mean_absolute_error, r_squared
from fedseal.client.split import by_hash
from fedseal.client.task import Batch, Metric, SiteData, Split

FEATURES = ["pulse", "change"]


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.person = nn.Linear(len(FEATURES), 1)

    def forward(self, visits: Tensor, mask: Tensor) -> Tensor:
        mean = (visits * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        said: Tensor = self.person(mean).squeeze(1)
        return said


class Visits:
    def model(self) -> nn.Module:
        return Mean()

    def data(self, site: SiteData) -> Split:
        table = site.table()
        if not all(isinstance(value, str) for value in table["person"]):
            raise TypeError("an id is no text any more")
        items = person_items(table, person="person", features=FEATURES, most_records=3, newest_by="day")
        outcome = torch.tensor(items.values(table, "outcome"), dtype=torch.float32)
        parts = by_hash(items.ids, study="visits")
        train, validation, test = (TensorDataset(items.records[p], items.mask[p], outcome[p]) for p in parts)
        return Split(train, validation, test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        visits, mask, outcome = batch
        return nn.functional.huber_loss(model(visits, mask), outcome, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [mean_absolute_error(10.0), r_squared(-5.0, 5.0)]


def population() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    visits, ids = rng.integers(1, 6, 120), np.array([f"{i:04d}" for i in range(120)])
    level = rng.normal(0, 1, 120)
    table = pd.DataFrame({"person": np.repeat(ids, visits)})
    table["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, len(table)), unit="D")
    table["pulse"] = (80 + 12 * np.repeat(level, visits) + rng.normal(0, 4, len(table))).round()
    table["change"] = rng.normal(0, 2, len(table)).round(2)
    return table.assign(outcome=np.repeat((level + rng.normal(0, 0.2, 120)).round(2), visits))
