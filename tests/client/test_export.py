"""A bundle's model as ONNX says what torch says, for any batch, normalised as the bundle says."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import safetensors.numpy
import torch
from support.studies import TINY
from torch import nn

from fedseal.client.task import Task, build_model
from fedseal.client.trainer import load, trainable
from fedseal.compliance.registry.bundle import Standardisation
from fedseal.errors import ConfigError
from fedseal.study_code import load_task

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# After what it needs, or nothing of this file could be collected where that is missing.
from fedseal.client import export

SCALED = Standardisation(mean=(1.0, -2.0, 0.5), deviation=(2.0, 0.5, 3.0))


@pytest.fixture(scope="module")
def task() -> Task:
    return cast(Task, load_task("task:Blobs", Path(TINY)))


def model() -> bytes:
    arrays = {"weight": np.array([[1.5, -2.25, 0.75]], np.float32), "bias": np.array([0.3], np.float32)}
    return safetensors.numpy.save(arrays)


def test_onnx_says_what_torch_says(task: Task) -> None:
    made = export.onnx_bytes(task, model(), SCALED, (3,), {"fedseal.log.index": "41"})
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    network = build_model(task)
    load(network, safetensors.numpy.load(model()))
    for persons in (1, 2, 37):
        features = np.random.default_rng(persons).normal(size=(persons, 3)).astype(np.float32) * 3
        scaled = (torch.from_numpy(features) - torch.tensor(SCALED.mean)) / torch.tensor(SCALED.deviation)
        with torch.no_grad():
            expected = network(scaled).numpy()
        (found,) = session.run(["output"], {"features": features})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # Without the bundle's normalisation it would be another model.
    assert not np.allclose(found, network(torch.from_numpy(features)).detach().numpy(), atol=1e-2)
    stored = onnx.load_from_string(made)
    assert {entry.key: entry.value for entry in stored.metadata_props}["fedseal.log.index"] == "41"


@pytest.mark.slow
def test_a_model_that_onnxruntime_runs_differently_is_not_exported(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = export._exported

    def wrong(whole: nn.Module, batch: torch.Tensor, tags: dict[str, str]) -> bytes:
        arrays = trainable(whole)
        other = build_model(task)
        load(other, {name: array + 2e-4 for name, array in arrays.items()})
        return honest(other, batch, tags)

    export.onnx_bytes(task, model(), None, (3,), {})
    monkeypatch.setattr(export, "_exported", wrong)
    with pytest.raises(ConfigError, match="something else than torch"):
        export.onnx_bytes(task, model(), None, (3,), {})


def test_another_models_parameters_are_refused(task: Task) -> None:
    other = safetensors.numpy.save({"weight": np.zeros((1, 4), np.float32), "bias": np.zeros(1, np.float32)})
    with pytest.raises(ConfigError, match="trainable parameters"):
        export.onnx_bytes(task, other, None, (3,), {})


def test_a_shape_that_the_model_does_not_take_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match="cannot export"):
        export.onnx_bytes(task, model(), None, (4,), {})


def test_missing_packages_are_named(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match="needs no_such_package"):
        export.onnx_bytes(task, model(), None, (3,), {})
