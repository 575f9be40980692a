"""What a window of new persons says in a sealed sum: by how much every site differs from its own past.

A site knows how its persons were spread when the model was released: its *reference*. In every window it counts the
new ones in the same cells and subtracts what its reference expects of so many. Differences of this kind add up over
sites: one that sends five times as many persons, or none, moves no sum while nothing changes at the sites.

Everything is in whole persons. What the reference expects of n persons is an apportionment: n seats over the cells in
proportion to the reference, by a divisor method, which never takes a seat away when one more is given (Balinski and
Young 1982). So one person more is one count more in its cell and one seat more in some cell: the difference moves by
at most 2 in L1, with nothing to be rounded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import PeerError
from fedseal.privacy.counts import Axis, Real, Source, Table, Tables, Whole, counted
from fedseal.privacy.plan import PrivacyPlan, SharedGeometric
from fedseal.privacy.polya import polya
from fedseal.privacy.randomness import Stream
from fedseal.wire import F64, U8, U32, U64, Bool, DecodeError, Str, decode, encode

# What one person moves: a difference by a count and a seat; the weight by the rule in `window_weight`.
DIFFERENCE_MOVES = 2
WEIGHT_MOVES = 3
# The most cells of a whole release.
MOST_CELLS = 1 << 16
MOST_SHARE = 64


class Weights(IntEnum):
    """Where the variance of the differences is taken from.

    REFERENCE: from the federation's public reference, and one sealed number for all cells; RELEASED: every cell's
    weight is in the sum, and paid for.
    """

    REFERENCE = 0
    RELEASED = 1


@dataclass(frozen=True, slots=True)
class Stratum:
    """One table that is compared with a site's own past.

    Args:
        name: as reports call it.
        table: its cells. Of a feature or a column every person must be in one, so these axes count what is outside.
        ordered: whether neighbouring cells are alike (a histogram), or the cells stand in no order (codes).
    """

    name: Str
    table: Table
    ordered: Bool

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a stratum needs a name")
        for axis in self.table.axes:
            if axis.source in (Source.FEATURE, Source.COLUMN) and not axis.outside:
                raise ValueError("an axis of a feature or a column has to count what is outside of its edges")

    @property
    def cells(self) -> int:
        """How many cells."""
        return math.prod(self.table.shape)

    @property
    def labelled(self) -> bool:
        """Whether a person whose label is not known is in no cell."""
        return any(axis.source in (Source.LABEL, Source.RIGHT, Source.LOSS) for axis in self.table.axes)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is asked of every window of a model's life, in public terms. The same for all windows: a site pins it.

    Args:
        strata: what is compared with the past.
        tables: what is counted besides: a score x label table, say.
        share: how many integer units a person has in the differences; everything else has one a person. The noise in
            a unit is the same everywhere, so a larger share gives the differences more of the budget.
        weights: one of `Weights`.
        hold_back: so many persons of a window stay out of its sums, the first to come. A site with no more than that
            adds nothing but noise. (A threshold on the number of persons would let one person move a whole window.)
        reference_epsilon: pure, what the noise in a site's reference costs its training persons, once; 0: exact.
    """

    TAG: ClassVar[int] = 56

    strata: tuple[Stratum, ...]
    tables: tuple[Table, ...]
    share: U32
    weights: U8
    hold_back: U32
    reference_epsilon: F64

    def __post_init__(self) -> None:
        if not self.strata or len({s.name for s in self.strata}) < len(self.strata):
            raise ValueError("a watch needs at least one stratum, and a name of its own for each")
        if not 1 <= self.share <= MOST_SHARE or self.weights not in tuple(Weights):
            raise ValueError(f"expected a share from 1 to {MOST_SHARE} and weights of the closed list")
        if self.reference_epsilon and not 2.0**-10 <= self.reference_epsilon / len(self.strata) <= 64:
            raise ValueError("expected a reference's epsilon from 2^-10 to 64 for each stratum, or 0")
        if self.length > MOST_CELLS:
            raise ValueError("a watch may have 2^16 cells")

    @property
    def bases(self) -> tuple[bool, ...]:
        """Over whom numbers of persons are summed: everyone (False), those whose label is known (True), or both."""
        return tuple(sorted({s.labelled for s in self.strata}))

    @property
    def released(self) -> bool:
        """Whether the weight of every cell is in the sum."""
        return self.weights == Weights.RELEASED

    @property
    def sensitivity(self) -> int:
        """By how many integer units one person moves the vector in L1: what is charged, exactly."""
        of_stratum = DIFFERENCE_MOVES * self.share + (WEIGHT_MOVES if self.released else 0)
        of_basis = 1 + (0 if self.released else WEIGHT_MOVES)
        return len(self.strata) * of_stratum + len(self.bases) * of_basis + len(self.tables)

    @property
    def length(self) -> int:
        """How many whole numbers a site sends."""
        cells = sum(s.cells for s in self.strata) * (2 if self.released else 1)
        numbers = len(self.bases) * (1 if self.released else 2)
        return cells + numbers + sum(math.prod(table.shape) for table in self.tables)

    @property
    def needs_model(self) -> bool:
        """Whether anything of it is about a model."""
        asked = (*(s.table for s in self.strata), *self.tables)
        return any(Source(axis.source).needs_model for table in asked for axis in table.axes)

    def split(self, flat: Whole) -> "Parts":
        """A vector as its parts; those of the differences still in units of `share`."""
        start, differences, weights = 0, [], []
        for stratum in self.strata:
            differences.append(flat[start : start + stratum.cells])
            start += stratum.cells
            if self.released:
                weights.append(flat[start : start + stratum.cells])
                start += stratum.cells
        rows, totals = [], []
        for _ in self.bases:
            rows.append(int(flat[start]))
            start += 1
            if not self.released:
                totals.append(int(flat[start]))
                start += 1
        tables = Tables(self.tables).split(flat[start:]) if self.tables else ()
        return Parts(tuple(differences), tuple(weights), tuple(rows), tuple(totals), tables)


