"""`result.json`: what a simulation found, in a documented and versioned schema (docs/result-schema.md,
docs/schemas/result-1.json).
"""

from typing import Literal

from pydantic import Field

from fedseal.config import Frozen


class Scores(Frozen):
    """A model's quality on some test persons. A metric is null where it is undefined, such as AUC with one class only.

    A study's further metrics stand in ``further``, under the names that the study gives them.
    """

    loss: float | None
    accuracy: float | None = None
    auc: float | None = None
    further: dict[str, float | None] = Field(default_factory=dict)

    def named(self) -> dict[str, float | None]:
        """All of them by name, the loss first."""
        return {"loss": self.loss, "accuracy": self.accuracy, "auc": self.auc} | self.further


class Judgement(Frozen):
    """A model judged on the common test persons and on those of each site.

    Simulation only: nobody else can know this.

    For the baseline ``local``, ``global`` is the median over sites, and each site's entry is its own model on the
    common test persons.
    """

    global_: Scores = Field(alias="global")
    sites: dict[str, Scores]


class Baselines(Frozen):
    """What the federated model has to be compared with.

    ``majority`` is null where the study's loss or metrics ask the model for something that a constant cannot answer.
    """

    majority: Judgement | None
    local: Judgement
    federated_plain: Judgement
    pooled: Judgement


class AdaptiveClip(Frozen):
    """How a clip norm adapts. ``count_deviation`` is the noise in the count it follows, in persons or sites."""

    quantile: float
    learning_rate: float
    lowest: float
    highest: float
    count_deviation: float


class PlanFacts(Frozen):
    """The plan that ran. Noise fields are null under plan none, those of local steps also where there are none. Where
    the clip norm adapts, ``clip_norm`` is the first round's.

    Under plans distributed and client ``noise_multiplier`` is that of the noise in the sealed sum.
    """

    kind: Literal["none", "local", "distributed", "client"]
    clip_norm: float | None = None
    adaptive_clip: AdaptiveClip | None = None
    noise_multiplier: float | None = None
    sample_rate: float | None = None
    steps_per_release: int | None = None
    releases: int


class SitePrivacy(Frozen):
    """One site's ledger.

    ``epsilon`` is the tight number for what was released (null: unbounded), ``epsilon_enforced`` what the ledger
    counts against ``epsilon_budget``.
    """

    plan: PlanFacts
    epsilon: float | None
    epsilon_enforced: float | None
    epsilon_budget: float
    delta: float
    releases: int


class Privacy(Frozen):
    """Privacy of all sites."""

    unit: Literal["person"] = "person"
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"
    sites: dict[str, SitePrivacy]


class Stage(Frozen):
    """One exchange of a round: seconds, and bytes from the server to all sites and back."""

    seconds: float
    bytes_down: int
    bytes_up: int


class Graph(Frozen):
    """Who shared with whom in a round, and with what probability that does not hold (docs/protocol.md).

    ``kind``: ``complete`` up to 256 sites, ``sparse`` above; ``sigma`` and ``eta`` are null on the complete graph.
    """

    kind: Literal["complete", "sparse"]
    members: int
    colluders: int
    dropouts: int
    degree: int
    threshold: int
    sum_minimum: int
    sigma: int | None
    eta: int | None
    secrecy_bound: float
    failure_bound: float


class Round(Frozen):
    """One round.

    ``oracle`` holds scores on the test persons, ``sealed`` metrics that came out of the secure sum (plan none only).
    Where the clip norm adapts, ``clip_norm`` is the round's and ``unclipped`` the noisy share of persons (plan client:
    of sites) who were not clipped, which may lie beyond 0 and 1.
    """

    number: int
    seconds: float
    sites: int
    attempts: int
    clipped: float
    epsilon: float | None
    oracle: Scores
    sealed: Scores | None
    stages: dict[str, Stage]
    graph: Graph | None = None
    clip_norm: float | None = None
    unclipped: float | None = None


class Epsilon(Frozen):
    """The same study under another promise."""

    epsilon: float
    judgement: Judgement
    epsilon_spent: float | None


