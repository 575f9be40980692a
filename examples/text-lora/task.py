"""Does the clinic have to call back today? A message of a patient, read by a small transformer with frozen weights.

The encoder was trained on public leaflets (`pretrain.py`), and every site has it as a file. What a site trains and
releases are low-rank adapters on queries and values, and the head. All text is made up (`messages.py`).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch
from messages import LABEL, PERSON, TEXT, messages
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformer import Classifier, Shape, numbers

from fedseal.client.metrics import accuracy, auc
from fedseal.client.split import by_hash
from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.errors import ConfigError

PRETRAINED = Path(__file__).with_name("pretrained.safetensors")
# What is frozen is not sent, so every site has to have the same: other bytes are another model.
PRETRAINED_SHA256 = "33327ddfa674f6ea2a09f8c94394c331882884405ce492f67c4b8c1e51c082c8"
RANK = 4


class Adapters:
    """Low-rank adapters and the head are trained; the encoder stays as it is in the file."""

    rank = RANK
    # Parameters whose names contain one of these are trained.
    trained: tuple[str, ...] = (".down.", ".up.", "head.")

    def __init__(self) -> None:
        self.weights, self.vocabulary = pretrained()

    def model(self) -> nn.Module:
        length, width = self.weights["place.weight"].shape
        model = Classifier(Shape(len(self.vocabulary), length, width), self.rank)
        # An adapted layer keeps the file's weight as its base.
        missing, unexpected = model.encoder.load_state_dict(self.weights, strict=False)
        if unexpected or any(not name.endswith(("down.weight", "up.weight")) for name in missing):
            raise ConfigError(f"{PRETRAINED.name} is not of this encoder", next_step="Run pretrain.py.")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in self.trained))
        return model

    def data(self, site: SiteData) -> Split:
        table = columns(site.table(), [PERSON, TEXT, LABEL])
        words = numbers([str(text) for text in table[TEXT]], self.vocabulary, len(self.weights["place.weight"]))
        labels = torch.tensor(table[LABEL].to_numpy(dtype="float32"))
        parts = by_hash(table[PERSON], study="text-lora")
        train, validation, test = (TensorDataset(words[part], labels[part]) for part in parts)
        return Split(train, validation, test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        words, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(words), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc(bins=50)]


class Everything(Adapters):
    """For comparison: full training. No adapters, every parameter is trained, from the same file."""

    rank = 0
    trained = ("",)


def pretrained() -> tuple[dict[str, Tensor], list[str]]:
    """The public weights and the vocabulary that goes with them.

    Raises:
        ConfigError: the file is missing, or is not the one that this study was written for.
    """
    raw = PRETRAINED.read_bytes() if PRETRAINED.is_file() else b""
    if hashlib.sha256(raw).hexdigest() != PRETRAINED_SHA256:
        raise ConfigError(
            f"{PRETRAINED.name} beside task.py is missing or another one than this study's",
            next_step="Copy it from the study, or run pretrain.py and put its digest into task.py at every site.",
        )
    with safetensors.safe_open(PRETRAINED, "pt") as file:
        vocabulary = str(file.metadata()["vocabulary"]).split(" ")
    return safetensors.torch.load(raw), vocabulary


def population() -> pd.DataFrame:
    """All patients' messages in one table, for a simulation that spreads them over clinics by topic."""
    return messages()
