"""The answers about a lineage, for people. ``#n`` is the index of the entry that says so."""

import math
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from fedseal.compliance.lineage.answers import (
    Approvals,
    Bound,
    Difference,
    Epsilon,
    Impact,
    Influenced,
    Notice,
    Part,
    Promotion,
    RunPart,
    Shown,
    Thing,
)

DIGITS = 12


def short(digest: str) -> str:
    """Enough of an id to name it again."""
    scheme, _, rest = digest.partition(":")
    return f"{scheme}:{rest[:DIGITS]}" if rest else digest[: DIGITS + 8]


def told_shown(found: Shown) -> Iterator[object]:
    """A model and what it was made of."""
    yield Text(f"Model {found.model.digest}  {found.model.label}  #{found.model.idx}")
    if found.models:
        yield Text("Descends from: " + ", ".join(f"{short(m.digest)} ({m.label}, #{m.idx})" for m in found.models))
    yield runs_table("Runs", found.runs)
    yield parts_table("Made of", found.parts)
    if found.figures:
        table = _table("Evaluations", "entry", "figure", "value", "noise", "by", "")
        for one in found.figures:
            oracle = "simulated: an oracle" if one.simulated else ""
            table.add_row(f"#{one.idx}", one.name, one.value, f"± {one.margin}", one.org, oracle)
        yield table
    yield from _approvals(found.approvals)
    if found.unsigned:
        yield Text(
            f"{found.unsigned} times the server counts a site in that has not said so in this log: what that site used "
            "is taken from how it accepted the run."
        )
    if found.corrected:
        entries = ", ".join(f"#{idx}" for idx in found.corrected)
        yield Text(f"A later entry calls these wrong, and they still count: {entries}.")


def told_impact(found: Impact, *, every: bool) -> Iterator[object]:
    """A thing and the models it has reached."""
    yield Text(f"{found.thing.kind} {found.thing.digest}  #{found.thing.idx}")
    for notice in found.notices:
        by = f" by {short(notice.by)}" if notice.by else ""
        yield Text(f"{_said(notice)}{by}  #{notice.idx}")
    if not found.models:
        yield Text("It has reached no model.")
        return
    listed = [one for one in found.models if every or one.registered or one.aliases or one.was]
    table = _table("Models that it has reached", "entry", "model", "", "in use", "how", "newest clean", "epsilon")
    for one in listed:
        clean = "none" if one.clean is None else f"{short(one.clean.digest)} #{one.clean.idx}"
        limits = "\n".join(_bound(bound) for bound in one.bounds)
        name = short(one.model.digest)
        table.add_row(f"#{one.model.idx}", name, one.registered or "", _in_use(one), _how(one), clean, limits)
    yield table
    rest = len(found.models) - len(listed)
    if rest:
        yield Text(f"And {rest} models between two rounds: --all lists them.")
    yield Text(
        "Newest clean: the newest model of its descent that nothing of this has reached, from which to train again."
    )


def told_epsilon(found: Epsilon) -> Iterator[object]:
    """What a site's populations were charged."""
    if not found.populations:
        yield Text(f"{found.site.digest} was charged nothing.")
        return
    columns = ("entry", "population", "epsilon", "by Renyi accounting", "delta", "charges", "runs", "promised")
    table = _table(f"Charged at {found.site.digest}", *columns)
    for one in found.populations:
        promised = "" if one.promised is None else f"{one.promised:g} #{one.promise_idx}"
        second = "the same" if one.second is None else _number(one.second)
        entry = "" if one.idx is None else f"#{one.idx}"
        table.add_row(
            entry,
            short(one.population),
            _number(one.epsilon),
            second,
            f"{one.delta:g}",
            f"{one.charges}",
            f"{one.runs}",
            promised,
        )
    yield table


def told_approvals(found: Approvals) -> Iterator[object]:
    """Who said yes to a model."""
    pointing = f"  {', '.join(found.aliases)}" if found.aliases else ""
    yield Text(f"Model {found.model.digest}{pointing}  #{found.model.idx}")
    yield from _approvals(found)


