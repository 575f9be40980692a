"""Where a window's rows come from: a pool that is spread over sites and steps, or a generator."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import Indices, generator
from fedseal.simulation.streams.stream import DataStream
from fedseal.simulation.worlds.pool import Pool

# A generated person's number: its site, step and place in the window, in so many bits from the right.
SITE_SHIFT, STEP_SHIFT = 40, 20
# Set in the number of a person who came from the whole population, which a pool has once already.
ELSEWHERE = 1 << 62
# How often a class that is wanted is looked for in a generator.
BATCHES, LARGEST_BATCH = 400, 1 << 16


@dataclass(frozen=True, slots=True)
class Moments:
    """The population's mean and deviation of every feature before any drift, shape (features,): what 'in deviations'
    means everywhere. They are the same for all sites and do not depend on how many there are.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float64]) -> "Moments":
        """Those of rows, missing values left out; a feature without spread has deviation 1."""
        known = ~np.isnan(x)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, x, 0.0).sum(axis=0) / count
        deviation = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(axis=0) / count)
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    def standardised(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features in deviations from the mean; 0 where they are missing."""
        return np.nan_to_num((x - self.mean) / self.deviation, nan=0.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows before anything is done to them. ``grades`` has no entries where labels are not made of grades."""

    x: NDArray[np.float64]
    y: NDArray[np.intp]
    grades: NDArray[np.float64]
    persons: NDArray[np.int64]

    def taken(self, places: NDArray[np.intp]) -> "Rows":
        """The rows at some places."""
        grades = self.grades[places] if len(self.grades) else self.grades
        return Rows(self.x[places], self.y[places], grades, self.persons[places])


@dataclass(frozen=True, slots=True)
class Request:
    """What a window is to be drawn from.

    Args:
        factor: a multiple of the usual number of rows.
        concepts: pairs of a concept and the share of rows that follow it; the shares sum to 1.
        shares: of some classes, shape (classes,), not a number for the others, which keep their proportions to one
            another in what is left; None leaves classes as they come.
        pull: how far class shares are drawn to that from what they are, from 0 to 1.
    """

    factor: float = 1.0
    concepts: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    shares: NDArray[np.float64] | None = None
    pull: float = 1.0

    def goal(self, have: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shares that classes are to have where they have shares ``have``, shape (classes,)."""
        if self.shares is None:
            return have
        free = np.isnan(self.shares)
        goal = np.where(free, 0.0, self.shares)
        rest = float(have[free].sum())
        if rest > 0:
            goal[free] = have[free] * (1.0 - goal.sum()) / rest
        return np.asarray(have + self.pull * (goal - have))


@dataclass(frozen=True, slots=True)
class Generated:
    """A source that never runs out.

    Args:
        stream: makes the rows.
        moments: of rows of concept 0.
        prior: shares of the classes under concept 0.
        rows_per_step: of a site of the usual size.
        sizes: a site's size as a multiple of the usual one, shape (sites,).
        shares: class shares of each site, shape (sites, classes); no entries where they are the stream's own.
        reference: the rows that moments and prior are of.
        noise: the share of true labels that are another class than the concept says.
    """

    stream: DataStream
    moments: Moments
    prior: NDArray[np.float64]
    rows_per_step: int
    sizes: NDArray[np.float64]
    shares: NDArray[np.float64]
    reference: NDArray[np.float64]
    noise: float = 0.0
    threshold: float = 0.0

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.stream.features

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.stream.classes

    def window(self, site: int, step: int, request: Request, rng: np.random.Generator) -> Rows:
        """A site's rows of a step: the usual number of them, times the request's factor. No person comes again."""
        usual = max(1, round(self.rows_per_step * float(self.sizes[site])))
        rows = round(usual * request.factor)
        persons = (site << SITE_SHIFT) + (step << STEP_SHIFT) + np.arange(rows, dtype=np.int64)
        return self._drawn(site, persons, request, rng)

    def held_out(self, site: int, step: int, rows: int, request: Request, rng: np.random.Generator) -> Rows:
        """Rows of the same distribution, of persons with negative numbers."""
        persons = -1 - ((site << SITE_SHIFT) + (step << STEP_SHIFT) + np.arange(rows, dtype=np.int64))
        return self._drawn(site, persons, request, rng)

    def elsewhere(self, site: int, step: int, rows: int, request: Request, rng: np.random.Generator) -> Rows:
        """Rows with the stream's own class shares, of persons of their own."""
        persons = ELSEWHERE + (site << SITE_SHIFT) + (step << STEP_SHIFT) + np.arange(rows, dtype=np.int64)
        x, y = self._noisy(self.stream.at(site), rows, request, rng)
        return Rows(x, y, np.empty(0), persons)

    def _drawn(self, site: int, persons: NDArray[np.int64], request: Request, rng: np.random.Generator) -> Rows:
        stream = self.stream.at(site)
        base = self.shares[site] if len(self.shares) else None
        shares = base
        if request.shares is not None:
            shares = request.goal(self.prior if base is None else base)
        if shares is None:
            x, y = self._noisy(stream, len(persons), request, rng)
        else:
            x, y = self._with_shares(stream, len(persons), shares, request, rng)
        return Rows(x, y, np.empty(0), persons)

    def _noisy(
        self, stream: DataStream, rows: int, request: Request, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        numbers = np.array([concept for concept, _ in request.concepts])
        if len(numbers) == 1:
            concept = np.full(rows, numbers[0])
        else:
            concept = rng.choice(numbers, rows, p=np.array([share for _, share in request.concepts]))
        x, y = stream.draw(rng, concept)
        if self.noise > 0:
            other = (y + rng.integers(1, len(self.classes), rows)) % len(self.classes)
            y = np.where(rng.random(rows) < self.noise, other, y)
        return x, y

    def _with_shares(
        self, stream: DataStream, rows: int, shares: NDArray[np.float64], request: Request, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Rows whose classes are drawn first; rows of the stream are drawn until there are enough of each."""
        wanted = np.repeat(np.arange(len(shares)), rng.multinomial(rows, shares / shares.sum()))
        wanted = rng.permutation(wanted)
        x = np.empty((rows, len(self.features)))
        # The places that each class still has to fill.
        open_places = [np.flatnonzero(wanted == label) for label in range(len(shares))]
        batch = max(64, 2 * rows)
        for _ in range(BATCHES):
            if not any(len(places) for places in open_places):
                return x, wanted.astype(np.intp)
            found, labels = self._noisy(stream, min(batch, LARGEST_BATCH), request, rng)
            for label, places in enumerate(open_places):
                rows_of = np.flatnonzero(labels == label)[: len(places)]
                x[places[: len(rows_of)]] = found[rows_of]
                open_places[label] = places[len(rows_of) :]
            batch *= 2
        missing = next(self.classes[label] for label, places in enumerate(open_places) if len(places))
        raise ConfigError(
            f"the generator hardly ever makes class {missing!r} under this concept, but a site is to have it",
            next_step="Give the class a share of 0, or leave its concept out.",
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """A pool whose rows each belong to one site.

    Args:
        pool: the rows.
        moments: of all of them.
        windows: of each site its rows in the order in which they come.
        tests: of each site the rows that no window has.
        steps: over how many steps rows are spread.
        rows_per_step: at most so many a step, or with ``resample`` exactly so many; 0 spreads all there are.
        resample: whether every step draws from all of a site's rows with replacement.
    """

    pool: Pool
    moments: Moments
    windows: tuple[Indices, ...]
    tests: tuple[Indices, ...]
    steps: int
    rows_per_step: int
    resample: bool

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.pool.features

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.pool.classes

    @property
    def threshold(self) -> float:
        """The pool's."""
        return self.pool.threshold

    def window(self, site: int, step: int, request: Request, rng: np.random.Generator) -> Rows:
        """The step's part of the site's rows; a factor below 1 takes some of them."""
        rows = self.windows[site]
        if self.resample:
            usual = round(self.rows_per_step * request.factor)
            return self._with_shares(self._rows(rng.choice(rows, usual)), request, rng)
        # Whole numbers in place of rows * step / steps, which float rounding could move by one.
        begin, end = len(rows) * step // self.steps, len(rows) * (step + 1) // self.steps
        if self.rows_per_step:
            end = min(end, begin + self.rows_per_step)
        part = rows[begin:end]
        if request.factor < 1.0:
            part = np.sort(rng.permutation(len(part))[: round(len(part) * request.factor)])
            part = rows[begin:end][part]
        return self._with_shares(self._rows(part), request, rng)

    def held_out(self, site: int, step: int, rows: int, request: Request, rng: np.random.Generator) -> Rows:
        """Rows drawn from the site's held-out ones; without replacement where there are enough."""
        own = self.tests[site]
        base = self._rows(own)
        if request.shares is not None:
            weights = self._weights(base.y, request)
            return base.taken(rng.choice(len(own), rows, p=weights))
        return base.taken(rng.choice(len(own), rows, replace=rows > len(own)))

    def elsewhere(self, site: int, step: int, rows: int, request: Request, rng: np.random.Generator) -> Rows:
        """Copies of any rows that are not held out, as rows of other persons."""
        chosen = self._rows(rng.choice(np.concatenate(self.windows), rows))
        persons = ELSEWHERE + (site << SITE_SHIFT) + (step << STEP_SHIFT) + np.arange(rows, dtype=np.int64)
        return replace(chosen, persons=persons)

    def _rows(self, places: Indices) -> Rows:
        grades = np.empty(0) if self.pool.grades is None else self.pool.grades[places]
        return Rows(self.pool.x[places], self.pool.y[places], grades, self.pool.persons[places])

    def _weights(self, y: NDArray[np.intp], request: Request) -> NDArray[np.float64]:
        """The chance of each row, so that classes have the shares they are drawn to; absent classes stay absent."""
        have = np.bincount(y, minlength=len(self.classes)) / len(y)
        goal = np.where(have > 0, request.goal(have), 0.0)
        if goal.sum() <= 0:
            return np.full(len(y), 1.0 / len(y))
        per_row = (goal / goal.sum())[y] / np.bincount(y, minlength=len(self.classes))[y]
        return np.asarray(per_row / per_row.sum())

    def _with_shares(self, rows: Rows, request: Request, rng: np.random.Generator) -> Rows:
        """The largest part of the rows whose classes have the shares that are wanted: rows are left out, none comes
        twice. With ``resample`` rows are drawn anew instead.
        """
        if request.shares is None or len(rows.y) == 0:
            return rows
        weights = self._weights(rows.y, request)
        if self.resample:
            return rows.taken(rng.choice(len(rows.y), len(rows.y), p=weights))
        have = np.bincount(rows.y, minlength=len(self.classes))
        goal = np.bincount(rows.y, weights=weights, minlength=len(self.classes))
        wanted = goal > 0
        total = float((have[wanted] / goal[wanted]).min())
        keep = np.rint(goal * total).astype(np.intp)
        order = rng.permutation(len(rows.y))
        rank = np.empty(len(order), dtype=np.intp)
        for label in range(len(keep)):
            of_class = order[rows.y[order] == label]
            rank[of_class] = np.arange(len(of_class))
        return rows.taken(np.flatnonzero(rank < keep[rows.y]))


# A population that gives each site its rows of each step.
Source = Generated | Spread


def reference_rows(stream: DataStream, randomness: KeyedRandomness) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Rows of concept 0 that say what is usual: 64 of each of 64 sites, whether the world has them or not."""
    drawn = [stream.at(site).draw(generator(randomness.stream("reference", site)), np.zeros(64)) for site in range(64)]
    return np.concatenate([x for x, _ in drawn]), np.concatenate([y for _, y in drawn])
