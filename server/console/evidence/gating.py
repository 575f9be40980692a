"""What a bundle has and lacks for an alias: computed from the log by the code that decides about promotions."""

from dataclasses import dataclass

from fedseal.compliance.events.bodies import Charged
from fedseal.compliance.events.fields import Alias
from fedseal.compliance.registry.aliases import Registration, State
from fedseal.compliance.registry.approvals import count
from fedseal.compliance.registry.entries import names_of
from fedseal.compliance.registry.gates import Finality, Spent, check_gates, evaluations_of
from fedseal.compliance.registry.rules import AliasRules, RegistryRules
from fedseal.server.console.evidence.place import View


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate, computed now."""

    kind: str
    name: str
    limit: str
    found: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class WayLine:
    """What a bundle has and lacks for one alias."""

    alias: str
    stands: bool
    gates: tuple[GateLine, ...]
    missing: tuple[str, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that stands in the way."""
        return (*self.missing, *(gate.reason for gate in self.gates if not gate.passed))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a log stands, computed once for all bundles and aliases: what was spent, and how much of it is final."""

    view: View
    state: State
    spent: Spent
    final: int

    @classmethod
    def of(cls, view: View) -> "Standing":
        """That of a log."""
        return cls(view, view.state(), Spent(view.entries.of(names_of(Charged))), view.final_size())


def way_of(standing: Standing, registration: Registration, alias: Alias, rules: AliasRules) -> WayLine:
    """What a bundle has and lacks for an alias, as `Registry.check` finds it, without writing it down."""
    state, final = standing.state, standing.final
    counted = count(state, rules, registration, alias)
    evaluations = evaluations_of(state, registration.model)
    indices = [registration.index, *(a.index for a in counted.approvals), *(e.index for e in evaluations)]
    needed = max(indices) + 1
    included = final >= needed and standing.view.entries.included(indices, final)
    found = check_gates(rules, evaluations, standing.spent, Finality(final, needed, included))
    gates = tuple(GateLine(g.kind.value, g.name or "", g.limit or "", g.found or "", g.passed, g.reason) for g in found)
    binding = state.aliases.get(alias)
    return WayLine(alias.value, binding is not None and binding.bundle == registration.bundle, gates, counted.missing)


def rules_for(rules: RegistryRules, alias: Alias) -> AliasRules | None:
    """What an alias asks for; None if it is closed."""
    found: AliasRules | None = getattr(rules, alias.value)
    return found
