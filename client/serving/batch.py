"""One file predicted: read, checked, asked, decided, written. Nothing of it leaves the site."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedseal.client.serving.answers import Answers, Decision, decision_of
from fedseal.client.serving.features import Reader, Rows
from fedseal.client.serving.network import Network
from fedseal.client.serving.shift import ScoreCounts, Shift
from fedseal.client.serving.tables import TableFile, open_table
from fedseal.client.serving.values import Problem
from fedseal.client.serving.writing import Form, Sink, rows_of, writing
from fedseal.compliance.registry.bundle import Bundle
from fedseal.compliance.registry.inputs import Input, inputs_of
from fedseal.compliance.registry.recipe import Column
from fedseal.errors import ConfigError, DataError, PolicyRefused

# So many rows are asked at once: always the same, so that a file's predictions do not hang on how it is stored.
ASKED = 4096
UNCERTAIN, SILENT = "uncertain", "no-output"


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is predicted.

    ``key`` is a column that is copied to name the rows; ``strict`` refuses a file in which anything is not as the
    schema says; ``refuse_shift`` one whose scores are spread otherwise than the evaluation's.
    """

    key: str | None = None
    strict: bool = False
    refuse_shift: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """What became of a file.

    Attributes:
        rows: how many it has.
        predicted: how many have a prediction.
        abstained: why the others have none, by reason.
        problems: values that are not as the schema says, by column and kind.
        clipped: values that the recipe brought into their column's range, by column.
        further: columns of the file that the model does not read.
        shift: how its scores are spread.
    """

    rows: int
    predicted: int
    abstained: dict[str, int]
    problems: dict[str, dict[str, int]]
    clipped: dict[str, int]
    further: int
    shift: Shift


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bundle says of how it is applied, checked: inputs and decision."""

    inputs: tuple[Input, ...]
    decision: Decision


def plan_of(bundle: Bundle) -> Plan:
    """How a bundle is applied; ConfigError if it does not say."""
    return Plan(inputs_of(bundle.recipe, bundle.schema), decision_of(bundle.recipe))


def predict_file(bundle: Bundle, network: Network, source: Path, out: Path, options: Options) -> Predicted:
    """Predict every row of a file into a new one.

    Args:
        bundle: the model's, whose files hold.
        network: what applies it.
        source: CSV or parquet.
        out: a new CSV or parquet file.
        options: how.

    Raises:
        ConfigError: the bundle does not say how it is applied, or ``out`` exists.
        DataError: the file cannot be read, lacks a column, or with ``strict`` is not as the schema says.
        PolicyRefused: with ``refuse_shift``, if its scores are spread otherwise. Nothing is written then.
    """
    plan = plan_of(bundle)
    table, reader = open_table(source), Reader(plan.inputs)
    further = reader.check(table)
    if options.key is not None and options.key not in table.columns:
        raise DataError(f"{source} has no column {options.key!r}", next_step="--id names a column of the file.")
    if options.strict and further - (options.key is not None and not _reads(reader, options.key)):
        raise DataError(f"{source} has columns that the model does not read", next_step="Leave --strict out.")
    form = Form(options.key, plan.decision.classes)
    form.check()
    counts = ScoreCounts(bundle.recipe.scores if len(plan.decision.classes) == 2 else None)
    run = _Run(plan, network, reader, counts, form)
    with writing(out, form) as sink:
        run.through(table, sink)
        if options.strict and (reader.counts or reader.clipped):
            raise DataError(
                f"{source} is not as the bundle's schema says: {_told(reader)}",
                next_step="Mend the file. Without --strict such rows are left out, with the reason.",
            )
        shift = counts.shift()
        if options.refuse_shift:
            _refuse(shift)
    return run.summary(further, shift)


def _reads(reader: Reader, name: str) -> bool:
    return any(column.name == name for column in reader.columns)


def _told(reader: Reader) -> str:
    parts = [f"{count} rows {kind} in {name!r}" for (name, kind), count in sorted(reader.counts.items())]
    parts += [f"{count} rows beyond the range of {name!r}" for name, count in sorted(reader.clipped.items())]
    return "; ".join(parts[:20])


def _refuse(shift: Shift) -> None:
    if shift.verdict == "no-reference":
        raise ConfigError(
            "the bundle has no reference that scores could be compared with",
            next_step="It comes from the model's private evaluation. Without --refuse-drift the file is predicted.",
        )
    if shift.verdict in ("slight", "shifted"):
        raise PolicyRefused(
            f"the file's scores are not spread as the evaluation's: p = {shift.p:.2g}, PSI-like {shift.psi:.2f}",
            next_step="Look at the file. Without --refuse-drift it is predicted, with a warning.",
        )


class _Run:
    """A file on its way through a model."""

    def __init__(self, plan: Plan, network: Network, reader: Reader, counts: ScoreCounts, form: Form) -> None:
        self._plan, self._network, self._reader, self._counts, self._form = plan, network, reader, counts, form
        self._columns: tuple[Column, ...] = reader.columns
        self._rows = self._predicted = 0
        self._abstained: Counter[str] = Counter()

    def through(self, table: TableFile, sink: Sink) -> None:
        """Predict all pieces of a file."""
        key = self._form.key
        names = [column.name for column in self._columns]
        names += [key] if key is not None and key not in names else []
        for piece in table.pieces(names):
            for batch in _even(piece):
                sink.write_batch(self._predict(batch))

    def summary(self, further: int, shift: Shift) -> Predicted:
        """What was counted."""
        problems: dict[str, dict[str, int]] = {}
        for (name, kind), count in sorted(self._reader.counts.items()):
            problems.setdefault(name, {})[kind] = count
        abstained, clipped = dict(sorted(self._abstained.items())), dict(sorted(self._reader.clipped.items()))
        return Predicted(self._rows, self._predicted, abstained, problems, clipped, further, shift)

    def _predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = self._reader.read(batch)
        answers = self._plan.decision.answers(self._network.apply(rows.features))
        usable = (rows.problems == Problem.NONE) & answers.said
        sure = usable & ~answers.uncertain
        reasons = self._reasons(rows, answers)
        self._abstained.update(reason for reason in reasons if reason)
        if answers.scores.shape[1] == 2:
            self._counts.add(answers.scores[usable, 1])
        key = self._key(batch)
        self._rows += batch.num_rows
        self._predicted += int(sure.sum())
        classes = self._form.classes
        if classes:
            said = pa.array(np.asarray(classes, dtype=object)[answers.chosen], pa.string(), mask=~sure)
        else:
            said = pa.array(answers.numbers, mask=~sure)
        scores = [pa.array(answers.scores[:, place], mask=~usable) for place in range(len(classes))]
        return rows_of(self._form, [key, said, *scores, pa.array(~sure), pa.array(reasons, pa.string())])

    def _reasons(self, rows: Rows, answers: Answers) -> list[str]:
        """Why there is no prediction, as kind:column; empty where there is one."""
        found = np.where(answers.uncertain, UNCERTAIN, "").astype(object)
        found[~answers.said] = SILENT
        for row in np.flatnonzero(rows.problems != Problem.NONE):
            found[row] = f"{Problem(rows.problems[row]).word}:{self._columns[rows.columns[row]].name}"
        return list(found)

    def _key(self, batch: pa.RecordBatch) -> pa.Array:
        if self._form.key is None:
            return pa.array(np.arange(self._rows + 1, self._rows + batch.num_rows + 1))
        try:
            return _as_text(batch.column(self._form.key))
        except pa.ArrowException:
            raise DataError(f"column {self._form.key!r} cannot name rows: it holds neither text nor numbers") from None


def _as_text(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string())


def _even(piece: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, piece.num_rows, ASKED):
        yield piece.slice(start, ASKED)