class Estimate(Frozen):
    """A number of the private evaluation: ``low`` to ``high`` is the 95 % interval that its noise leaves open for the
    exact number on the same persons, ``bin_error`` what bins may add to that. All but ``oracle`` a real federation has
    too; ``oracle`` is the exact number, which only a simulation knows (null where it has none of that name).
    """

    value: float | None
    low: float | None
    high: float | None
    bin_error: float
    oracle: float | None


class Interval(Frozen):
    """A number of the model card with its 95 % noise interval, as in `Estimate`."""

    value: float | None
    low: float | None
    high: float | None


class Reliability(Frozen):
    """Persons with scores from ``low`` to ``high``: how many, their mean score, and the share of class 1. Both are null
    where there are too few persons to tell from noise.
    """

    low: float
    high: float
    persons: Interval
    score: Interval
    positives: Interval


class Threshold(Frozen):
    """Rates if every score of at least ``score`` says class 1."""

    score: float
    selection_rate: Interval
    tpr: Interval
    fpr: Interval


class Conformal(Frozen):
    """A split-conformal rule: a class is in the set where one minus its score is at most ``quantile``. Scores from
    ``abstain_from`` to ``abstain_to`` have both classes or none: there the model should abstain.
    """

    coverage: float
    level: float
    quantile: float
    abstain_from: float
    abstain_to: float
    abstains: float


class Recalibration(Frozen):
    """Platt's scaling of a score's logit, and the temperature that does without an intercept."""

    slope: float
    intercept: float
    temperature: float


class Group(Frozen):
    """One subgroup. A hidden one has no estimates."""

    hidden: bool
    estimates: dict[str, Interval]


class Subgroups(Frozen):
    """All groups of one attribute; those below ``smallest`` persons are hidden, and never one alone. ``gaps`` are those
    between the groups that are shown.
    """

    attribute: str
    smallest: int
    groups: dict[str, Group]
    gaps: dict[str, Interval]


class Card(Frozen):
    """What the same release says beyond single figures; costs nothing beyond it."""

    reliability: list[Reliability]
    thresholds: list[Threshold]
    conformal: Conformal | None
    recalibration: Recalibration | None
    subgroups: Subgroups | None


class Evaluation(Frozen):
    """The one private evaluation of the final model on test persons, who have a ledger of their own.

    ``epsilon`` is the pure one of the release, ``epsilon_spent`` what their ledgers say (delta as in
    ``privacy.sites``), ``epsilon_budget`` the promise to them. ``noise_deviation`` is that of the noise in every count.
    ``card`` is null where no table has scores.
    """

    plan: Literal["histogram"] = "histogram"
    tables: list[str]
    epsilon: float
    epsilon_spent: float
    epsilon_budget: float
    sites: int
    noise_deviation: float
    estimates: dict[str, Estimate]
    card: Card | None = None


class Site(Frozen):
    """How much a site holds. Simulation only."""

    train: int
    validation: int
    test: int
    public_persons: int
    classes: dict[str, int]


class LogFacts(Frozen):
    """The federation's log at the end of the run: its newest checkpoint, how many of the sites have cosigned it,
    whether these are a quorum, and how many entries of each type it has. Its files are in the run's folder ``log``.
    """

    origin: str
    entries: int
    root: str
    cosigned: int
    witnesses: int
    final: bool
    types: dict[str, int]


class Result(Frozen):
    """The whole file. ``notes`` say what the reader should know of this run, a sentence each."""

    schema_version: Literal[1] = 1
    simulated: Literal[True] = True
    study: str
    title: str
    run: str
    seed: int
    strategy: str
    created: str
    seconds: float
    sites: dict[str, Site]
    final: Judgement
    metric_errors: dict[str, float]
    baselines: Baselines | None
    other_epsilons: list[Epsilon]
    privacy: Privacy
    rounds: list[Round]
    threshold: int
    colluders: int
    model_sha256: str
    digest: str
    notes: list[str] = Field(default_factory=list)
    log: LogFacts | None = None
    evaluation: Evaluation | None = None