def told_difference(found: Difference) -> Iterator[object]:
    """Two models side by side."""
    for name, model in (("First", found.first), ("Second", found.second)):
        yield Text(f"{name}: {model.digest}  #{model.idx}")
    yield Text(f"Newest model in both descents: {_thing(found.common)}")
    for title, runs in (("first", found.runs_only_first), ("second", found.runs_only_second)):
        if runs:
            yield runs_table(f"Runs of the {title} only", runs)
    for title, parts in (("first", found.only_first), ("second", found.only_second)):
        if parts:
            yield parts_table(f"In the {title} only", parts)
    table = _table("In both", "kind", "id", "rounds, first", "rounds, second")
    for one, two in found.both:
        table.add_row(one.thing.kind, short(one.thing.digest), f"{one.rounds}", f"{two.rounds}")
    yield table


def runs_table(title: str, runs: Iterable[RunPart]) -> Table:
    """Runs, one a row."""
    table = _table(title, "entry", "run", "study", "plan", "rounds", "statistics", "evaluations", "sites")
    for run in runs:
        counts = (f"{run.rounds}", f"{run.statistics}", f"{run.evaluations}")
        table.add_row(f"#{run.idx}", short(run.run), run.study, run.plan, *counts, _few(run.sites))
    return table


def parts_table(title: str, parts: Iterable[Part]) -> Table:
    """Parts of a model, one a row."""
    table = _table(title, "entry", "kind", "id", "", "sites", "rounds", "notices")
    for part in parts:
        notices = "; ".join(f"{_said(n)} #{n.idx}" for n in part.notices)
        name = part.thing.label + (" only guided a choice" if part.chosen else "")
        rounds = f"{part.rounds}" if part.rounds else ""
        thing = part.thing
        table.add_row(f"#{part.idx}", thing.kind, short(thing.digest), name, _few(part.sites), rounds, notices)
    return table


def _approvals(found: Approvals) -> Iterator[object]:
    if not (found.signatures or found.gates or found.promotions):
        yield Text("No approvals, gates or promotions in this log.")
        return
    table = _table("Approvals", "entry", "what", "alias", "by or result", "time")
    for one in found.signatures:
        by = f"{one.actor} ({one.role}, {one.org})"
        table.add_row(f"#{one.idx}", f"signed: {one.meaning}", one.alias, by, one.time)
    for gate in found.gates:
        result = "passed" if gate.passed else "FAILED"
        limit = "" if gate.limit is None else f", {gate.found} against {gate.limit}"
        table.add_row(f"#{gate.idx}", f"gate: {gate.gate} {gate.name or ''}", gate.alias, f"{result}{limit}", "")
    for step in found.promotions:
        table.add_row(f"#{step.idx}", step.action, step.alias or "", _named(step), step.time)
    yield table


def _named(step: Promotion) -> str:
    """What a promotion rests on."""
    said = [step.reason] if step.reason else []
    if step.approvals or step.gates:
        said.append("on " + ", ".join(f"#{idx}" for idx in step.approvals + step.gates))
    if step.missing:
        said.append("NOT OF THIS MODEL: " + ", ".join(f"#{idx}" for idx in step.missing))
    return "; ".join(said)


def _how(one: Influenced) -> str:
    if one.chosen:
        return "through a choice only"
    return "inherited" if one.inherited else f"{one.direct_rounds} rounds of its run"


def _in_use(one: Influenced) -> str:
    return ", ".join([*one.aliases, *(f"was {alias}" for alias in one.was)])


def _bound(bound: Bound) -> str:
    why = f" ({bound.uncharged} rounds not charged)" if bound.uncharged else ""
    return f"{_number(bound.epsilon)} at delta {bound.delta:g}{why}"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unbounded"


def _thing(thing: Thing | None) -> str:
    return "none" if thing is None else f"{short(thing.digest)} {thing.label} #{thing.idx}"


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _said(notice: Notice) -> str:
    """What was said of something, and why where that was said too."""
    return notice.notice if notice.reason is None else f"{notice.notice} ({notice.reason})"
