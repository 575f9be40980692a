"""docs/protocol.md says what the code does: messages, degrees, and which graph a size has."""

import re
import runpy
from pathlib import Path

from fedseal.privacy.secagg.parameters import (
    MAX_COHORT,
    MAX_COMPLETE,
    MAX_DEGREE,
    PROTOCOL_RULES,
    degree_for,
    threshold,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")


def test_the_messages_are_those_of_the_classes() -> None:
    made = runpy.run_path(str(DOCS / "messages.py"))
    assert made["message_table"]() in PAGE, "run: python docs/messages.py"


def test_the_degrees_are_those_of_the_code() -> None:
    head, *lines = re.search(r"\| m, D in % \|(.*\n)\|[-|]+\n((?:\|.*\n)+)", PAGE).group(0).splitlines()  # type: ignore[union-attr]
    sizes = [int(cell.replace(" ", "")) for cell in head.split("|")[2:-1]]
    rows = lines[1:]
    assert len(rows) == 5
    for row in rows:
        first, *cells = row.split("|")[1:-1]
        m, d = map(int, first.split(","))
        for n, cell in zip(sizes, cells, strict=True):
            degree = degree_for(n, n, n * m // 100, n * d // 100, PROTOCOL_RULES.sigma, PROTOCOL_RULES.eta)
            assert tuple(map(int, cell.split(","))) == (degree.neighbours, degree.threshold)


def test_the_thresholds_are_those_of_the_code() -> None:
    n, m, t = (
        [int(x) for x in re.search(rf"^\| {name} \|(.*)\|$", PAGE, re.MULTILINE).group(1).split("|")]  # type: ignore[union-attr]
        for name in "nmt"
    )
    assert [threshold(*pair) for pair in zip(n, m, strict=True)] == t


def test_the_limits_are_those_of_the_code() -> None:
    assert f"Cohorts of 2 to {MAX_COMPLETE} sites" in PAGE
    assert f"(n > {MAX_COMPLETE}, up to {MAX_COHORT:,})" in PAGE
    assert f" = {PROTOCOL_RULES.eta}; a site refuses other values" in PAGE
    assert f" = {PROTOCOL_RULES.sigma} and " in PAGE
    assert f"min({MAX_DEGREE}, n" in PAGE
