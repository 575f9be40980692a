"""The model that is applied: by the bundle's own graph, or by the study's code with the bundle's parameters.

Both take features as `features.Rows` has them, and do the bundle's normalisation themselves.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fedseal.client.serving.features import Single
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.registry.bundle import Bundle
from fedseal.errors import ConfigError

Outputs: TypeAlias = NDArray[np.float64]
Runtime = Literal["onnxruntime", "torch"]


@dataclass(frozen=True, slots=True)
class Network:
    """What says something about features of shape (rows, inputs): numbers of shape (rows, outputs)."""

    runtime: Runtime
    version: str
    apply: Callable[[Single], Outputs]


def by_graph(bundle: Bundle) -> Network:
    """The bundle's model.onnx, which needs no code of the study.

    Raises:
        ConfigError: the bundle has none, onnxruntime is missing, or it cannot run it.
    """
    if bundle.graph is None:
        raise ConfigError(
            "the bundle has no model.onnx",
            next_step="Give the study's approved code, by --config or --study; or register the model with --study.",
        )
    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError("a bundle's model.onnx needs onnxruntime", next_step='pip install "fedseal[onnx]"')
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotKnown

    failures = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotKnown)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
    except failures as error:
        raise ConfigError(f"onnxruntime cannot load the bundle's model.onnx ({type(error).__name__})") from None
    names = [one.name for one in session.get_inputs()]
    if len(names) != 1:
        raise ConfigError("the bundle's model.onnx takes several tensors, and a table makes one")

    def apply(features: Single) -> Outputs:
        try:
            found = session.run(None, {names[0]: features})[0]
        except failures as error:
            raise ConfigError(f"onnxruntime cannot run the bundle's model.onnx ({type(error).__name__})") from None
        return _by_row(np.asarray(found, dtype=np.float64), len(features))

    return Network("onnxruntime", onnxruntime.__version__, apply)


def by_study(bundle: Bundle, folder: Path, approved: bytes | None) -> Network:
    """The study's network with the bundle's parameters. The folder's code runs, if it is the approved one.

    Args:
        bundle: the bundle.
        folder: the study's.
        approved: the digest of what was read and approved at this site; None leaves it to the bundle's own.

    Raises:
        ConfigError: the code is not the one that the model was made with and the site has approved, or another study's.
    """
    check_code(bundle, folder, approved)
    import safetensors.numpy
    import torch

    from fedseal.client.export import Standardised
    from fedseal.client.task import Task, build_model
    from fedseal.client.trainer import load
    from fedseal.study_code import load_task, study_code

    task = cast(Task, load_task(bundle.recipe.task, folder))
    with study_code("model()"):
        network = build_model(task).eval()
    load(network, safetensors.numpy.load(bundle.model))
    scaled = bundle.recipe.normalisation
    whole = (network if scaled is None else Standardised(network, scaled)).eval()

    def apply(features: Single) -> Outputs:
        with study_code("the network"), torch.no_grad():
            found = whole(torch.from_numpy(features))
        return _by_row(np.asarray(found.detach().double().numpy()), len(features))

    return Network("torch", torch.__version__, apply)


def check_code(bundle: Bundle, folder: Path, approved: bytes | None) -> None:
    """That a folder holds the code that the model was made with, and that this site has approved."""
    found, made = "sha256:" + code_digest(folder).hex(), bundle.recipe.code
    if approved is not None and found != f"sha256:{approved.hex()}":
        raise ConfigError(
            f"the code in {folder} is not what this site has approved",
            next_step=f"Put the approved code back, or read what is there and then approve it: {found}",
        )
    if made is not None and found != made:
        raise ConfigError(
            f"the code in {folder} is not what the bundle's model was made with: {made}",
            next_step="Give the folder of that version of the study.",
        )
    if made is None and approved is None:
        raise ConfigError(
            "the bundle does not say which code its model was made with",
            next_step="Name the site's file, whose [study] says which code was approved here: --config site.toml.",
        )


def _by_row(found: Outputs, rows: int) -> Outputs:
    """Shape (rows, outputs)."""
    if found.ndim not in (1, 2) or len(found) != rows:
        raise ConfigError(f"the model says something of shape {found.shape} about {rows} rows: that is no prediction")
    return found.reshape(rows, -1)
