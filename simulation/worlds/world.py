"""A population in time: what every site has of every step, and what is true of it.

Every window is a pure function of the world's seed, the site and the step. Asking for it in another order, in another
process, or in a world with more sites behind it gives the same bytes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import generator
from fedseal.simulation.partitions.label_noise import Confusion, flipped
from fedseal.simulation.partitions.missing import Missingness
from fedseal.simulation.worlds.changes import DRAWN, Altered, Change, requested
from fedseal.simulation.worlds.course import Course
from fedseal.simulation.worlds.source import Moments, Request, Rows, Source
from fedseal.simulation.worlds.tables import LabelNoiseTable, LabelsTable, MissingTable
from fedseal.simulation.worlds.window import ActiveDrift, Window, Withdrawal


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """One [[label_noise]] table, or the partition's."""

    table: LabelNoiseTable
    course: Course


@dataclass(frozen=True, slots=True)
class Missing:
    """One [[missing]] table, or the partition's: a chance for each of its columns, and what that depends on."""

    table: MissingTable
    course: Course
    columns: tuple[int, ...]
    chances: tuple[Missingness, ...]
    drivers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SiteSkew:
    """How sites differ from the start.

    Args:
        concepts: the concept of each site, repeated if there are fewer; empty means 0 for all.
        maps: of each class the one it becomes, by site, repeated if there are fewer; empty means none.
        sigma: the last site's noise in deviations; site i of n has i/n of it.
    """

    concepts: tuple[int, ...] = ()
    maps: tuple[NDArray[np.intp], ...] = ()
    sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """Made by `build_world`."""

    sites: tuple[str, ...]
    steps: int
    features: tuple[str, ...]
    classes: tuple[str, ...]
    source: Source
    skew: SiteSkew
    changes: tuple[Change, ...]
    label_noise: tuple[LabelNoise, ...]
    missing: tuple[Missing, ...]
    labels: LabelsTable
    withdrawals: tuple[Withdrawal, ...]
    confusion: Confusion
    randomness: KeyedRandomness

    @property
    def moments(self) -> Moments:
        """The population's mean and deviation of every feature before any drift."""
        return self.source.moments

    def window(self, site: int, step: int) -> Window:
        """What a site has of a step; it may have no rows where a drift of kind participation says so.

        Raises:
            LocalError: there is no such site or step.
        """
        self._check(site, step)
        request = self._request(site, step, for_test=False)
        rows = self.source.window(site, step, request, self._rng("window", site, step))
        return self._lived(rows, request, "window", site, step)

    def test(self, site: int, step: int, rows: int) -> Window:
        """Held-out draws of what a site has at a step, for an oracle: same drift, same missingness, other persons.

        Raises:
            LocalError: there is no such site or step.
        """
        self._check(site, step)
        request = self._request(site, step, for_test=True)
        drawn = self.source.held_out(site, step, rows, request, self._rng("test", site, step))
        return self._lived(drawn, request, "test", site, step)

    def training(self, site: int, step: int, last: int) -> Window:
        """What a site may train on at the end of a step: rows of its ``last`` windows up to that step whose labels are
        known by then and whose persons have not withdrawn by then.

        Raises:
            LocalError: there is no such site or step.
        """
        self._check(site, step)
        known = range(max(0, step - last + 1), step + 1 - self.labels.delay_steps)
        windows = [self.window(site, earlier) for earlier in known]
        if not windows:
            return self.window(site, 0).keep(np.zeros(len(self.window(site, 0)), dtype=np.bool_))
        joined = Window.joined(windows)
        return joined.keep(~np.isin(joined.persons, self._withdrawn_at(site, step)))

    def truth(self, step: int) -> tuple[ActiveDrift, ...]:
        """Which declared changes hold at a step, where, how far and since when.

        Sites at which one began at different steps stand in entries of their own.
        """
        found: list[ActiveDrift] = []
        for number, change in enumerate(self.changes):
            table = change.table
            found += self._active("drift", number, table.kind, table.operation, change.course, step)
        for number, noise in enumerate(self.label_noise):
            found += self._active("label_noise", number, "label_noise", noise.table.kind, noise.course, step)
        for number, gap in enumerate(self.missing):
            found += self._active("missing", number, "missing", gap.table.mechanism, gap.course, step)
        return tuple(found)

    def withdrawn(self, step: int) -> NDArray[np.int64]:
        """The persons who have withdrawn by a step, in increasing order."""
        found = [self._withdrawn_at(site, step) for site in range(len(self.sites))]
        return np.unique(np.concatenate(found))

    def class_table(self, step: int) -> NDArray[np.intp]:
        """True classes by site at a step, shape (sites, classes)."""
        size = len(self.classes)
        return np.array(
            [np.bincount(self.window(site, step).y, minlength=size) for site in range(len(self.sites))], dtype=np.intp
        )

    def _check(self, site: int, step: int) -> None:
        if not 0 <= site < len(self.sites) or not 0 <= step < self.steps:
            raise LocalError("expected a site and a step of this world")

    def _rng(self, *purpose: str | int) -> np.random.Generator:
        return generator(self.randomness.stream(*purpose))

    def _request(self, site: int, step: int, *, for_test: bool) -> Request:
        """What is drawn, by all changes that act on which rows come. A test asks for its own number of rows."""
        concepts = self.skew.concepts
        request = Request(concepts=((float(concepts[site % len(concepts)]) if concepts else 0.0, 1.0),))
        for change in self.changes:
            if not (for_test and change.table.operation == "rows"):
                request = requested(request, change, site, step)
        return request

    def _lived(self, rows: Rows, request: Request, purpose: str, site: int, step: int) -> Window:
        """Rows after everything that happens to them at a site."""
        rows = self._mixed(rows, request, purpose, site, step)
        # A source may hand out views of what it keeps.
        rows = Rows(rows.x.copy(), rows.y.copy(), rows.grades, rows.persons)
        if self.skew.maps:
            rows.y[:] = self.skew.maps[site % len(self.skew.maps)][rows.y]
        if self.skew.sigma > 0:
            share = (site + 1) / len(self.sites)
            noise = self._rng("feature noise", purpose, site, step).standard_normal(rows.x.shape)
            rows.x[:] += self.skew.sigma * share * noise * self.moments.deviation
        altered = Altered(rows, np.zeros(len(rows.y)))
        for number, change in enumerate(self.changes):
            level = change.course.level(site, step)
            if level > 0 and change.table.operation not in DRAWN:
                mask = self._affected(change, level, len(rows.y), purpose, number, site, step)
                altered.apply(change, mask, 1.0 if change.course.by_rows else level, self.source)
        observed = self._recorded(rows, purpose, site, step)
        x = self._gaps(rows.x, purpose, site, step)
        return Window(
            x=x,
            y=rows.y,
            observed=observed,
            ready=step + self.labels.delay_steps,
            persons=rows.persons,
            consent=~np.isin(rows.persons, self._withdrawn_at(site, step)),
        )

    def _affected(
        self, change: Change, level: float, rows: int, purpose: str, number: int, site: int, step: int
    ) -> NDArray[np.bool_]:
        """Which rows a change is for: all, or in a gradual one a share of them."""
        if not change.course.by_rows or level == 1.0:
            return np.ones(rows, dtype=np.bool_)
        return self._rng("change", number, purpose, site, step).random(rows) < level

    def _mixed(self, rows: Rows, request: Request, purpose: str, site: int, step: int) -> Rows:
        """Rows of which some are replaced by rows of the whole population."""
        for number, change in enumerate(self.changes):
            level = change.course.level(site, step)
            if change.table.operation != "mix" or level == 0.0:
                continue
            rng = self._rng("mix", number, purpose, site, step)
            others = self.source.elsewhere(site, step, len(rows.y), request, rng)
            here = rng.random(len(rows.y)) >= level * change.table.by
            grades = np.where(here, rows.grades, others.grades) if len(rows.grades) else rows.grades
            rows = Rows(
                np.where(here[:, None], rows.x, others.x),
                np.where(here, rows.y, others.y),
                grades,
                np.where(here, rows.persons, others.persons),
            )
        return rows

    def _recorded(self, rows: Rows, purpose: str, site: int, step: int) -> NDArray[np.intp]:
        """Labels as annotators and noise make them."""
        observed = rows.y.copy()
        if self.labels.annotators:
            observed = self._annotated(observed, purpose, site, step)
        z: NDArray[np.float64] | None = None
        for number, noise in enumerate(self.label_noise):
            level = noise.course.level(site, step)
            if level == 0.0:
                continue
            z = self.moments.standardised(rows.x) if z is None else z
            rng = self._rng("label noise", number, purpose, site, step)
            observed = flipped(noise.table.kind, observed, z, self.confusion, noise.table.rate * level, rng)
        return observed

    def _annotated(self, truth: NDArray[np.intp], purpose: str, site: int, step: int) -> NDArray[np.intp]:
        """The majority of annotators, of those who tie the first one's."""
        rng, classes = self._rng("annotators", purpose, site, step), len(self.classes)
        votes = np.empty((self.labels.annotators, len(truth)), dtype=np.intp)
        for annotator, accuracy in enumerate(self.labels.accuracy):
            other = (truth + rng.integers(1, classes, len(truth))) % classes
            votes[annotator] = np.where(rng.random(len(truth)) < accuracy, truth, other)
        agreeing = (votes[:, None, :] == votes[None, :, :]).sum(axis=1)
        return np.asarray(votes[np.argmax(agreeing, axis=0), np.arange(len(truth))])

    def _gaps(self, x: NDArray[np.float64], purpose: str, site: int, step: int) -> NDArray[np.float64]:
        """Features with what is missing taken out; what a chance depends on are the values before any went."""
        gone = np.zeros(x.shape, dtype=np.bool_)
        z: NDArray[np.float64] | None = None
        for number, missing in enumerate(self.missing):
            level = missing.course.level(site, step)
            if level == 0.0:
                continue
            z = self.moments.standardised(x) if z is None else z
            rng = self._rng("missing", number, purpose, site, step)
            for column, driver, chance in zip(missing.columns, missing.drivers, missing.chances, strict=True):
                gone[:, column] |= chance.drawn(z[:, driver], level, rng)
        x[gone] = np.nan
        return x

    def _active(self, table: str, number: int, kind: str, op: str, course: Course, step: int) -> list[ActiveDrift]:
        """One entry for each step at which a course began at some sites."""
        begun: dict[int, list[int]] = {}
        for site in range(len(self.sites)):
            if course.level(site, step) > 0:
                begun.setdefault(course.onset(site, step), []).append(site)
        return [
            ActiveDrift(table, number, kind, op, tuple(sites), tuple(course.level(s, step) for s in sites), start)
            for start, sites in sorted(begun.items())
        ]

    def _withdrawn_at(self, site: int, step: int) -> NDArray[np.int64]:
        """A site's persons who have withdrawn by a step, in increasing order."""
        found = [np.empty(0, dtype=np.int64)]
        for withdrawal in self.withdrawals:
            if withdrawal.at > step or site not in withdrawal.sites:
                continue
            known = [self._persons(site, earlier) for earlier in range(withdrawal.at)]
            persons = np.concatenate([np.empty(0, dtype=np.int64), *known])
            found.append(persons[withdrawal.of(persons)])
        return np.unique(np.concatenate(found))

    def _persons(self, site: int, step: int) -> NDArray[np.int64]:
        """The persons of a window."""
        request = self._request(site, step, for_test=False)
        rows = self.source.window(site, step, request, self._rng("window", site, step))
        return self._mixed(rows, request, "window", site, step).persons
