"""What an imported file adds to the annotations that are there. Pure.

One annotator says one thing of one item. Where a file, or a file and the store, have several:

* the same label under the same guideline, or one that was given before and corrected since: known, nothing is added;
* another label with a *later* time: a correction by the annotator, which supersedes the earlier one;
* a *later* guideline version: a correction because the guideline changed;
* anything else contradicts: an error, as nobody can say which of two labels without times holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fedseal.compliance.labels.content import LabelKeys
from fedseal.compliance.labels.facts import Reason
from fedseal.compliance.labels.formats import Annotation, Source

_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Live:
    """The annotation that holds of one annotator and item. ``ever`` are all labels it had; a None is withdrawn."""

    number: int
    label: str | None
    time: datetime | None
    guideline: str
    ever: frozenset[str | None]


@dataclass(frozen=True, slots=True)
class NewRow:
    """An annotation to be stored."""

    number: int
    item: str
    annotator: str
    label: str
    time: str | None
    guideline: str
    supersedes: int | None
    reason: Reason | None


def merged(
    annotations: list[Annotation],
    live: dict[tuple[str, str], Live],
    keys: LabelKeys,
    source: Source,
    guideline: str,
    orders: Mapping[str, int],
    first: int,
) -> tuple[list[NewRow], int]:
    """The rows to store and how many annotations were known.

    Args:
        annotations: of the file.
        live: what holds now, by item and annotator's pseudonym; brought up to date.
        keys: the site's, for pseudonyms.
        source: the file, for messages.
        guideline: the version where an annotation has none.
        orders: the number of each guideline version; later ones are higher.
        first: the number of the first new row.

    Raises:
        DataError: two annotations contradict each other; names their places.
    """
    pseudonyms = {name: keys.pseudonym(name) for name in {a.annotator for a in annotations}}
    _refuse_repeats(annotations, source)
    rows: list[NewRow] = []
    known = 0
    for new in sorted(annotations, key=lambda a: (a.time or _EARLIEST, a.place)):
        version, key = new.guideline or guideline, (new.item, pseudonyms[new.annotator])
        before = live.get(key)
        reason = None
        if before is not None:
            if _is_known(before, new, version, orders):
                known += 1
                continue
            reason = _reason(before, new, version, orders)
            if reason is None:
                raise source.wrong(
                    new.place,
                    "another label than this annotator gave the item before, and no later time",
                    next_step="If it is a correction, say so: fedseal labels correct",
                )
        row = NewRow(
            first + len(rows),
            *key,
            new.label,
            None if new.time is None else new.time.isoformat(timespec="microseconds"),
            version,
            None if before is None else before.number,
            reason,
        )
        rows.append(row)
        ever = frozenset() if before is None else before.ever
        live[key] = Live(row.number, new.label, new.time, version, ever | {new.label})
    return rows, known


def _refuse_repeats(annotations: list[Annotation], source: Source) -> None:
    """That no annotator labels an item twice in a file unless the times tell which comes first."""
    seen: dict[tuple[str, str], dict[datetime | None, int]] = {}
    for annotation in annotations:
        places = seen.setdefault((annotation.item, annotation.annotator), {})
        untold = annotation.time is None or annotation.time in places or None in places
        if places and untold:
            raise source.wrong(
                annotation.place,
                f"the same annotator labels the same item as at {source.format.unit} {next(iter(places.values()))}",
                next_step="Take one of them out, or give both their times: then the later one is a correction.",
            )
        places[annotation.time] = annotation.place


def _is_known(before: Live, new: Annotation, version: str, orders: Mapping[str, int]) -> bool:
    if orders[version] > orders[before.guideline]:
        return False
    if before.label == new.label and before.guideline == version:
        return True
    return new.label in before.ever and not _is_later(before, new)


def _is_later(before: Live, new: Annotation) -> bool:
    return new.time is not None and before.time is not None and new.time > before.time


def _reason(before: Live, new: Annotation, version: str, orders: Mapping[str, int]) -> Reason | None:
    if orders[version] > orders[before.guideline]:
        return Reason.GUIDELINE
    if orders[version] == orders[before.guideline] and _is_later(before, new):
        return Reason.REVISED
    return None
