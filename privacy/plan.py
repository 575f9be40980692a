"""Privacy plans are values: a plan says exactly what runs at a site and yields what is charged for it.

Fields of a plan are public: they stand in the signed header. What they are applied to (how many persons a site holds,
who they are) is not, and is no part of a plan. A plan never says how fast something runs: that is `Performance`,
which cannot change what is charged.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from fedseal.errors import PeerError
from fedseal.privacy.accounting import rdp_at
from fedseal.privacy.skellam_accounting import pure_rdp, sensitivities, skellam_rdp
from fedseal.wire import F64, U8, U32, U64, DecodeError, decode, encode

if TYPE_CHECKING:
    # Imported where it counts, see accounting.py.
    import dp_accounting


class PlanKind(IntEnum):
    """The kinds of plan this build runs."""

    NONE = 0
    LOCAL = 1
    DISTRIBUTED = 2
    CLIENT = 3
    HISTOGRAM = 4

    @property
    def label(self) -> str:
        """As contracts and policies write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPrivacy:
    """Nothing is clipped for privacy and no noise is added: the sum is exact.

    A site's policy has to allow it by name.
    """

    TAG: ClassVar[int] = 50
    kind: ClassVar[PlanKind] = PlanKind.NONE

    releases: U32
    retries: U32

    def __post_init__(self) -> None:
        if self.releases < 1:
            raise ValueError("a plan needs at least one release")

    @property
    def attempts(self) -> int:
        """How many releases and retries of them the plan is for."""
        return self.releases + self.retries

    def event(self, releases: int) -> "dp_accounting.DpEvent":
        """What the accountant is told: a release without protection, which no budget can pay for."""
        import dp_accounting

        return dp_accounting.NonPrivateDpEvent() if releases else dp_accounting.NoOpDpEvent()

    def divergence(self, order: float) -> float:
        """The Rényi divergence of one release: unbounded."""
        return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGaussian:
    """Noise at the site: the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016), one item per person, add or
    remove one.

    In each of ``steps`` steps of a release every person is drawn with probability ``sample_rate``; each drawn
    person's vector is clipped to ``clip_norm`` in L2; Gaussian noise of standard deviation ``noise_multiplier *
    clip_norm`` is added to their sum. DP-SGD is this with gradients; a noisy mean is this with ``sample_rate=1,
    steps=1``. What the site does with the result afterwards is free.

    ``releases`` are planned and ``retries`` more are reserved: a round that has to be repeated is a second release.
    """

    TAG: ClassVar[int] = 51
    kind: ClassVar[PlanKind] = PlanKind.LOCAL

    clip_norm: F64
    noise_multiplier: F64
    sample_rate: F64
    steps: U32
    releases: U32
    retries: U32

    def __post_init__(self) -> None:
        # Beyond these no plan is sensible, and float32 no longer keeps what the accountant assumes.
        if not 1e-6 <= self.clip_norm <= 1e6 or not 1e-3 <= self.noise_multiplier <= 2.0**21:
            raise ValueError("expected clip_norm from 1e-6 to 1e6 and noise_multiplier from 0.001 to 2^21")
        if not 1e-6 <= self.sample_rate <= 1:
            raise ValueError("expected sample_rate from 1e-6 to 1")
        if self.steps < 1 or self.releases < 1:
            raise ValueError("a plan needs at least one step and one release")

    @property
    def attempts(self) -> int:
        """How many releases and retries of them the plan is for."""
        return self.releases + self.retries

    def event(self, releases: int) -> "dp_accounting.DpEvent":
        """What `releases` releases of this plan are, enough for accounting and no more."""
        import dp_accounting

        if releases == 0:
            return dp_accounting.NoOpDpEvent()
        step: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sample_rate < 1:
            step = dp_accounting.PoissonSampledDpEvent(self.sample_rate, step)
        return dp_accounting.SelfComposedDpEvent(step, self.steps * releases)

    def divergence(self, order: float) -> float:
        """A bound on the Rényi divergence of one release at ``order``."""
        return rdp_at(self.event(1), order)


class Unit(IntEnum):
    """Whose data is protected: a person's, or all that a site has."""

    PERSON = 0
    SITE = 1


