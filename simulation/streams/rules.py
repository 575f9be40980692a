"""Streams in which a rule says the label of given features: SEA, Agrawal, STAGGER, Sine.

The features' distribution stays; a change of concept is a real concept drift.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.simulation.streams.agrawal import FEATURES as AGRAWAL_FEATURES
from fedseal.simulation.streams.agrawal import RULES as AGRAWAL_RULES
from fedseal.simulation.streams.agrawal import persons as agrawal_persons
from fedseal.simulation.streams.stream import Concepts, DataStream, Features, Labels

# The third of the features does not matter; of the other two a sum above the concept's threshold is positive.
# Street and Kim 2001, section 5.1: four blocks, with these thresholds in this order.
SEA_THRESHOLDS = (8.0, 9.0, 7.0, 9.5)

Rule = Callable[[Features], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Sea:
    """SEA concepts (Street and Kim 2001): three features uniform on [0, 10), the first two matter."""

    features: tuple[str, ...] = ("x1", "x2", "x3")
    classes: tuple[str, ...] = ("below", "above")
    concepts: int | None = len(SEA_THRESHOLDS)
    between: bool = True

    def at(self, site: int) -> DataStream:
        """All sites see the same."""
        return self

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Between two concepts the threshold lies between theirs."""
        x = rng.uniform(0.0, 10.0, (len(concept), 3))
        return x, sea_labels(x, concept)


def sea_labels(x: Features, concept: Concepts) -> Labels:
    """Whether the first two features together are above the concept's threshold."""
    threshold = np.interp(concept, np.arange(len(SEA_THRESHOLDS)), SEA_THRESHOLDS)
    return (x[:, 0] + x[:, 1] > threshold).astype(np.intp)


@dataclass(frozen=True, slots=True)
class RuleStream:
    """A distribution of features and a list of rules, one a concept."""

    features: tuple[str, ...]
    classes: tuple[str, ...]
    make: Callable[[np.random.Generator, int], Features]
    rules: tuple[Rule, ...]
    between: bool = False

    @property
    def concepts(self) -> int | None:
        """One for each rule."""
        return len(self.rules)

    def at(self, site: int) -> DataStream:
        """All sites see the same."""
        return self

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Features first, then each row's label by the rule of its concept."""
        x = self.make(rng, len(concept))
        y = np.zeros(len(x), dtype=np.intp)
        for number in np.unique(concept):
            rows = concept == number
            y[rows] = self.rules[int(number)](x[rows])
        return x, y


def _stagger_1(x: Features) -> NDArray[np.bool_]:
    """Small and red."""
    return np.asarray((x[:, 0] == 0) & (x[:, 1] == 0))


def _stagger_2(x: Features) -> NDArray[np.bool_]:
    """Green or a circle."""
    return np.asarray((x[:, 1] == 2) | (x[:, 2] == 0))


def _stagger_3(x: Features) -> NDArray[np.bool_]:
    """Medium or large."""
    return np.asarray((x[:, 0] == 1) | (x[:, 0] == 2))


def _any_of_three(rng: np.random.Generator, rows: int) -> Features:
    return rng.integers(0, 3, (rows, 3)).astype(np.float64)


def _sine_1(x: Features) -> NDArray[np.bool_]:
    return np.asarray(x[:, 0] < np.sin(x[:, 1]))


def _sine_1_reversed(x: Features) -> NDArray[np.bool_]:
    return ~_sine_1(x)


def _sine_2(x: Features) -> NDArray[np.bool_]:
    return np.asarray(x[:, 0] < 0.5 + 0.3 * np.sin(3.0 * np.pi * x[:, 1]))


def _sine_2_reversed(x: Features) -> NDArray[np.bool_]:
    return ~_sine_2(x)


def _unit_square(rng: np.random.Generator, rows: int) -> Features:
    return rng.random((rows, 2))


# Schlimmer and Granger 1986: sizes small, medium, large; colours red, blue, green; shapes circle, square, triangle.
STAGGER_RULES: tuple[Rule, ...] = (_stagger_1, _stagger_2, _stagger_3)
# Gama, Medas, Castillo and Rodrigues 2004: below a sine is positive, then the reverse; two curves.
SINE_RULES: tuple[Rule, ...] = (_sine_1, _sine_1_reversed, _sine_2, _sine_2_reversed)


def agrawal() -> RuleStream:
    """Ten rules on nine attributes of bank customers (Agrawal, Imielinski and Swami 1993); concept 0 is function 1."""
    return RuleStream(AGRAWAL_FEATURES, ("group B", "group A"), agrawal_persons, AGRAWAL_RULES)


def stagger() -> RuleStream:
    """Three rules on three attributes of three values each, all equally likely (Schlimmer and Granger 1986)."""
    return RuleStream(("size", "colour", "shape"), ("negative", "positive"), _any_of_three, STAGGER_RULES)


def sine() -> RuleStream:
    """Four rules on two features uniform on [0, 1): SINE1, its reverse, SINE2, its reverse (Gama et al. 2004)."""
    return RuleStream(("x1", "x2"), ("negative", "positive"), _unit_square, SINE_RULES)
