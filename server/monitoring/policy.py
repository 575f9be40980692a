"""The monitoring policy: what is watched, how often it may cry wolf, and what an alarm leads to.

    [monitor]
    tests = ["score", "label", "error"]
    epsilon = 1.0
    alpha = 1.0
    windows_per_year = 52

    [monitor.triggers]
    warn = "shadow"
    alarm = "propose"
    concept = "roll_back"

A file of its own for a federation (`read_policy`), the table [monitor] of a scenario. All of it is public.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from fedseal.config import Frozen, read_toml, validate
from fedseal.privacy.counts import Axis, Source, Table, codes, labels
from fedseal.privacy.inference.drift.multiplicity import Levels, spend
from fedseal.privacy.plan import SharedGeometric
from fedseal.privacy.watch import MOST_SHARE, Stratum, Watch, Weights, plan_watch

SCORE, OUTCOME = "score", "outcome"
Test = Literal["score", "label", "error", "features"]


class Feature(Frozen):
    """One feature that is watched, by its place in the model's input.

    A number has ``bins`` between ``low`` and ``high``; what lies outside is counted as such. A code has ``codes``
    values 0, 1, ...; any other is an unseen category. Ranges are public: never taken from the data.
    """

    number: int = Field(ge=0, lt=1 << 16)
    low: float | None = None
    high: float | None = None
    bins: int = Field(default=8, ge=2, le=64)
    codes: int | None = Field(default=None, ge=2, le=256)

    @model_validator(mode="after")
    def _one_form(self) -> "Feature":
        ranged = self.low is not None and self.high is not None
        if ranged == (self.codes is not None) or (self.low is None) != (self.high is None):
            raise ValueError("a feature needs low and high, or codes")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low has to be below high")
        return self

    @property
    def name(self) -> str:
        """As results call it."""
        return f"feature-{self.number}"

    def axis(self) -> Axis:
        """Its cells."""
        if self.codes is not None:
            return codes(Source.FEATURE, self.codes, number=self.number, outside=True)
        low, high = self.low or 0.0, self.high or 0.0
        edges = tuple(low + (high - low) * i / self.bins for i in range(self.bins + 1))
        return Axis(int(Source.FEATURE), edges, True, self.number)


class Triggers(Frozen):
    """What is done. ``warn`` is for a warning, ``alarm`` for an alarm, ``concept`` for an alarm of concept drift.

    ``shadow`` trains a candidate that both are asked beside the model in use and decides nothing yet; ``propose`` asks
    a person; ``auto`` retrains without; ``roll_back`` goes back to the last model whose gold set still passes, and
    where there is none does what ``alarm`` says. After an action ``cooldown`` windows pass before the next one.
    ``margin``: a candidate is promoted if it is not worse by more, with the confidence ``confidence``.
    """

    warn: Literal["none", "shadow"] = "shadow"
    alarm: Literal["none", "propose", "auto"] = "propose"
    concept: Literal["roll_back", "as_alarm"] = "as_alarm"
    cooldown: int = Field(default=2, ge=0, le=1000)
    margin: float = Field(default=0.02, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class MonitorTable(Frozen):
    """The table [monitor].

    ``epsilon`` is pure, of one window, for all its tests together; a person in m windows pays m times, and a site's
    ledger adds up all windows. ``windows_per_person`` is how many the federation expects at most: reports show it,
    no ledger relies on it.

    ``tests``: the model's scores, labels, errors, and ``features``, which are listed. ``bins`` are those of scores,
    between 0 and 1. ``alpha`` is how many false alarms a year are expected at most, ``warnings`` how many false
    warnings, with ``windows_per_year`` windows.

    ``rule``: under ``holm`` one window is enough for an alarm, if a test stands out after Holm's correction, and two
    suspicious windows of three for a warning. Under ``2of3`` two of three are enough for an alarm too; one suspicious
    window is a warning.

    ``min_sites``: with fewer a window is not evaluable. ``min_rows`` likewise, in persons. ``k_min``: of every site so
    many persons of a window stay out of its sums, the first to come; a site with no more of them adds only noise.
    ``weights``: where the tests' variance is from: the federation's public reference, which is one release more and is
    believed; or every cell's own in the sum, which needs more persons (docs/monitoring.md).
    ``share``: integer units of a person in the differences, against 1 in numbers of persons.
    ``reference_epsilon``: pure, what a site's own reference costs its training persons, once for each model.
    """

    tests: tuple[Test, ...] = ("score", "label", "error")
    features: tuple[Feature, ...] = ()
    bins: int = Field(default=10, ge=4, le=64)
    window: str = Field(default="step", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    windows_per_year: float = Field(default=52, gt=0, le=100_000)
    epsilon: float = Field(default=1.0, ge=2.0**-6, le=64)
    reference_epsilon: float = Field(default=1.0, ge=2.0**-6, le=64)
    alpha: float = Field(default=1.0, gt=0, le=1000)
    warnings: float = Field(default=4.0, gt=0, le=1000)
    rule: Literal["holm", "2of3"] = "2of3"
    min_sites: int = Field(default=5, ge=3, le=100_000)
    min_rows: int = Field(default=100, ge=1)
    k_min: int = Field(default=10, ge=0, le=1_000_000)
    weights: Literal["reference", "released"] = "reference"
    share: int = Field(default=8, ge=1, le=MOST_SHARE)
    windows_per_person: int | None = Field(default=None, ge=1)
    triggers: Triggers = Triggers()

    @model_validator(mode="after")
    def _sensible(self) -> "MonitorTable":
        if not self.tests or len(set(self.tests)) < len(self.tests):
            raise ValueError("tests names at least one test, each once")
        if ("features" in self.tests) != bool(self.features):
            raise ValueError("the test features goes with a list of features, and a list with the test")
        numbers = [feature.number for feature in self.features]
        if len(set(numbers)) < len(numbers):
            raise ValueError("features names a feature twice")
        if self.bins % 2:
            raise ValueError("bins is even, so that 0.5 is an edge")
        return self

    @property
    def levels(self) -> Levels:
        """The levels of one window's tests, from what a year may have of false alarms and warnings."""
        if self.rule == "holm":
            return spend(self.windows_per_year, self.alpha, self.warnings)
        # Both ways to an alarm share what a year may have.
        return spend(self.windows_per_year, self.alpha / 2, self.alpha / 2)


