"""Exports of annotation tools: Label Studio's JSON and doccano's JSON Lines. Names and layouts are facts of theirs.

Label Studio (labelstud.io/guide/task_format, /guide/export): a list of tasks, each with ``id``, ``data`` and
``annotations``; an annotation has ``completed_by`` (a number, or a user with ``id`` and ``email``), ``created_at``,
``updated_at``, ``was_cancelled`` and ``result``, a list of regions with ``from_name``, ``type`` and ``value``.
Predictions of models are no annotations and are passed over, as are cancelled ones.

doccano: a line a document. Either ``label`` (or ``labels``) is a list with the label, and the file is one annotator's;
or ``annotations`` is a list of records with ``label``, ``user`` and, if present, ``created_at`` and ``updated_at``.
"""

import json
from collections.abc import Iterator
from datetime import datetime

from fedseal.compliance.labels.formats import (
    LONGEST_LINE,
    MOST_BYTES,
    MOST_JSON_BYTES,
    Annotation,
    Format,
    Source,
    check_size,
    counted,
    name_at,
    read_csv,
    time_at,
)
from fedseal.errors import DataError

# Where each type of a control that gives one label an item keeps it.
_VALUES = {"choices": "choices", "rating": "rating", "number": "number"}


def read_annotations(source: Source) -> list[Annotation]:
    """All annotations of a file.

    Raises:
        ConfigError: there is no such file, or an option is missing for it.
        DataError: the place and what is wrong there; nothing of what stands there.
    """
    match source.format:
        case Format.CSV_LONG | Format.CSV_WIDE:
            return read_csv(source)
        case Format.LABEL_STUDIO:
            return counted(source, _label_studio(source))
        case Format.DOCCANO:
            return counted(source, _doccano(source))


def _label_studio(source: Source) -> Iterator[Annotation]:
    check_size(source.path, MOST_JSON_BYTES)
    try:
        tasks = json.loads(source.path.read_bytes())
    except (ValueError, RecursionError):
        raise DataError(f"{source.path.name} is not JSON", next_step="In Label Studio export as JSON.") from None
    if not isinstance(tasks, list):
        raise DataError(f"{source.path.name} is not a list of tasks", next_step="In Label Studio export as JSON.")
    for place, task in enumerate(tasks, start=1):
        item = _label_studio_item(source, place, task)
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            raise source.wrong(
                place, "there is no list 'annotations'", next_step="In Label Studio export as JSON, not as JSON-MIN."
            )
        for annotation in annotations:
            if not isinstance(annotation, dict):
                raise source.wrong(place, "an annotation that is no object")
            if annotation.get("was_cancelled"):
                continue
            label = _label_studio_label(source, place, annotation.get("result"))
            who = annotation.get("completed_by")
            if isinstance(who, dict):
                who = who.get("id", who.get("email"))
            annotator = name_at(source, place, "annotator (completed_by)", who)
            yield Annotation(item, annotator, label, _when(source, place, annotation), "", place)


def _label_studio_item(source: Source, place: int, task: object) -> str:
    if not isinstance(task, dict):
        raise source.wrong(place, "no object")
    if not source.item_key:
        return name_at(source, place, "id", task.get("id"))
    data = task.get("data")
    return name_at(source, place, "item of --item-key", data.get(source.item_key) if isinstance(data, dict) else None)


def _label_studio_label(source: Source, place: int, result: object) -> str:
    """The one label of an annotation."""
    if not isinstance(result, list) or not all(isinstance(region, dict) for region in result):
        raise source.wrong(place, "an annotation whose result is no list of objects")
    # A file may have anything for a type, a list or an object too.
    regions = [r for r in result if str(r.get("type")) in _VALUES and source.control in ("", r.get("from_name"))]
    if len(regions) != 1:
        raise source.wrong(
            place,
            f"an annotation with {len(regions)} results of type {', '.join(_VALUES)}; expected one",
            next_step="Say with --control which control's results count, or skip the task in Label Studio.",
        )
    value = regions[0].get("value")
    found = value.get(_VALUES[regions[0]["type"]]) if isinstance(value, dict) else None
    return _only(source, place, found)


def _only(source: Source, place: int, found: object) -> str:
    """The one label in a list, or a number."""
    if isinstance(found, list):
        if len(found) != 1:
            raise source.wrong(place, f"{len(found)} labels at once; a label set has one label an item")
        found = found[0]
    return name_at(source, place, "label", f"{found:g}" if isinstance(found, float) else found)


def _when(source: Source, place: int, annotation: dict[str, object]) -> datetime | None:
    """When the label that stands was given: both tools change an annotation in place and say so in ``updated_at``."""
    return time_at(source, place, annotation.get("updated_at") or annotation.get("created_at"))


def _doccano(source: Source) -> Iterator[Annotation]:
    check_size(source.path, MOST_BYTES)
    with source.path.open("rb") as file:
        place = 0
        while line := file.readline(LONGEST_LINE + 1):
            place += 1
            if len(line) > LONGEST_LINE:
                raise source.wrong(place, f"longer than {LONGEST_LINE >> 20} MiB")
            if not line.strip():
                continue
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                raise source.wrong(place, "not JSON", next_step="In doccano export as JSONL.") from None
            if not isinstance(document, dict):
                raise source.wrong(place, "no object")
            yield from _document(source, place, document)


def _document(source: Source, place: int, document: dict[str, object]) -> Iterator[Annotation]:
    key = source.item_key or "id"
    item = name_at(source, place, f"item ({key!r})" if not source.item_key else "item of --item-key", document.get(key))
    if "annotations" in document:
        annotations = document["annotations"]
        if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
            raise source.wrong(place, "'annotations' is no list of objects")
        for annotation in annotations:
            annotator = name_at(source, place, "annotator (user)", annotation.get("user"))
            label = _only(source, place, annotation.get("label"))
            yield Annotation(item, annotator, label, _when(source, place, annotation), "", place)
        return
    given = document.get("label", document.get("labels"))
    if not isinstance(given, list):
        raise source.wrong(place, "there is neither a list 'label' nor a list 'annotations'")
    if not source.annotator:
        raise source.wrong(
            place,
            "the file does not say who labelled",
            next_step="Say with --annotator whose labels they are: doccano writes a file a person.",
        )
    # A document that this person has not labelled.
    if given:
        annotator = name_at(source, place, "annotator", source.annotator)
        yield Annotation(item, annotator, _only(source, place, given), None, "", place)