def moves(unit: Unit) -> int:
    """By how many clip norms one person moves a sum of clipped contributions of a unit.

    A person's own contribution is there or not: one. A site's update is another one with a person than without, and
    two updates of the clip norm may lie two clip norms apart. The budgets that are charged are those of persons.
    """
    return 2 if unit is Unit.SITE else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSkellam:
    """Noise in shares: every site adds Skellam noise to its whole numbers before they are masked (Agarwal, Kairouz and
    Liu 2021), and only the sum is ever seen.

    With ``unit`` PERSON a site sums over all its persons, each person's vector clipped to ``clip_norm`` in L2; with
    SITE it clips its whole update to that. ``clip_norm`` is ``resolution`` integer units, and the vector has
    ``length`` coordinates; both with the rounding decide the sensitivity. ``variance`` is that of the noise in each
    coordinate of the sum, in squared integer units, counting only sites that are honest and did not drop out: what
    each site adds follows from the round's header, see `shares`.
    """

    TAG: ClassVar[int] = 52

    unit: U8
    clip_norm: F64
    resolution: U64
    length: U32
    variance: U64
    releases: U32
    retries: U32

    def __post_init__(self) -> None:
        if self.unit not in tuple(Unit) or not 1e-6 <= self.clip_norm <= 1e6:
            raise ValueError("expected a unit of privacy and clip_norm from 1e-6 to 1e6")
        # Room for a million persons at 2^52; a variance that one share can be drawn with and that has Gaussian tails.
        if not 16 <= self.resolution <= 1 << 44 or self.length < 1 or not 1 << 10 <= self.variance <= 1 << 50:
            raise ValueError("expected resolution from 16 to 2^44, a length, and variance from 2^10 to 2^50")
        if self.releases < 1:
            raise ValueError("a plan needs at least one release")

    @property
    def kind(self) -> PlanKind:
        """Distributed, or client for the unit SITE."""
        return PlanKind.CLIENT if self.unit == Unit.SITE else PlanKind.DISTRIBUTED

    @property
    def attempts(self) -> int:
        """How many releases and retries of them the plan is for."""
        return self.releases + self.retries

    @property
    def noise_multiplier(self) -> float:
        """The noise's standard deviation in the sum as a multiple of the clip norm."""
        return math.sqrt(self.variance) / self.resolution

    @property
    def moves(self) -> int:
        """By how many clip norms one person moves the exact sum."""
        return moves(Unit(self.unit))

    def divergence(self, order: float) -> float:
        """A bound on the Rényi divergence of one release at ``order``."""
        l2, l1 = sensitivities(self.moves * self.resolution, self.length)
        return skellam_rdp(order, self.variance, l2, l1)


