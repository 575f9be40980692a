"""A scenario's monitor: every site's past at a model's release, what a window's noisy sum says, and what follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedseal.client.tabular import Tabular
from fedseal.client.trainer import Arrays
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.privacy.watch import Reference
from fedseal.server.monitoring.facts import logged
from fedseal.server.monitoring.outcome import Measured, Shares
from fedseal.server.monitoring.trigger import Compared, Decision, Models, ShadowResult, TriggerState, judge_shadow, step
from fedseal.simulation.monitoring import (
    Monitored,
    Persons,
    compare,
    measure,
    public_reference,
    reference,
    window_vector,
)
from fedseal.simulation.scenario.logbook import Logbook
from fedseal.simulation.scenario.material import Rows
from fedseal.simulation.scenario.quality import answers

ALERTS: dict[Alert, Literal["quiet", "warn", "alarm"]] = {
    Alert.NONE: "quiet",
    Alert.WARNING: "warn",
    Alert.ALARM: "alarm",
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What the monitor made of one window."""

    measured: Measured
    decision: Decision


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A candidate beside the model in use."""

    compared: Compared
    result: ShadowResult
    decision: Decision


@dataclass(slots=True)
class Watching:
    """The monitor of one run.

    Args:
        monitored: what is watched.
        task: the scenario's.
        logbook: where windows and decisions are written; None decides the same and writes nothing.
    """

    monitored: Monitored
    task: Tabular
    logbook: Logbook | None = None
    # By the model in use: another model is another reference, and what windows said of the one before is not about it.
    states: dict[str, TriggerState] = field(default_factory=dict)
    # Pure epsilon by window, of its persons.
    spent: dict[int, float] = field(default_factory=dict)
    _past: dict[str, Reference] = field(default_factory=dict)
    _shares: Shares | None = None

    def release(self, number: int, model: Arrays, train: Mapping[str, Rows], windows: tuple[int, ...]) -> None:
        """A model is put to use: every site's past is what the model says of the persons it was trained on.

        Args:
            number: of the release, from 0, never used twice.
            model: the model.
            train: the persons by site; a site without any has no past and sends only noise.
            windows: theirs.
        """
        persons = {site: self._persons(model, rows) for site, rows in train.items() if len(rows.y)}
        self._past = {site: reference(self.monitored, site, p, release=number) for site, p in persons.items()}
        self._shares = public_reference(self.monitored, persons, release=number)
        for window in windows:
            # The site's own reference, and the federation's public one.
            self._charge(window, 2 * self.monitored.table.reference_epsilon)

    def look(self, number: int, model: Arrays, window: Mapping[str, Rows], models: Models) -> Looked | None:
        """What a window's sum over sites says, and what it leads to; None where no site has a past and persons.

        Args:
            number: of the window, never used twice.
            model: the model in use.
            window: its persons by site, with labels as recorded.
            models: which models there are.
        """
        taking = [site for site, rows in window.items() if site in self._past and len(rows.y)]
        if not taking or self._shares is None:
            return None
        vectors = {
            site: window_vector(self.monitored, self._past[site], self._persons(model, window[site])) for site in taking
        }
        measured = measure(self.monitored, number, vectors, self._shares)
        self._charge(number, self.monitored.table.epsilon)
        state = self.states.get(models.current, TriggerState())
        if self.logbook is None:
            self.states[models.current], decision = step(self.monitored.table, state, logged(measured), models)
        else:
            self.states[models.current], decision = self.logbook.window(state, measured, models)
        return Looked(measured, decision)

    def shadow(
        self, number: int, current: Arrays, candidate: Arrays, window: Mapping[str, Rows], models: Models, name: str
    ) -> Shadowed:
        """Both models on the same persons, and whether the candidate takes over."""
        some = {site: rows for site, rows in window.items() if len(rows.y)}
        before = {site: self._persons(current, rows) for site, rows in some.items()}
        after = {site: self._persons(candidate, rows) for site, rows in some.items()}
        compared = compare(self.monitored, number, before, after)
        self._charge(number, self.monitored.table.epsilon)
        if self.logbook is None:
            of = (self.monitored.table, number, compared, models)
            result, decision = judge_shadow(*of, candidate=name, gates_pass=True)
        else:
            result, decision = self.logbook.shadow(number, compared, models, name)
        return Shadowed(compared, result, decision)

    @property
    def epsilon(self) -> float:
        """Pure epsilon of monitoring so far, for a person of the window that cost its persons most."""
        return max(self.spent.values(), default=0.0)

    def _charge(self, window: int, epsilon: float) -> None:
        self.spent[window] = self.spent.get(window, 0.0) + epsilon

    def _persons(self, model: Arrays, rows: Rows) -> Persons:
        """Persons with the model's word on them."""
        said = answers(self.task, model, rows.x)
        two = said.probabilities.shape[1] == 2
        scores = said.probabilities[:, 1] if two else said.probabilities.max(axis=1)
        return Persons(rows.x, rows.y.astype(np.int64), scores, said.classes.astype(np.int64))
