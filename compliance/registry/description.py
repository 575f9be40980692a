"""What a person says of a model when it is registered, beside what its run knows, and the bundle that both make."""

from typing import Literal

from pydantic import Field

from fedseal.compliance.events.fields import Count
from fedseal.compliance.registry.bundle import (
    Bundle,
    Column,
    InputSchema,
    Output,
    Recipe,
    Standardisation,
    make_bundle,
    tensors_of,
)
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.study import Contract


class Description(Frozen):
    """The file of `fedseal model register --describe` (docs/schemas/model-description-1.json).

    ``shape`` is that of one item's features, without the batch.
    """

    version: Literal[1]
    output: Output = Output()
    thresholds: dict[str, float] = Field(default_factory=dict)
    shape: tuple[Count, ...] | None = None
    columns: tuple[Column, ...] = ()


def bundle_of(
    model: bytes,
    contract: Contract,
    description: Description | None = None,
    normalisation: Standardisation | None = None,
    code: str | None = None,
) -> Bundle:
    """The bundle of a run's model.

    Args:
        model: the bytes of its safetensors file.
        contract: the study's.
        description: what else is known.
        normalisation: what the federation has measured and the model was trained on.
        code: the digest of the study's folder, where the log has one.

    Raises:
        ConfigError: the model is no safetensors file, or the description contradicts the run.
    """
    said = description or Description(version=1)
    recipe = Recipe(
        study=contract.name,
        task=contract.task,
        code=code,
        normalisation=normalisation,
        output=said.output,
        thresholds=said.thresholds,
    )
    shape = said.shape
    if normalisation is not None:
        features = len(normalisation.mean)
        if shape is not None and (not shape or shape[-1] != features):
            raise ConfigError(f"the description's shape does not end in {features}, and so many features were measured")
        shape = (features,) if shape is None else shape
    schema = InputSchema(columns=said.columns, shape=shape, tensors=tensors_of(model))
    return make_bundle(model, recipe, schema)
