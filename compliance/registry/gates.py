"""Gates: what the log has to say about a model before an alias may point to it.

Everything is recomputed from the log: measures from evaluations, epsilon from the sites' own charges, finality from
the cosignatures. Measures count by the worst of all evaluations that stand, so none is made until it fits; larger is
better, and a margin counts against the model.
"""

import decimal
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fedseal.compliance.events.bodies import Charged
from fedseal.compliance.events.fields import Alias, GateKind, ReleaseName, public_name
from fedseal.compliance.events.fields import decimal as decimal_text
from fedseal.compliance.events.plans import plan_of
from fedseal.compliance.events.subjects import GateChecked, Measure
from fedseal.compliance.registry.aliases import Evaluation, Registration, State
from fedseal.compliance.registry.entries import Entry
from fedseal.compliance.registry.rules import AliasRules, EpsilonGate, Gate, GoldSetGate, MetricGate, SubgroupGate
from fedseal.privacy.ledger import epsilon_shown
from fedseal.privacy.plan import PrivacyPlan

SUBGROUP, GOLD_SET = "~", "gold-set."
# Enough for any two numbers of a log: 24 digits before the point and 24 behind it.
_EXACT = decimal.Context(prec=60)
_TRAINING = frozenset({ReleaseName.UPDATE, ReleaseName.MOMENTS})


@dataclass(frozen=True, slots=True)
class Found:
    """What a gate found. ``reason`` says what is wrong; empty if it passed."""

    kind: GateKind
    name: str | None
    limit: str | None
    found: str | None
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the model may go through."""
        return not self.reason

    def fact(self, registration: Registration, alias: Alias) -> GateChecked:
        """As the log has it."""
        return GateChecked(
            model=registration.model,
            alias=alias,
            gate=self.kind,
            name=self.name,
            limit=self.limit,
            found=self.found,
            passed=self.passed,
            bundle=registration.bundle,
        )


@dataclass(frozen=True, slots=True)
class Finality:
    """How much of the log is final, and whether what a promotion rests on is in it.

    ``needed``: the size that covers it all. ``included``: it stands under the cosigned root as it is read now.
    """

    final_size: int
    needed: int
    included: bool


def measure_name(metric: str, subgroup: str | None = None) -> str:
    """How a log names a metric, of everyone or of a subgroup."""
    name = public_name(metric).replace(SUBGROUP, "%7E")
    return name if subgroup is None else f"{name}{SUBGROUP}{public_name(subgroup)}"[:128]


def evaluations_of(state: State, model: str) -> tuple[Evaluation, ...]:
    """The evaluations that count for a model. A simulation's count only in a log of a simulation."""
    return tuple(e for e in state.evaluations if e.body.model == model and (state.simulated or not e.body.simulated))


class Spent:
    """All charges of a log. What they come to is computed once, when the first gate asks: it takes a while.

    Args:
        charges: all entries ``dp.spent`` of the log.
    """

    def __init__(self, charges: Iterable[Entry]) -> None:
        self._charges = tuple(charges)
        self._largest: tuple[float | None] | None = None

    def largest(self) -> float | None:
        """The largest epsilon of any population that models were trained on; see `largest_epsilon`."""
        if self._largest is None:
            self._largest = (largest_epsilon(self._charges),)
        return self._largest[0]


def check_gates(
    rules: AliasRules, evaluations: Sequence[Evaluation], charges: Iterable[Entry] | Spent, finality: Finality
) -> tuple[Found, ...]:
    """All gates of an alias, that of the log first.

    Args:
        rules: the alias'.
        evaluations: those of the model.
        charges: all entries ``dp.spent`` of the log, or what they come to.
        finality: what of the log is final.
    """
    spent = charges if isinstance(charges, Spent) else Spent(charges)
    return (log_final(finality), *(_check(gate, evaluations, spent) for gate in rules.gates))


def log_final(finality: Finality) -> Found:
    """Whether a quorum has cosigned a checkpoint over everything that a promotion rests on."""
    size, needed = finality.final_size, finality.needed
    reason = ""
    if size < needed:
        reason = (
            f"a quorum of the sites has cosigned {size} entries, and what this rests on goes up to entry {needed - 1}"
        )
    elif not finality.included:
        reason = "an entry that this rests on is not the one that the sites have cosigned"
    return Found(GateKind.LOG_FINAL, None, str(needed), str(size), reason)


