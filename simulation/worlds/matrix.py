"""Change-point matrices: which concept each site has at each step.

A text file with one line a step and one whole number a site, apart by blanks or commas; `#` begins a comment. It is the
form in which Jothimurugesan et al. 2023 (FedDrift) write their drifts. Four of our own come with this package, for ten
sites and twelve steps, and are named as if they lay beside the scenario: a.cp, b.cp, c.cp, d.cp.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError

OWN = Path(__file__).parent / "matrices"


def read_matrix(name: str, folder: Path | None, *, steps: int, sites: int) -> NDArray[np.intp]:
    """The first ``steps`` rows of a matrix.

    Args:
        name: a file in ``folder``, or the name of one of ours.
        folder: where the scenario lies.
        steps: how many rows are needed; a matrix may have more.
        sites: how many columns it must have.

    Returns:
        Concepts, counted from 0, shape (steps, sites).

    Raises:
        ConfigError: there is no such file, it is no matrix of whole numbers from 0, or its shape does not fit.
    """
    places = [place / name for place in (folder, OWN) if place is not None]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        own = ", ".join(sorted(file.name for file in OWN.glob("*.cp")))
        raise ConfigError(f"there is no change-point matrix {name}", next_step=f"Those of this package: {own}.")
    matrix = _parsed(path)
    if matrix.shape[1] != sites:
        raise ConfigError(f"{name} has {matrix.shape[1]} columns, but there are {sites} sites")
    if len(matrix) < steps:
        raise ConfigError(f"{name} has {len(matrix)} rows, but there are {steps} steps")
    return matrix[:steps]


def _parsed(path: Path) -> NDArray[np.intp]:
    rows: list[list[int]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        if not all(word.isdecimal() for word in words):
            raise ConfigError(f"{path.name}:{number}: concepts are whole numbers from 0")
        if rows and len(words) != len(rows[0]):
            raise ConfigError(f"{path.name}:{number}: {len(words)} numbers, the rows above have {len(rows[0])}")
        rows.append([int(word) for word in words])
    if not rows:
        raise ConfigError(f"{path.name} has no rows")
    return np.array(rows, dtype=np.intp)
