"""`compare.html`: the groups of a sweep, one self-contained page."""

from collections.abc import Callable
from pathlib import Path

from fedseal.simulation.scenario import pictures
from fedseal.simulation.scenario.compared import Comparison, Group
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.page import environment


def write_comparison(path: Path, scenario: Scenario, comparison: Comparison) -> None:
    """Write the page."""
    path.write_text(render(scenario, comparison), encoding="utf-8")


def render(scenario: Scenario, comparison: Comparison) -> str:
    """The page as text."""
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            scenario=scenario,
            comparison=comparison,
            groups=comparison.groups,
            differences=_differences(comparison),
            fronts=_fronts(comparison),
            sentence=sentence(comparison),
        )
    )


def sentence(comparison: Comparison) -> str:
    """Which groups differ from the first one beyond chance, in a sentence."""
    first, others = comparison.groups[0], comparison.groups[1:]
    better = [g.name for g in others if g.against is not None and g.against.low is not None and g.against.low > 0]
    worse = [g.name for g in others if g.against is not None and g.against.high is not None and g.against.high < 0]
    if not others:
        return f"One group: {first.name}, over {len(first.seeds)} seeds."
    parts = []
    if better:
        parts.append(f"More accurate than {first.name}: {'; '.join(better)}.")
    if worse:
        parts.append(f"Less accurate than {first.name}: {'; '.join(worse)}.")
    level = len(others) - len(better) - len(worse)
    if level:
        parts.append(f"{level} of {len(others)} others cannot be told from it over these seeds.")
    return " ".join(parts)


def _differences(comparison: Comparison) -> str:
    rows = [
        (g.name, g.against.mean, g.against.low, g.against.high)
        for g in comparison.groups
        if g.against is not None and g.against.low is not None and g.against.high is not None
    ]
    title = f"Accuracy beside {comparison.groups[0].name}, by pairs of seeds"
    return pictures.differences([(n, m, low, high) for n, m, low, high in rows], title) if rows else ""


def _fronts(comparison: Comparison) -> list[str]:
    """Accuracy against each cost that differs between groups."""
    costs: tuple[tuple[str, Callable[[Group], float | None]], ...] = (
        ("epsilon spent", lambda group: group.epsilon_spent),
        ("bytes", lambda group: group.bytes_total),
        ("virtual seconds", lambda group: group.seconds),
    )
    found = []
    for across, cost in costs:
        known = [(g, c) for g in comparison.groups if g.accuracy is not None and (c := cost(g)) is not None]
        if len({c for _, c in known}) > 1:
            points = [(g.name, c, g.accuracy or 0.0, front(g, c, known)) for g, c in known]
            found.append(pictures.pareto(points, across, f"Accuracy against {across}"))
    return found


def front(group: Group, cost: float, known: list[tuple[Group, float]]) -> bool:
    """Whether no other group has as much accuracy for less cost, or more for as much."""
    own = group.accuracy or 0.0
    return not any(
        (other.accuracy or 0.0) >= own and c <= cost and ((other.accuracy or 0.0) > own or c < cost)
        for other, c in known
    )
