"""Privacy plans are values: a plan says exactly what runs at a site and yields what is charged for it.

Fields of a plan are public: they stand in the signed header. What they are applied to (how many persons a site holds,
who they are) is not, and is no part of a plan. A plan never says how fast something runs: that is `Performance`,
which cannot change what is charged.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, TypeAlias

import dp_accounting

from fedseal.errors import PeerError
from fedseal.wire import F64, U32, DecodeError, decode, encode


class PlanKind(IntEnum):
    """The kinds of plan this build runs."""

    NONE = 0
    LOCAL = 1


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

    def event(self, releases: int) -> dp_accounting.DpEvent:
        """What the accountant is told: a release without protection, which no budget can pay for."""
        return dp_accounting.NonPrivateDpEvent() if releases else dp_accounting.NoOpDpEvent()


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

    def event(self, releases: int) -> dp_accounting.DpEvent:
        """What `releases` releases of this plan are, enough for accounting and no more."""
        if releases == 0:
            return dp_accounting.NoOpDpEvent()
        step: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sample_rate < 1:
            step = dp_accounting.PoissonSampledDpEvent(self.sample_rate, step)
        return dp_accounting.SelfComposedDpEvent(step, self.steps * releases)


PrivacyPlan: TypeAlias = NoPrivacy | LocalGaussian
PLANS: tuple[type[PrivacyPlan], ...] = (NoPrivacy, LocalGaussian)


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
