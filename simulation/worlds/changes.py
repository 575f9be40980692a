"""Declared changes with everything looked up that their names mean, and what they do to rows."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.simulation.worlds.course import Course
from fedseal.simulation.worlds.source import Generated, Moments, Request, Rows, Source, Spread
from fedseal.simulation.worlds.spread import check_concept, column_of, columns_of
from fedseal.simulation.worlds.tables import DriftTable

# These act on which rows come; the others act on rows, in the order of the file.
DRAWN = ("concept", "prevalence", "rows", "mix")


@dataclass(frozen=True, slots=True)
class Change:
    """One [[drift]] table.

    Args:
        table: what was declared.
        course: when it holds where.
        columns: places of its features.
        other: place of the feature it swaps with.
        classes: of every class the one it becomes, shape (classes,).
        shares: of the classes that are named, not a number for the others, shape (classes,).
    """

    table: DriftTable
    course: Course
    columns: tuple[int, ...]
    other: int
    classes: NDArray[np.intp]
    shares: NDArray[np.float64]


def resolve(table: DriftTable, course: Course, source: Source) -> Change:
    """A declared change whose names are looked up.

    Raises:
        ConfigError: there is no such feature, class or concept, or the population cannot change so.
    """
    op, classes = table.operation, source.classes
    _check_source(table, course, source)
    return Change(
        table=table,
        course=course,
        columns=columns_of(source.features, table.feature),
        other=column_of(source.features, table.other) if table.other is not None else 0,
        classes=class_map(classes, table.map),
        shares=_shares(classes, table.shares) if op == "prevalence" else np.empty(0),
    )


def _check_source(table: DriftTable, course: Course, source: Source) -> None:
    op = table.operation
    if op == "concept":
        if not isinstance(source, Generated):
            raise ConfigError(
                'op = "concept" needs a generator: rows of a file have one label',
                next_step='Use op = "relabel" or "threshold".',
            )
        last = table.to if course.matrix is None else int(course.matrix.max())
        check_concept(source.stream, last)
        if course.schedule.form == "incremental" and not source.stream.between:
            raise ConfigError(
                "this generator has no concepts between its concepts",
                next_step="Use gradual instead of incremental.",
            )
    if op == "threshold" and (not isinstance(source, Spread) or source.pool.grades is None):
        raise ConfigError(
            'op = "threshold" needs labels that are made of grades',
            next_step="Set threshold in [population], or use heart.",
        )
    if op == "rows" and table.by > 1 and isinstance(source, Spread) and not source.resample:
        raise ConfigError(
            "a file has no further rows to multiply a site's rows by",
            next_step="Set resample = true, or use a generator.",
        )


def class_map(classes: tuple[str, ...], names: dict[str, str]) -> NDArray[np.intp]:
    """Of every class the code of the one it becomes; a class that is not named stays.

    Raises:
        ConfigError: there is no such class.
    """
    made = np.arange(len(classes), dtype=np.intp)
    for old, new in names.items():
        made[class_code(classes, old)] = class_code(classes, new)
    return made


def class_code(classes: tuple[str, ...], name: str) -> int:
    """The code of a class.

    Raises:
        ConfigError: there is no such class.
    """
    if name not in classes:
        known = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
        raise ConfigError(f"there is no class {name!r}", next_step=f"Classes: {known}.")
    return classes.index(name)


def _shares(classes: tuple[str, ...], named: dict[str, float]) -> NDArray[np.float64]:
    """Shares of the classes that are named, not a number for the others."""
    shares = np.full(len(classes), np.nan)
    for name, share in named.items():
        shares[class_code(classes, name)] = share
    if not np.isnan(shares).any() and abs(shares.sum() - 1.0) > 1e-9:
        raise ConfigError("the shares of all classes together have to be 1")
    return shares


def requested(request: Request, change: Change, site: int, step: int) -> Request:
    """A request for rows with one more change of those that act on which rows come, but for ``mix``."""
    level, op = change.course.level(site, step), change.table.operation
    if op == "concept" and change.course.matrix is not None:
        return replace(request, concepts=((float(change.course.matrix[step, site]), 1.0),))
    if level == 0.0:
        return request
    if op == "rows":
        return replace(request, factor=request.factor * (1.0 + level * (change.table.by - 1.0)))
    if op == "prevalence":
        return replace(request, shares=change.shares, pull=level)
    if op == "concept" and change.course.by_rows and level < 1.0:
        stayed = tuple((concept, share * (1.0 - level)) for concept, share in request.concepts)
        return replace(request, concepts=(*stayed, (float(change.table.to), level)))
    if op == "concept":
        # A degree: every concept there is so far moves towards the one that comes.
        moved = tuple((concept + level * (change.table.to - concept), share) for concept, share in request.concepts)
        return replace(request, concepts=moved)
    return request


@dataclass(slots=True)
class Altered:
    """Rows while changes are applied to them, one after the other. ``raised`` is how far each row's threshold is."""

    rows: Rows
    raised: NDArray[np.float64]

    def apply(self, change: Change, mask: NDArray[np.bool_], degree: float, source: Source) -> None:
        """Do to the rows of ``mask``, by ``degree`` from 0 to 1, what the change says."""
        x, y, op, by = self.rows.x, self.rows.y, change.table.operation, change.table.by
        columns = list(change.columns)
        if op == "relabel":
            y[mask] = change.classes[y[mask]]
        elif op == "threshold":
            self.raised[mask] += degree * by
            y[mask] = self.rows.grades[mask] >= source.threshold + self.raised[mask]
        else:
            for column in columns:
                x[mask, column] = _moved(change, x[mask, column], column, degree, source.moments)
            if op == "swap":
                first, second = columns[0], change.other
                x[mask, first], x[mask, second] = x[mask, second], x[mask, first]


def _moved(
    change: Change, values: NDArray[np.float64], column: int, degree: float, moments: Moments
) -> NDArray[np.float64]:
    """One column's values after a change of it alone."""
    op, by = change.table.operation, change.table.by
    if op == "shift":
        return values + degree * by * float(moments.deviation[column])
    if op == "scale":
        mean = float(moments.mean[column])
        return mean + (values - mean) * (1.0 + degree * (by - 1.0))
    if op == "unit":
        return values * by + change.table.offset
    if op in ("absent", "rename"):
        return np.full(len(values), np.nan)
    return values
