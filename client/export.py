"""A bundle's model as ONNX: normalisation and network in one graph, from a study's own code and the bundle's numbers.

What was exported is run by onnxruntime before it is handed out, and has to say the same as torch.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from fedseal.client.task import Task, build_model
from fedseal.client.trainer import load
from fedseal.compliance.registry.bundle import Standardisation
from fedseal.errors import ConfigError

NEEDED = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "features", "output"
# How far onnxruntime may be from torch, absolute and relative to the size of the output.
TOLERANCE = 1e-5
_TRIED = 16


class Standardised(nn.Module):
    """A network behind its normalisation: features as they are measured go in."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, scaled: Standardisation) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(scaled.mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(scaled.deviation, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """What the network says about features of shape (batch, ..., features)."""
        found: Tensor = self.network((features - self.mean) / self.deviation)
        return found


def onnx_bytes(
    task: Task,
    model: bytes,
    scaled: Standardisation | None,
    shape: Sequence[int],
    tags: Mapping[str, str],
) -> bytes:
    """The ONNX file of a bundle's model. Its input ``features`` has a batch of any size as first dimension.

    Args:
        task: makes the network.
        model: the bytes of the bundle's safetensors file.
        scaled: the bundle's normalisation.
        shape: of one item's features.
        tags: written into the file's metadata.

    Raises:
        ConfigError: packages are missing, the network has other parameters or takes something else than one tensor of
            this shape, or onnxruntime does not say the same as torch.
    """
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"an export to ONNX needs {', '.join(missing)}", next_step='Install them with: pip install "fedseal[onnx]"'
        )
    network = build_model(task).eval()
    load(network, safetensors.numpy.load(model))
    whole = (network if scaled is None else Standardised(network, scaled)).eval()
    batch = torch.rand((_TRIED, *shape), generator=torch.Generator().manual_seed(1))
    made = _exported(whole, batch[:2], tags)
    _check(whole, batch, made)
    return made


def _exported(whole: nn.Module, batch: Tensor, tags: Mapping[str, str]) -> bytes:
    try:
        with torch.no_grad(), _quietly():
            program = torch.onnx.export(
                whole,
                (batch,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    # torch's exporter wraps whatever went wrong, in the network's code or its own, in a RuntimeError of its own.
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"torch cannot export this model to ONNX ({type(error).__name__})",
            next_step="It has to take one tensor of the bundle's shape, with a batch of any size before it.",
        ) from None
    if program is None:
        raise ConfigError("torch cannot export this model to ONNX")
    made = program.model_proto
    for key, value in sorted(tags.items()):
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString(deterministic=True))


def _check(whole: nn.Module, batch: Tensor, made: bytes) -> None:
    """That onnxruntime says the same, for batches of another size than the one that was traced."""
    import onnxruntime

    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = whole(batch).numpy()
    found = session.run([OUTPUT], {INPUT: batch.numpy()})[0]
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        raise ConfigError("onnxruntime says something else than torch about this model: it was not exported")


@contextmanager
def _quietly() -> Iterator[None]:
    """torch warns of operators that other packages would bring, and of its own next versions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
