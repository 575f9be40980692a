"""Privacy plans as facts of a log: their canonical bytes, and the same numbers in words for whoever has no decoder."""

from dataclasses import fields

from fedseal.compliance.events.bodies import PlanFacts, PlanValue
from fedseal.compliance.events.fields import decimal
from fedseal.errors import PeerError
from fedseal.privacy.plan import PrivacyPlan, decode_plan, encode_plan


def plan_facts(plan: PrivacyPlan) -> PlanFacts:
    """A plan as a log writes it."""
    values = tuple(PlanValue(name=f.name, value=decimal(getattr(plan, f.name))) for f in fields(plan))
    return PlanFacts.model_validate({"kind": plan.kind.label, "encoded": encode_plan(plan).hex(), "values": values})


def plan_of(facts: PlanFacts) -> PrivacyPlan:
    """The plan that facts name.

    Raises:
        PeerError: the bytes are no plan of this build, or the words say something else.
    """
    plan = decode_plan(bytes.fromhex(facts.encoded))
    if plan_facts(plan) != facts:
        raise PeerError("a plan whose words are not those of its bytes", peer="server")
    return plan
