"""`report.html`: one self-contained page that a person can read to the end, and that says what is an oracle's word."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import jinja2

from fedseal.simulation import figures
from fedseal.simulation.result import Result, Scores
from fedseal.study import Contract


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    name: str
    scores: Scores
    own: bool
    note: str


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
    environment.filters["kilobytes"] = kilobytes
    rows = comparison_rows(result)
    return environment.get_template("report.html.j2").render(
        result=result,
        contract=contract,
        rows=rows,
        verdict=verdict(result),
        stages=stage_rows(result),
        epsilon=largest_epsilon(result),
        curves=_curves(result),
        comparison=_comparison(result, rows),
        classes=_classes(result),
        budget=_budget(result, contract),
        private=contract.privacy.plan != "none",
    )


def comparison_rows(result: Result) -> list[Row]:
    """The run's own model and all it is compared with, best known ceiling last."""
    private = next(iter(result.privacy.sites.values())).plan.kind != "none"
    budget = next(iter(result.privacy.sites.values())).epsilon_budget
    own = f"sealed, private (epsilon {budget:g})" if private else "sealed, without privacy"
    rows = [Row(own, result.final.global_, True, "this run")]
    rows += [
        Row(f"sealed, private (epsilon {o.epsilon:g})", o.judgement.global_, False, "the same study, another promise")
        for o in result.other_epsilons
    ]
    if result.baselines is None:
        return rows
    found = result.baselines
    constant = "best constant" if found.majority.global_.accuracy is None else "majority class"
    before = [
        Row(constant, found.majority.global_, False, "the best constant answer"),
        Row("each site alone", found.local.global_, False, "median of the sites' own models"),
    ]
    after = [Row("all data pooled", found.pooled.global_, False, "what data protection forbids")]
    if private:
        after.insert(0, Row("sealed, without privacy", found.federated_plain.global_, False, "no noise, no clipping"))
    return before + sorted(rows, key=lambda r: r.name) + after


def verdict(result: Result) -> str:
    """One honest sentence: does the federated model win against a site of its own, and against saying the same to
    everyone?
    """
    if result.baselines is None:
        return "Nothing was compared."
    local, constant = result.baselines.local, result.baselines.majority.global_
    found = (result.final.global_, local.global_, constant)
    accuracies, losses = [s.accuracy for s in found], [s.loss for s in found]
    if None not in accuracies:
        own, alone, most = (a for a in accuracies if a is not None)
        sites = [s.accuracy for s in local.sites.values() if s.accuracy is not None]
        measure, rival = f"by {abs(100 * (own - alone)):.1f} percentage points", "the majority class"
    elif accuracies == [None] * 3 and None not in losses:
        # A study of a number, not of a class. Of a loss the smaller is better: compared with the sign changed.
        own, alone, most = (-loss for loss in losses if loss is not None)
        sites = [-s.loss for s in local.sites.values() if s.loss is not None]
        measure, rival = f"with a loss of {-own:.3g} against {-alone:.3g}, lower is better", "the best constant answer"
    else:
        return "Nothing was compared."
    private = next(iter(result.privacy.sites.values())).plan.kind != "none"
    return _judged(own, alone, most, sites, measure, rival, private=private)


def _judged(
    own: float, alone: float, most: float, sites: list[float], measure: str, rival: str, *, private: bool
) -> str:
    """The sentence for scores of which the larger is better."""
    some = f"{sum(own > a for a in sites)} of the {len(sites)} sites alone"
    noise = ", which trained without noise" if private else ""
    if own <= most:
        promise = "At this promise, this" if private else "This"
        return f"The federated model does not beat {rival}. {promise} federation is not worth it."
    if own > alone:
        return f"The federated model beats the median site alone {measure}, and {some}{noise}."
    place = "level" if own == alone else f"behind {measure}"
    return (
        f"The federated model does not beat the median site alone{noise}: it is {place}. It beats {some}, and {rival}."
    )


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


def _comparison(result: Result, rows: list[Row]) -> str:
    if result.final.global_.accuracy is None:
        return ""
    alone = [] if result.baselines is None else [s.accuracy for s in result.baselines.local.sites.values()]
    dots = {"each site alone": [a for a in alone if a is not None]}
    return figures.comparison([(r.name, r.scores.accuracy, r.own) for r in rows], dots, "Accuracy compared")


def _classes(result: Result) -> str:
    names = list(result.sites)
    classes = list(result.sites[names[0]].classes)
    if not classes:
        return ""
    counts = {c: [result.sites[n].classes[c] for n in names] for c in classes}
    return figures.site_classes(names, counts, "Persons by site and class")


def _budget(result: Result, contract: Contract) -> str:
    spent = [r.epsilon for r in result.rounds]
    if any(e is None for e in spent):
        return ""
    known = [e for e in spent if e is not None]
    return figures.budget([r.number for r in result.rounds], known, contract.privacy.epsilon, "Epsilon spent by round")
