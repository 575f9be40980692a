"""`report.html` of a scenario: one self-contained page that says what is an oracle's word."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from fedseal.simulation import figures
from fedseal.simulation.heterogeneity import heterogeneity, heterogeneity_figure
from fedseal.simulation.report import kilobytes, number
from fedseal.simulation.scenario import pictures
from fedseal.simulation.scenario.gates import value_of
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.outcome import ScenarioResult

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
# A page shows so many sites one by one.
SHOWN = 40
NAMES = {
    "majority": ("majority class", "the best constant answer"),
    "local": ("each site alone", "median of the sites' own models"),
    "federated": ("federated", "this run's first training"),
    "plain": ("federated without privacy", "no noise, no clipping"),
    "pooled": ("all data pooled", "what data protection forbids"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    name: str
    text: str
    accuracy: float | None
    loss: float | None
    own: bool


def environment() -> jinja2.Environment:
    """Templates with the filters that all pages of scenarios use."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["score"] = figures.score
    return made


def write_page(path: Path, scenario: Scenario, result: ScenarioResult) -> None:
    """Write the page."""
    path.write_text(render(scenario, result), encoding="utf-8")


def render(scenario: Scenario, result: ScenarioResult) -> str:
    """The page as text."""
    compared = comparison_rows(result)
    shown = dict(list(result.sites.items())[:SHOWN])
    return (
        environment()
        .get_template("scenario.html.j2")
        .render(
            scenario=scenario,
            result=result,
            tiles=tiles(result),
            verdict=verdict(result),
            timeline=_timeline(result),
            heat=_heat(result),
            done=done(result),
            compared=compared,
            comparison=_comparison(result, compared),
            curves=_curves(result),
            classes=_classes(result),
            shown=shown,
            class_names=list(next(iter(result.sites.values())).classes)[:SHOWN],
            costs=costs(result),
        )
    )


def tiles(result: ScenarioResult) -> list[tuple[str, str]]:
    """The few numbers on top of the page."""
    found = [(figures.score(value_of(result, "accuracy.global")), "accuracy at the end (oracle)")]
    found.append((figures.score(value_of(result, "accuracy.worst_site")), "at the worst site"))
    if len(result.steps) > 1:
        found.append((figures.score(value_of(result, "regret")), "accuracy lost over all steps"))
        found.append((f"{result.whole['trainings']:.0f}", "trainings"))
    epsilon = value_of(result, "eps.spent")
    found.append(
        ("unbounded" if epsilon is None else figures.score(epsilon), "epsilon of the person in most trainings")
    )
    return found


def verdict(result: ScenarioResult) -> str:
    """What came of it, in a sentence or three."""
    sentences = []
    failed = sum(not gate.passed for gate in result.gates)
    if result.gates:
        word = f"{failed} of {len(result.gates)} gates failed." if failed else f"All {len(result.gates)} gates passed."
        sentences.append(word)
    lift = result.whole.get("lift.local")
    if lift is not None:
        side = "above" if lift > 0 else "below"
        sentences.append(f"Federated training is {abs(100 * lift):.1f} percentage points {side} the median site alone.")
    if len(result.steps) > 1:
        last = result.steps[-1].metrics
        now, kept = last.get("accuracy.global"), last.get("accuracy.kept")
        if now is not None and kept is not None:
            sentences.append(
                f"At the end the model in use is right for {100 * now:.1f} % of held-out persons; "
                f"the first one, never retrained, would be for {100 * kept:.1f} %."
            )
    if any(t.aborted for t in result.trainings):
        count = sum(t.aborted is not None for t in result.trainings)
        sentences.append(f"{count} training{'s' * (count > 1)} ended without a model, and released nothing.")
    return " ".join(sentences) or "Nothing was compared."


def done(result: ScenarioResult) -> dict[int, list[str]]:
    """What was done at each step: decisions and trainings."""
    found = {row.step: list(row.decisions) for row in result.steps}
    for t in result.trainings:
        found[t.step].append(f"training {t.number}" + (" aborted" if t.aborted is not None else ""))
    return found


def comparison_rows(result: ScenarioResult) -> list[Row]:
    """Worst first is not guaranteed: in the order of what a model may see."""
    by_name = {c.name: c for c in result.compared}
    private = result.epsilon is not None
    rows = []
    for name, (title, text) in NAMES.items():
        if name in by_name and (private or name != "plain"):
            found = by_name[name]
            rows.append(Row(title, text, found.accuracy, found.loss, name == "federated"))
    return rows


def costs(result: ScenarioResult) -> list[tuple[str, str]]:
    """What the run would cost, in words and numbers."""
    whole = result.whole
    rounds = whole["rounds"] or 0.0
    found = [("rounds", f"{rounds:.0f}"), ("sites missing from a sum, over all rounds", f"{whole['dropouts']:.0f}")]
    found.append(("bytes of all rounds", kilobytes(whole["bytes.total"] or 0.0)))
    for text, name in (("bytes for one site and round", "bytes.per_site_round"),):
        if (value := whole[name]) is not None:
            found.append((text, kilobytes(value)))
    for text, name in (
        ("seconds of a round, mean", "virtual_time.round.mean_s"),
        ("seconds of a round, 95th percentile", "virtual_time.round.p95_s"),
        ("seconds of all rounds", "virtual_time.total_s"),
    ):
        if (value := whole[name]) is not None:
            found.append((text, figures.score(value)))
    return found


def _timeline(result: ScenarioResult) -> str:
    if len(result.steps) < 2:
        return ""
    series = {
        "in use": result.series("accuracy.global"),
        "worst site": result.series("accuracy.worst_site"),
        "best site": result.series("accuracy.best_site"),
        "best possible": result.series("accuracy.oracle"),
        "never retrained": result.series("accuracy.kept"),
    }
    below = {
        "regret": result.series("regret"),
        "epsilon": result.series("eps.spent"),
        "epsilon of monitoring": result.series("eps.monitor"),
    }
    marks = pictures.Marks(
        changed=tuple(row.step for row in result.steps if row.drifts),
        alarms=tuple(row.step for row in result.steps if row.alarm == "alarm"),
        trainings=tuple(t.step for t in result.trainings if t.aborted is None),
        rollbacks=tuple(row.step for row in result.steps if "roll back" in row.decisions),
    )
    return pictures.timeline(series, below, marks, "Accuracy, regret and epsilon by step, with changes and alarms")


def _heat(result: ScenarioResult) -> str:
    names = list(result.sites)[:SHOWN]
    return pictures.heat(
        names, [[row.sites.get(n) for row in result.steps] for n in names], "Accuracy by site and step"
    )


def _comparison(result: ScenarioResult, rows: list[Row]) -> str:
    if not rows:
        return ""
    alone = next((c.sites for c in result.compared if c.name == "local"), {})
    dots = {"each site alone": [v for v in alone.values() if v is not None]}
    return figures.comparison([(r.name, r.accuracy, r.own) for r in rows], dots, "Accuracy compared", loss=False)


def _curves(result: ScenarioResult) -> str:
    rounds = [row for row in result.rounds if row.training == 0]
    if not rounds:
        return ""
    return figures.curves(
        [r.number for r in rounds],
        {"accuracy": [r.accuracy for r in rounds]},
        "Oracle accuracy by round of the first training",
    )


def _classes(result: ScenarioResult) -> str:
    classes = list(next(iter(result.sites.values())).classes)
    table = np.array([[row.classes[c] for c in classes] for row in result.sites.values()], dtype=np.intp)
    return heterogeneity_figure(heterogeneity(list(result.sites), classes, table))
