"""A site's policy: what it answers at all.

Written by the data owner, kept in the site's store, asked before anything is computed.
"""

import json
from typing import Literal

from pydantic import Field, model_validator

from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.site_rules.hours import HourRules
from fedseal.compliance.site_rules.outbox import OutboxRules
from fedseal.compliance.site_rules.period import PeriodRule
from fedseal.compliance.site_rules.plans import PlanName
from fedseal.compliance.site_rules.refused import Refused
from fedseal.compliance.site_rules.study import DataRules, StudyRules
from fedseal.config import Frozen, parse_toml, validate
from fedseal.errors import ConfigError
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PrivacyPlan, SharedSkellam
from fedseal.privacy.releases import VALUES, ReleaseKind
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.parameters import MAX_COHORT


class CohortRules(Frozen):
    """How many sites a sum must be over, and how many of them this site assumes to work with the server.

    ``threshold`` is how many sites it has to take at least to take a mask off.
    """

    minimum: int = Field(default=3, ge=2, le=MAX_COHORT)
    threshold: int = Field(default=2, ge=2, le=MAX_COHORT)
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


class RangeRules(Frozen):
    """How far a site may move a sum, by release, where ``limits.clip_norm`` is too wide for all; absent is no rule.

    It is the bound on one person's part, or one site's under plan client, where the plan has one, and otherwise the
    range of the site's whole vector: the L2 norm of an update under plan none, the most persons in a cell of counts.
    """

    update: float | None = Field(default=None, gt=0)
    moments: float | None = Field(default=None, gt=0)
    evaluation: float | None = Field(default=None, gt=0)
    counts: float | None = Field(default=None, gt=0)
    members: float | None = Field(default=None, gt=0)
    drift: float | None = Field(default=None, gt=0)

    def largest(self, release: str) -> float | None:
        """The bound for a release of the registry."""
        by_name = {"update": self.update, "moments": self.moments, "evaluation": self.evaluation}
        return (by_name | {"counts": self.counts, "members": self.members, "drift": self.drift})[release]


class PeriodRules(Frozen):
    """How much of each population's budget may be spent in a stretch of days; absent is no rule."""

    train: PeriodRule | None = None
    test: PeriodRule | None = None
    monitor: PeriodRule | None = None

    def of(self, population: str) -> PeriodRule | None:
        """That of a population."""
        return {"train": self.train, "test": self.test, "monitor": self.monitor}.get(population)


class LogRules(Frozen):
    """Whether a round has to show this site the federation's log before it takes part."""

    required: bool = True


class SitePolicy(Frozen):
    """The whole policy. Without a line in it, only private training and private statistics are answered.

    Version 1, which is still read, has ``cohort`` without a threshold, ``releases``, ``limits`` and ``log`` only.
    """

    version: Literal[1, 2] = 2
    cohort: CohortRules = CohortRules()
    releases: ReleaseRules = ReleaseRules()
    limits: PlanLimits = PlanLimits()
    log: LogRules = LogRules()
    ranges: RangeRules = RangeRules()
    study: StudyRules = StudyRules()
    data: DataRules = DataRules()
    periods: PeriodRules = PeriodRules()
    hours: HourRules | None = None
    outbox: OutboxRules = OutboxRules()

    @model_validator(mode="after")
    def _of_its_version(self) -> "SitePolicy":
        newer = {"ranges", "study", "data", "periods", "hours", "outbox"} & self.model_fields_set
        if "threshold" in self.cohort.model_fields_set:
            newer |= {"cohort.threshold"}
        if self.version == 1 and newer:
            raise ValueError(f"{', '.join(sorted(newer))} came with version 2: say version = 2")
        return self


def read_policy(text: str, source: str = "site policy") -> SitePolicy:
    """Parse a policy: TOML as people write it, or the JSON of `policy_text`; ConfigError says what is wrong with it."""
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except ValueError:
            raise ConfigError(f"{source}: not JSON") from None
        return validate(SitePolicy, table, text="", source=source)
    return validate(SitePolicy, parse_toml(text, source), text=text, source=source)


def policy_text(policy: SitePolicy) -> str:
    """What was written of a policy in one form, for a store and for what a log commits to: JSON with sorted keys."""
    return json.dumps(policy.model_dump(mode="json", exclude_unset=True), sort_keys=True, separators=(",", ":"))


