"""What a drift costs one model for all: the SEA stream under the four change-point matrices that come with fedseal.

    python bench/sea_drift.py --seeds 5

Ten sites have 100 rows at each of twelve steps, a tenth of the labels wrong, so no model can pass 0.90. After every
step three logistic models are fitted without privacy and scored on the next step, site by site:

* *all*: one model on everything so far. It does not know of drift.
* *last*: one model on the last step.
* *by concept*: one model for each concept, on the rows of that concept so far. An oracle: it is told the matrix. Where
  a concept is new it has nothing and *all* is scored.

Prints mean accuracy over sites, steps and seeds, and the deviation over seeds.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.tables import DriftTable, PopulationTable, WorldTables
from fedseal.simulation.worlds.window import Window

SITES, STEPS, MATRICES = 10, 12, ("a", "b", "c", "d")
MODELS = ("all", "last", "by concept")


def fitted(window: Window) -> LogisticRegression:
    """A logistic model of a window's recorded labels. Features are 0 to 10; a tenth of them converges sooner."""
    return LogisticRegression(C=100).fit(window.x / 10, window.observed)


def accuracy(model: LogisticRegression, window: Window) -> float:
    """On true labels, of which the generator's noise is part."""
    return float(model.score(window.x / 10, window.y))


def run(matrix: str, seed: int) -> NDArray[np.float64]:
    """Mean accuracy of each of the models."""
    tables = WorldTables(
        population=PopulationTable(source="generator:sea", sites=SITES, rows_per_step=100, noise=0.1),
        drift=(DriftTable(kind="concept", op="concept", when=f"matrix={matrix}.cp"),),
    )
    world = build_world(tables, steps=STEPS, seed=seed)
    concepts = world.changes[0].course.matrix
    if concepts is None:
        raise SystemExit("the drift has no matrix")
    scores: list[list[float]] = []
    windows = [[world.window(site, step) for site in range(SITES)] for step in range(STEPS)]
    for step in range(STEPS - 1):
        seen = [(windows[t][s], int(concepts[t, s])) for t in range(step + 1) for s in range(SITES)]
        everything = fitted(Window.joined([window for window, _ in seen]))
        last = fitted(Window.joined(windows[step]))
        each = {c: fitted(Window.joined([w for w, own in seen if own == c])) for c in {own for _, own in seen}}
        for site in range(SITES):
            ahead = windows[step + 1][site]
            told = each.get(int(concepts[step + 1, site]), everything)
            scores.append([accuracy(model, ahead) for model in (everything, last, told)])
    return np.asarray(np.array(scores).mean(axis=0))


def main() -> None:
    """Print one line a matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    print(f"{'matrix':8}" + "".join(f"{name:>22}" for name in MODELS))
    for matrix in MATRICES:
        found = np.array([run(matrix, seed) for seed in range(seeds)])
        cells = (f"{m:.4f} +- {s:.4f}" for m, s in zip(found.mean(axis=0), found.std(axis=0), strict=True))
        print(f"{matrix:8}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
