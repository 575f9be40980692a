"""Copies of a bundle for other programs."""

import json
from pathlib import Path
from typing import cast

from fedseal.compliance.registry.bundle import Bundle
from fedseal.compliance.registry.mlflow import Tags
from fedseal.errors import ConfigError


def write_onnx(bundle: Bundle, tags: Tags, study: Path | None, folder: Path) -> None:
    """Write ``model.onnx``, with the tags in its metadata, and the bundle's recipe and schema, into a new folder.

    Raises:
        ConfigError: there is no study to make the model with, the packages are missing, or the folder exists.
    """
    from fedseal.cli.simulating import need_packages

    if study is None:
        raise ConfigError("ONNX needs the study's code", next_step="Give its folder: --study FOLDER.")
    if bundle.schema.shape is None:
        raise ConfigError(
            "the bundle does not say which shape its inputs have",
            next_step="Register it with --describe FILE, and shape = [...] in that file.",
        )
    need_packages()
    from fedseal.client.export import onnx_bytes
    from fedseal.client.task import Task
    from fedseal.study import load_study
    from fedseal.study_code import load_task

    found = load_study(study)
    if found.contract.name != bundle.recipe.study or found.contract.task != bundle.recipe.task:
        raise ConfigError("the bundle was made by another study", next_step="Give the folder of its own study.")
    task = cast(Task, load_task(bundle.recipe.task, study))
    named = {**tags.named(), "fedseal.bundle": bundle.digest, "fedseal.model": bundle.model_digest}
    made = onnx_bytes(task, bundle.model, bundle.recipe.normalisation, bundle.schema.shape, named)
    try:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(made)
        (folder / "tags.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot be made: {reason}", next_step="Give another folder.") from None
