"""Heterogeneity in figures: known answers by hand, and what is printed and drawn."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedseal.errors import LocalError
from fedseal.simulation.heterogeneity import (
    SHOWN,
    gradient_dissimilarity,
    heterogeneity,
    heterogeneity_figure,
    rich_table,
)


def table(*rows: list[int]) -> NDArray[np.intp]:
    return np.array(rows, dtype=np.intp)


# Table, then by hand: Hellinger, total variation, effective sites.
KNOWN = [
    (table([10, 10], [20, 20]), [0.0, 0.0], [0.0, 0.0], 900 / 500),
    # Nothing in common: pooled is (1/2, 1/2), the Bhattacharyya coefficient sqrt(1/2).
    (table([10, 0], [0, 10]), [np.sqrt(1 - np.sqrt(0.5))] * 2, [0.5, 0.5], 2.0),
    # Pooled is (1/4, 3/4).
    (table([10, 0], [0, 30]), [np.sqrt(1 - 0.5), np.sqrt(1 - np.sqrt(0.75))], [0.75, 0.25], 1600 / 1000),
    # A site without rows weighs nothing and is no different.
    (table([5, 5], [0, 0]), [0.0, 0.0], [0.0, 0.0], 1.0),
]


@pytest.mark.parametrize(("counts", "hellinger", "variation", "effective"), KNOWN)
def test_distances_and_effective_sites_by_hand(
    counts: NDArray[np.intp], hellinger: list[float], variation: list[float], effective: float
) -> None:
    figures = heterogeneity(("a", "b"), ("no", "yes"), counts)
    assert figures.hellinger == pytest.approx(hellinger, abs=1e-7)
    assert figures.total_variation == pytest.approx(variation)
    assert figures.effective_sites == pytest.approx(effective)


def test_a_table_of_another_shape_or_without_rows_is_refused() -> None:
    with pytest.raises(LocalError):
        heterogeneity(("a",), ("no", "yes"), table([1, 2], [3, 4]))
    with pytest.raises(LocalError):
        heterogeneity(("a",), ("no", "yes"), table([0, 0]))


def printed(counts: NDArray[np.intp]) -> str:
    names = tuple(f"s{i}" for i in range(len(counts)))
    console = Console(file=io.StringIO(), width=100)
    console.print(rich_table(heterogeneity(names, ("no", "yes"), counts)))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_printed_table_has_all_sites_or_the_most_different_ones() -> None:
    text = printed(table([10, 0], [0, 30]))
    assert "1.6 effective" in text
    assert "0.71" in text
    many = np.tile(table([10, 10]), (SHOWN + 5, 1))
    many[-1] = [20, 0]
    text = printed(many)
    assert f"the {SHOWN} most different of {SHOWN + 5} sites" in text
    assert f"s{SHOWN + 4}" in text
    assert f"s{SHOWN + 3}" not in text


def test_the_figure_is_an_svg_with_a_bubble_for_each_class_that_a_site_has() -> None:
    figure = heterogeneity_figure(heterogeneity(("north", "south"), ("no", "yes"), table([10, 0], [5, 30])))
    ElementTree.fromstring(figure)  # noqa: S314 - our own
    assert "north" in figure
    assert "effective sites" in figure
    assert figure == heterogeneity_figure(heterogeneity(("north", "south"), ("no", "yes"), table([10, 0], [5, 30])))


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y, reduction="none")


def test_gradients_that_agree_have_dissimilarity_one_and_those_that_cancel_a_large_one() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    x = np.random.default_rng(0).normal(size=(50, 3))
    y = (x[:, 0] > 0).astype(np.intp)
    assert gradient_dissimilarity(model, loss, [(x, y), (x, y), (x[:0], y[:0])]) == pytest.approx(1.0)
    # The same features with all labels the other way: at a model that says one half, the gradients cancel exactly.
    assert gradient_dissimilarity(model, loss, [(x, y), (x, 1 - y)]) > 1e3
    one = gradient_dissimilarity(model, loss, [(x[:30], y[:30]), (x[30:], y[30:])])
    assert 1.0 < one < 2.0
    with pytest.raises(LocalError):
        gradient_dissimilarity(model, loss, [])


def test_dissimilarity_is_its_definition() -> None:
    """By sites of one row each, whose gradients for a linear model with squared loss are known: -2 (y - w x) x."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.square(y - model(x)[:, 0])

    sites = [(np.array([[1.0]]), np.array([3])), (np.array([[1.0]]), np.array([1]))]
    # Gradients -6 and -2: mean square 20, mean -4.
    assert gradient_dissimilarity(model, squared, sites) == pytest.approx(np.sqrt(20 / 16))
