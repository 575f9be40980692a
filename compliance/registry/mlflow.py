"""A bundle as a folder that MLflow reads as a model: an ``MLmodel`` file beside the bundle's own files.

What MLflow keeps is a copy without proof: the tags say where in which log the model stands, and there it is proven.
MLflow itself is not needed to write it. Its file is YAML, of which JSON is a part.
"""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from fedseal import __version__
from fedseal.compliance.registry.bundle import Bundle, write_bundle
from fedseal.errors import ConfigError

FLAVOR = "fedseal"


@dataclass(frozen=True, slots=True)
class Tags:
    """Where a model stands in a log. ``epsilon`` is None where there is no bound, ``root`` that of ``size`` entries."""

    origin: str
    index: int
    size: int
    root: str
    epsilon: str | None

    def named(self) -> dict[str, str]:
        """By the names that stand in a tag."""
        return {
            "fedseal.log.origin": self.origin,
            "fedseal.log.index": str(self.index),
            "fedseal.log.size": str(self.size),
            "fedseal.log.root": self.root,
            "fedseal.epsilon": self.epsilon or "unbounded",
        }


def write_mlflow(bundle: Bundle, tags: Tags, time: str, folder: Path) -> None:
    """Write a new folder that ``mlflow.models.Model.load`` reads.

    Args:
        bundle: what is exported.
        tags: where it stands.
        time: now, as MLflow writes it: ``2026-11-28 09:00:00.000000``.
        folder: must not exist.

    Raises:
        ConfigError: it does, or cannot be made.
    """
    write_bundle(bundle, folder / "bundle")
    described = {
        "artifact_path": bundle.recipe.study,
        "flavors": {FLAVOR: {"data": "bundle", "bundle": bundle.digest, "fedseal_version": __version__}},
        # The same bundle is the same model, however often it is exported.
        "model_uuid": uuid.UUID(bundle.digest.removeprefix("sha256:")[:32]).hex,
        "utc_time_created": time,
        "metadata": {**tags.named(), "fedseal.bundle": bundle.digest, "fedseal.model": bundle.model_digest},
    }
    try:
        (folder / "MLmodel").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or type(error).__name__}") from None
