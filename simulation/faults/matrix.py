"""The matrix of stage x kind x count: always the right sum or a clean abort, never a wrong sum, never another answer.

Each cell begins where an honest round ended, disturbs the next release and then asks for one more, undisturbed. Sums
are recomputed from what the survivors bounded, ledgers from what left the sites.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import FedsealError, LocalError
from fedseal.privacy.quantize import signed
from fedseal.privacy.releases import VALUES
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.secagg.server_states import Finished
from fedseal.simulation.faults.cells import SITE_MINIMUM, Cell, Fault, Foreseen, Oracle
from fedseal.simulation.faults.world import Released, World


class Breach(Enum):
    """What must never be."""

    WRONG_SUM = "a sum that is not that of the survivors' bounded updates"
    TOO_FEW = "a sum over fewer sites than the rules allow"
    UNBOUNDED = "an update beyond the bound in the sum"
    SECOND_ANSWER = "two answers of one site to one exchange"
    UNCHARGED = "an update in a sum that its site's ledger does not show"
    LEDGER = "a ledger that does not hold together"
    INNOCENT = "an honest site named as a cheat"
    OTHERWISE = "another outcome than the rules say"
    CRASHED = "an error that nobody foresaw"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a cell came to. No breaches: the right sum, or a clean abort."""

    cell: Cell
    finished: bool
    foreseen: Foreseen
    breaches: tuple[Breach, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts."""

    verdicts: tuple[Verdict, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """Those with a breach."""
        return tuple(v for v in self.verdicts if v.breaches)

    def table(self) -> Mapping[str, Counter[str]]:
        """By kind, how many cells gave the right sum, a clean abort, or something that must never be."""
        rows: dict[str, Counter[str]] = {}
        for verdict in self.verdicts:
            lie = verdict.cell.lie
            kind = verdict.cell.fault.value if lie is None else f"{lie.lie.value} and dropouts"
            outcome = "right sum" if verdict.finished else "clean abort"
            if verdict.foreseen.unpaid:
                outcome = "right sum, charges lost unseen"
            if verdict.breaches:
                outcome = "breach"
            rows.setdefault(kind, Counter())[outcome] += 1
        return rows


def run_matrix(cells: Iterable[Cell]) -> Report:
    """Run cells, each from the same honest beginning."""
    return Report(tuple(run_cell(cell) for cell in cells))


def run_cell(cell: Cell) -> Verdict:
    """One cell: the disturbed release, and the next one, undisturbed."""
    world, oracle = World(cell), Oracle(cell)
    now = oracle.disturbed()
    breaches: set[Breach] = set()
    finished = False
    try:
        released = world.disturbed()
        finished = released.finished is not None
        breaches |= judged(world, released, now)
        world.calm()
        breaches |= judged(world, world.release(cell.retries), oracle.afterwards())
        breaches |= judged_sites(world)
    except FedsealError:
        breaches.add(Breach.CRASHED)
    return Verdict(cell, finished, now, tuple(sorted(breaches, key=lambda b: b.name)))


def judged(world: World, released: Released, expected: Foreseen) -> set[Breach]:
    """What is wrong with a release."""
    breaches: set[Breach] = set()
    finished, cell = released.finished, world.cell
    survivors = frozenset() if finished is None else frozenset(finished.survivors)
    if (survivors, released.attempts, released.convicted) != (
        expected.survivors,
        expected.attempts,
        expected.convicted,
    ):
        breaches.add(Breach.OTHERWISE)
    if not released.convicted <= cell.liars | (cell.struck if cell.fault is Fault.RESTORED else frozenset()):
        breaches.add(Breach.INNOCENT)
    if finished is None:
        return breaches
    digest = finished.round.digest
    vectors = {site: world.sites[site].left.vectors.get(digest) for site in survivors}
    found = [vector for vector in vectors.values() if vector is not None]
    if len(found) < len(vectors) or not np.array_equal(signed(finished.total.vector), np.sum(found, axis=0)):
        breaches.add(Breach.WRONG_SUM)
    asked, m = len(finished.round.header.cohort), cell.shape.colluders
    if len(survivors) < minimum_sites(threshold(asked, m), SITE_MINIMUM, m, 0):
        breaches.add(Breach.TOO_FEW)
    if any(_norm(finished, vector) > finished.total.layout.segment(VALUES).high for vector in found):
        breaches.add(Breach.UNBOUNDED)
    if survivors - world.paid.get(digest, set()) != expected.unpaid:
        breaches.add(Breach.UNCHARGED)
    return breaches


def judged_sites(world: World) -> set[Breach]:
    """What is wrong with the sites, after everything that they were asked has been asked once more."""
    breaches: set[Breach] = set()
    world.ask_again()
    for site in world.sites.values():
        if any(len(answers) > 1 for answers in site.left.answers.values()):
            breaches.add(Breach.SECOND_ANSWER)
        try:
            site.check_ledger()
        except LocalError:
            breaches.add(Breach.LEDGER)
    return breaches


def _norm(finished: Finished, vector: NDArray[np.int64]) -> float:
    """The L2 norm of an update's values before they were multiplied by the site's weight, in their own units."""
    layout = finished.total.layout
    segment, weight = layout.segment(VALUES), layout.weight
    places = layout.offsets()
    share = float(vector[places[weight.name]].sum()) / (weight.scale * weight.high)
    # Half a unit a coordinate is what rounding may add.
    rounding = 0.5 * segment.length**0.5 / segment.scale
    norm: float = np.linalg.norm(vector[places[VALUES]] / segment.scale) - rounding
    return norm / share if share > 0 else norm
