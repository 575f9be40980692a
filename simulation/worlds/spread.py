"""A partition table made into a source: a pool's rows spread over sites and steps, or a generator's skewed by site."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import Indices, generator
from fedseal.simulation.partitions.features import continuous, feature_cells, natural
from fedseal.simulation.partitions.labels import deal_labels, label_dirichlet, labels_per_site
from fedseal.simulation.partitions.quantity import apportion, by_sizes, iid, relative_size
from fedseal.simulation.streams.rules import Sea, agrawal, sine, stagger
from fedseal.simulation.streams.shapes import Gaussians, Hyperplane, RandomRbf
from fedseal.simulation.streams.stream import DataStream
from fedseal.simulation.streams.synthetic import Synthetic
from fedseal.simulation.worlds.pool import SITE, Pool, read_pool
from fedseal.simulation.worlds.population_tables import PartitionTable, PopulationTable
from fedseal.simulation.worlds.source import Generated, Moments, Source, Spread, reference_rows

SITES = 4
# They become names of folders and files.
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Populated:
    """A source and the names of its sites."""

    source: Source
    sites: tuple[str, ...]


def populate(
    population: PopulationTable,
    partition: PartitionTable,
    *,
    steps: int,
    randomness: KeyedRandomness,
    folder: Path | None,
    data: Path | None,
) -> Populated:
    """The source of a world.

    Raises:
        ConfigError, DataError: what the tables say cannot be had, in one sentence.
    """
    if population.generated:
        return _generated(population, partition, randomness)
    if partition.concepts:
        raise ConfigError("rows of a file have no concepts to choose from", next_step="Use maps of labels instead.")
    pool = read_pool(population, folder=folder, data=data)
    if population.source == "tables" and partition.kind != "natural":
        partition = PartitionTable(kind="natural", column=SITE) if partition == PartitionTable() else partition
    parts, names = _parts(pool, population, partition, randomness)
    _check_persons(pool, parts)
    windows, tests = [], []
    for site, part in enumerate(parts):
        order, held_out = _ordered(pool, part, population.test_share, randomness, site)
        if len(order) < (1 if population.resample else steps):
            raise ConfigError(
                f"site {names[site]!r} has {len(order)} rows for {steps} steps",
                next_step="Use fewer steps or sites, or set resample = true.",
            )
        windows.append(order)
        tests.append(held_out)
    spread = Spread(
        pool=pool,
        moments=Moments.of(pool.x),
        windows=tuple(windows),
        tests=tuple(tests),
        steps=steps,
        rows_per_step=population.rows_per_step or 0,
        resample=population.resample,
    )
    return Populated(spread, names)


def _parts(
    pool: Pool, population: PopulationTable, partition: PartitionTable, randomness: KeyedRandomness
) -> tuple[list[Indices], tuple[str, ...]]:
    """Each site's rows and name."""
    rows, kind = len(pool.y), partition.kind
    stream = randomness.stream("partition", kind)
    if kind == "natural":
        codes, names = pool.groups(str(partition.column))
        sites = population.sites or len(names)
        parts = natural(codes, sites=sites, stream=stream)
        return parts, _named(names) if sites == len(names) else numbered_sites(sites)
    sites = population.sites or SITES
    names = numbered_sites(sites)
    if kind == "label_dirichlet":
        parts = label_dirichlet(
            pool.y,
            sites=sites,
            alpha=partition.alpha,
            min_rows=partition.min_rows,
            self_balancing=partition.self_balancing,
            randomness=randomness,
        )
    elif kind == "labels_per_site":
        parts = labels_per_site(pool.y, sites=sites, count=partition.labels, stream=stream)
    elif kind == "quantity":
        parts = by_sizes(rows, apportion(_sizes(partition, sites, randomness), rows, partition.min_rows), stream)
    elif kind == "continuous":
        values = pool.x[:, column_of(pool.features, partition.feature[0])]
        parts = continuous(values, sites=sites, strictness=partition.strictness, stream=stream)
    elif kind == "feature_cells":
        columns = list(columns_of(pool.features, partition.feature))
        parts = feature_cells(pool.x[:, columns], sites=sites, bins=partition.bins, stream=stream)
    elif rows < sites:
        raise ConfigError(f"{rows} rows cannot be spread over {sites} sites")
    else:
        parts = iid(rows, sites, stream)
    if min(len(part) for part in parts) < 2:
        raise ConfigError("a site would have fewer than 2 rows", next_step="Use fewer sites or less skew.")
    return parts, names


def _sizes(partition: PartitionTable, sites: int, randomness: KeyedRandomness) -> NDArray[np.float64]:
    """Sizes of sites as multiples of the mean one, shape (sites,)."""
    if partition.kind != "quantity":
        return np.ones(sites)
    return np.array(
        [
            relative_size(
                partition.rule,
                site,
                sites,
                stream=randomness.stream("size", site),
                alpha=partition.alpha,
                sizes=partition.sizes,
            )
            for site in range(sites)
        ]
    )


