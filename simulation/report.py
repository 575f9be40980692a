"""`report.html`: one self-contained page that a person can read to the end, and that says what is an oracle's word."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import jinja2

from fedseal.simulation import figures
from fedseal.simulation.result import Result, Scores
from fedseal.study import Contract


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison. ``epsilon`` is the promise; infinite without one."""

    name: str
    scores: Scores
    own: bool
    note: str
    epsilon: float = math.inf

    def cells(self, names: list[str]) -> list[str]:
        """The row's scores of these names, for people."""
        found = self.scores.named()
        return [figures.score(found.get(name)) for name in names]


@dataclass(frozen=True, slots=True)
class StageRow:
    """Mean cost of one exchange a round."""

    name: str
    milliseconds: float
    down: float
    up: float


def write_report(path: Path, result: Result, contract: Contract) -> None:
    """Write the page."""
    path.write_text(render(result, contract), encoding="utf-8")


def render(result: Result, contract: Contract) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["score"] = figures.score
    environment.filters["label"] = label
    environment.filters["kilobytes"] = kilobytes
    rows = comparison_rows(result)
    return environment.get_template("report.html.j2").render(
        result=result,
        contract=contract,
        rows=rows,
        names=metric_names(result),
        measure=_measure(result),
        tiles=_tiles(result),
        verdict=verdict(result),
        stages=stage_rows(result),
        graph=graph_sentence(result),
        epsilon=largest_epsilon(result),
        intervals=_intervals(result),
        reliability=_reliability(result),
        curves=_curves(result),
        panels=_panels(result),
        comparison=_comparison(result, rows),
        classes=_classes(result),
        budget=_budget(result, contract),
        clips=_clips(result),
        clip_sentence=clip_sentence(result),
        private=contract.privacy.plan != "none",
    )


def comparison_rows(result: Result) -> list[Row]:
    """The run's own model and all it is compared with, best known ceiling last."""
    private = next(iter(result.privacy.sites.values())).plan.kind != "none"
    budget = next(iter(result.privacy.sites.values())).epsilon_budget
    own = f"sealed, private (epsilon {budget:g})" if private else "sealed, without privacy"
    rows = [Row(own, result.final.global_, True, "this run", budget if private else math.inf)]
    for o in result.other_epsilons:
        name, note = f"sealed, private (epsilon {o.epsilon:g})", "the same study, another promise"
        rows.append(Row(name, o.judgement.global_, False, note, o.epsilon))
    rows.sort(key=lambda r: (r.epsilon, r.name))
    if result.baselines is None:
        return rows
    found = result.baselines
    before = [Row("each site alone", found.local.global_, False, "median of the sites' own models")]
    if found.majority is not None:
        constant = "best constant" if found.majority.global_.accuracy is None else "majority class"
        before.insert(0, Row(constant, found.majority.global_, False, "the best constant answer"))
    after = [Row("all data pooled", found.pooled.global_, False, "what data protection forbids")]
    if private:
        after.insert(0, Row("sealed, without privacy", found.federated_plain.global_, False, "no noise, no clipping"))
    return before + rows + after


def metric_names(result: Result) -> list[str]:
    """What this study measures: the loss, accuracy and AUC if it has them, and its further metrics in its own order."""
    scores = [row.scores for row in comparison_rows(result)] + [entry.oracle for entry in result.rounds]
    known = {name for found in scores for name, value in found.named().items() if value is not None}
    return ["loss", *(name for name in ("accuracy", "auc") if name in known), *result.final.global_.further]


NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "calibration_gap": "calibration gap",
    "selection_rate": "selection rate",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
}


def label(name: str) -> str:
    """A metric's name as people read it: the study's own, but for those that are ours."""
    return NAMES.get(name, name)


