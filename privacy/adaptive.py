"""A clip norm that adapts: what the server makes of the noisy count, and which clip norm a site accepts.

The rule is `AdaptiveSkellam.following`. A site cannot see that the server follows it, and need not: a release costs
the same at every clip norm, for its noise is as many times the clip norm as the plan says. What a site holds a server
to is what it was told: the interval, and that a clip norm is one the rule can lead to from the one before. So nobody
moves it to where all updates are noise, or everyone is clipped to nothing, faster than the rule could.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedseal.errors import PeerError
from fedseal.privacy.plan import AdaptiveSkellam, Unit
from fedseal.privacy.quantize import UNCLIPPED, IntegerSum
from fedseal.wire import F64, U32


@dataclass(frozen=True, slots=True)
class AcceptedClip:
    """The clip norm that a site accepted last in a run, and in which round of it."""

    TAG: ClassVar[int] = 63

    fl_round: U32
    clip_norm: F64


@dataclass(frozen=True, slots=True)
class ClipStep:
    """What a round said of its clip norm: ``unclipped`` is the noisy share of those who were not clipped, which may
    lie beyond 0 and 1, ``following`` the next round's clip norm.
    """

    clip_norm: float
    unclipped: float
    following: float


def accepted(plan: AdaptiveSkellam, fl_round: int, clip_norm: float, before: AcceptedClip | None) -> AcceptedClip:
    """What a site remembers of a header, if the rule can have led to its clip norm.

    Args:
        plan: the run's.
        fl_round: the header's.
        clip_norm: the header's, from its range of values.
        before: what was accepted before; None at the first header of a run.

    Raises:
        PeerError: the round is none of the plan's or one before the last; or its clip norm is outside of the interval,
            another one than at the last attempt at this round, or further away than the rule goes in so many rounds.
    """
    last = before or AcceptedClip(1, plan.clip_norm)
    if not last.fl_round <= fl_round <= plan.releases:
        raise PeerError("a round that is none of its plan's, or one before the last", peer="server")
    least, most = plan.reach(last.clip_norm, fl_round - last.fl_round)
    if not least <= clip_norm <= most:
        raise PeerError("a clip norm to which the plan's rule cannot have led from the one before", peer="server")
    return AcceptedClip(fl_round, clip_norm)


def clip_step(plan: AdaptiveSkellam, clip_norm: float, total: IntegerSum) -> ClipStep:
    """What a finished sum says of its clip norm.

    Everyone counts plus or minus a half, so the share is a half more than the mean: over the public number of persons,
    or the sites.
    """
    count = float(total.real(UNCLIPPED)[0])
    of = total.weight if plan.vector.unit == Unit.PERSON else total.sites
    share = 0.5 + count / of
    return ClipStep(clip_norm, share, plan.following(clip_norm, share))
