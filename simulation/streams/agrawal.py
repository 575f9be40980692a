"""The ten functions of Agrawal, Imielinski and Swami 1993, "Database mining: a performance perspective", appendix."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Truth = NDArray[np.bool_]

FEATURES = ("salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan")
SALARY, COMMISSION, AGE, ELEVEL, CAR, ZIPCODE, HVALUE, HYEARS, LOAN = range(9)
K = 1000.0


def persons(rng: np.random.Generator, rows: int) -> Features:
    """Customers by the paper's table of attributes, shape (rows, 9).

    The value of a house is uniform on 0.5 to 1.5 times k * 100,000, where k depends on the zip code; which k, the
    paper leaves open. Here zip codes 0 to 8 have k = 9 to 1.
    """
    x = np.empty((rows, len(FEATURES)))
    x[:, SALARY] = rng.uniform(20 * K, 150 * K, rows)
    x[:, COMMISSION] = np.where(x[:, SALARY] >= 75 * K, 0.0, rng.uniform(10 * K, 75 * K, rows))
    x[:, AGE] = rng.integers(20, 81, rows)
    x[:, ELEVEL] = rng.integers(0, 5, rows)
    x[:, CAR] = rng.integers(1, 21, rows)
    x[:, ZIPCODE] = rng.integers(0, 9, rows)
    x[:, HVALUE] = (9 - x[:, ZIPCODE]) * 100 * K * rng.uniform(0.5, 1.5, rows)
    x[:, HYEARS] = rng.integers(1, 31, rows)
    x[:, LOAN] = rng.uniform(0.0, 500 * K, rows)
    return x


def _within(values: NDArray[np.float64], low: float, high: float) -> Truth:
    return (low * K <= values) & (values <= high * K)


def _by_age(x: Features, young: Truth, middle: Truth, old: Truth) -> Truth:
    """One condition for those under 40, one for those under 60, one for the others."""
    return np.where(x[:, AGE] < 40, young, np.where(x[:, AGE] < 60, middle, old))


def _schooled(x: Features, low: int, high: int) -> Truth:
    return (low <= x[:, ELEVEL]) & (x[:, ELEVEL] <= high)


def function_1(x: Features) -> Truth:
    """The young and the old."""
    return (x[:, AGE] < 40) | (x[:, AGE] >= 60)


def function_2(x: Features) -> Truth:
    """Age and salary."""
    salary = x[:, SALARY]
    return _by_age(x, _within(salary, 50, 100), _within(salary, 75, 125), _within(salary, 25, 75))


def function_3(x: Features) -> Truth:
    """Age and level of education."""
    return _by_age(x, _schooled(x, 0, 1), _schooled(x, 1, 3), _schooled(x, 2, 4))


def function_4(x: Features) -> Truth:
    """Age, level of education and salary."""
    low, middle, high = (_within(x[:, SALARY], a, a + 50) for a in (25, 50, 75))
    return _by_age(
        x,
        np.where(_schooled(x, 0, 1), low, middle),
        np.where(_schooled(x, 1, 3), middle, high),
        np.where(_schooled(x, 2, 4), middle, low),
    )


def function_5(x: Features) -> Truth:
    """Age, salary and loan."""
    salary, loan = x[:, SALARY], x[:, LOAN]
    first, second, third = (_within(loan, a, a + 200) for a in (100, 200, 300))
    return _by_age(
        x,
        np.where(_within(salary, 50, 100), first, second),
        np.where(_within(salary, 75, 125), second, third),
        np.where(_within(salary, 25, 75), third, first),
    )


def function_6(x: Features) -> Truth:
    """Age and income from salary and commission."""
    income = x[:, SALARY] + x[:, COMMISSION]
    return _by_age(x, _within(income, 50, 100), _within(income, 75, 125), _within(income, 25, 75))


def _earned(x: Features) -> NDArray[np.float64]:
    # Two thirds, as in the generators that are in use; the paper prints 0.67.
    return 2.0 / 3.0 * (x[:, SALARY] + x[:, COMMISSION])


def function_7(x: Features) -> Truth:
    """What is left after the loan."""
    return _earned(x) - 0.2 * x[:, LOAN] - 20 * K > 0


def function_8(x: Features) -> Truth:
    """What is left after education."""
    return _earned(x) - 5 * K * x[:, ELEVEL] - 20 * K > 0


def function_9(x: Features) -> Truth:
    """What is left after education and the loan."""
    return _earned(x) - 5 * K * x[:, ELEVEL] - 0.2 * x[:, LOAN] - 10 * K > 0


def function_10(x: Features) -> Truth:
    """What is left after education, with the equity in a house owned for more than 20 years."""
    equity = 0.1 * x[:, HVALUE] * np.maximum(x[:, HYEARS] - 20, 0)
    return _earned(x) - 5 * K * x[:, ELEVEL] + 0.2 * equity - 10 * K > 0


RULES: tuple[Callable[[Features], Truth], ...] = (
    function_1,
    function_2,
    function_3,
    function_4,
    function_5,
    function_6,
    function_7,
    function_8,
    function_9,
    function_10,
)