def verdict(result: Result) -> str:
    """One honest sentence: does the federated model win against a site of its own, and against saying the same to
    everyone, where a constant can be judged?
    """
    if result.baselines is None:
        return "Nothing was compared."
    local, constant = result.baselines.local, result.baselines.majority
    found = [result.final.global_, local.global_, *([] if constant is None else [constant.global_])]
    accuracies, losses = [s.accuracy for s in found], [s.loss for s in found]
    if None not in accuracies:
        own, alone, *most = (a for a in accuracies if a is not None)
        sites = [s.accuracy for s in local.sites.values() if s.accuracy is not None]
        measure, rival = f"by {abs(100 * (own - alone)):.1f} percentage points", "the majority class"
    elif accuracies == [None] * len(found) and None not in losses:
        # A study of a number, not of a class. Of a loss the smaller is better: compared with the sign changed.
        own, alone, *most = (-loss for loss in losses if loss is not None)
        sites = [-s.loss for s in local.sites.values() if s.loss is not None]
        measure, rival = f"with a loss of {-own:.3g} against {-alone:.3g}, lower is better", "the best constant answer"
    else:
        return "Nothing was compared."
    private = next(iter(result.privacy.sites.values())).plan.kind != "none"
    return _judged(own, alone, most, sites, measure, rival, private=private)


def _judged(
    own: float, alone: float, most: list[float], sites: list[float], measure: str, rival: str, *, private: bool
) -> str:
    """The sentence for scores of which the larger is better; ``most`` is the best constant's, if it has one."""
    some = f"{sum(own > a for a in sites)} of the {len(sites)} sites alone"
    noise = ", which trained without noise" if private else ""
    if most and own <= most[0]:
        promise = "At this promise, this" if private else "This"
        return f"The federated model does not beat {rival}. {promise} federation is not worth it."
    if own > alone:
        return f"The federated model beats the median site alone {measure}, and {some}{noise}."
    place = "level" if own == alone else f"behind {measure}"
    beaten = f"{some}, and {rival}" if most else some
    return f"The federated model does not beat the median site alone{noise}: it is {place}. It beats {beaten}."


def graph_sentence(result: Result) -> str:
    """Who shared with whom in the last round, and how sure that is; empty where a file does not say."""
    graph = result.rounds[-1].graph if result.rounds else None
    if graph is None:
        return ""
    shared = (
        f"Of {graph.members} sites each shared its keys with {graph.degree} others; "
        f"{graph.threshold} shares rebuild a key."
    )
    if graph.kind == "complete":
        return f"{shared} Up to {graph.dropouts} may fall silent. None of this rests on chance."
    return (
        f"{shared} The graph is random: with probability {_power(graph.secrecy_bound)} at most it would not protect "
        f"against {graph.colluders} colluding sites ({graph.sigma} bits are asked for), and with "
        f"{_power(graph.failure_bound)} at most {graph.dropouts} silent sites would stop the round ({graph.eta} bits)."
    )


def _power(probability: float) -> str:
    """A probability as a power of two, rounded up."""
    return "0" if probability <= 0 else f"2^{math.ceil(10 * math.log2(probability)) / 10:.1f}"


def largest_epsilon(result: Result) -> float | None:
    """The federation's epsilon: people belong to one site, so the largest of the sites'. None if unbounded."""
    found = [p.epsilon for p in result.privacy.sites.values()]
    return None if None in found else max(e for e in found if e is not None)


def stage_rows(result: Result) -> list[StageRow]:
    """Mean seconds and bytes of each exchange a round."""
    names = list(result.rounds[0].stages)
    return [
        StageRow(
            name,
            1000 * mean(r.stages[name].seconds for r in result.rounds),
            mean(r.stages[name].bytes_down for r in result.rounds) / len(result.sites),
            mean(r.stages[name].bytes_up for r in result.rounds) / len(result.sites),
        )
        for name in names
    ]


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def kilobytes(value: float) -> str:
    """Bytes for people."""
    return f"{value / 1000:.1f} kB" if value < 1e6 else f"{value / 1e6:.1f} MB"


def _curves(result: Result) -> str:
    numbers = [r.number for r in result.rounds]
    series = {"accuracy": [r.oracle.accuracy for r in result.rounds], "AUC": [r.oracle.auc for r in result.rounds]}
    known = {name: values for name, values in series.items() if any(v is not None for v in values)}
    return figures.curves(numbers, known, "Oracle accuracy and AUC by round") if known else ""


