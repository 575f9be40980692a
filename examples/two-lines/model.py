"""A small convolutional net, and a node's share of scikit-learn's digits."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Net(nn.Sequential):
    """From images of 8 x 8 pixels to ten digits."""

    def __init__(self) -> None:
        first, second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        pool = nn.MaxPool2d(2)
        super().__init__(first, nn.ReLU(), pool, second, nn.ReLU(), pool, nn.Flatten(), nn.Linear(64, 10))


@cache
def load_data(partition: int, partitions: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on, then those to test on: every fifth."""
    digits = load_digits()
    images = torch.tensor(digits.images[partition::partitions], dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target[partition::partitions])
    test = torch.arange(len(labels)) % 5 == 0
    return images[~test], labels[~test], images[test], labels[test]
