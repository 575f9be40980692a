"""Least squares in three dimensions: a twin of its training fits on a page. Every row is used for everything."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.task import Batch, Metric, SiteData, Split


class Plane:
    def model(self) -> nn.Module:
        return nn.Linear(3, 1)

    def data(self, site: SiteData) -> Split:
        table = site.table()
        features = torch.tensor(table[["a", "b", "c"]].to_numpy(dtype=np.float32))
        rows = TensorDataset(features, torch.tensor(table["y"].to_numpy(dtype=np.float32)))
        return Split(rows, rows, rows)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, targets = batch
        return 0.5 * torch.square(model(features).squeeze(1) - targets)

    def metrics(self) -> Sequence[Metric]:
        return []


class Headed(Plane):
    """With a layer that sites may keep."""

    def model(self) -> nn.Module:
        return nn.Sequential(OrderedDict(body=nn.Linear(3, 4), act=nn.Tanh(), head=nn.Linear(4, 1)))


class Normed(Plane):
    """With a layer that takes mean and deviation of its batch."""

    def model(self) -> nn.Module:
        layers = {"body": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "act": nn.Tanh(), "head": nn.Linear(4, 1)}
        return nn.Sequential(OrderedDict(layers))
