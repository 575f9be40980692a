"""Facts that follow from several entries: computed here, and resting on every entry that went in."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedseal.compliance.events.bodies import Aggregated, Charged, Dropped, RunCreated
from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.events.plans import plan_of
from fedseal.compliance.events.subjects import ModelRegistered
from fedseal.compliance.reports.history import History
from fedseal.compliance.reports.values import Value
from fedseal.privacy.ledger import epsilon_shown


def lineage(history: History) -> list[Value]:
    """The model and those that it came from, newest first."""
    found = []
    for digest in history.models:
        registered = [e for e in history.of("model.registered") if getattr(e.body, "model", None) == digest]
        kinds = {e.body.kind.value for e in registered if isinstance(e.body, ModelRegistered)}
        runs = [
            e.index
            for e in history.entries
            if e.event.run in history.runs
            and (
                (e.type == "run.finished" and getattr(e.body, "model", None) == digest)
                or (e.type in ("run.created", "round.aggregated") and getattr(e.body, "model_in", None) == digest)
            )
        ]
        said = ", ".join(sorted(kinds)) or "not registered"
        role = "this model" if digest == history.model else "came before it"
        found.append(Value(f"{digest} ({said}): {role}", (*(e.index for e in registered), *runs)))
    return [value for value in found if value.entries]


def rounds(history: History) -> list[Value]:
    """How many sums were made in each run."""
    found = []
    for run in history.runs:
        sums = [e for e in history.of("round.aggregated", "runs") if e.event.run == run]
        numbers = {
            e.body.round for e in sums if isinstance(e.body, Aggregated) and e.body.release is ReleaseName.UPDATE
        }
        planned = next((e for e in history.of("run.created", "runs") if e.event.run == run), None)
        asked = planned.body.rounds if planned is not None and isinstance(planned.body, RunCreated) else 0
        of = f" of {asked} planned" if asked else ""
        if sums:
            found.append(Value(f"run {run}: {len(numbers)} rounds of training{of}", tuple(e.index for e in sums)))
    return found


def cohort(history: History) -> list[Value]:
    """Over how many sites sums were taken."""
    sums = [e for e in history.of("round.aggregated", "runs") if isinstance(e.body, Aggregated)]
    if not sums:
        return []
    sizes = [len(e.body.sites) for e in sums if isinstance(e.body, Aggregated)]
    thresholds = {e.body.threshold for e in sums if isinstance(e.body, Aggregated)}
    colluders = {e.body.colluders for e in sums if isinstance(e.body, Aggregated)}
    least = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{min(sizes)}"
    said = (
        f"every sum is over {least} sites; none is opened with fewer than {min(thresholds)}; it "
        f"stays closed if the server has the help of {min(colluders)} of them"
    )
    return [Value(said, tuple(e.index for e in sums))]


def dropouts(history: History) -> list[Value]:
    """Who fell out of rounds, by stage and reason; not which site."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in history.of("round.dropped", "runs"):
        if isinstance(entry.body, Dropped):
            found.setdefault((entry.body.stage.value, entry.body.reason.value), []).append(entry.index)
    return [Value(f"{len(at)} at {stage}: {reason}", tuple(at)) for (stage, reason), at in found.items()]


def epsilon(history: History) -> list[Value]:
    """What was charged to each population that this model was trained on, ever, by any run in this log.

    Recomputed from the plans in the log. Populations of two sites may share persons: they spend the sum.
    """
    charged = [(e, e.body) for e in history.of("dp.spent") if isinstance(e.body, Charged)]
    populations = dict.fromkeys((e.event.org, b.population) for e, b in charged if e.event.run in history.runs)
    found = []
    for org, population in populations:
        mine = [(e, b) for e, b in charged if (e.event.org, b.population) == (org, population)]
        delta = min((b.delta for _, b in mine), key=float)
        counts = Counter(b.plan for _, b in mine)
        plans = tuple((plan_of(plan), count) for plan, count in sorted(counts.items(), key=lambda one: one[0].encoded))
        value = epsilon_shown(plans, float(delta))
        amount = "unbounded (a release without privacy)" if math.isinf(value) else f"{value:.3f}"
        said = f"{org}: epsilon {amount} at delta {delta}, from {len(mine)} charges"
        found.append(Value(said, tuple(e.index for e, _ in mine)))
    return found


def log_state(history: History) -> list[Value]:
    """How long the log is that this report was made from."""
    first, last = history.entries[0].index, history.entries[-1].index
    return [Value(f"{last + 1} entries, each signed by its author", (first, last))]


DERIVED: Mapping[str, Callable[[History], list[Value]]] = MappingProxyType(
    {
        "lineage": lineage,
        "rounds": rounds,
        "cohort": cohort,
        "dropouts": dropouts,
        "epsilon": epsilon,
        "log": log_state,
    }
)
