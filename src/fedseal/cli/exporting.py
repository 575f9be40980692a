"""Copies of a bundle for other programs."""

import json
from pathlib import Path
from typing import cast

from fedseal.compliance.registry.bundle import Bundle, make_bundle
from fedseal.compliance.registry.mlflow import Tags
from fedseal.errors import ConfigError


def with_graph(bundle: Bundle, study: Path) -> Bundle:
    """A bundle with its model as ONNX, by which it can be applied without the study's code.

    Raises:
        ConfigError: as `write_onnx`, or the folder's code is not what the model was made with.
    """
    from fedseal.client.serving.network import check_code

    # Without a digest in the log there is nothing to compare with: whoever registers vouches for the folder.
    if bundle.recipe.code is not None:
        check_code(bundle, study, None)
    graph = _onnx(bundle, {"fedseal.model": bundle.model_digest}, study)
    return make_bundle(bundle.model, bundle.recipe, bundle.schema, graph)


def write_onnx(bundle: Bundle, tags: Tags, study: Path | None, folder: Path) -> None:
    """Write ``model.onnx``, with the tags in its metadata, and the bundle's recipe and schema, into a new folder.

    Raises:
        ConfigError: there is no study to make the model with, the packages are missing, or the folder exists.
    """
    named = {**tags.named(), "fedseal.bundle": bundle.digest, "fedseal.model": bundle.model_digest}
    made = _onnx(bundle, named, study)
    try:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(made)
        (folder / "tags.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot be made: {reason}", next_step="Give another folder.") from None


def _onnx(bundle: Bundle, named: dict[str, str], study: Path | None) -> bytes:
    """The model as ONNX, made by the study's code, which onnxruntime runs as torch does."""
    if study is None:
        raise ConfigError("ONNX needs the study's code", next_step="Give its folder: --study FOLDER.")
    if bundle.schema.shape is None:
        raise ConfigError(
            "the bundle does not say which shape its inputs have",
            next_step="Register it with --describe FILE, and shape = [...] in that file.",
        )
    from fedseal.cli.simulating import need_packages

    need_packages()
    from fedseal.client.export import onnx_bytes
    from fedseal.client.task import Task
    from fedseal.study import load_study
    from fedseal.study_code import load_task

    found = load_study(study)
    if found.contract.name != bundle.recipe.study or found.contract.task != bundle.recipe.task:
        raise ConfigError("the bundle was made by another study", next_step="Give the folder of its own study.")
    task = cast(Task, load_task(bundle.recipe.task, study))
    return onnx_bytes(task, bundle.model, bundle.recipe.normalisation, bundle.schema.shape, named)
