"""A site's labels in its store: guideline versions, batches, annotations and their corrections, gold, decisions.

Works on the connection of a transaction that the caller has begun, so that a refused file leaves everything as it was.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, Row, Table, and_, exists, func, insert, inspect, select

from fedseal.compliance.labels.content import LabelKeys
from fedseal.compliance.labels.facts import Corrections, Reason
from fedseal.compliance.labels.formats import LONGEST_NAME, Annotation, Format, Source
from fedseal.compliance.labels.holdings import Batch, Guideline, Imported, Snapshot
from fedseal.compliance.labels.merging import Live, merged
from fedseal.compliance.labels.scale import LabelSchema, Ratings
from fedseal.compliance.labels.tables import (
    ANNOTATIONS,
    BATCHES,
    DECISIONS,
    DIRECTORY,
    GOLD,
    GUIDELINES,
    METADATA,
    SECRET,
)
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import Randomness
from fedseal.privacy.secret import Secret


class LabelStore:
    """The labels in a site's store, for the time of one transaction."""

    def __init__(self, connection: Connection, keys: LabelKeys) -> None:
        self.connection = connection
        self.keys = keys

    @classmethod
    def open(cls, connection: Connection, randomness: Randomness) -> "LabelStore":
        """Open; the first time the tables are made, and the site's secret for labels is drawn."""
        METADATA.create_all(connection)
        secret = connection.execute(select(SECRET.c.secret)).scalar()
        if secret is None:
            secret = randomness.stream("labels", "secret").raw(32)
            connection.execute(insert(SECRET).values(secret=secret))
        return cls(connection, LabelKeys(Secret(secret)))

    @classmethod
    def look(cls, connection: Connection) -> "LabelStore":
        """Open and change nothing; ConfigError if there are no labels yet."""
        if not inspect(connection).has_table(SECRET.name):
            raise ConfigError("this store has no labels yet", next_step="Begin with: fedseal labels guideline")
        return cls(connection, LabelKeys(Secret(connection.execute(select(SECRET.c.secret)).scalar_one())))

    def add_guideline(self, version: str, document: bytes, schema: LabelSchema) -> Guideline:
        """Register a version of the guideline, which is a document and a label schema.

        Raises:
            ConfigError: the name is no name, or belongs to another document or schema.
        """
        if not 0 < len(version) <= LONGEST_NAME or version != version.strip() or not version.isprintable():
            raise ConfigError(f"a guideline version's name has 1 to {LONGEST_NAME} printable characters")
        digest = "sha256:" + hashlib.sha256(document).hexdigest()
        known = next((g for g in self.guidelines() if g.version == version), None)
        if known is None:
            self.connection.execute(insert(GUIDELINES).values(version=version, digest=digest, schema=schema.text()))
        elif (known.digest, known.schema) != (digest, schema):
            raise ConfigError(
                f"guideline version {version!r} is another document or has another label schema",
                next_step="A guideline that changes gets a new version.",
            )
        return self.guideline(version)

    def guidelines(self) -> list[Guideline]:
        """All versions, oldest first."""
        rows = self.connection.execute(select(GUIDELINES).order_by(GUIDELINES.c.number))
        return [Guideline(r.number, r.version, r.digest, LabelSchema.model_validate_json(r.schema)) for r in rows]

    def guideline(self, version: str) -> Guideline:
        """A version by its name; ConfigError if it is not registered."""
        found = next((g for g in self.guidelines() if g.version == version), None)
        if found is None:
            raise ConfigError(
                f"there is no guideline version {version!r} in this store",
                next_step="Register it: fedseal labels guideline",
            )
        return found

    def add_batch(
        self, dataset: str, guideline: str, source: Source, file: bytes, annotations: list[Annotation], now: datetime
    ) -> Imported:
        """Store the annotations of a file.

        Args:
            dataset: the dataset version they belong to.
            guideline: the version they follow, where the file does not say.
            source: the file, for messages.
            file: its SHA-256.
            annotations: what was read.
            now: when, in UTC.

        Raises:
            ConfigError: a guideline version is not registered.
            DataError: a label that the schema lacks, or annotations that contradict each other or what is stored.
        """
        versions = {name: self.guideline(name) for name in {a.guideline or guideline for a in annotations}}
        schemas = {name: set(g.schema.labels) for name, g in versions.items()}
        for annotation in annotations:
            if annotation.label not in schemas[annotation.guideline or guideline]:
                raise source.wrong(annotation.place, "a label that the guideline's label schema does not have")
        orders = {g.version: g.number for g in self.guidelines()}
        values = {"dataset": dataset, "format": source.format, "guideline": guideline, "file": self.keys.file(file)}
        number = self._insert(BATCHES, **values, imported=stamp(now))
        first = self.newest(ANNOTATIONS) + 1
        rows, known = merged(annotations, self._live(dataset), self.keys, source, guideline, orders, first)
        for start in range(0, len(rows), 10_000):
            part = [
                {
                    "number": row.number,
                    "batch": number,
                    "dataset": dataset,
                    "item": row.item,
                    "annotator": row.annotator,
                    "label": row.label,
                    "time": row.time,
                    "guideline": row.guideline,
                    "supersedes": row.supersedes,
                    "reason": row.reason,
                }
                for row in rows[start : start + 10_000]
            ]
            self.connection.execute(insert(ANNOTATIONS), part)
        self._remember({a.annotator for a in annotations})
        corrected = sum(row.supersedes is not None for row in rows)
        return Imported(number, len(rows) - corrected, corrected, known)

    def correct(
        self, dataset: str, item: str, annotator: str, label: str | None, reason: Reason, now: datetime
    ) -> None:
        """Put another label in the place of an annotation, or none; the old row stays.

        Args:
            dataset: the dataset version.
            item: the item.
            annotator: name or pseudonym of the annotator.
            label: the new label; None withdraws the annotation.
            reason: why.
            now: when, in UTC.

        Raises:
            DataError: there is no such annotation, it has that label already, or the schema lacks the label.
        """
        who = self.pseudonym(annotator)
        live = self._live(dataset, item).get((item, who))
        if live is None:
            raise DataError("there is no annotation of that item by that annotator in this dataset")
        if live.label == label:
            raise DataError("the annotation has that label already; nothing was changed")
        if label is not None and label not in self.guideline(live.guideline).schema.labels:
            raise DataError("a label that the guideline's label schema does not have")
        values = {"dataset": dataset, "item": item, "annotator": who, "label": label, "guideline": live.guideline}
        self._insert(ANNOTATIONS, **values, time=stamp(now), supersedes=live.number, reason=reason)

    def add_decisions(self, guideline: str, dataset: str, labels: Mapping[str, str], reviewer: str) -> None:
        """Store a reviewer's decisions by item; the newest holds."""
        self._check_labels(guideline, labels)
        self._remember({reviewer})
        who = self.keys.pseudonym(reviewer)
        before = self.decisions(dataset)
        for item, label in sorted(labels.items()):
            if before.get(item) != label:
                self._insert(DECISIONS, dataset=dataset, item=item, label=label, reviewer=who)

    def add_gold(self, guideline: str, dataset: str, labels: Mapping[str, str]) -> None:
        """Store known labels by item; the newest holds."""
        self._check_labels(guideline, labels)
        before = self.gold(dataset)
        for item, label in sorted(labels.items()):
            if before.get(item) != label:
                self._insert(GOLD, dataset=dataset, item=item, label=label)

    def decisions(self, dataset: str) -> dict[str, str]:
        """The reviewer's decisions that hold, by item."""
        query = select(DECISIONS).where(DECISIONS.c.dataset == dataset).order_by(DECISIONS.c.number)
        return {row.item: row.label for row in self.connection.execute(query)}

    def gold(self, dataset: str) -> dict[str, str]:
        """The known labels, by item."""
        query = select(GOLD).where(GOLD.c.dataset == dataset).order_by(GOLD.c.number)
        return {row.item: row.label for row in self.connection.execute(query)}

    def snapshot(self, dataset: str, guideline: str | None = None, annotators: tuple[str, ...] = ()) -> Snapshot:
        """What holds now.

        Args:
            dataset: the dataset version.
            guideline: whose annotations count; of the newest version that has any, if None.
            annotators: names or pseudonyms; all if none is given.

        Raises:
            ConfigError: no such guideline version.
            DataError: the dataset has no annotation of that kind.
        """
        names = {self.pseudonym(name) for name in annotators}
        rows = [r for r in self._rows(dataset) if r.label is not None and (not names or r.annotator in names)]
        used = {row.guideline for row in rows}
        versions = [g for g in self.guidelines() if g.version in used]
        chosen = self.guideline(guideline) if guideline else versions[-1] if versions else None
        rows = [row for row in rows if chosen is not None and row.guideline == chosen.version]
        if not rows or chosen is None:
            raise DataError(
                "this dataset has no annotations of that kind in this store",
                next_step="See which there are: fedseal labels list",
            )
        items, raters = sorted({row.item for row in rows}), sorted({row.annotator for row in rows})
        places = (_numbers(items), _numbers(raters), _numbers(chosen.schema.labels))
        codes = np.array(
            [(places[0][r.item], places[1][r.annotator], places[2][r.label]) for r in rows], dtype=np.int64
        )
        ratings = Ratings(codes[:, 0], codes[:, 1], codes[:, 2], len(items), len(raters), chosen.schema.scale)
        return Snapshot(dataset, chosen, tuple(items), tuple(raters), ratings)

    def corrections(self, dataset: str, guideline: str, since: int) -> tuple[Corrections, ...]:
        """How many corrections of annotations there were for each reason, after the annotation numbered ``since``."""
        columns = ANNOTATIONS.c
        query = select(columns.reason, func.count()).where(
            columns.dataset == dataset,
            columns.guideline == guideline,
            columns.supersedes.is_not(None),
            columns.number > since,
        )
        rows = self.connection.execute(query.group_by(columns.reason).order_by(columns.reason))
        return tuple(Corrections(count, Reason(reason)) for reason, count in rows)

    def batches(self) -> list[Batch]:
        """All imported files, oldest first."""
        count = select(func.count()).where(ANNOTATIONS.c.batch == BATCHES.c.number).scalar_subquery()
        rows = self.connection.execute(select(BATCHES, count.label("annotations")).order_by(BATCHES.c.number))
        return [
            Batch(r.number, r.dataset, Format(r.format), r.guideline, r.file, r.imported, r.annotations) for r in rows
        ]

    def formats(self, dataset: str) -> set[Format]:
        """In which formats a dataset's annotations came."""
        return {batch.format for batch in self.batches() if batch.dataset == dataset}

    def names(self) -> dict[str, str]:
        """The directory: names by pseudonym. For display at the site."""
        return {row.pseudonym: row.name for row in self.connection.execute(select(DIRECTORY))}

    def pseudonym(self, annotator: str) -> str:
        """An annotator's pseudonym, given as such or by name."""
        known = select(DIRECTORY.c.pseudonym).where(DIRECTORY.c.pseudonym == annotator)
        return self.connection.execute(known).scalar() or self.keys.pseudonym(annotator)

    def newest(self, table: Table) -> int:
        """The highest number in a table; 0 if it is empty."""
        return int(self.connection.execute(select(func.coalesce(func.max(table.c.number), 0))).scalar_one())

    def _rows(self, dataset: str, item: str | None = None) -> list[Row[tuple[object, ...]]]:
        """The annotations that nothing supersedes, withdrawn ones too, in the order of item and annotator."""
        later = ANNOTATIONS.alias()
        wanted = and_(ANNOTATIONS.c.dataset == dataset, ~exists().where(later.c.supersedes == ANNOTATIONS.c.number))
        query = select(ANNOTATIONS).where(wanted)
        if item is not None:
            query = query.where(ANNOTATIONS.c.item == item)
        return list(self.connection.execute(query.order_by(ANNOTATIONS.c.item, ANNOTATIONS.c.annotator)))

    def _live(self, dataset: str, item: str | None = None) -> dict[tuple[str, str], Live]:
        """What holds of each annotator and item, with every label it ever had."""
        columns = ANNOTATIONS.c
        query = select(columns.item, columns.annotator, columns.label).where(columns.dataset == dataset)
        ever: dict[tuple[str, str], set[str]] = {}
        for row in self.connection.execute(query if item is None else query.where(columns.item == item)):
            ever.setdefault((row.item, row.annotator), set()).add(row.label)
        return {
            (row.item, row.annotator): Live(
                row.number, row.label, _time(row.time), row.guideline, frozenset(ever[row.item, row.annotator])
            )
            for row in self._rows(dataset, item)
        }

    def _check_labels(self, guideline: str, labels: Mapping[str, str]) -> None:
        schema = self.guideline(guideline).schema
        strange = sum(label not in schema.labels for label in labels.values())
        if strange:
            raise DataError(f"{strange} labels that the guideline's label schema does not have; nothing was stored")

    def _remember(self, names: set[str]) -> None:
        known = self.names()
        for name in sorted(names):
            if (pseudonym := self.keys.pseudonym(name)) not in known:
                self.connection.execute(insert(DIRECTORY).values(pseudonym=pseudonym, name=name))

    def _insert(self, table: Table, **values: object) -> int:
        key = self.connection.execute(insert(table).values(**values)).inserted_primary_key
        return int(key[0]) if key is not None else 0


def stamp(time: datetime) -> str:
    """A time as it is stored: UTC, to the microsecond, so that texts sort like times."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _numbers(names: list[str] | tuple[str, ...]) -> dict[str, int]:
    return {name: i for i, name in enumerate(names)}