def _panels(result: Result) -> str:
    """What has a scale of its own: the study's further metrics, and the loss of a study that knows no accuracy."""
    names = list(result.final.global_.further)
    names = ["loss", *names] if _measure(result) == "loss" else names
    series = {name: [r.oracle.named().get(name) for r in result.rounds] for name in names}
    title = "Oracle values of the loss and the study's own metrics by round"
    return figures.panels([r.number for r in result.rounds], series, title) if series else ""


def _intervals(result: Result) -> str:
    """The private evaluation's scores with their noise intervals, and the oracle's beside them."""
    if result.evaluation is None:
        return ""
    rows = [
        (label(name), e.value, e.low, e.high, e.oracle)
        for name, e in result.evaluation.estimates.items()
        if name != "persons" and e.value is not None and e.low is not None and e.high is not None
    ]
    return figures.intervals(rows, "Private evaluation with noise intervals, beside the oracle") if rows else ""


def _reliability(result: Result) -> str:
    """How far scores can be believed, from the private evaluation."""
    card = None if result.evaluation is None else result.evaluation.card
    rows = []
    for row in () if card is None else card.reliability:
        values = (row.score.value, row.positives.value, row.positives.low, row.positives.high, row.persons.value)
        known = [v for v in values if v is not None]
        if len(known) == len(values):
            rows.append((known[0], known[1], known[2], known[3], known[4]))
    return figures.reliability(rows, "Reliability of scores with noise intervals") if rows else ""


def _measure(result: Result) -> str:
    """What models are compared by: accuracy, and in a study that has none the loss."""
    return "loss" if result.final.global_.accuracy is None else "accuracy"


def _tiles(result: Result) -> list[tuple[str, float]]:
    """The few scores on top of the page, by name."""
    found = result.final.global_.named()
    names = [_measure(result), *(name for name in found if name not in {"loss", "accuracy"})]
    return [(name, value) for name in names if (value := found[name]) is not None][:3]


def _comparison(result: Result, rows: list[Row]) -> str:
    measure = _measure(result)
    alone = {} if result.baselines is None else result.baselines.local.sites
    dots = {"each site alone": [v for s in alone.values() if (v := s.named()[measure]) is not None]}
    scores = [(r.name, r.scores.named()[measure], r.own) for r in rows]
    return figures.comparison(scores, dots, f"{measure} compared".capitalize(), loss=measure == "loss")


def _classes(result: Result) -> str:
    names = list(result.sites)
    classes = list(result.sites[names[0]].classes)
    if not classes:
        return ""
    counts = {c: [result.sites[n].classes[c] for n in names] for c in classes}
    return figures.site_classes(names, counts, "Persons by site and class")


def _clips(result: Result) -> str:
    """The clip norm round by round, and the noisy share it followed, where it adapts."""
    norms = [r.clip_norm for r in result.rounds]
    if None in norms:
        return ""
    series = {"clip norm": norms, "not clipped, noisy share": [r.unclipped for r in result.rounds]}
    return figures.panels(
        [r.number for r in result.rounds], series, "Clip norm and share of those not clipped by round"
    )


def clip_sentence(result: Result) -> str:
    """What the clip norm followed; empty where it is fixed."""
    plan = next(iter(result.privacy.sites.values())).plan
    rule = plan.adaptive_clip
    if rule is None or not result.rounds:
        return ""
    counted = "sites" if plan.kind == "client" else "persons"
    return (
        f"After each round the clip norm moves towards the {rule.quantile:g} quantile of the norms, from "
        f"{rule.lowest:g} to {rule.highest:g}, by a count with noise of {rule.count_deviation:.3g} {counted} or more "
        "in it. These numbers are no oracle's: every server has them, and epsilon covers them."
    )


def _budget(result: Result, contract: Contract) -> str:
    spent = [r.epsilon for r in result.rounds]
    if any(e is None for e in spent):
        return ""
    known = [e for e in spent if e is not None]
    return figures.budget([r.number for r in result.rounds], known, contract.privacy.epsilon, "Epsilon spent by round")