def _ordered(
    pool: Pool, part: Indices, test_share: float, randomness: KeyedRandomness, site: int
) -> tuple[Indices, Indices]:
    """A site's rows for its windows, in a random order, and those held out; a person's rows are together."""
    rng = generator(randomness.stream("order", site))
    persons, owner = np.unique(pool.persons[part], return_inverse=True)
    place = rng.permutation(len(persons))
    ordered = part[np.argsort(place[owner], kind="stable")]
    held = max(1, round(test_share * len(persons)))
    is_test = np.sort(place[owner], kind="stable") < held
    return ordered[~is_test], ordered[is_test]


def _check_persons(pool: Pool, parts: list[Indices]) -> None:
    """That nobody is at two sites."""
    if sum(len(np.unique(pool.persons[part])) for part in parts) > len(np.unique(pool.persons)):
        raise DataError(
            "a person would have rows at two sites",
            next_step='The promise is made by a site to its persons: use kind = "natural", or leave person out.',
        )


def _generated(population: PopulationTable, partition: PartitionTable, randomness: KeyedRandomness) -> Populated:
    kind = partition.kind
    if kind in ("natural", "continuous", "feature_cells"):
        raise ConfigError(
            f'kind = "{kind}" spreads rows that are there, and a generator has none',
            next_step="Use csv, tables, heart or sklearn, or another kind.",
        )
    stream = _stream(population, randomness)
    sites = int(population.sites or 0)
    x, y = reference_rows(stream, randomness)
    prior = np.bincount(y, minlength=len(stream.classes)) / len(y)
    for concept in partition.concepts:
        check_concept(stream, concept)
    shares = np.empty((0, len(prior)))
    if kind == "label_dirichlet":
        # What a class's Dirichlet share over the sites is before it is normalised: a site's own gamma variates.
        drawn = [
            generator(randomness.stream("shares", s)).gamma(partition.alpha, size=len(prior)) for s in range(sites)
        ]
        shares = _normalised(np.array(drawn) * prior, prior)
    elif kind == "labels_per_site":
        stream_of = randomness.stream("partition", kind)
        deal = deal_labels(len(prior), sites=sites, count=partition.labels, stream=stream_of)
        shares = _normalised(np.asarray(deal * np.maximum(prior, 1e-9), dtype=np.float64), prior)
    generated = Generated(
        stream=stream,
        moments=Moments.of(x),
        prior=prior,
        rows_per_step=int(population.rows_per_step or 0),
        sizes=_sizes(partition, sites, randomness),
        shares=shares,
        reference=x,
        noise=population.noise,
    )
    return Populated(generated, numbered_sites(sites))


def _normalised(weights: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1; one that underflowed has its likeliest class alone."""
    total = weights.sum(axis=1, keepdims=True)
    lost = total[:, 0] <= 0
    weights[lost] = np.eye(len(prior))[int(np.argmax(prior))]
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _stream(population: PopulationTable, randomness: KeyedRandomness) -> DataStream:
    name, size, classes = population.source.partition(":")[2], population.dimensions, population.classes
    if name == "sea":
        return Sea()
    if name == "hyperplane":
        return Hyperplane(size, randomness)
    if name == "rbf":
        return RandomRbf(size, classes, population.centroids, randomness)
    if name == "gaussians":
        return Gaussians(size, classes, population.separation, randomness)
    if name == "synthetic":
        return Synthetic(size, classes, population.alpha, population.beta, randomness)
    return {"agrawal": agrawal, "stagger": stagger, "sine": sine}[name]()


def check_concept(stream: DataStream, concept: int) -> None:
    """That a stream has a concept.

    Raises:
        ConfigError: it has not.
    """
    if stream.concepts is not None and concept >= stream.concepts:
        raise ConfigError(f"concept {concept} does not exist: this generator has 0 to {stream.concepts - 1}")


def numbered_sites(count: int) -> tuple[str, ...]:
    """site-1, site-2, ...: a name does not change when sites are added."""
    return tuple(f"site-{i + 1}" for i in range(count))


def _named(groups: tuple[str, ...]) -> tuple[str, ...]:
    """Groups' names as sites' names: letters, digits, - and _ only."""
    names = tuple("".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in g) for g in groups)
    fits = all(name[0].isalnum() and len(name) <= LONGEST_NAME for name in names if name) and all(names)
    if len(set(names)) < len(names) or not fits:
        return numbered_sites(len(groups))
    return names


def column_of(features: tuple[str, ...], name: str) -> int:
    """A feature's place.

    Raises:
        ConfigError: there is no such feature.
    """
    if name not in features:
        known = ", ".join(features[:12]) + (", ..." if len(features) > 12 else "")
        raise ConfigError(f"there is no feature {name!r}", next_step=f"Features: {known}.")
    return features.index(name)


def columns_of(features: tuple[str, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    """The features' places; ``("all",)`` means all.

    Raises:
        ConfigError: there is no such feature.
    """
    if names == ("all",):
        return tuple(range(len(features)))
    return tuple(column_of(features, name) for name in names)
