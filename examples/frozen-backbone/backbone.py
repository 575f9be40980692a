"""A small convolutional net without batch statistics: a backbone that ends in 64 features, and a head."""

import torch
from torch import Tensor, nn

WIDTH = 64


class Backbone(nn.Module):
    """Images (batch, 1, 8, 8) in [0, 1] to features (batch, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.second, self.second_norm = nn.Conv2d(32, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH)
        self.third, self.third_norm = nn.Conv2d(WIDTH, WIDTH, 3), nn.GroupNorm(8, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        state = torch.relu(self.first_norm(self.first(images)))
        state = nn.functional.max_pool2d(torch.relu(self.second_norm(self.second(state))), 2)
        state = torch.relu(self.third_norm(self.third(state)))
        return nn.functional.max_pool2d(state, 2).flatten(1)


class Classifier(nn.Module):
    """The backbone and a head that begins at zero, one output a class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), nn.Linear(WIDTH, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.backbone(images))
        return answer
