"""A small model with everything that it takes to apply it, and a log that permits its use."""

from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
from support.keys import make_roster
from support.registry import World
from support.studies import TINY

from fedseal.compliance.data.code import code_digest
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.quorum import format_policy
from fedseal.compliance.registry.bundle import Bundle, make_bundle, tensors_of
from fedseal.compliance.registry.recipe import (
    Abstention,
    Column,
    InputSchema,
    Output,
    Recipe,
    ScoreReference,
    Standardisation,
)

WEIGHT, BIAS = np.array([[1.5, -2.25, 0.75]], np.float32), np.array([0.3], np.float32)
SCALED = Standardisation(mean=(0.5, 0.5, 0.5), deviation=(1.0, 2.0, 1.5))
COLUMNS = (Column(name="a", low=-6, high=8), Column(name="b"), Column(name="c"))
REFERENCE = ScoreReference(edges=tuple(i / 10 for i in range(11)), counts=(400, 200, *(6 * [100]), 200, 400), noise=4.0)
RULES = (
    'version = 1\n[candidate]\n[production]\n[[production.gates]]\nkind = "metric"\nmeasure = "auc"\nat_least = 0.5\n'
)


def weights() -> bytes:
    """The model of the tiny study, as its safetensors file."""
    return safetensors.numpy.save({"weight": WEIGHT, "bias": BIAS})


def recipe(**changes: object) -> Recipe:
    """How the tiny study's model is applied."""
    said = {
        "study": "tiny",
        "task": "task:Blobs",
        "code": "sha256:" + code_digest(TINY).hex(),
        "normalisation": SCALED,
        "output": Output(kind="logit", classes=("no", "yes")),
        "abstention": Abstention(coverage=0.9, level=0.95, quantile=0.6),
        "scores": REFERENCE,
    }
    return Recipe.model_validate(said | changes)


def served(columns: tuple[Column, ...] = COLUMNS, graph: bytes | None = None, **changes: object) -> Bundle:
    """A bundle that says how it is applied."""
    schema = InputSchema(columns=columns, shape=(3,), tensors=tensors_of(weights()))
    return make_bundle(weights(), recipe(**changes), schema, graph)


def people(rows: int, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """A table of persons; ``shift`` moves them."""
    points = np.random.default_rng(seed).normal(size=(rows, 3)) * [1, 2, 1.5] * 0.9 + 0.5 + shift
    table = pd.DataFrame(points.round(4), columns=["a", "b", "c"])
    table.insert(0, "person", [f"p{i:05d}" for i in range(rows)])
    return table


def directly(table: pd.DataFrame) -> np.ndarray:
    """What the model says of a table's rows by its formula: the score of yes, in double precision from its logit."""
    features = table[["a", "b", "c"]].to_numpy(dtype=np.float32)
    mean, deviation = (np.asarray(part, dtype=np.float32) for part in (SCALED.mean, SCALED.deviation))
    scaled = (features - mean) / deviation
    logits = (scaled @ WEIGHT.T + BIAS)[:, 0].astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-logits)))


class Permitted(World):
    """A federation whose log permits the use of a bundle."""

    def permit(self, bundle: Bundle) -> None:
        """Register and promote it; everybody has seen that."""
        self.register(bundle)
        self.witness()
        self.promote(bundle, text=RULES)
        self.witness()

    def policy(self) -> Path:
        """Who has to have cosigned, in a file."""
        path = self.folder / "policy.txt"
        path.write_text(format_policy(policy_of(make_roster(3, simulated=True), 0)), encoding="utf-8")
        return path

    @property
    def store(self) -> Path:
        """The log's database."""
        return self.folder / "server.sqlite"
