"""How different sites are, in figures: a class table, distances to the pooled classes, effective sites, and how far
apart their gradients point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from fedseal.errors import LocalError
from fedseal.simulation.figures import ACCENT, style, svg

# More do not fit a page or a terminal; the most different ones are shown.
SHOWN = 40


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Figures of one class table.

    Args:
        sites: names.
        classes: names.
        table: rows by site and class, shape (sites, classes).
        hellinger: of each site to the pooled classes, from 0, the same, to 1, nothing in common; shape (sites,).
        total_variation: likewise: the largest difference of a probability; shape (sites,).
        effective_sites: (sum n)^2 / sum n^2 (Kish 1965): how many sites of equal size would weigh as unevenly.
    """

    sites: tuple[str, ...]
    classes: tuple[str, ...]
    table: NDArray[np.intp]
    hellinger: NDArray[np.float64]
    total_variation: NDArray[np.float64]
    effective_sites: float

    @property
    def most_different(self) -> NDArray[np.intp]:
        """The sites that are shown, in their order: all, or those with the largest Hellinger distance."""
        return np.sort(np.argsort(-self.hellinger, kind="stable")[:SHOWN])


def heterogeneity(sites: Sequence[str], classes: Sequence[str], table: NDArray[np.intp]) -> Heterogeneity:
    """The figures of a class table, shape (sites, classes). A site without rows has distance 0: nothing is known.

    Raises:
        LocalError: the table's shape is not that of the names, or it has no rows at all.
    """
    if table.shape != (len(sites), len(classes)):
        raise LocalError("expected a table of sites by classes")
    sizes = table.sum(axis=1)
    if sizes.sum() == 0:
        raise LocalError("expected a class table with rows")
    pooled = table.sum(axis=0) / sizes.sum()
    shares = np.where(sizes[:, None] > 0, table / np.maximum(sizes, 1)[:, None], pooled)
    return Heterogeneity(
        sites=tuple(sites),
        classes=tuple(classes),
        table=table,
        # Rounding can take the sum a little above 1.
        hellinger=np.sqrt(np.maximum(1.0 - np.sqrt(shares * pooled).sum(axis=1), 0.0)),
        total_variation=np.abs(shares - pooled).sum(axis=1) / 2,
        effective_sites=float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum()),
    )


def rich_table(figures: Heterogeneity) -> Table:
    """For a terminal: rows by site and class, and the distances."""
    table = Table(
        title=f"{len(figures.sites)} sites, {figures.effective_sites:.1f} effective; "
        f"mean Hellinger distance to pooled {figures.hellinger.mean():.2f}"
    )
    table.add_column("site")
    for name in figures.classes:
        table.add_column(name, justify="right")
    for name in ("rows", "Hellinger", "total variation"):
        table.add_column(name, justify="right")
    for site in figures.most_different:
        counts = figures.table[site]
        distances = (f"{figures.hellinger[site]:.2f}", f"{figures.total_variation[site]:.2f}")
        table.add_row(figures.sites[site], *(str(c) for c in counts), str(counts.sum()), *distances)
    if len(figures.sites) > SHOWN:
        table.caption = f"the {SHOWN} most different of {len(figures.sites)} sites"
    return table


def heterogeneity_figure(figures: Heterogeneity) -> str:
    """For a report: an SVG of the class table, each site with its Hellinger distance."""
    shown = [int(site) for site in figures.most_different]
    return _bubbles(
        [figures.sites[site] for site in shown],
        figures.classes,
        [[int(count) for count in figures.table[site]] for site in shown],
        ("Hellinger", [f"{figures.hellinger[site]:.2f}" for site in shown]),
        f"Rows by site and class, and each site's Hellinger distance to all; {figures.effective_sites:.1f} effective "
        "sites",
    )


def _bubbles(
    names: Sequence[str],
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    notes: tuple[str, Sequence[str]],
    title: str,
) -> str:
    """One bubble for each site and class, whose area is the number of rows; a heading and notes stand at the right."""
    most = max((count for row in counts for count in row), default=1) or 1
    with style():
        figure = Figure(figsize=(1.8 + 0.42 * max(len(classes), 4), 0.9 + 0.3 * len(names)))
        axes = figure.subplots()
        for place, (row, note) in enumerate(zip(counts, notes[1], strict=True)):
            held = [code for code, count in enumerate(row) if count]
            sizes = [260.0 * row[code] / most for code in held]
            axes.scatter(held, [place] * len(held), s=sizes, color=ACCENT, alpha=0.8, linewidths=0)
            axes.annotate(
                note,
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                annotation_clip=False,
            )
        axes.annotate(
            notes[0], (1.0, 1.0), xycoords="axes fraction", xytext=(8, 4), textcoords="offset points", fontsize=9
        )
        axes.set_xticks(range(len(classes)), list(classes), rotation=0 if max(map(len, classes)) < 5 else 45)
        axes.set_yticks(range(len(names)), list(names))
        axes.set_xlim(-0.6, len(classes) - 0.4)
        axes.set_ylim(len(names) - 0.4, -0.6)
        return svg(figure, title)


def gradient_dissimilarity(
    model: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    sites: Sequence[tuple[NDArray[np.float64], NDArray[np.intp]]],
) -> float:
    """B of Li et al. 2020, definition 3, at the model as it is: sqrt(E_k |g_k|^2 / |E_k g_k|^2), sites by their rows.

    1 where all sites' gradients are the same; large where they cancel.

    Args:
        model: its parameters that need a gradient are looked at.
        loss: of model, features and classes; per row, shape (rows,).
        sites: features without missing values, shape (rows, features), and classes, shape (rows,).

    Raises:
        LocalError: no site has rows.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients, rows = [], []
    for x, y in sites:
        if len(y) == 0:
            continue
        value = loss(model, torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)).mean()
        own = torch.autograd.grad(value, parameters)
        gradients.append(torch.cat([g.reshape(-1) for g in own]).double().numpy())
        rows.append(len(y))
    if not gradients:
        raise LocalError("expected a site with rows")
    weights = np.array(rows) / sum(rows)
    stacked = np.stack(gradients)
    together = float(((weights[:, None] * stacked).sum(axis=0) ** 2).sum())
    apart = float((weights * (stacked**2).sum(axis=1)).sum())
    return float(np.sqrt(apart / together)) if together > 0 else float("inf")
