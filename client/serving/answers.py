"""From what a model says to what is written down: scores, a class or a number, and where it abstains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.client.serving.network import Outputs
from fedseal.compliance.registry.inputs import AGAIN
from fedseal.compliance.registry.recipe import Abstention, Recipe
from fedseal.errors import ConfigError

HALF = 0.5


@dataclass(frozen=True, slots=True)
class Answers:
    """Of each row: ``scores`` of the classes, shape (rows, classes), or (rows, 0) of a model of numbers; ``chosen``, a
    class by its place, or ``numbers``; whether the model is ``uncertain``; and whether it ``said`` a number at all.
    """

    scores: Outputs
    chosen: NDArray[np.int64]
    numbers: Outputs
    uncertain: NDArray[np.bool_]
    said: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Decision:
    """How a recipe's outputs are decided on. ``classes`` is empty where the model says a number.

    ``threshold`` is of the second of two classes: it is chosen where its score is at least this.
    """

    kind: str
    classes: tuple[str, ...]
    threshold: float
    abstention: Abstention | None

    def answers(self, outputs: Outputs) -> Answers:
        """Decide.

        Raises:
            ConfigError: the model has another number of outputs than classes.
        """
        said = np.asarray(np.isfinite(outputs).all(axis=1), dtype=np.bool_)
        outputs = np.where(said[:, None], outputs, 0.0)
        rows = len(outputs)
        if self.kind == "value":
            self._expect(outputs, 1)
            none = np.zeros((rows, 0))
            return Answers(none, np.full(rows, -1), outputs[:, 0], np.zeros(rows, dtype=np.bool_), said)
        scores = self._scores(outputs)
        binary = len(self.classes) == 2
        chosen = (scores[:, 1] >= self.threshold).astype(np.int64) if binary else scores.argmax(axis=1)
        rule = self.abstention
        if rule is None:
            uncertain = np.zeros(rows, dtype=np.bool_)
        else:
            uncertain = (1 - scores[:, 1] <= rule.quantile) == (scores[:, 1] <= rule.quantile)
        return Answers(scores, chosen, np.zeros(rows), uncertain, said)

    def _scores(self, outputs: Outputs) -> Outputs:
        match self.kind:
            case "logit" | "probability":
                self._expect(outputs, 1)
                one = outputs[:, 0]
                if self.kind == "logit":
                    # Of large numbers of either sign without overflow.
                    small = np.exp(-np.abs(one))
                    one = np.where(one >= 0, 1 / (1 + small), small / (1 + small))
                return np.stack([1 - one, one], axis=1)
            case "logits":
                self._expect(outputs, len(self.classes))
                raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
                return np.asarray(raised / raised.sum(axis=1, keepdims=True))
            case _:
                self._expect(outputs, len(self.classes))
                return outputs

    def _expect(self, outputs: Outputs, count: int) -> None:
        if outputs.shape[1] != count:
            raise ConfigError(
                f"the model says {outputs.shape[1]} numbers of a row, and its bundle speaks of {count}", next_step=AGAIN
            )


def decision_of(recipe: Recipe) -> Decision:
    """How a recipe decides.

    Raises:
        ConfigError: it does not say what the outputs mean, or contradicts itself.
    """
    kind, classes = recipe.output.kind, recipe.output.classes
    if kind == "unstated":
        raise ConfigError("the bundle does not say what the model's numbers mean", next_step=AGAIN)
    if kind == "value":
        return Decision(kind, (), HALF, None)
    if kind in ("logit", "probability"):
        classes = classes or ("0", "1")
    if len(classes) < 2 or (kind in ("logit", "probability") and len(classes) != 2) or len(set(classes)) < len(classes):
        raise ConfigError(f"the bundle names {len(classes)} classes for outputs of kind {kind}", next_step=AGAIN)
    return Decision(kind, classes, _threshold(recipe, classes), recipe.abstention if len(classes) == 2 else None)


def _threshold(recipe: Recipe, classes: tuple[str, ...]) -> float:
    """Of the second of two classes: the one of its name, or the only one there is."""
    found = recipe.thresholds
    if not found:
        return HALF
    if len(classes) > 2:
        raise ConfigError("the bundle has a threshold, and more than two classes", next_step=AGAIN)
    if classes[1] in found:
        return found[classes[1]]
    if len(found) > 1:
        raise ConfigError(f"the bundle has several thresholds, and none is called {classes[1]!r}", next_step=AGAIN)
    return next(iter(found.values()))
