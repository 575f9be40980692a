"""A site's policy: what it answers at all.

Written by the data owner, kept in the site's store, asked before anything is computed.
"""

from typing import Literal

from pydantic import Field

from fedseal.config import Frozen, parse_toml, validate
from fedseal.errors import PolicyRefused
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PrivacyPlan, SharedSkellam
from fedseal.privacy.releases import ReleaseKind
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.parameters import MAX_COHORT

PlanName = Literal["none", "local", "distributed", "client", "histogram"]


class CohortRules(Frozen):
    """How many sites a sum must be over, and how many of them this site assumes to work with the server."""

    minimum: int = Field(default=3, ge=2, le=MAX_COHORT)
    colluders: int = Field(default=0, ge=0, le=MAX_COHORT - 2)


class ReleaseRules(Frozen):
    """Which plans may protect each release. An empty list forbids the release.

    ``evaluation`` is of test persons, who have a ledger of their own; under plan histogram it is counts with noise.
    ``members`` says how many sites each of a few models fits best, which clustered training asks in every round.
    ``drift`` is of the persons in whose windows a model in use is watched; theirs is a third one.
    """

    update: tuple[PlanName, ...] = ("local",)
    moments: tuple[PlanName, ...] = ("local",)
    evaluation: tuple[PlanName, ...] = ()
    counts: tuple[PlanName, ...] = ()
    members: tuple[PlanName, ...] = ()
    drift: tuple[PlanName, ...] = ()

    def allowed(self, release: str) -> tuple[PlanName, ...]:
        """The plans this site allows for a release of the registry."""
        by_name = {"update": self.update, "moments": self.moments, "evaluation": self.evaluation}
        return (by_name | {"counts": self.counts, "members": self.members, "drift": self.drift})[release]


class PlanLimits(Frozen):
    """What the numbers of a plan may be at most. What a plan costs is limited by the ledger; this limits its form.

    ``clip_norm`` is how far one person, or one site under plan client, may move a sum; a clip norm that adapts may
    never become larger. ``ring_bits`` is how many bits
    a word of a sum has to have at least: with few, values are rounded coarsely.
    """

    clip_norm: float = Field(default=1e6, ge=1e-6, le=1e6)
    ring_bits: int = Field(default=12, ge=12, le=64)


class LogRules(Frozen):
    """Whether a round has to show this site the federation's log before it takes part."""

    required: bool = True


class SitePolicy(Frozen):
    """The whole policy file. Without a line in it, only private training and private statistics are answered."""

    version: Literal[1] = 1
    cohort: CohortRules = CohortRules()
    releases: ReleaseRules = ReleaseRules()
    limits: PlanLimits = PlanLimits()
    log: LogRules = LogRules()


def read_policy(text: str, source: str = "site policy") -> SitePolicy:
    """Parse a policy; ConfigError says what is wrong with it."""
    return validate(SitePolicy, parse_toml(text, source), text=text, source=source)


def check_header(policy: SitePolicy, header: Header, kind: ReleaseKind, plan: PrivacyPlan) -> None:
    """Whether this site answers such a round.

    Raises:
        PolicyRefused: it does not; says which rule and what would change it.
    """
    check_cohort(policy, min(len(header.cohort), header.minimum), header.colluders)
    check_plan(policy, kind, plan)
    if header.layout.ring_bits < policy.limits.ring_bits:
        raise PolicyRefused(
            f"a sum in words of {header.layout.ring_bits} bits; this site asks for {policy.limits.ring_bits}",
            next_step="Raise ring_bits on the server, or lower limits.ring_bits in the site's policy.",
        )


def check_cohort(policy: SitePolicy, smallest: int, colluders: int) -> None:
    """Whether this site takes part in sums over as few as ``smallest`` sites, safe against so many that collude.

    Raises:
        PolicyRefused: it does not.
    """
    if smallest < policy.cohort.minimum:
        raise PolicyRefused(
            f"a sum over as few as {smallest} sites; this site asks for {policy.cohort.minimum}",
            next_step="Invite more sites, or let the data owner lower cohort.minimum in the site's policy.",
        )
    if colluders < policy.cohort.colluders:
        raise PolicyRefused(
            f"a round safe against {colluders} colluding sites; this site asks for {policy.cohort.colluders}",
            next_step="Raise colluders on the server, or lower cohort.colluders in the site's policy.",
        )


def check_plan(policy: SitePolicy, kind: ReleaseKind, plan: PrivacyPlan) -> None:
    """Whether this site makes such a release under such a plan.

    Raises:
        PolicyRefused: it does not.
    """
    name = plan.kind.label
    if name not in policy.releases.allowed(kind.name):
        raise PolicyRefused(
            f"release {kind.name!r} under plan {name!r} is not allowed at this site",
            next_step=f"The data owner may add {name!r} to releases.{kind.name} in the site's policy.",
        )
    if isinstance(plan, AdaptiveSkellam) and plan.highest > policy.limits.clip_norm:
        raise PolicyRefused(
            f"a plan with a clip norm of up to {plan.highest:g}; this site allows {policy.limits.clip_norm:g}",
            next_step="Lower adaptive_clip.highest in the study, or raise limits.clip_norm in the site's policy.",
        )
    if isinstance(plan, LocalGaussian | SharedSkellam) and plan.clip_norm > policy.limits.clip_norm:
        raise PolicyRefused(
            f"a plan with clip norm {plan.clip_norm:g}; this site allows {policy.limits.clip_norm:g}",
            next_step="Lower privacy.clip_norm in the study, or raise limits.clip_norm in the site's policy.",
        )