class MonitorFile(Frozen):
    """A policy file: version and the table."""

    version: Literal[1] = 1
    monitor: MonitorTable


def read_policy(path: Path) -> MonitorTable:
    """A federation's policy file; ConfigError names the line and the nearest key."""
    tables, text = read_toml(path)
    return validate(MonitorFile, tables, text=text, source=str(path)).monitor


def score_axis(bins: int) -> Axis:
    """Scores between 0 and 1."""
    return Axis(int(Source.SCORE), tuple(i / bins for i in range(bins + 1)))


def watch_of(table: MonitorTable, *, classes: int, private: bool = True) -> Watch:
    """What sites are asked under a policy, for a model of so many classes.

    With two classes labels and errors are one table of label x score, from which also follows whether scores mean what
    they meant; with more it is label x right. Without privacy references are exact.

    Raises:
        ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError("a model that is watched has at least two classes")
    strata = []
    if "score" in table.tests:
        strata.append(Stratum(SCORE, Table((score_axis(table.bins),)), True))
    if "label" in table.tests or "error" in table.tests:
        second = score_axis(table.bins) if classes == 2 else codes(Source.RIGHT, 2)
        strata.append(Stratum(OUTCOME, Table((labels(classes), second)), False))
    strata += [Stratum(f.name, Table((f.axis(),)), f.codes is None) for f in table.features]
    weights = Weights.RELEASED if table.weights == "released" else Weights.REFERENCE
    epsilon = table.reference_epsilon if private else 0.0
    return Watch(tuple(strata), (), table.share, int(weights), table.k_min, epsilon)


def plan_of(table: MonitorTable, watch: Watch, *, windows: int, retries: int = 0) -> SharedGeometric:
    """What a run of so many windows is charged."""
    return plan_watch(watch, table.epsilon, windows=windows, retries=retries)