# One rounding of doubles between the server's step and a site's check of it.
_STEP_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSkellam:
    """Noise in shares with a clip norm that follows a quantile of the norms (Andrew, Thakkar, McMahan and Ramaswamy
    2021): with the vector a noisy count of those who were not clipped is released, and the next clip norm is
    C exp(-eta (share of them - gamma)).

    ``vector`` is the plan of the vector in the first round; later rounds differ in nothing but their clip norm, which
    stays from ``lowest`` to ``highest``. Who was not clipped counts ``count_units`` / 2, who was counts minus that, in
    integer units under noise of the same variance. ``quantile`` is gamma, ``rate`` is eta.

    Noise grows and shrinks with the clip norm, for it is fixed in integer units: what a release costs does not depend
    on the clip norm, nor on whether the server follows the rule.
    """

    TAG: ClassVar[int] = 54

    vector: SharedSkellam
    count_units: U64
    lowest: F64
    highest: F64
    quantile: F64
    rate: F64

    def __post_init__(self) -> None:
        if not 1e-6 <= self.lowest <= self.vector.clip_norm <= self.highest <= 1e6:
            raise ValueError("expected 1e-6 <= lowest <= clip_norm <= highest <= 1e6")
        # Even, so that half of it is whole and never rounded; no larger than what the vector leaves room for.
        if self.count_units % 2 or not 2 <= self.count_units <= 2 * self.vector.resolution:
            raise ValueError("expected even count_units from 2 to twice the resolution")
        if not 0 <= self.quantile <= 1 or not 0 < self.rate <= 2:
            raise ValueError("expected a quantile from 0 to 1, and a rate above 0, at most 2")

    @property
    def kind(self) -> PlanKind:
        """Distributed, or client for the unit SITE."""
        return self.vector.kind

    @property
    def releases(self) -> int:
        """How many releases the plan is for."""
        return self.vector.releases

    @property
    def retries(self) -> int:
        """How many retries of them are reserved."""
        return self.vector.retries

    @property
    def attempts(self) -> int:
        """How many releases and retries of them the plan is for."""
        return self.vector.attempts

    @property
    def clip_norm(self) -> float:
        """That of the first round."""
        return self.vector.clip_norm

    @property
    def noise_multiplier(self) -> float:
        """Of the vector: the noise's standard deviation in the sum as a multiple of the round's clip norm."""
        return self.vector.noise_multiplier

    @property
    def count_deviation(self) -> float:
        """The noise's standard deviation in the count, in persons or sites: the paper's sigma_b."""
        return math.sqrt(self.vector.variance) / self.count_units

    def divergence(self, order: float) -> float:
        """A bound on the Rényi divergence of one release at ``order``: vector and count are one vector."""
        far = self.vector.moves
        l2, l1 = sensitivities(far * self.vector.resolution, self.vector.length, far * self.count_units)
        return skellam_rdp(order, self.vector.variance, l2, l1)

    def at(self, clip_norm: float) -> SharedSkellam:
        """What covers the vector in a round with this clip norm; ValueError outside of the plan's interval."""
        if not self.lowest <= clip_norm <= self.highest:
            raise ValueError("expected a clip norm within the plan's interval")
        return replace(self.vector, clip_norm=clip_norm)

    def following(self, clip_norm: float, unclipped: float) -> float:
        """The next round's clip norm: the paper's geometric update, kept within the interval.

        Args:
            clip_norm: this round's.
            unclipped: the noisy share of those who were not clipped; beyond 0 and 1 it is as good as those.
        """
        share = min(max(unclipped, 0.0), 1.0)
        return min(max(clip_norm * math.exp(-self.rate * (share - self.quantile)), self.lowest), self.highest)

    def reach(self, clip_norm: float, rounds: int) -> tuple[float, float]:
        """The least and the largest clip norm that the rule can lead to in so many rounds, whatever was counted."""
        if rounds == 0:
            return clip_norm, clip_norm
        # Of a factor that no double holds the interval is all that is left.
        down = min(self.rate * (1 - self.quantile) * rounds, 100.0)
        up = min(self.rate * self.quantile * rounds, 100.0)
        slack = 1 + _STEP_SLACK
        least, most = clip_norm * math.exp(-down) / slack, clip_norm * math.exp(up) * slack
        return max(least, self.lowest), min(most, self.highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedGeometric:
    """Two-sided geometric noise in shares on counts, of pure ``epsilon``: the sum of the honest survivors' shares has
    probabilities proportional to exp(-|x| epsilon / cells).

    One person moves the ``length`` counts by at most ``cells`` in L1: by counting once in each of so many, say.
    """

    TAG: ClassVar[int] = 53
    kind: ClassVar[PlanKind] = PlanKind.HISTOGRAM

    epsilon: F64
    cells: U32
    length: U32
    releases: U32
    retries: U32

    def __post_init__(self) -> None:
        if self.releases < 1 or self.cells < 1 or self.length < 1:
            raise ValueError("a plan needs at least one release, one cell, and one cell a person")
        if not 2.0**-10 <= self.epsilon / self.cells <= 64:
            raise ValueError("expected epsilon from 2^-10 to 64 a cell")

    @property
    def attempts(self) -> int:
        """How many releases and retries of them the plan is for."""
        return self.releases + self.retries

    @property
    def decay(self) -> float:
        """The rate at which the probabilities of the noise fall: epsilon a cell."""
        return self.epsilon / self.cells

    def divergence(self, order: float) -> float:
        """A bound on the Rényi divergence of one release at ``order``."""
        return pure_rdp(order, self.epsilon)


PrivacyPlan: TypeAlias = NoPrivacy | LocalGaussian | SharedSkellam | SharedGeometric | AdaptiveSkellam
# Plans whose noise is added inside the sealed sum.
SharedPlan: TypeAlias = SharedSkellam | SharedGeometric
PLANS: tuple[type[PrivacyPlan], ...] = (NoPrivacy, LocalGaussian, SharedSkellam, SharedGeometric, AdaptiveSkellam)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What may change without changing privacy or results beyond rounding: how many persons' gradients are held at
    once.
    """

    physical_batch: int = 512


def encode_plan(plan: PrivacyPlan) -> bytes:
    """The canonical bytes that stand in headers and ledgers."""
    return encode(plan)


def decode_plan(data: bytes) -> PrivacyPlan:
    """The plan in a header; PeerError if there is none that this build runs."""
    try:
        return decode(data, *PLANS)
    except DecodeError as error:
        raise PeerError(f"a privacy plan that this build does not run: {error.message}", peer="server") from None
