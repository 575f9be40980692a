"""Privacy plans as facts of a log: their canonical bytes, and the same numbers in words for whoever has no decoder."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from fedseal.compliance.events.bodies import PlanFacts, PlanValue
from fedseal.compliance.events.fields import decimal
from fedseal.errors import PeerError
from fedseal.privacy.plan import PrivacyPlan, decode_plan, encode_plan


def plan_facts(plan: PrivacyPlan) -> PlanFacts:
    """A plan as a log writes it."""
    values = tuple(PlanValue(name=name, value=decimal(value)) for name, value in _numbers(plan))
    return PlanFacts.model_validate({"kind": plan.kind.label, "encoded": encode_plan(plan).hex(), "values": values})


def _numbers(part: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a plan by name; those of a plan within a plan under both names."""
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def plan_of(facts: PlanFacts) -> PrivacyPlan:
    """The plan that facts name.

    Raises:
        PeerError: the bytes are no plan of this build, or the words say something else.
    """
    plan = decode_plan(bytes.fromhex(facts.encoded))
    if plan_facts(plan) != facts:
        raise PeerError("a plan whose words are not those of its bytes", peer="server")
    return plan
