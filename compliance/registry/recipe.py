"""The forms of a bundle's files: how a model is applied, what goes in, and what is known of its scores.

Fields that later builds added are left out of a file where they say nothing, so that a bundle from before has the same
bytes, and with them the same digest, as on the day it was made.
"""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedseal.compliance.events.fields import Count, Digest
from fedseal.config import Frozen
from fedseal.study_code import REFERENCE

Text = Field(min_length=1, max_length=256)


class Standardisation(Frozen):
    """What is done to features before the model sees them: (x - mean) / deviation, one number for each feature."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @model_validator(mode="after")
    def _pairs(self) -> "Standardisation":
        if len(self.mean) != len(self.deviation) or any(d <= 0 for d in self.deviation):
            raise ValueError("expected one mean and one deviation above 0 for each feature")
        return self


class Output(Frozen):
    """What the model's numbers mean. ``classes`` are in the order of the outputs, or that of a logit being 0 and 1."""

    kind: Literal["unstated", "logit", "logits", "probability", "probabilities", "value"] = "unstated"
    classes: tuple[str, ...] = ()


class Feature(Frozen):
    """One number that the model gets, from one column x: (f(x) - centre) / scale, at most ``furthest`` away from 0.

    With ``clip`` x is first brought into the column's range. A boolean counts as 0 or 1; of a column of categories
    ``category`` says for which of them the number is 1 in place of 0. ``missing`` is the number where x is missing;
    where it is not given, nothing is predicted for such a row.
    """

    column: str = Text
    category: str | None = None
    clip: bool = False
    function: Literal["identity", "log", "sqrt"] = "identity"
    centre: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    furthest: float | None = Field(default=None, gt=0)
    missing: float | None = None


class Abstention(Frozen):
    """The conformal rule of the model's card, for two classes: a class is possible where one minus its score is at most
    ``quantile``, and where not exactly one of both is possible the model abstains.

    The possible classes hold the true one with probability ``coverage`` or more, for a new person drawn as those of the
    evaluation were, and as far as the noise of the evaluation allows at ``level``. It holds for all persons together:
    for no subgroup, no single site, and not for those alone for whom the model does not abstain.
    """

    coverage: float = Field(gt=0, lt=1)
    level: float = Field(gt=0, lt=1)
    quantile: float = Field(ge=0, le=1)

    def abstains(self, score: float) -> bool:
        """Whether the model abstains at a score of class 1, in [0, 1]."""
        return (1 - score <= self.quantile) == (score <= self.quantile)


class ScoreReference(Frozen):
    """How the scores of class 1 of the evaluation's persons were spread, as released: what a file is compared with.

    ``counts[i]`` persons have a score from ``edges[i]`` to before ``edges[i + 1]``; noise of at most ``noise`` variance
    is in each.
    """

    edges: tuple[float, ...] = Field(min_length=3, max_length=65)
    counts: tuple[float, ...]
    noise: float = Field(ge=0)

    @model_validator(mode="after")
    def _bins(self) -> "ScoreReference":
        if len(self.counts) != len(self.edges) - 1 or any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError("expected rising edges, and one count between each two")
        if self.edges[0] != 0 or self.edges[-1] != 1 or any(c < 0 for c in self.counts) or sum(self.counts) <= 0:
            raise ValueError("expected edges from 0 to 1, and counts of which none is below 0 and not all are 0")
        return self


class Recipe(Frozen):
    """``recipe.json``: how the model is applied.

    ``task`` is the study's code, as module:Name, ``code`` the digest of its folder where the run's log has one;
    ``thresholds`` are by the name of the decision that they make. ``features`` are the model's inputs in their order;
    without them each column of the schema is one, as it is. ``normalisation`` comes after them.
    """

    version: Literal[1] = 1
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    task: str = Field(pattern=f"^{REFERENCE}$")
    code: Digest | None = None
    normalisation: Standardisation | None = None
    output: Output = Output()
    thresholds: dict[str, float] = Field(default_factory=dict)
    features: tuple[Feature, ...] = ()
    abstention: Abstention | None = None
    scores: ScoreReference | None = None

    @model_serializer(mode="wrap")
    def _without_news(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = written(self)
        news = (("features", self.features), ("abstention", self.abstention), ("scores", self.scores))
        return {key: value for key, value in found.items() if key not in {name for name, said in news if not said}}


class Column(Frozen):
    """A column of a table that the model reads: its type, and its range or its categories where they are known."""

    name: str = Text
    type: Literal["number", "integer", "boolean", "category", "text"] = "number"
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


class Tensor(Frozen):
    """An array of the model."""

    name: str = Text
    dtype: str = Field(pattern=r"^[A-Z0-9_]{1,12}$")
    shape: tuple[Count, ...]


class InputSchema(Frozen):
    """``schema.json``: what goes in. ``shape`` is that of one item's features, without the batch; None if not known.

    ``tensors`` are the arrays of model.safetensors, by name.
    """

    version: Literal[1] = 1
    columns: tuple[Column, ...] = ()
    shape: tuple[Count, ...] | None = None
    tensors: tuple[Tensor, ...]
