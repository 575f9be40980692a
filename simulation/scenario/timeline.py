"""A scenario from its first step to its last: persons arrive, the model in use is judged and watched, and trained anew.

Within a step: the windows arrive; the model in use is judged on them before anything is trained on them; the monitor
looks at them; then what the policy or the schedule decides is done. So what a step's metrics say is of the model that
its persons met. At step 0 there is none, so there the first training comes before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fedseal.compliance.events.fields import MonitorAction as Action
from fedseal.server.monitoring.trigger import Models
from fedseal.simulation.scenario.best import best_model
from fedseal.simulation.scenario.logbook import LOG, Logbook
from fedseal.simulation.scenario.material import Rows, contract_of
from fedseal.simulation.scenario.outcome import StepRow, WindowRow
from fedseal.simulation.scenario.quality import Quality, own_quality, quality
from fedseal.simulation.scenario.setting import Setting
from fedseal.simulation.scenario.trainings import Trainings
from fedseal.simulation.scenario.truth import began_or_ended, in_force, label
from fedseal.simulation.scenario.watching import ALERTS, Looked, Watching
from fedseal.simulation.training import initial_model

FIRST, SCHEDULE, CANDIDATE = "first", "schedule", "candidate"
PROMOTED, DISCARDED, ROLLED_BACK = "promote", "discard", "roll back"


@dataclass(slots=True)
class Timeline:
    """The course of one run.

    Args:
        setting: scenario, world and task.
        folder: the run's; federations' stores are kept under it while it runs.
        watcher: told of every step.
        workers: processes for the sites of a training.
        logged: whether a watched scenario keeps a log; it decides the same without.
    """

    setting: Setting
    folder: Path
    watcher: Callable[[StepRow], None] = lambda _: None
    workers: int = 1
    logged: bool = True
    steps: list[StepRow] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    moved: list[bool] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    in_use: int | None = None
    trainings: Trainings = field(init=False)
    _watching: Watching | None = field(init=False)
    _logbook: Logbook | None = None
    _candidate: int | None = None
    # Models that were in use before, the newest last.
    _earlier: list[int] = field(default_factory=list)
    _releases: int = 0
    # The step whose persons the monitor compares with.
    _reference: int = 0

    def __post_init__(self) -> None:
        self.trainings = Trainings(self.setting, self.folder, self.workers)
        monitored = self.setting.monitored
        self._watching = None
        if monitored is not None:
            if self.logged:
                world, name = self.setting.world, self.setting.scenario.scenario.name
                persons = {site: len(world.window(i, 0)) for i, site in enumerate(world.sites)}
                self._logbook = Logbook.begin(self.folder, name, persons, monitored.table)
            self._watching = Watching(monitored, self.setting.task, self._logbook)

    def run(self) -> None:
        """All steps, in order."""
        for step in range(self.setting.scenario.scenario.steps):
            if step and began_or_ended(self.setting.world, step):
                self.changes.append(step)
            self.moved.append(in_force(self.setting.world, step) != in_force(self.setting.world, self._reference))
            row = self._step(step)
            self.steps.append(row)
            self.watcher(row)
        if self._logbook is not None:
            self._logbook.close(self.folder / LOG)

    def _step(self, step: int) -> StepRow:
        test = self._test(step)
        decisions: list[str] = []
        if self.in_use is None:
            self._put_to_use(self._trained(step, FIRST, None, test))
        met = self.in_use
        metrics, found = self._judged(step, met, test)
        looked = None
        if step and met is not None:
            looked = self._watched(step, met, test, decisions)
            if self._due(step):
                self._put_to_use(self._trained(step, SCHEDULE, self.in_use, test))
        metrics["eps.spent"] = self.trainings.account.epsilon()
        metrics["eps.monitor"] = None if self._watching is None else self._watching.epsilon
        world = self.setting.world
        return StepRow(
            step=step,
            model=-1 if met is None else met,
            metrics=metrics,
            sites=found.sites,
            persons={name: len(world.window(i, step)) for i, name in enumerate(world.sites)},
            drifts=tuple(label(world, drift) for drift in world.truth(step)),
            alarm=_alarm(looked),
            cause=_cause(looked),
            decisions=tuple(decisions),
        )

    # Judging

    def _judged(
        self, step: int, model: int | None, test: Mapping[str, Rows]
    ) -> tuple[dict[str, float | None], Quality]:
        """The step's metrics, of the model that its persons met, and that model's quality."""
        task, models = self.setting.task, self.trainings.models
        found = Quality(None, None, dict.fromkeys(test)) if model is None else quality(task, models[model], test)
        oldest = min(models, default=None)
        kept = None if oldest is None else quality(task, models[oldest], test).accuracy
        own = {} if model is None else self.trainings.own.get(model, {})
        best = self._best(step, test)
        metrics = {
            "accuracy.global": found.accuracy,
            "accuracy.worst_site": min(found.known, default=None),
            "accuracy.best_site": max(found.known, default=None),
            "accuracy.mean_site": float(np.mean(found.known)) if found.known else None,
            "accuracy.personal": own_quality(task, own, test).accuracy if own else None,
            "loss.global": found.loss,
            "accuracy.observed": self._observed(step, model),
            "accuracy.oracle": best,
            "accuracy.kept": kept,
            "regret": self._lost("regret", best, found.accuracy),
            "regret.kept": self._lost("regret.kept", best, kept),
        }
        return metrics, found

    def _lost(self, name: str, best: float | None, accuracy: float | None) -> float:
        """Accuracy lost up to this step: what is not known of a step adds nothing."""
        before = self.steps[-1].metrics[name] if self.steps else 0.0
        return (before or 0.0) + (0.0 if best is None or accuracy is None else best - accuracy)

    def _best(self, step: int, test: Mapping[str, Rows]) -> float | None:
        """The oracle's accuracy: fitted to all sites' persons of this step with their true labels."""
        windows = [self.setting.world.window(i, step) for i in range(len(self.setting.world.sites))]
        x, y = np.concatenate([w.x for w in windows]), np.concatenate([w.y for w in windows])
        if not len(y):
            return None
        everyone = Rows(x, y, np.concatenate([w.persons for w in windows]))
        first = initial_model(self.setting.task, self.setting.scenario.scenario.seed)
        return quality(self.setting.task, best_model(self.setting.task, everyone, first), test).accuracy

    def _observed(self, step: int, model: int | None) -> float | None:
        """What sites see: accuracy by recorded labels on the newest window whose labels are known by now.

        None where a model was trained on that window already, as at step 0.
        """
        newest = self.trainings.newest(step)
        if model is None or newest < 0 or any(newest in t.windows for t in self.trainings.rows[: model + 1]):
            return None
        return quality(self.setting.task, self.trainings.models[model], self._window(newest, step)).accuracy

    def _window(self, window: int, step: int) -> dict[str, Rows]:
        """A window's persons who have not withdrawn by a step, by site, with labels as recorded."""
        world, gone = self.setting.world, self.setting.world.withdrawn(step)
        found = {}
        for i, name in enumerate(world.sites):
            whole = world.window(i, window)
            kept = whole.keep(whole.consent & ~np.isin(whole.persons, gone))
            found[name] = Rows(kept.x, kept.observed, kept.persons)
        return found

    def _test(self, step: int) -> dict[str, Rows]:
        """Held-out persons of every site, with their true labels."""
        world, rows = self.setting.world, self.setting.scenario.run.test_rows
        drawn = {name: world.test(i, step, rows) for i, name in enumerate(world.sites)}
        return {name: Rows(w.x, w.y, w.persons) for name, w in drawn.items()}

    # Watching and deciding

    def _watched(self, step: int, met: int, test: Mapping[str, Rows], decisions: list[str]) -> Looked | None:
        """Look at the step's window, or the newest whose labels are known, and do what follows."""
        window = self.trainings.newest(step)
        if self._watching is None or window < 1:
            return None
        persons, models = self._window(window, step), self.trainings.models
        if self._candidate is not None:
            self._shadow(step, window, persons, decisions)
        fallback = self._fallback(persons)
        names = Models(self._name(self.in_use), None if fallback is None else self._name(fallback))
        looked = self._watching.look(window, models[self.in_use if self.in_use is not None else met], persons, names)
        if looked is None:
            return None
        self.windows.append(window_row(step, looked))
        match looked.decision.action:
            case Action.RETRAIN | Action.PROPOSE_RETRAINING:
                # A simulated person says yes to whatever is proposed.
                decisions.append(str(looked.decision.action))
                self._renew(step, str(looked.decision.action), test)
            case Action.SHADOW if self._candidate is None:
                decisions.append(str(looked.decision.action))
                self._candidate = self._trained(step, CANDIDATE, self.in_use, test)
            case Action.ROLL_BACK if fallback is not None:
                decisions.append(ROLLED_BACK)
                self._put_to_use(fallback)
            case _:
                pass
        return looked

    def _renew(self, step: int, reason: str, test: Mapping[str, Rows]) -> None:
        """Train anew, and put the model to use at once or, if the scenario wants that, after a look in the shadow."""
        number = self._trained(step, reason, self.in_use, test)
        if self.setting.scenario.run.shadow:
            self._candidate = number
        else:
            self._put_to_use(number)

    def _shadow(self, step: int, window: int, persons: Mapping[str, Rows], decisions: list[str]) -> None:
        """Compare the candidate with the model in use on persons that neither was trained on."""
        candidate, current, models = self._candidate, self.in_use, self.trainings.models
        if self._watching is None or candidate is None or current is None:
            return
        if window in self.trainings.cohorts[candidate].windows:
            # Its labels are not known yet: wait for a window that it was not trained on.
            return
        name = self._name(candidate)
        seen = self._watching.shadow(
            window, models[current], models[candidate], persons, Models(self._name(current)), name
        )
        self._candidate = None
        promoted = seen.decision.action is Action.PROMOTE
        decisions.append(PROMOTED if promoted else DISCARDED)
        if promoted:
            self._put_to_use(candidate)

    def _fallback(self, persons: Mapping[str, Rows]) -> int | None:
        """The newest earlier model that answers the persons of this window better than the one in use."""
        task, models = self.setting.task, self.trainings.models
        if self.in_use is None:
            return None
        current = quality(task, models[self.in_use], persons).accuracy
        for number in reversed(self._earlier):
            accuracy = quality(task, models[number], persons).accuracy
            if number == self.in_use:
                continue
            if self._logbook is not None:
                self._logbook.golden(self._name(number), found=accuracy, current=current)
            if accuracy is not None and current is not None and accuracy > current:
                return number
        return None

    def _due(self, step: int) -> bool:
        """Whether the schedule asks for a training, and there are labels that the last one did not know."""
        every = self.setting.scenario.run.retrain_every
        known = max(self.trainings.rows[-1].windows)
        return every is not None and step % every == 0 and self.trainings.newest(step) > known

    def _trained(self, step: int, reason: str, start: int | None, test: Mapping[str, Rows]) -> int | None:
        """Train, and register the model; see `Trainings.train`."""
        number = self.trainings.train(step, reason, start, test)
        if number is not None and self._logbook is not None:
            contract = contract_of(self.setting.scenario, self.trainings.rows[number].rounds)
            parent = None if start is None else self._name(start)
            self._logbook.trained(
                self.trainings.models[number], contract, rounds=contract.training.rounds, parent=parent
            )
        return number

    def _put_to_use(self, number: int | None) -> None:
        """A training's model becomes the one in use."""
        if number is None:
            return
        if self.in_use is not None:
            self._earlier = [*(n for n in self._earlier if n != self.in_use), self.in_use]
        self.in_use = number
        if self._logbook is not None:
            self._logbook.put_to_use(self._name(number))
        cohort = self.trainings.cohorts[number]
        self._reference = max(cohort.windows)
        if self._watching is not None:
            self._watching.release(self._releases, self.trainings.models[number], cohort.train, cohort.windows)
        self._releases += 1

    def _name(self, number: int | None) -> str:
        """A model's digest."""
        return "" if number is None else f"sha256:{self.trainings.rows[number].model_sha256}"


def window_row(step: int, looked: Looked) -> WindowRow:
    """What a window's sum said."""
    measured, decision = looked.measured, looked.decision
    return WindowRow(
        step=step,
        window=measured.window,
        sites=measured.sites,
        rows=measured.rows,
        p={test.name: test.p for test in measured.tests},
        alert=ALERTS[decision.alert],
        evaluable=decision.obstacle is None,
        kinds=tuple(sorted(str(kind) for kind in decision.kinds)),
        speaking=decision.speaking,
        action=str(decision.action),
    )


def _alarm(looked: Looked | None) -> Literal["quiet", "warn", "alarm"] | None:
    if looked is None or looked.decision.obstacle is not None:
        return None
    return ALERTS[looked.decision.alert]


def _cause(looked: Looked | None) -> str | None:
    kinds = () if looked is None else sorted(str(kind) for kind in looked.decision.kinds)
    return ", ".join(kinds) or None
