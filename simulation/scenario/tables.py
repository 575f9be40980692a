"""The scenario language: one TOML file, every table a frozen model (docs/schemas/scenario-1.json)."""

import difflib
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fedseal.config import Frozen
from fedseal.simulation.scenario.metrics import KINDS, METRIC_NAMES, Kind
from fedseal.study import Cohort, Privacy, Training

Baseline = Literal["golden", "majority", "local", "pooled", "plain", "oracle", "kept"]
BASELINES: tuple[str, ...] = ("golden", "majority", "local", "pooled", "plain", "oracle", "kept")


class Head(Frozen):
    """What the scenario is. ``steps`` is how many windows of new persons arrive, one after the other; with 1 nothing
    changes over time. ``seed`` fixes every draw. ``schema`` is the version of this language.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    title: str = ""
    seed: int = Field(default=1, ge=0, lt=2**63)
    steps: int = Field(default=1, ge=1, le=1000)
    schema_version: Literal[1] = Field(default=1, alias="schema")


class Run(Training):
    """How the model is trained: the keys of a study's training (docs/studies.md), and these.

    ``model`` is multinomial logistic regression or one hidden layer of ``hidden`` units. The first training has
    ``rounds`` rounds, a later one begins with the model in use and has ``retrain_rounds``. ``train_on`` is how many of
    the newest windows with known labels a training sees. Without ``[monitor]`` nothing but ``retrain_every`` steps
    starts a training. With ``shadow`` a model that the monitor had trained is first compared with the one in use on the
    next window, and put to use if it is not worse. ``test_rows`` is how many held-out persons of each site judge
    the model at every step (oracle values).

    ``secagg = "model"`` adds in the clear in the protocol's integers and charges its bytes and noise, ``"real"`` runs
    the protocol with all its keys and masks, and gives the same sums. With the first ``engine`` says how sites compute:
    ``one-by-one`` as real ones do, or many at once, which is faster for a thousand sites and adds floats in another
    order, so every engine has digests of its own. ``[run.privacy]`` is the promise of one training,
    ``[run.cohort]`` who takes part, both as in a study.
    """

    rounds: int = Field(default=15, ge=1, le=10_000)
    learning_rate: float = Field(default=0.5, gt=0)
    sample_rate: float = Field(default=0.25, ge=1e-6, le=1)
    model: Literal["logistic", "mlp"] = "logistic"
    hidden: int = Field(default=16, ge=1, le=4096)
    secagg: Literal["real", "model"] = "model"
    engine: Literal["one-by-one", "batched", "vmap"] = "one-by-one"
    retrain_rounds: int = Field(default=8, ge=1, le=10_000)
    retrain_every: int | None = Field(default=None, ge=1)
    train_on: int = Field(default=1, ge=1, le=1000)
    shadow: bool = False
    test_rows: int = Field(default=200, ge=10, le=100_000)
    privacy: Privacy = Privacy(plan="none")
    cohort: Cohort = Cohort(minimum=2)

    @model_validator(mode="after")
    def _independent(self) -> "Run":
        if self.batch_level:
            raise ValueError("batch_level goes with losses that couple persons; a scenario's models have none")
        return self


class Sweep(Frozen):
    """Every combination of these is a run of its own: strategies, seeds, and promises (0 stands for plan none).

    Comparisons are by pairs of the same seed.
    """

    strategy: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    epsilon: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "Sweep":
        for name, values in (("strategy", self.strategy), ("seed", self.seed), ("epsilon", self.epsilon)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names a value twice")
        if any(seed < 0 for seed in self.seed) or any(epsilon < 0 for epsilon in self.epsilon):
            raise ValueError("seeds and epsilons are not negative")
        return self


class Gate(Frozen):
    """A condition that a run has to meet: ``metric op value``.

    ``at`` says which step of a metric that every step has: the last (``"end"``), a step's number from 0, or the
    ``"mean"``, ``"min"`` or ``"max"`` over steps. With ``baseline`` the difference is judged: ``drop<=`` allows a value
    so much lower than the baseline's, ``rise<=`` so much higher. ``"golden"`` is the scenario's recorded figure, the
    others are what every report compares with. ``confidence`` asks that the mean over the sweep's seeds meets the
    condition with the margin of a one-sided Student interval.
    """

    metric: str = Field(json_schema_extra={"enum": list(METRIC_NAMES)})
    op: Literal[">=", "<=", ">", "<", "==", "drop<=", "rise<="]
    value: float
    at: int | Literal["end", "mean", "min", "max"] = "end"
    baseline: Baseline | None = None
    confidence: float | None = Field(default=None, gt=0.5, lt=1)

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in KINDS:
            return name
        near = difflib.get_close_matches(name, METRIC_NAMES, n=1)
        raise ValueError(
            f"no metric is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else f": {', '.join(KINDS)}")
        )

    @model_validator(mode="after")
    def _compared(self) -> "Gate":
        if (self.op in ("drop<=", "rise<=")) != (self.baseline is not None):
            raise ValueError("drop<= and rise<= go with a baseline, and a baseline with one of them")
        if self.baseline not in (None, "golden") and self.metric != "accuracy.global":
            raise ValueError(f"baseline {self.baseline!r} is known for accuracy.global only")
        if self.at != "end" and KINDS[self.metric] is Kind.WHOLE:
            raise ValueError(f"{self.metric} has one value for the whole scenario: leave at out")
        return self
