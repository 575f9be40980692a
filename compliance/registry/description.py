"""What a person says of a model when it is registered, beside what its run knows, and the bundle that both make."""

from dataclasses import dataclass
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
from fedseal.compliance.registry.inputs import inputs_of
from fedseal.compliance.registry.recipe import Abstention, Feature, ScoreReference
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
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card of a private evaluation gives whoever applies the model; None what it does not."""

    abstention: Abstention | None = None
    scores: ScoreReference | None = None


def bundle_of(
    model: bytes,
    contract: Contract,
    description: Description | None = None,
    normalisation: Standardisation | None = None,
    code: str | None = None,
    card: CardFacts | None = None,
    graph: bytes | None = None,
) -> Bundle:
    """The bundle of a run's model.

    Args:
        model: the bytes of its safetensors file.
        contract: the study's.
        description: what else is known.
        normalisation: what the federation has measured and the model was trained on.
        code: the digest of the study's folder, where the log has one.
        card: what the model's private evaluation gives; nothing if None.
        graph: the model as ONNX.

    Raises:
        ConfigError: the model is no safetensors file, or the description contradicts the run.
    """
    said, known = description or Description(version=1), card or CardFacts()
    recipe = Recipe(
        study=contract.name,
        task=contract.task,
        code=code,
        normalisation=normalisation,
        output=said.output,
        thresholds=said.thresholds,
        features=said.features,
        abstention=known.abstention,
        scores=known.scores,
    )
    shape = said.shape
    if normalisation is not None:
        features = len(normalisation.mean)
        if shape is not None and (not shape or shape[-1] != features):
            raise ConfigError(f"the description's shape does not end in {features}, and so many features were measured")
        shape = (features,) if shape is None else shape
    schema = InputSchema(columns=said.columns, shape=shape, tensors=tensors_of(model))
    if said.features:
        inputs_of(recipe, schema)
    return make_bundle(model, recipe, schema, graph)