def _check(gate: Gate, evaluations: Sequence[Evaluation], spent: Spent) -> Found:
    match gate:
        case MetricGate():
            return _measured(GateKind.METRIC, gate.measure, gate.measure, gate.at_least, evaluations)
        case GoldSetGate():
            return _measured(GateKind.GOLD_SET, gate.measure, GOLD_SET + gate.measure, gate.at_least, evaluations)
        case SubgroupGate():
            return _subgroups(gate, evaluations)
        case EpsilonGate():
            return _epsilon(gate, spent)


def _measured(kind: GateKind, shown: str, name: str, limit: float, evaluations: Sequence[Evaluation]) -> Found:
    asked = decimal_text(limit)
    values = _values(evaluations, lambda measure: measure.name == name)
    if not any(by_server for _, by_server in values):
        return Found(kind, shown, asked, None, f"{kind.value}: the server has recorded no {name} of this model")
    worst = min(value for value, _ in values)
    reason = "" if worst >= decimal.Decimal(asked) else f"{kind.value}: {name} is {worst:f}, at least {asked} is asked"
    return Found(kind, shown, asked, _text(worst), reason)


def _subgroups(gate: SubgroupGate, evaluations: Sequence[Evaluation]) -> Found:
    asked, prefix = decimal_text(gate.at_least), gate.measure + SUBGROUP
    by_server = {
        measure.name
        for evaluation in evaluations
        for measure in evaluation.body.measures
        if evaluation.by_server and measure.name.startswith(prefix)
    }
    kind = GateKind.WORST_SUBGROUP
    if len(by_server) < gate.subgroups:
        reason = f"{kind.value}: {gate.measure} is known of {len(by_server)} subgroups, {gate.subgroups} are asked"
        return Found(kind, gate.measure, asked, None, reason)
    worst = min(value for value, _ in _values(evaluations, lambda measure: measure.name.startswith(prefix)))
    reason = ""
    if worst < decimal.Decimal(asked):
        reason = f"{kind.value}: {gate.measure} of the worst subgroup is {worst:f}, at least {asked} is asked"
    return Found(kind, gate.measure, asked, _text(worst), reason)


def _epsilon(gate: EpsilonGate, spent: Spent) -> Found:
    asked, largest = decimal_text(gate.at_most), spent.largest()
    if largest is None:
        return Found(GateKind.EPSILON, None, asked, None, "epsilon: the log has no charge of any site")
    if math.isinf(largest):
        return Found(GateKind.EPSILON, None, asked, None, "epsilon: a site has released without privacy: no bound")
    # Rounded up to what is shown: what passes has to pass by the number that stands in the log.
    shown = decimal_text(math.ceil(largest * 1e6) / 1e6)
    reason = "" if largest <= gate.at_most else f"epsilon: at one site it is {shown}, at most {asked} is allowed"
    return Found(GateKind.EPSILON, None, asked, shown, reason)


def largest_epsilon(charges: Iterable[Entry]) -> float | None:
    """The largest epsilon of any population that models were trained on, over all its charges in the log.

    A budget belongs to people, not to a model: what other runs have charged to them counts too. Infinite where
    something was released without privacy; None if nothing was charged for training.

    Raises:
        PeerError: a plan in the log that this build does not run, or whose words are not those of its bytes.
    """
    spent: dict[tuple[str, str], Counter[PrivacyPlan]] = {}
    deltas: dict[tuple[str, str], float] = {}
    trained: set[tuple[str, str]] = set()
    for entry in charges:
        body = entry.event.body
        if not isinstance(body, Charged):
            continue
        whose = (entry.event.org, body.population)
        spent.setdefault(whose, Counter())[plan_of(body.plan)] += 1
        deltas[whose] = min(deltas.get(whose, 1.0), float(body.delta))
        if body.release in _TRAINING:
            trained.add(whose)
    return max((epsilon_shown(tuple(spent[w].items()), deltas[w]) for w in trained), default=None)


def _values(evaluations: Sequence[Evaluation], wanted: Callable[[Measure], bool]) -> list[tuple[decimal.Decimal, bool]]:
    """Value less margin of all measures of a kind, exact, each with whether the server has recorded it."""
    return [
        (_EXACT.subtract(decimal.Decimal(m.value), abs(decimal.Decimal(m.margin))), evaluation.by_server)
        for evaluation in evaluations
        for m in evaluation.body.measures
        if wanted(m)
    ]


def _text(value: decimal.Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("", "-0") else text
