"""Gates as JUnit XML, which every continuous integration shows."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fedseal.simulation.scenario.outcome import GateRow

_ALLOWED = {"\t", "\n", "\r"}


def junit(suites: Mapping[str, Sequence[GateRow]], seconds: float) -> str:
    """One suite for every run or group of runs, one case for every gate."""
    everything = [row for rows in suites.values() for row in rows]
    root = Element("testsuites", _counts(everything) | {"time": f"{seconds:.3f}"})
    for name, rows in suites.items():
        suite = SubElement(root, "testsuite", {"name": _text(name)} | _counts(rows) | {"time": f"{seconds:.3f}"})
        for row in rows:
            case = SubElement(suite, "testcase", {"classname": _text(f"fedseal.{name}"), "name": _text(row.gate)})
            if not row.passed:
                SubElement(case, "failure", {"message": _text(outcome(row))}).text = _text(outcome(row))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def outcome(row: GateRow) -> str:
    """What was found, in words."""
    if row.value is None:
        return row.reason or "no value"
    return f"found {row.value:.6g}" + ("" if row.bound is None else f", bound {row.bound:.6g}")


def _counts(rows: Sequence[GateRow]) -> dict[str, str]:
    return {"tests": str(len(rows)), "failures": str(sum(not row.passed for row in rows)), "errors": "0"}


def _text(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return "".join(c for c in text if c in _ALLOWED or ord(c) >= 32)
