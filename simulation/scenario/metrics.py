"""What a scenario measures: a closed list of names, so that a gate on a misspelt metric is an error and not a pass."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How often a metric has a value: at every step, or once for the whole scenario."""

    STEP = "step"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """A metric's name, how often it has a value, and what it is; ``oracle`` values exist in a simulation only."""

    name: str
    kind: Kind
    oracle: bool
    text: str


METRICS: tuple[MetricFacts, ...] = (
    MetricFacts("accuracy.global", Kind.STEP, True, "accuracy on held-out persons of all sites, by the true labels"),
    MetricFacts("accuracy.worst_site", Kind.STEP, True, "the same at the site where it is lowest"),
    MetricFacts("accuracy.best_site", Kind.STEP, True, "the same at the site where it is highest"),
    MetricFacts("accuracy.mean_site", Kind.STEP, True, "the mean of the sites' accuracies, every site counting once"),
    MetricFacts(
        "accuracy.personal",
        Kind.STEP,
        True,
        "of strategies that leave every site a model of its own: each on its own site's held-out persons",
    ),
    MetricFacts("loss.global", Kind.STEP, True, "mean cross-entropy on the same held-out persons"),
    MetricFacts(
        "accuracy.observed",
        Kind.STEP,
        False,
        "accuracy on the step's own persons before they are trained on, by the labels recorded",
    ),
    MetricFacts(
        "accuracy.oracle",
        Kind.STEP,
        True,
        "accuracy of a model trained at every step on all sites' pooled persons with their true labels",
    ),
    MetricFacts("accuracy.kept", Kind.STEP, True, "accuracy of the first model, had it never been retrained"),
    MetricFacts("regret", Kind.STEP, True, "accuracy.oracle minus accuracy.global, added up over the steps so far"),
    MetricFacts("regret.kept", Kind.STEP, True, "the same of the first model, had it never been retrained"),
    MetricFacts("eps.spent", Kind.STEP, False, "epsilon of all trainings so far for the person who took part in most"),
    MetricFacts("eps.monitor", Kind.STEP, False, "epsilon of all monitoring so far for one person"),
    MetricFacts(
        "drift.delay", Kind.WHOLE, True, "steps from a change to the first alarm, the longest of all changes noticed"
    ),
    MetricFacts("drift.missed", Kind.WHOLE, True, "changes that no alarm followed"),
    MetricFacts(
        "drift.false_alarms_per_100", Kind.WHOLE, True, "alarms in steps where nothing had changed, for 100 such steps"
    ),
    MetricFacts("alarms", Kind.WHOLE, False, "steps that ended with an alarm"),
    MetricFacts("trainings", Kind.WHOLE, False, "trainings finished, the first one included"),
    MetricFacts("promotions", Kind.WHOLE, False, "retrained models that were put to use"),
    MetricFacts("rollbacks", Kind.WHOLE, False, "returns to an earlier model"),
    MetricFacts("trainings.aborted", Kind.WHOLE, False, "trainings that ended without a model; nothing was released"),
    MetricFacts("rounds", Kind.WHOLE, False, "rounds finished"),
    MetricFacts("dropouts", Kind.WHOLE, False, "sites that were asked and are not in a round's sum, over all rounds"),
    MetricFacts("lift.majority", Kind.WHOLE, True, "accuracy above the majority class, at the first training"),
    MetricFacts("lift.local", Kind.WHOLE, True, "accuracy above the median site alone, at the first training"),
    MetricFacts("gap.pooled", Kind.WHOLE, True, "accuracy below all data pooled, at the first training"),
    MetricFacts("gap.plain", Kind.WHOLE, True, "accuracy below the same training without privacy, at the first one"),
    MetricFacts("bytes.total", Kind.WHOLE, False, "bytes of all rounds, down and up, all sites"),
    MetricFacts("bytes.per_site_round", Kind.WHOLE, False, "the same for one site and one round"),
    MetricFacts("virtual_time.round.mean_s", Kind.WHOLE, False, "seconds of a round on the virtual clock, mean"),
    MetricFacts("virtual_time.round.p95_s", Kind.WHOLE, False, "the same, 95th percentile"),
    MetricFacts("virtual_time.total_s", Kind.WHOLE, False, "the same, all rounds"),
    MetricFacts(
        "privacy.advantage",
        Kind.WHOLE,
        True,
        "how much better than a coin the model's losses tell a person "
        "trained on from one who was not (Yeom et al. 2018)",
    ),
)
METRIC_NAMES: tuple[str, ...] = tuple(m.name for m in METRICS)
KINDS: dict[str, Kind] = {m.name: m.kind for m in METRICS}
