"""What was charged to whom, against what was promised."""

import math
from dataclasses import dataclass

from fastapi import Request, Response

from fedseal.compliance.lineage.opening import opened
from fedseal.errors import ConfigError
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.charts import SMALL, Chart, line_chart
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import BUDGETS
from fedseal.server.console.spending import Population, read_spending
from fedseal.server.console.view import show

router = page_router(BUDGETS)
REFRESH = 60


@dataclass(frozen=True, slots=True)
class Account:
    """A population, and how its budget was spent: None where there is no curve to draw."""

    population: Population
    chart: Chart | None


@dataclass(frozen=True, slots=True)
class BudgetsFacts:
    """What the page says. ``begun``: whether there is a log yet."""

    begun: bool
    accounts: tuple[Account, ...]


@router.get("/budgets")
def budgets(request: Request, visitor: Admitted) -> Response:
    """The page."""
    found = spending_of(console_of(request).log)
    accounts = tuple(Account(one, _chart(one)) for one in found or ())
    return show(request, visitor, BUDGETS, "budgets.html", BudgetsFacts(found is not None, accounts), refresh=REFRESH)


def spending_of(log: str) -> tuple[Population, ...] | None:
    """What was charged, by the log; None where the log has not begun."""
    try:
        with opened(log) as (source, questions, _):
            return read_spending(questions.connection) if source.size else None
    except ConfigError:
        return None


def _chart(one: Population) -> Chart | None:
    if not one.curve or math.isinf(one.curve[-1][1]):
        return None
    says = f"By Rényi accounting epsilon rose to {one.curve[-1][1]:.3g} after {one.releases} releases"
    limit = None
    if one.promised is not None:
        says += f"; {one.promised:g} is promised"
        limit = (one.promised, f"promised {one.promised:g}")
    elif one.planned is not None:
        says += f"; the plans are for {one.planned[0]}, and {one.planned[1]:.3g}"
        limit = (one.planned[1], f"planned {one.planned[1]:.3g}")
    points = [(0.0, 0.0), *((float(count), epsilon) for count, epsilon in one.curve)]
    return line_chart(
        f"Spent by {one.site}",
        f"{says}.",
        ("releases", "epsilon"),
        [("spent", points)],
        limit=limit,
        from_zero=True,
        size=SMALL,
    )
