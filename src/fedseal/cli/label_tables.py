"""The tables of `fedseal labels`."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from fedseal.compliance.labels.agreement import Agreement, Verdict
from fedseal.compliance.labels.facts import SharedLabelSet
from fedseal.compliance.labels.holdings import Batch, Guideline
from fedseal.compliance.labels.quality import Share
from fedseal.compliance.labels.scale import Ratings
from fedseal.compliance.labels.sets import LabelSet

SHOWN = 12
MEANS = {
    Verdict.GOOD: "good: the labels can be used",
    Verdict.MODERATE: "moderate: usable with care",
    Verdict.POOR: "poor: not usable as they are",
}


def guidelines_table(guidelines: Iterable[Guideline]) -> Table:
    """Guideline versions."""
    table = _table("Guideline versions", "version", "document", "level", "labels")
    for g in guidelines:
        table.add_row(escape(g.version), _short(g.digest), g.schema.level, str(len(g.schema.labels)))
    return table


def batches_table(batches: Iterable[Batch]) -> Table:
    """Imported files."""
    table = _table("Imported files", "number", "dataset", "format", "guideline", "imported", "annotations")
    for b in batches:
        cells = (escape(b.dataset), b.format, escape(b.guideline), b.imported[:19] + "Z")
        table.add_row(str(b.number), *cells, str(b.annotations))
    return table


def sets_table(sets: Iterable[LabelSet]) -> Table:
    """Registered label sets."""
    table = _table("Label sets", "set", "dataset", "guideline", "decided by", "items", "agreement")
    for s in sets:
        facts = s.facts
        found = facts.agreement.value if facts.agreement else "none"
        cells = (escape(facts.dataset_version), escape(s.guideline), facts.adjudication)
        table.add_row(_short(s.id), *cells, str(facts.n_items), found)
    return table


def facts_table(found: LabelSet) -> Table:
    """What the site's own log says of a set."""
    facts = found.facts
    table = _table("Label set, for this site only", "fact", "value")
    table.add_row("id", found.id)
    table.add_row("dataset", escape(facts.dataset_version))
    table.add_row("guideline", f"{escape(found.guideline)} ({_short(facts.guideline_version)})")
    table.add_row("decided by", facts.adjudication)
    table.add_row("items with a label", str(facts.n_items))
    table.add_row("items with several annotations", str(facts.n_multi_annotated))
    table.add_row("annotators", str(facts.annotators))
    if facts.agreement:
        a = facts.agreement
        table.add_row("agreement", f"{a.coefficient} ({a.level}) {a.value}, 95 % {_interval(a.ci)}")
    else:
        table.add_row("agreement", "not known: no item has two annotations, or labels do not vary")
    gold = facts.gold
    table.add_row("right on gold items", f"{gold.accuracy} of {gold.n}" if gold else "not known: no gold items")
    noise = facts.noise
    estimate = f"{noise.estimate}, 95 % {_interval(noise.ci)}, by {noise.method}" if noise else "not known"
    table.add_row("label noise", estimate)
    told = "; ".join(f"{c.count} {c.reason_code}" for c in facts.corrections)
    table.add_row("corrections since the parent", told or "none")
    table.add_row("parents", "\n".join(_short(parent) for parent in facts.parents) or "none")
    return table


def shared_table(shared: SharedLabelSet) -> Table:
    """What others may know of a set."""
    table = _table("What others may know", "fact", "value")
    table.add_row("label set", shared.label_set)
    table.add_row("guideline", shared.guideline_version)
    table.add_row("label schema", shared.label_schema)
    table.add_row("decided by", shared.adjudication)
    table.add_row("tool", shared.tool)
    table.add_row("parents", "\n".join(shared.parents) or "none")
    return table


def agreement_lines(found: Agreement) -> list[str]:
    """A coefficient in words."""
    first = (
        f"{found.coefficient} ({found.level}) over {found.items} items: {found.value:.3f}, "
        f"95 % interval {found.low:.3f} to {found.high:.3f}."
    )
    if found.settled:
        return [first, f"That is {MEANS[found.verdict]}, and so are both ends of the interval."]
    return [first, f"That is {MEANS[found.verdict]}; the ends of the interval are not called the same."]


def annotators_table(ratings: Ratings, shown: Sequence[str], scores: Sequence[Share]) -> Table:
    """Annotators with their number of annotations and their accuracy on gold items."""
    table = _table("Annotators, for this site only", "annotator", "annotations", "right on gold", "95 %")
    numbers = np.bincount(ratings.raters, minlength=ratings.n_raters)
    for name, number, score in zip(shown, numbers, scores, strict=True):
        right = f"{score.value:.3f} of {score.n}" if score.n else "not known"
        interval = f"{score.low:.3f} to {score.high:.3f}" if score.n else ""
        table.add_row(escape(name), str(number), right, interval)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _short(digest: str) -> str:
    return digest.partition(":")[2][:SHOWN]


def _interval(ends: tuple[str, str]) -> str:
    return f"{ends[0]} to {ends[1]}"