@dataclass(frozen=True, slots=True)
class Parts:
    """A vector, or a sum of them, by what it means.

    Attributes:
        differences: per stratum, flat: counts minus seats, times the watch's share.
        weights: per stratum, flat, if they are released; otherwise empty.
        rows: persons, per basis.
        totals: sums of weights, per basis, if the cells' own are not released.
        tables: what is counted besides.
    """

    differences: tuple[Whole, ...]
    weights: tuple[Whole, ...]
    rows: tuple[int, ...]
    totals: tuple[int, ...]
    tables: tuple[Whole, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A site's past: persons by cell of each stratum, flat, not below 0. With the noise it was given once, if any."""

    counts: tuple[Whole, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A reference in a site's store."""

    TAG: ClassVar[int] = 57

    counts: tuple[tuple[U64, ...], ...]


def reference_tables(watch: Watch) -> Tables:
    """What a reference counts."""
    return Tables(tuple(stratum.table for stratum in watch.strata))


def reference_plan(watch: Watch) -> SharedGeometric | None:
    """What a site's training persons are charged for its reference: one share, which is the whole noise. None if it is
    exact.
    """
    if not watch.reference_epsilon:
        return None
    cells, length = len(watch.strata), reference_tables(watch).length
    return SharedGeometric(epsilon=watch.reference_epsilon, cells=cells, length=length, releases=1, retries=0)


def noised_reference(watch: Watch, exact: Whole, stream: Stream) -> Reference:
    """A reference from exact counts of its tables, flat, with its noise.

    A difference is made of a site's own training persons too: what the noise in the sum covers is the window's. So
    theirs is added once, when the reference is made, and everything that is made of it afterwards costs them nothing.
    """
    plan, tables = reference_plan(watch), reference_tables(watch)
    noised = exact if plan is None else exact + polya(1, plan.decay, stream, len(exact))
    return make_reference(watch, tables.split(noised))


def make_reference(watch: Watch, counts: Sequence[Whole]) -> Reference:
    """A reference of counts, exact or noised: what noise made negative is none."""
    return Reference(tuple(np.maximum(c.reshape(-1), 0).astype(np.int64) for c in counts))


def site_vector(watch: Watch, reference: Reference, numbers: Callable[[Axis], Real], persons: int) -> Whole:
    """What one site sends of one window before its share of the noise, shape (watch.length,).

    Args:
        watch: what is asked.
        reference: the site's past.
        numbers: the window's persons' numbers for an axis, in the order they came, one row a person, shape (persons,);
            NaN where there is none.
        persons: how many there are.
    """
    first = min(watch.hold_back, persons)

    def later(axis: Axis) -> Real:
        return numbers(axis)[first:]

    parts: list[Whole] = []
    sizes: dict[bool, tuple[int, int]] = {}
    for stratum, past in zip(watch.strata, reference.counts, strict=True):
        counts = counted(Tables((stratum.table,)), later)
        rows = int(counts.sum())
        weight = window_weight(rows, int(past.sum()))
        # Strata of one basis agree on the rows; the first one's past says what they weigh.
        sizes.setdefault(stratum.labelled, (rows, weight))
        parts.append(watch.share * (counts - apportion(past, rows)))
        if watch.released:
            parts.append(apportion(past, weight))
    for labelled in watch.bases:
        rows, weight = sizes[labelled]
        parts.append(np.array([rows] if watch.released else [rows, weight]))
    if watch.tables:
        parts.append(counted(Tables(watch.tables), later))
    return np.concatenate(parts).astype(np.int64)


def wrong_cells(stratum: Stratum) -> NDArray[np.bool_]:
    """Which cells of a table of label x score, or label x right, hold wrong answers, flat: label 0 with a score
    above 0.5, label 1 with one below, or what is not right. The edges of scores have 0.5 in their middle.
    """
    wrong = np.zeros(stratum.table.shape, dtype=np.bool_)
    if stratum.table.axes[1].source == Source.SCORE:
        half = stratum.table.shape[1] // 2
        wrong[0, half:], wrong[1, :half] = True, True
    else:
        wrong[:, 0] = True
    return wrong.reshape(-1)


def apportion(past: Whole, seats: int) -> Whole:
    """So many seats over cells in proportion to ``past``, by the method of Sainte-Lague: the seats with the smallest
    (j + 1/2) / past_b, j counted from 0. One seat more leaves all others where they are.

    A past of nobody counts as one person in every cell.
    """
    shares = past.astype(np.float64) if past.sum() > 0 else np.ones(len(past))
    found = np.where(shares > 0, np.rint(seats * (shares / shares.sum())), 0).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        while found.sum() > seats:
            found[_last(found, shares)] -= 1
        while found.sum() < seats:
            found[_next(found, shares)] += 1
        # Rounding may have left one seat with the wrong neighbour: what remains is to be the smallest, all of it.
        while found.any():
            given, free = _last(found, shares), _next(found, shares)
            if _order(found[given] - 1, shares[given], given) < _order(found[free], shares[free], free):
                break
            found[given] -= 1
            found[free] += 1
    return found


def _order(seat: np.int64, share: np.float64, cell: int) -> tuple[float, int]:
    return (float(seat) + 0.5) / float(share), cell


def _next(found: Whole, shares: Real) -> int:
    """The cell of the next seat; of equals the first."""
    return int(np.argmin(np.where(shares > 0, (found + 0.5) / shares, np.inf)))


def _last(found: Whole, shares: Real) -> int:
    """The cell of the last seat that was given; of equals the last."""
    worth = np.where(found > 0, (found - 0.5) / shares, -np.inf)
    return len(worth) - 1 - int(np.argmax(worth[::-1]))


def window_weight(rows: int, past: int) -> int:
    """n (1 + n / n0), rounded down, for a window of n persons and a reference of n0: what the variance of a difference
    is made of. From n = n0 on it grows by 3 for each person, so one never moves it by more.
    """
    n0 = max(past, 1)
    if rows <= n0:
        return rows + rows * rows // n0
    return 2 * n0 + WEIGHT_MOVES * (rows - n0)


def encode_reference(reference: Reference) -> bytes:
    """As a site keeps it."""
    return encode(_Kept(tuple(tuple(int(n) for n in counts) for counts in reference.counts)))


def decode_reference(raw: bytes) -> Reference:
    """As a site has kept it."""
    return Reference(tuple(np.array(counts, dtype=np.int64) for counts in decode(raw, _Kept).counts))


def read_watch(raw: object) -> Watch:
    """The watch in a request; PeerError if there is none."""
    try:
        return decode(raw if isinstance(raw, bytes) else b"", Watch)
    except DecodeError as error:
        raise PeerError(
            f"a window of something that is not in the closed list: {error.message}", peer="server"
        ) from None


def encode_watch(watch: Watch) -> bytes:
    """The canonical bytes that requests carry."""
    return encode(watch)


def check_watch(watch: Watch, length: int, plan: PrivacyPlan) -> None:
    """That a round asks for what its plan is charged for.

    Raises:
        PeerError: one person would move the vector by more than the noise covers, or it has another length.
    """
    if watch.length != length:
        raise PeerError("a watch of another length than the round's vector", peer="server")
    if isinstance(plan, SharedGeometric) and watch.sensitivity > plan.cells:
        raise PeerError("a person would move a window's sums by more than the plan is charged for", peer="server")
    if isinstance(plan, SharedGeometric) and not watch.reference_epsilon:
        raise PeerError("a private window that is compared with an exact past", peer="server")


def plan_watch(watch: Watch, epsilon: float, *, windows: int, retries: int = 0) -> SharedGeometric:
    """The plan that releases so many windows with so much pure epsilon each.

    Raises:
        ValueError: less than 2^-10 or more than 64 for a unit.
    """
    return SharedGeometric(
        epsilon=epsilon, cells=watch.sensitivity, length=watch.length, releases=windows, retries=retries
    )
