"""`result.json` of a scenario: all that a run found, in a documented and versioned schema
(docs/schemas/scenario-result-1.json).

Everything but ``accuracy.observed``, alarms, decisions, bytes, seconds and epsilon is an oracle's: a simulation alone
knows the truth.
"""

import hashlib
from typing import Literal

from pydantic import Field

from fedseal.config import Frozen


class RoundRow(Frozen):
    """One round of one training. ``seconds`` are those of the virtual clock; ``asked`` sites were wanted, ``sites`` are
    in the sum. ``accuracy`` and ``loss`` are of the model after it, by the oracle.
    """

    training: int
    step: int
    number: int
    asked: int
    sites: int
    seconds: float
    bytes_down: int
    bytes_up: int
    accuracy: float | None
    loss: float | None
    sites_accuracy: dict[str, float | None] = Field(default_factory=dict)


class TrainingRow(Frozen):
    """One training: at which step, why, on which windows, how many persons of how many sites, and what became of it.

    ``epsilon`` is the promise of this one training (null: unbounded); ``aborted`` says why there is no model.
    """

    number: int
    step: int
    reason: str
    windows: tuple[int, ...]
    persons: int
    sites: int
    rounds: int
    epsilon: float | None
    aborted: str | None = None
    model_sha256: str | None = None


class StepRow(Frozen):
    """One step: the model in use when its persons arrived (the number of its training), and what was measured with it.

    ``drifts`` are the changes that are in force (truth). ``alarm`` is what the monitor says (null: nothing was
    monitored, or not evaluable), ``cause`` its classification, ``decisions`` what the policy did.
    """

    step: int
    model: int
    metrics: dict[str, float | None]
    sites: dict[str, float | None]
    persons: dict[str, int]
    drifts: tuple[str, ...] = ()
    alarm: Literal["quiet", "warn", "alarm"] | None = None
    cause: str | None = None
    decisions: tuple[str, ...] = ()


class WindowRow(Frozen):
    """What the monitor made of one window: the p-value of every test, knowing the noise in the sum.

    ``rows`` is the noisy number of persons, ``speaking`` names the tests that stand out, ``kinds`` what they amount to.
    """

    step: int
    window: int
    sites: int
    rows: float
    p: dict[str, float]
    alert: Literal["quiet", "warn", "alarm"]
    evaluable: bool
    kinds: tuple[str, ...]
    speaking: tuple[str, ...]
    action: str


class Compared(Frozen):
    """A model the run is compared with, on the persons of the first training; ``sites`` by each site's own persons."""

    name: Literal["federated", "majority", "local", "plain", "pooled"]
    accuracy: float | None
    loss: float | None
    sites: dict[str, float | None]


class SiteRow(Frozen):
    """A site: persons of the first window by class, and how far its labels are from everyone's."""

    persons: int
    classes: dict[str, int]
    hellinger: float


class GateRow(Frozen):
    """A gate and how it ended. ``value`` is what was judged, a difference where there is a baseline; ``bound`` the end
    of the confidence interval where that was judged.
    """

    gate: str
    metric: str
    passed: bool
    value: float | None
    bound: float | None = None
    reason: str = ""


class ScenarioResult(Frozen):
    """The whole file. ``whole`` holds the metrics that a scenario has once; ``digest`` is a hash of everything that the
    scenario and its seed fix, whatever the number of workers (no wall-clock time is in it). ``versions`` are those it
    ran with, ``origin`` the folder that names of files in the scenario start from.
    """

    schema_version: Literal[1] = 1
    simulated: Literal[True] = True
    scenario: str
    title: str
    scenario_sha256: str
    run: str
    seed: int
    strategy: str
    epsilon: float | None
    delta: float | None
    secagg: Literal["real", "model"]
    created: str
    seconds: float
    steps: tuple[StepRow, ...]
    trainings: tuple[TrainingRow, ...]
    rounds: tuple[RoundRow, ...]
    windows: tuple[WindowRow, ...] = ()
    compared: tuple[Compared, ...]
    sites: dict[str, SiteRow]
    heterogeneity: dict[str, float]
    whole: dict[str, float | None]
    gates: tuple[GateRow, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    origin: str = ""
    digest: str = ""

    def series(self, metric: str) -> list[float | None]:
        """A metric's value at every step; None where it has none."""
        return [row.metrics.get(metric) for row in self.steps]


# What differs between two runs of the same thing, or is judged by hand afterwards.
UNFIXED = {"run", "created", "seconds", "gates", "digest", "versions", "origin"}


def run_digest(result: ScenarioResult) -> str:
    """SHA-256 of everything that the scenario and its seed fix: every metric, round and decision, and the models."""
    return hashlib.sha256(result.model_dump_json(exclude=UNFIXED).encode()).hexdigest()
