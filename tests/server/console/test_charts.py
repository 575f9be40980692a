"""Where things are drawn, and what axes say."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedseal.server.console.charts import (
    APART,
    BOTTOM,
    LEFT,
    MOST_COLUMNS,
    TOP,
    WIDE,
    column_chart,
    label_of,
    line_chart,
    nice,
    whole_ticks,
)
from fedseal.server.console.view import figure, span

AXES = ("round", "mean")
finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, finite)
def test_round_values_enclose_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    steps = nice(low, high)
    tolerance = 1e-6 * max(1.0, abs(low), abs(high))
    assert steps[0] <= low + tolerance
    assert steps[-1] >= high - tolerance
    assert 2 <= len(steps) <= 9
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0.0, 8.0, ["0", "2", "4", "6", "8"]),
        (0.0, 0.0, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (0.0, 8000.0, ["0", "2,000", "4,000", "6,000", "8,000"]),
    ],
)
def test_what_axes_say(low: float, high: float, labels: list[str]) -> None:
    steps = nice(low, high)
    assert [label_of(step, steps) for step in steps] == labels


def test_whole_numbers_are_few_and_begin_with_the_first() -> None:
    assert whole_ticks(1, 6) == [1, 2, 3, 4, 5, 6]
    assert whole_ticks(0, 0) == [0]
    for last in (7, 50, 99, 1000, 12345):
        ticks = whole_ticks(1, last)
        assert ticks[0] == 1
        assert len(ticks) <= 10


@given(st.lists(st.lists(finite, min_size=1, max_size=80), min_size=1, max_size=7))
def test_lines_stay_within_the_chart(values: list[list[float]]) -> None:
    series = [(f"s{n}", list(enumerate(points))) for n, points in enumerate(values)]
    chart = line_chart("name", "says", AXES, series)
    assert chart is not None
    for line in chart.lines:
        for point in line.points.split(" "):
            x, y = map(float, point.split(","))
            assert LEFT <= x <= WIDE.width - WIDE.names
            assert TOP - 1 <= y <= WIDE.height - BOTTOM + 1
    ends = sorted(line.end[1] for line in chart.lines)
    assert all(b - a >= APART - 0.2 for a, b in pairwise(ends))


def test_a_limit_is_within_the_chart() -> None:
    chart = line_chart("n", "s", AXES, [("spent", [(0.0, 0.0), (1.0, 1.0)])], limit=(8.0, "planned"), from_zero=True)
    assert chart is not None
    assert chart.limit is not None
    assert (chart.limit.at, chart.y_ticks[0].text) == (TOP, "0")


def test_columns_stand_on_each_other_and_are_the_last_ones() -> None:
    columns = [(number, [1.0, 2.0]) for number in range(1, 101)]
    chart = column_chart("n", "s", AXES, ("a", "b"), columns)
    assert chart is not None
    assert len(chart.blocks) == 2 * MOST_COLUMNS
    first, second = chart.blocks[:2]
    assert math.isclose(second.y + second.height, first.y, abs_tol=0.11)
    assert chart.x_ticks[0].text == "41"


def test_nothing_is_no_chart() -> None:
    assert line_chart("n", "s", AXES, [("a", [])]) is None
    assert column_chart("n", "s", AXES, ("a",), []) is None


def test_figures_and_spans() -> None:
    values = (math.inf, 0.00001, 12345.6, 0.5, 6.7112, 1e12)
    assert [figure(v) for v in values] == ["∞", "1e-5", "12,346", "0.5", "6.71", "1e12"]
    assert [span(s) for s in (-1, 0.05, 3.14159, 59, 600, 7300, 1e6)] == [
        *("0 s", "50 ms", "3.1 s", "59 s", "10 min", "2 h", "11 days"),
    ]
