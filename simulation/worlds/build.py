"""A world from its tables."""

from pathlib import Path

import numpy as np

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partitions.label_noise import Confusion
from fedseal.simulation.partitions.missing import Missingness
from fedseal.simulation.worlds.changes import class_map, resolve
from fedseal.simulation.worlds.course import Course
from fedseal.simulation.worlds.matrix import read_matrix
from fedseal.simulation.worlds.population_tables import PartitionTable
from fedseal.simulation.worlds.schedule import Places, Schedule
from fedseal.simulation.worlds.source import Source, Spread
from fedseal.simulation.worlds.spread import Populated, column_of, columns_of, populate
from fedseal.simulation.worlds.tables import LabelNoiseTable, MissingTable, WorldTables
from fedseal.simulation.worlds.window import Withdrawal
from fedseal.simulation.worlds.world import LabelNoise, Missing, SiteSkew, World


def build_world(
    tables: WorldTables, *, steps: int, seed: int, folder: Path | None = None, data: Path | None = None
) -> World:
    """The world that tables describe.

    Args:
        tables: what there is and how it changes.
        steps: how many steps there are, at least 1.
        seed: fixes every draw.
        folder: where the scenario lies; paths in it are relative to it.
        data: the folder with the files of ``source = "heart"``.

    Raises:
        ConfigError: a name that does not exist, a file that is not there, a change that this population cannot have.
        DataError: a table does not hold what is declared.
    """
    randomness = KeyedRandomness(seed, "world")
    populated = populate(
        tables.population, tables.partition, steps=steps, randomness=randomness, folder=folder, data=data
    )
    made = _Builder(populated, steps, randomness, folder)
    source, classes = populated.source, populated.source.classes
    changes = tuple(
        resolve(drift, made.course(drift.schedule, drift.places, "drift", number), source)
        for number, drift in enumerate(tables.drift)
    )
    return World(
        sites=populated.sites,
        steps=steps,
        features=source.features,
        classes=classes,
        source=source,
        skew=SiteSkew(
            concepts=tables.partition.concepts,
            maps=tuple(class_map(classes, names) for names in tables.partition.maps),
            sigma=tables.partition.sigma if tables.partition.kind == "feature_noise" else 0.0,
        ),
        changes=changes,
        label_noise=made.label_noise(tables.label_noise, tables.partition),
        missing=made.missing(tables.missing, tables.partition),
        labels=tables.labels,
        withdrawals=tuple(
            Withdrawal(
                share=table.share,
                at=table.at,
                sites=frozenset(table.places.delays(populated.sites, randomness, "consent", number)),
                key=int(randomness.stream("consent", number).words64(1)[0]),
            )
            for number, table in enumerate(tables.consent)
        ),
        confusion=Confusion.drawn(len(source.features), len(classes), randomness.stream("confusion")),
        randomness=randomness,
    )


class _Builder:
    """What the tables of a world have in common."""

    def __init__(self, populated: Populated, steps: int, randomness: KeyedRandomness, folder: Path | None) -> None:
        self._populated, self._steps, self._randomness, self._folder = populated, steps, randomness, folder
        self._source: Source = populated.source
        self._reference: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None = None

    def course(self, schedule: Schedule, places: Places, *purpose: str | int) -> Course:
        """A schedule at the sites that are meant."""
        sites = self._populated.sites
        delays = places.delays(sites, self._randomness, *purpose)
        if schedule.form != "matrix":
            if schedule.start >= self._steps:
                raise ConfigError(f"a change at step {schedule.start} never comes: the last step is {self._steps - 1}")
            return Course(schedule, delays)
        matrix = read_matrix(schedule.matrix, self._folder, steps=self._steps, sites=len(sites))
        if len(delays) < len(sites):
            matrix = np.where(np.isin(np.arange(len(sites)), list(delays)), matrix, 0)
        return Course(schedule, delays, matrix)

    def _rising(self) -> Course:
        """Always, at site i of n by i/n."""
        count = len(self._populated.sites)
        weights = np.arange(1, count + 1) / count
        return Course(Schedule("sudden"), dict.fromkeys(range(count), 0), None, weights)

    def label_noise(self, tables: tuple[LabelNoiseTable, ...], partition: PartitionTable) -> tuple[LabelNoise, ...]:
        """All label noise, that of the partition first."""
        made = [
            LabelNoise(table, self.course(table.schedule, table.places, "label_noise", number))
            for number, table in enumerate(tables)
        ]
        if partition.kind == "label_noise" and partition.rate > 0:
            made.append(LabelNoise(LabelNoiseTable(kind=partition.noise, rate=partition.rate), self._rising()))
        return tuple(made)

    def missing(self, tables: tuple[MissingTable, ...], partition: PartitionTable) -> tuple[Missing, ...]:
        """All missingness, that of the partition last."""
        made = [
            self._missing(table, self.course(table.schedule, table.places, "missing", number))
            for number, table in enumerate(tables)
        ]
        if partition.kind == "missing" and partition.rate > 0:
            table = MissingTable(
                feature=partition.feature,
                mechanism=partition.mechanism,
                rate=partition.rate,
                driver=partition.driver,
            )
            made.append(self._missing(table, self._rising()))
        return tuple(made)

    def _missing(self, table: MissingTable, course: Course) -> Missing:
        features = self._source.features
        columns = columns_of(features, table.feature)
        driver = column_of(features, table.driver) if table.driver is not None else None
        drivers = tuple(column if driver is None else driver for column in columns)
        rate = 1.0 if table.rate is None else table.rate
        if table.mechanism in ("mcar", "absent"):
            return Missing(table, course, columns, (Missingness(rate),) * len(columns), drivers)
        z = self._standardised()
        chances = tuple(Missingness.fitted(rate, z[:, column]) for column in drivers)
        return Missing(table, course, columns, chances, drivers)

    def _standardised(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Features of the whole population in deviations."""
        if self._reference is None:
            source = self._source
            x = source.pool.x if isinstance(source, Spread) else source.reference
            self._reference = source.moments.standardised(x)
        return self._reference
