"""Which releases are sent by rule, and which wait for a person."""

from typing import Literal

from pydantic import Field

from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.site_rules.plans import PlanName
from fedseal.config import Frozen

Then = Literal["send", "hold", "deny"]


class OutboxRule(Frozen):
    """What becomes of the releases that it fits; empty lists fit all.

    ``smallest_cohort``: fits rounds of at least so many sites.
    """

    releases: tuple[ReleaseName, ...] = ()
    plans: tuple[PlanName, ...] = ()
    smallest_cohort: int = Field(default=0, ge=0)
    then: Then

    def fits(self, release: str, plan: str, cohort: int) -> bool:
        """Whether it is about such a release."""
        named = not self.releases or release in self.releases
        return named and (not self.plans or plan in self.plans) and cohort >= self.smallest_cohort


class OutboxRules(Frozen):
    """The first rule that fits says what becomes of a release, otherwise ``otherwise`` does."""

    otherwise: Then = "send"
    rule: tuple[OutboxRule, ...] = Field(default=(), max_length=100)

    def verdict(self, release: str, plan: str, cohort: int) -> Then:
        """What the rules say.

        Args:
            release: its name in the registry.
            plan: the kind of its plan.
            cohort: how many sites are asked.
        """
        fitting = (rule.then for rule in self.rule if rule.fits(release, plan, cohort))
        return next(fitting, self.otherwise)