def check_header(policy: SitePolicy, header: Header, kind: ReleaseKind, plan: PrivacyPlan) -> None:
    """Whether this site answers such a round.

    Raises:
        Refused: it does not; says which rule and what would change it.
    """
    check_cohort(policy, min(len(header.cohort), header.minimum), header.colluders)
    if header.threshold < policy.cohort.threshold:
        raise Refused(
            RefusedRule.THRESHOLD,
            f"a round in which {header.threshold} sites can take a mask off; this site asks for "
            f"{policy.cohort.threshold}",
            next_step="Invite more sites, or let the data owner lower cohort.threshold in the site's policy.",
        )
    check_plan(policy, kind, plan)
    if header.layout.ring_bits < policy.limits.ring_bits:
        raise Refused(
            RefusedRule.PRECISION,
            f"a sum in words of {header.layout.ring_bits} bits; this site asks for {policy.limits.ring_bits}",
            next_step="Raise ring_bits on the server, or lower limits.ring_bits in the site's policy.",
        )
    check_range(policy, kind, range_of(header, plan))


def range_of(header: Header, plan: PrivacyPlan) -> float:
    """How far a site may move the sum, as `RangeRules` says it; 0 for a release without values."""
    if isinstance(plan, AdaptiveSkellam):
        return plan.highest
    if isinstance(plan, LocalGaussian | SharedSkellam):
        return plan.clip_norm
    return next((segment.high for segment in header.layout.segments if segment.name == VALUES), 0.0)


def check_range(policy: SitePolicy, kind: ReleaseKind, largest: float) -> None:
    """Whether a release may move a sum so far.

    Raises:
        Refused: it may not.
    """
    allowed = policy.ranges.largest(kind.name)
    if allowed is not None and largest > allowed:
        raise Refused(
            RefusedRule.RANGE,
            f"release {kind.name!r} with a range of {largest:g}; this site allows {allowed:g}",
            next_step=f"Lower the range in the study, or raise ranges.{kind.name} in the site's policy.",
        )


def check_cohort(policy: SitePolicy, smallest: int, colluders: int) -> None:
    """Whether this site takes part in sums over as few as ``smallest`` sites, safe against so many that collude.

    Raises:
        Refused: it does not.
    """
    if smallest < policy.cohort.minimum:
        raise Refused(
            RefusedRule.COHORT,
            f"a sum over as few as {smallest} sites; this site asks for {policy.cohort.minimum}",
            next_step="Invite more sites, or let the data owner lower cohort.minimum in the site's policy.",
        )
    if colluders < policy.cohort.colluders:
        raise Refused(
            RefusedRule.COLLUDERS,
            f"a round safe against {colluders} colluding sites; this site asks for {policy.cohort.colluders}",
            next_step="Raise colluders on the server, or lower cohort.colluders in the site's policy.",
        )


def check_plan(policy: SitePolicy, kind: ReleaseKind, plan: PrivacyPlan) -> None:
    """Whether this site makes such a release under such a plan.

    Raises:
        Refused: it does not.
    """
    name = plan.kind.label
    if name not in policy.releases.allowed(kind.name):
        raise Refused(
            RefusedRule.RELEASE,
            f"release {kind.name!r} under plan {name!r} is not allowed at this site",
            next_step=f"The data owner may add {name!r} to releases.{kind.name} in the site's policy.",
        )
    if isinstance(plan, AdaptiveSkellam) and plan.highest > policy.limits.clip_norm:
        raise Refused(
            RefusedRule.RANGE,
            f"a plan with a clip norm of up to {plan.highest:g}; this site allows {policy.limits.clip_norm:g}",
            next_step="Lower adaptive_clip.highest in the study, or raise limits.clip_norm in the site's policy.",
        )
    if isinstance(plan, LocalGaussian | SharedSkellam) and plan.clip_norm > policy.limits.clip_norm:
        raise Refused(
            RefusedRule.RANGE,
            f"a plan with clip norm {plan.clip_norm:g}; this site allows {policy.limits.clip_norm:g}",
            next_step="Lower privacy.clip_norm in the study, or raise limits.clip_norm in the site's policy.",
        )
