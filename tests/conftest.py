"""What runs by `make test` and what by `make test-all` only: of a test with many cases that cost seconds, a few."""

from collections import Counter

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow the cases that `quick` does not name; UsageError where it names one that there is not."""
    left: dict[str, tuple[str, ...]] = {}
    cases: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("quick")
        if mark is None:
            continue
        test, _, case = item.nodeid.partition("[")
        case = case.removesuffix("]")
        cases[test] += 1
        left[test] = tuple(name for name in left.get(test, mark.args) if name != case)
        if case not in mark.args:
            item.add_marker(pytest.mark.slow)
    # Whoever asks for one case by its name does not see the others.
    unknown = [f"{test}: {name}" for test, names in left.items() for name in names if cases[test] > len(names)]
    if unknown:
        raise pytest.UsageError("`quick` names cases that there are not: " + ", ".join(unknown))
