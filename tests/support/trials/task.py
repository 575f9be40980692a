"""The trials' task in numpy: logistic regression on a table with names. Imports nothing of fedseal: a node's start is
part of what is measured.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS = 12
PERSONS = 60
TABLE = "table.csv"
RATE, STEPS, CLIP = 0.5, 3, 1.0
Rows = NDArray[np.float64]
Model = dict[str, NDArray[np.float32]]


def rows_of(number: int) -> Rows:
    """A site's table: `COLUMNS` features and the label; no value is another site's.

    Args:
        number: the site's, from 1.
    """
    generator = np.random.default_rng(number)
    features = generator.normal(size=(PERSONS, COLUMNS))
    labels = (features @ np.linspace(-1, 1, COLUMNS) + generator.normal(size=PERSONS) > 0).astype(np.float64)
    return np.column_stack([features, labels])


def person_of(site: str, index: int) -> str:
    """A person's name, which is in the table and nowhere else."""
    return f"Zebedaeus-{site}-{index}"


def read_rows(folder: Path) -> Rows:
    """A site's table without the names."""
    lines = (folder / TABLE).read_text(encoding="ascii").splitlines()
    return np.array([[float(value) for value in line.split(",")[1:]] for line in lines])


def gradients(weight: Rows, bias: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """Each person's gradient of the logistic loss: by weight and by bias."""
    features, labels = rows[:, :-1], rows[:, -1]
    residual = 1 / (1 + np.exp(-(features @ weight + bias[0]))) - labels
    return residual[:, None] * features, residual[:, None]


def stepped(model: Model, rows: Rows) -> Model:
    """The model after local steps over everybody."""
    weight, bias = model["weight"].astype(np.float64), model["bias"].astype(np.float64)
    for _ in range(STEPS):
        by_weight, by_bias = gradients(weight, bias, rows)
        weight, bias = weight - RATE * by_weight.mean(axis=0), bias - RATE * by_bias.mean(axis=0)
    return model | {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def clipped_sums(model: Model, rows: Rows, clip: float) -> dict[str, Rows]:
    """The sum of everybody's gradient, each clipped to a norm of ``clip``."""
    by_weight, by_bias = gradients(model["weight"].astype(np.float64), model["bias"].astype(np.float64), rows)
    norms = np.sqrt((by_weight**2).sum(axis=1) + by_bias[:, 0] ** 2)
    factors = np.minimum(1.0, clip / np.maximum(norms, 1e-12))[:, None]
    rest = {name: np.zeros(array.shape) for name, array in model.items()}
    return rest | {"weight": (factors * by_weight).sum(axis=0), "bias": (factors * by_bias).sum(axis=0)}
