"""Noise in shares: what each site adds to its integers, what room that takes in the ring, and which headers a site
refuses under such a plan.

The adversary is the server with m sites; their noise counts for nothing, for they know it. A round goes on only while
at least ``header.minimum`` sites are left, which every honest site checks at every stage; at least ``minimum - m`` of
them are honest. Each site makes its share large enough for that smallest number, so a sum with less noise than its
plan says cannot come about: with fewer sites there is no sum at all.
"""

import math
from dataclasses import dataclass

from fedseal.errors import PeerError
from fedseal.privacy.plan import AdaptiveSkellam, PrivacyPlan, SharedGeometric, SharedPlan, SharedSkellam, Unit
from fedseal.privacy.polya import polya
from fedseal.privacy.quantize import UNCLIPPED, BoundedUpdate, signed
from fedseal.privacy.randomness import Stream
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.skellam import skellam
from fedseal.privacy.tabulated import Integers

# Of the whole noise's standard deviation, when no site drops out: beyond, a Gaussian has 2^-106 of its mass.
HEADROOM_DEVIATIONS = 12
# ln 2^106: how many decays of geometric noise have as little mass beyond them.
HEADROOM_DECAYS = 74


def is_shared(plan: PrivacyPlan) -> bool:
    """Whether sites add shares of this plan's noise inside the sealed sum."""
    return isinstance(plan, SharedSkellam | SharedGeometric | AdaptiveSkellam)


def noise_minimum(plan: PrivacyPlan, sites: int, colluders: int, site_minimum: int) -> int:
    """t_min for a header: how many sites the plan's noise needs. As many as the round needs anyway; 0 where sites add
    noise of their own, or none.
    """
    return minimum_sites(threshold(sites, colluders), site_minimum, colluders, 0) if is_shared(plan) else 0


@dataclass(frozen=True, slots=True)
class Room:
    """How a plan with shared noise lies in the ring, for one cohort: ``sites`` add shares, of which ``honest`` are
    counted on.

    ``plan`` is that of the round's vector. ``count_units``: of the count of who was not clipped; 0 if none is taken.
    """

    plan: SharedPlan
    sites: int
    honest: int
    count_units: int = 0

    def scale(self, largest_weight: int) -> float:
        """Integer units of one unit of the values that a site sends, which are weighted by at most 1.

        A person's part of them is clip_norm / largest_weight, a site's is clip_norm: ``resolution`` units either way.
        """
        match self.plan:
            case SharedSkellam(unit=Unit.PERSON, resolution=units, clip_norm=clip):
                return units * largest_weight / clip
            case SharedSkellam(resolution=units, clip_norm=clip):
                return units / clip
            case SharedGeometric():
                return 1.0

    def value_range(self, largest_weight: int) -> float:
        """What a coordinate of a site's values may be at most: the clip norm, or as many persons as a site may have."""
        return self.plan.clip_norm if isinstance(self.plan, SharedSkellam) else float(largest_weight)

    def largest_count(self, largest_weight: int) -> float:
        """By how much one site may move the count of who was not clipped: half for each person, or half."""
        by_person = isinstance(self.plan, SharedSkellam) and self.plan.unit == Unit.PERSON
        return largest_weight / 2 if by_person else 0.5

    @property
    def in_a_ball(self) -> bool:
        """Whether a site's values lie in a ball of that range; counts do not."""
        return isinstance(self.plan, SharedSkellam)

    @property
    def headroom(self) -> int:
        """How far the noise of all sites may lead a sum beyond what their values can make."""
        match self.plan:
            case SharedSkellam():
                total = self.sites * share_variance(self.plan, self.honest)
                return math.ceil(HEADROOM_DEVIATIONS * math.sqrt(total))
            case SharedGeometric(decay=decay):
                # The shares that are not counted on make at most so many whole noises more.
                return math.ceil(self.sites / self.honest) * math.ceil(HEADROOM_DECAYS / decay)


def room(plan: PrivacyPlan, *, sites: int, minimum: int, colluders: int, clip_norm: float | None = None) -> Room | None:
    """The room of a plan in a cohort of ``sites``, never fewer than ``minimum`` at the end; None if no noise is
    shared.

    Args:
        plan: the plan.
        sites: how many add shares.
        minimum: how many are left at least.
        colluders: how many of them work with the server.
        clip_norm: the round's, where it adapts; the plan's first if not given.

    Raises:
        ValueError: the clip norm is outside of the plan's interval.
    """
    if isinstance(plan, AdaptiveSkellam):
        vector = plan.at(plan.clip_norm if clip_norm is None else clip_norm)
        return Room(vector, sites, minimum - colluders, plan.count_units)
    if not isinstance(plan, SharedSkellam | SharedGeometric):
        return None
    return Room(plan, sites, minimum - colluders)


def room_of(header: Header, plan: PrivacyPlan) -> Room | None:
    """The room that a header's layout has to leave, after the conditions under which its noise is what the plan says.

    Raises:
        PeerError: a plan with shared noise and a header that could lead to a sum with too little of it.
    """
    if not is_shared(plan):
        return None
    if header.colluders < 1:
        raise PeerError(
            "shared noise in a round that trusts every site: each could subtract its own share",
            peer="server",
            next_step="Run the round with colluders of at least 1.",
        )
    if not header.colluders < header.noise_minimum <= len(header.cohort):
        raise PeerError(
            "a round whose noise would be too little: noise_minimum does not say how many sites have to be left",
            peer="server",
        )
    clip_norm = header.layout.segments[0].high if isinstance(plan, AdaptiveSkellam) else None
    sites, colluders = len(header.cohort), header.colluders
    try:
        # Counted on is what the noise needs, not what else the header asks for.
        found = room(plan, sites=sites, minimum=header.noise_minimum, colluders=colluders, clip_norm=clip_norm)
    except ValueError:
        raise PeerError("a clip norm outside of the interval that its plan names", peer="server") from None
    plan = plan if found is None else found.plan
    if isinstance(plan, SharedSkellam | SharedGeometric) and header.layout.segments[0].length != plan.length:
        raise PeerError("a vector of another length than its plan was charged for", peer="server")
    return found


def share_variance(plan: SharedSkellam, honest: int) -> int:
    """The variance of one site's share, even and rounded up: ``honest`` of them have at least the plan's."""
    return 2 * -(-plan.variance // (2 * honest))


def draw_share(plan: SharedPlan, honest: int, length: int, stream: Stream) -> Integers:
    """One site's share of the noise, int64, shape (length,).

    Args:
        plan: what noise.
        honest: how many such shares are counted on.
        length: how many coordinates.
        stream: where the bits come from.
    """
    match plan:
        case SharedSkellam():
            return skellam(share_variance(plan, honest), stream, length)
        case SharedGeometric(decay=decay):
            return polya(honest, decay, stream, length)


def add_share(update: BoundedUpdate, room: Room, stream: Stream) -> None:
    """Add a site's share to its first segment, and to the count of who was not clipped if there is one: in place, in
    the ring, after rounding and before masking.

    A share is unbounded; one so large that it wrapped around would change the sum, never the protection.
    """
    names = [update.layout.segments[0].name, *([UNCLIPPED] if room.count_units else [])]
    for name in names:
        place = update.layout.offsets()[name]
        vector = signed(update.vector[place])
        share = draw_share(room.plan, room.honest, len(vector), stream)
        # In two's complement the low bits of a sum are the sum of the low bits.
        update.vector[place] = (vector + share).astype(vector.dtype).view(update.vector.dtype)
