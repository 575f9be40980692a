"""What a test says: the statistic, its p-value, and beside these what a p-value alone hides."""

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How a p-value was found."""

    SMOOTH = "smooth"
    CHI2 = "chi2"
    CONDITIONAL = "conditional"
    KS = "ks"


class EffectKind(StrEnum):
    """What an effect size measures."""

    # The sum over bins of (p1 - p0)^2 / p, which PSI equals to second order.
    PSI_LIKE = "psi-like"
    # In standard deviations of the reference, after both samples are seen as normal.
    MEAN_SHIFT = "mean-shift"
    # Standard deviation of the window over that of the reference, likewise.
    SCALE_RATIO = "scale-ratio"
    # Share of the window minus share of the reference.
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Effect:
    """An unbiased estimate and its interval, of confidence ``level``. The interval knows sampling and noise alike.

    A PSI-like estimate may be negative: its noise has been taken off, and on no change it is 0 on average.
    """

    kind: EffectKind
    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of one window.

    Attributes:
        method: which test.
        statistic: its value.
        degrees: of freedom of its chi-squared distribution under no change; None where it has another one.
        p: probability of such a statistic, or a larger one, if nothing changed.
        alpha: the level it is compared with, before any correction for several tests.
        power: probability of an alarm at ``alpha`` if the shift that was planned for had happened; None if none was.
        effects: how large the change is.
    """

    # pytest would take it for a class of tests.
    __test__ = False

    method: Method
    statistic: float
    degrees: int | None
    p: float
    alpha: float
    power: float | None = None
    effects: tuple[Effect, ...] = ()

    @property
    def rejects(self) -> bool:
        """Whether this test alone says that something changed."""
        return self.p <= self.alpha
