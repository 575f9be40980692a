"""Which digit is it, from 5 to 9? A convolutional backbone that has only ever seen 0 to 4 stays frozen; a head on its
64 features is trained and released.

Data: see `images.py`. The backbone was trained by `pretrain.py`, and every site has it as a file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from backbone import Classifier
from images import BRIGHTEST, LABEL, PERSON, PIXELS, PRIVATE, images
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy
from fedseal.client.split import by_hash
from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.errors import ConfigError

PRETRAINED = Path(__file__).with_name("pretrained.safetensors")
# What is frozen is not sent, so every site has to have the same: other bytes are another model.
PRETRAINED_SHA256 = "221b680f62a098409c54b0a15c7b423fa1a4b2cb1674949969174289b315a810"


class Head:
    """The head is trained; the backbone stays as it is in the file."""

    # Parameters whose names begin with this are trained.
    trained = "head."

    def __init__(self) -> None:
        self.weights = pretrained()

    def model(self) -> nn.Module:
        model = Classifier(len(PRIVATE))
        model.backbone.load_state_dict(self.weights)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(self.trained))
        return model

    def data(self, site: SiteData) -> Split:
        table = site.table()
        pixels = torch.tensor(columns(table, PIXELS).to_numpy(dtype="float32")).reshape(-1, 1, 8, 8) / BRIGHTEST
        digits = torch.tensor(columns(table, [LABEL])[LABEL].to_numpy() - PRIVATE[0])
        parts = by_hash(columns(table, [PERSON])[PERSON], study="frozen-backbone")
        train, validation, test = (TensorDataset(pixels[part], digits[part]) for part in parts)
        return Split(train, validation, test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        pixels, digits = batch
        return nn.functional.cross_entropy(model(pixels), digits, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy()]


class Everything(Head):
    """For comparison: full training. Every parameter is trained, from the same file."""

    trained = ""


def pretrained() -> dict[str, Tensor]:
    """The public weights.

    Raises:
        ConfigError: the file is missing, or is not the one that this study was written for.
    """
    raw = PRETRAINED.read_bytes() if PRETRAINED.is_file() else b""
    if hashlib.sha256(raw).hexdigest() != PRETRAINED_SHA256:
        raise ConfigError(
            f"{PRETRAINED.name} beside task.py is missing or another one than this study's",
            next_step="Copy it from the study, or run pretrain.py and put its digest into task.py at every site.",
        )
    return safetensors.torch.load(raw)


def population() -> pd.DataFrame:
    """All images of the private digits in one table, for a simulation that spreads them over clinics."""
    return images(PRIVATE)
