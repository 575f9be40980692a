"""A refusal by a rule of a site's policy: the text stays at the site, the rule's name is all that is told."""

from fedseal.compliance.events.fields import RefusedRule
from fedseal.errors import PolicyRefused


class Refused(PolicyRefused):
    """A rule of the site's policy forbids what was asked.

    Args:
        rule: which; it stands in both logs.
        message: what was asked and what the rule allows. Kept at the site.
        next_step: what would change it.
    """

    def __init__(self, rule: RefusedRule, message: str, *, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.rule = rule
