"""The tables of a scenario file that say what data there is: who has it, how it is spread, and how it changes.

[population]
source = "generator:sea"
sites = 10
rows_per_step = 200

[partition]
kind = "label_dirichlet"
alpha = 0.3

[[drift]]
kind = "concept"
op = "concept"
to = 1
when = "sudden@4"
where = "fraction=.5"
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedseal.config import Frozen
from fedseal.simulation.worlds.keys import Features, KeyedTable, When, Where
from fedseal.simulation.worlds.population_tables import PartitionTable, PopulationTable
from fedseal.simulation.worlds.schedule import Places, Schedule, parse_when, parse_where

__all__ = [
    "OPS",
    "ConsentTable",
    "DriftTable",
    "LabelNoiseTable",
    "LabelsTable",
    "MissingTable",
    "PartitionTable",
    "PopulationTable",
    "WorldTables",
]

Kind = Literal["covariate", "label", "concept", "schema", "participation"]
Op = Literal[
    "shift", "scale", "mix", "swap", "prevalence", "relabel", "threshold", "concept", "absent", "rename", "unit", "rows"
]
# Of each op its kind, the keys it needs, those it may have besides, and whether it can move by degrees.
OPS: dict[str, tuple[Kind, tuple[str, ...], tuple[str, ...], bool]] = {
    "shift": ("covariate", ("feature", "by"), (), True),
    "scale": ("covariate", ("feature", "by"), (), True),
    "mix": ("covariate", ("by",), (), True),
    "swap": ("covariate", ("feature", "other"), (), False),
    "prevalence": ("label", ("shares",), (), True),
    "relabel": ("concept", ("map",), (), False),
    "threshold": ("concept", ("by",), (), True),
    "concept": ("concept", (), ("to",), True),
    "absent": ("schema", ("feature",), (), False),
    "rename": ("schema", ("feature", "name"), (), False),
    "unit": ("schema", ("feature", "by"), ("offset",), False),
    "rows": ("participation", ("by",), (), True),
}


class DriftTable(KeyedTable):
    """One declared change; a world may have many, which are applied in the order of the file.

    Kind ``covariate`` changes features alone: op ``shift`` adds ``by`` deviations to ``feature``, ``scale`` widens it
    about its mean by the factor ``by``, ``swap`` exchanges it with ``other``, and ``mix`` draws the share ``by`` of
    the rows from the whole population instead of the site's own.
    Kind ``label`` changes how frequent classes are: op ``prevalence`` with ``shares`` of some or all classes;
    those not named keep their proportions. Of a file's rows the largest part with these shares is kept.
    Kind ``concept`` changes the label that belongs to given features: op ``relabel`` by a ``map`` of classes (one that
    is not in it keeps its name), ``threshold`` moves the grade from which on a person is positive ``by`` so much (a
    guideline that changes), ``concept`` takes a generator to its concept ``to``.
    Kind ``schema`` changes how values arrive: op ``absent`` (a column is no longer there), ``rename`` (it is there
    under ``name``, where nobody reads it), ``unit`` (values times ``by`` plus ``offset``).
    Kind ``participation`` is no drift inside any site: op ``rows`` multiplies a site's number of rows; 0 is absence.

    ``when`` is one of always, sudden@t, gradual@t..u (a growing share of the rows), incremental@t..u (all rows, by
    degrees), recurring@t/period/duty, matrix=file.cp (rows are steps, columns are sites, entries are concepts; where
    an op has no concepts, any entry but 0 means that it holds). ``where`` is all, a list of names, fraction=f, or
    staggered=k: k more sites each step.
    """

    kind: Kind
    op: Op | None = None
    when: When
    where: Where = "all"
    feature: Features = ()
    by: float = 0.0
    other: str | None = None
    shares: dict[str, float] = Field(default_factory=dict)
    map: dict[str, str] = Field(default_factory=dict)
    to: int = Field(default=0, ge=0)
    name: str | None = None
    offset: float = 0.0

    @model_validator(mode="after")
    def _op(self) -> "DriftTable":
        known = [op for op, (kind, *_) in OPS.items() if kind == self.kind]
        if self.op is None and len(known) > 1:
            raise ValueError(f'kind = "{self.kind}" needs an op: {", ".join(known)}')
        if self.operation not in known:
            raise ValueError(f'op = "{self.op}" is of another kind; kind = "{self.kind}" has {", ".join(known)}')
        _, needed, allowed, by_degrees = OPS[self.operation]
        self.check_keys("op", self.operation, needed=needed, allowed=("kind", "op", "when", "where", *allowed))
        form = self.schedule.form
        if form == "incremental" and not by_degrees:
            raise ValueError(f'op = "{self.operation}" holds for a row or not: use gradual instead of incremental')
        if form == "matrix" and not isinstance(self.where, str):
            raise ValueError("a matrix says itself which sites: leave where out")
        self._values(form)
        return self

    def _values(self, form: str) -> None:
        """The ranges that an op gives its numbers."""
        if self.operation == "concept" and (form == "matrix") == ("to" in self.model_fields_set):
            raise ValueError("to says which concept comes, unless a matrix does")
        if self.operation == "scale" and self.by <= 0:
            raise ValueError("a scale is a factor above 0")
        if self.operation == "unit" and self.by == 0:
            raise ValueError("a unit's factor may not be 0")
        if self.operation == "mix" and not 0 < self.by <= 1:
            raise ValueError("a mix is a share above 0 and at most 1")
        if self.operation == "rows" and self.by < 0:
            raise ValueError("a site's rows cannot be multiplied by less than 0")
        if self.operation == "swap" and len(self.feature) != 1:
            raise ValueError("a swap exchanges one feature with one other")
        if self.operation == "rename" and len(self.feature) != 1:
            raise ValueError("a rename gives one feature one name")
        if self.shares and (min(self.shares.values()) < 0 or sum(self.shares.values()) > 1 + 1e-9):
            raise ValueError("shares of classes are at least 0 and together at most 1")

    @property
    def operation(self) -> str:
        """The op, or the only one that the kind has."""
        return self.op or next(op for op, (kind, *_) in OPS.items() if kind == self.kind)

    @property
    def schedule(self) -> Schedule:
        """``when``, read."""
        return parse_when(self.when)

    @property
    def places(self) -> Places:
        """``where``, read."""
        return parse_where(self.where)


class LabelNoiseTable(Frozen):
    """Labels that are recorded wrongly at some sites, while the truth stays.

    ``symmetric``: any other class, all equally likely. ``pair``: the next class. ``instance``: which rows are
    wrong, and as what, depends on their features (Xia et al. 2020, algorithm 2).
    """

    kind: Literal["symmetric", "pair", "instance"] = "symmetric"
    rate: float = Field(gt=0, le=1)
    when: When = "always"
    where: Where = "all"

    @model_validator(mode="after")
    def _form(self) -> "LabelNoiseTable":
        _refuse_matrix(self.schedule)
        return self

    @property
    def schedule(self) -> Schedule:
        """``when``, read."""
        return parse_when(self.when)

    @property
    def places(self) -> Places:
        """``where``, read."""
        return parse_where(self.where)


class MissingTable(Frozen):
    """Values that are missing at some sites: not a number in the features.

    ``mcar``: each with the same chance. ``mar``: the chance grows with another feature, the ``driver``. ``mnar``: it
    grows with the value itself. ``absent``: the whole column. ``rate`` is the chance on average over the population.
    """

    feature: Features
    mechanism: Literal["mcar", "mar", "mnar", "absent"] = "mcar"
    rate: float | None = Field(default=None, gt=0, le=1)
    driver: str | None = None
    when: When = "always"
    where: Where = "all"

    @model_validator(mode="after")
    def _mechanism(self) -> "MissingTable":
        if (self.mechanism == "absent") == (self.rate is not None):
            raise ValueError('every mechanism but "absent" needs a rate, and that has none')
        if (self.mechanism == "mar") != (self.driver is not None):
            raise ValueError('driver, the feature that values go missing by, goes with mechanism = "mar"')
        _refuse_matrix(self.schedule)
        return self

    @property
    def schedule(self) -> Schedule:
        """``when``, read."""
        return parse_when(self.when)

    @property
    def places(self) -> Places:
        """``where``, read."""
        return parse_where(self.where)


class LabelsTable(Frozen):
    """How labels come about.

    They are known ``delay_steps`` steps after the row. With ``annotators`` each of them is right with its own chance of
    ``accuracy`` and otherwise says any other class; the majority is recorded, a tie is the first annotator's of those
    who tie.
    """

    delay_steps: int = Field(default=0, ge=0, le=10_000)
    annotators: int = Field(default=0, ge=0, le=25)
    accuracy: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()

    @model_validator(mode="after")
    def _one_each(self) -> "LabelsTable":
        if len(self.accuracy) != self.annotators:
            raise ValueError("accuracy has one number for each of the annotators")
        return self


class ConsentTable(Frozen):
    """Persons who withdraw: the ``share`` of those whom the sites knew before step ``at``, which their data leaves."""

    share: float = Field(gt=0, le=1)
    at: int = Field(ge=0)
    where: Where = "all"

    @model_validator(mode="after")
    def _place(self) -> "ConsentTable":
        if self.places.staggered:
            raise ValueError("persons withdraw at one step: where cannot be staggered")
        return self

    @property
    def places(self) -> Places:
        """``where``, read."""
        return parse_where(self.where)


class WorldTables(Frozen):
    """All tables that make a world."""

    population: PopulationTable
    partition: PartitionTable = PartitionTable()
    drift: tuple[DriftTable, ...] = ()
    label_noise: tuple[LabelNoiseTable, ...] = ()
    missing: tuple[MissingTable, ...] = ()
    labels: LabelsTable = LabelsTable()
    consent: tuple[ConsentTable, ...] = ()


def _refuse_matrix(schedule: Schedule) -> None:
    """That a schedule has levels of its own."""
    if schedule.form == "matrix":
        raise ValueError("a matrix is for [[drift]]: its entries are concepts")
