"""A site's policy: what it answers at all.

Written by the data owner, kept in the site's store, asked before anything is computed.
"""

from typing import Literal

from pydantic import Field

from fedseal.config import Frozen, parse_toml, validate
from fedseal.errors import PolicyRefused
from fedseal.privacy.plan import PlanKind, PrivacyPlan
from fedseal.privacy.releases import ReleaseKind
from fedseal.privacy.secagg.header import Header

PlanName = Literal["none", "local"]


class CohortRules(Frozen):
    """How many sites a sum must be over, and how many of them this site assumes to work with the server."""

    minimum: int = Field(default=3, ge=2, le=256)
    colluders: int = Field(default=0, ge=0, le=254)


class ReleaseRules(Frozen):
    """Which plans may protect each release. An empty list forbids the release."""

    update: tuple[PlanName, ...] = ("local",)
    moments: tuple[PlanName, ...] = ("local",)
    evaluation: tuple[PlanName, ...] = ()

    def allowed(self, release: str) -> tuple[PlanName, ...]:
        """The plans this site allows for a release of the registry."""
        return {"update": self.update, "moments": self.moments, "evaluation": self.evaluation}[release]


class SitePolicy(Frozen):
    """The whole policy file. Without a line in it, only private training and private statistics are answered."""

    version: Literal[1] = 1
    cohort: CohortRules = CohortRules()
    releases: ReleaseRules = ReleaseRules()


def read_policy(text: str, source: str = "site policy") -> SitePolicy:
    """Parse a policy; ConfigError says what is wrong with it."""
    return validate(SitePolicy, parse_toml(text, source), text=text, source=source)


def check_header(policy: SitePolicy, header: Header, kind: ReleaseKind, plan: PrivacyPlan) -> None:
    """Whether this site answers such a round.

    Raises:
        PolicyRefused: it does not; says which rule and what would change it.
    """
    smallest = min(len(header.cohort), header.minimum)
    if smallest < policy.cohort.minimum:
        raise PolicyRefused(
            f"a sum over as few as {smallest} sites; this site asks for {policy.cohort.minimum}",
            next_step="Invite more sites, or let the data owner lower cohort.minimum in the site's policy.",
        )
    if header.colluders < policy.cohort.colluders:
        raise PolicyRefused(
            f"a round safe against {header.colluders} colluding sites; this site asks for {policy.cohort.colluders}",
            next_step="Raise colluders on the server, or lower cohort.colluders in the site's policy.",
        )
    name = "none" if plan.kind is PlanKind.NONE else "local"
    if name not in policy.releases.allowed(kind.name):
        raise PolicyRefused(
            f"release {kind.name!r} under plan {name!r} is not allowed at this site",
            next_step=f"The data owner may add {name!r} to releases.{kind.name} in the site's policy.",
        )
