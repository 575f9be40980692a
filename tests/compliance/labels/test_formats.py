"""Files of annotations: what is read from them, and what a wrong one is told without being quoted."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedseal.compliance.labels import formats, platforms
from fedseal.compliance.labels.formats import Annotation, Format, Source, read_labels
from fedseal.compliance.labels.platforms import read_annotations
from fedseal.errors import ConfigError, DataError, OperatorError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# What no message may quote.
PLANTED = "Zebrafish-4711"


def read(tmp_path: Path, layout: Format, text: str | bytes, **options: str) -> list[Annotation]:
    path = tmp_path / "labels.any"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_annotations(Source(path, layout, **options))


def test_a_long_table(tmp_path: Path) -> None:
    text = 'label,item,annotator,guideline,time\nlow,x1,Anna,2,2026-03-01T14:00:00+02:00\n\nhigh," x1 ","Bert, jr.",,\n'
    assert read(tmp_path, Format.CSV_LONG, "\ufeff" + text) == [
        Annotation("x1", "Anna", "low", NOON, "2", 2),
        Annotation("x1", "Bert, jr.", "high", None, "", 4),
    ]


def test_a_wide_table(tmp_path: Path) -> None:
    assert read(tmp_path, Format.CSV_WIDE, "Anna,item,Bert\nlow,x1,\n,x2,high\n") == [
        Annotation("x1", "Anna", "low", None, "", 2),
        Annotation("x2", "Bert", "high", None, "", 3),
    ]


def choices(label: object, name: str = "sentiment", kind: str = "choices") -> dict[str, Any]:
    return {"from_name": name, "to_name": "text", "type": kind, "value": {kind: label}}


def test_label_studios_json(tmp_path: Path) -> None:
    """The layout of labelstud.io/guide/task_format and its users as numbers or as objects."""
    tasks = [
        {
            "id": 7,
            "data": {"case": "x1"},
            "annotations": [
                {
                    "id": 1001,
                    "completed_by": 10,
                    "was_cancelled": False,
                    "created_at": "2026-03-01T11:00:00.000000Z",
                    "updated_at": "2026-03-01T12:00:00.000000Z",
                    "result": [choices(["low"]), choices(["yes"], "quality")],
                },
                {"completed_by": 12, "was_cancelled": True, "result": []},
                {
                    "completed_by": {"id": 11, "email": "b@example.org"},
                    "created_at": "2026-03-01T12:00:00Z",
                    "result": [choices(["mid"])],
                },
            ],
            "predictions": [{"model_version": "m", "result": [choices(["high"])]}],
        },
        {"id": 8, "data": {"case": "x2"}, "annotations": [{"completed_by": 10, "result": [choices(3, kind="rating")]}]},
    ]
    by_id = read(tmp_path, Format.LABEL_STUDIO, json.dumps(tasks[1:]))
    assert by_id == [Annotation("8", "10", "3", None, "", 1)]
    found = read(tmp_path, Format.LABEL_STUDIO, json.dumps(tasks[:1]), control="sentiment", item_key="case")
    assert found == [Annotation("x1", "10", "low", NOON, "", 1), Annotation("x1", "11", "mid", NOON, "", 1)]
    with pytest.raises(DataError, match=r"task 1: an annotation with 2 results"):
        read(tmp_path, Format.LABEL_STUDIO, json.dumps(tasks[:1]))


def test_both_of_doccanos_layouts(tmp_path: Path) -> None:
    own = (
        '{"id": 1, "text": "t", "label": ["low"]}\n{"id": 2, "text": "t", "label": []}\n{"id": 3, "labels": ["mid"]}\n'
    )
    assert read(tmp_path, Format.DOCCANO, own, annotator="Anna") == [
        Annotation("1", "Anna", "low", None, "", 1),
        Annotation("3", "Anna", "mid", None, "", 3),
    ]
    with pytest.raises(DataError, match=r"line 1: the file does not say who labelled") as caught:
        read(tmp_path, Format.DOCCANO, own)
    assert "--annotator" in caught.value.next_step
    together = {
        "id": 5,
        "text": "t",
        "meta": {"case": "x5"},
        "annotation_approver": None,
        "annotations": [
            {"id": 1, "label": 2, "user": 3, "created_at": "2026-03-01T12:00:00Z"},
            {"id": 2, "label": 4, "user": 4},
        ],
    }
    assert read(tmp_path, Format.DOCCANO, json.dumps(together)) == [
        Annotation("5", "3", "2", NOON, "", 1),
        Annotation("5", "4", "4", None, "", 1),
    ]


LONG = "item,annotator,label,time\n"
WRONG: list[tuple[Format, str | bytes, str]] = [
    (Format.CSV_LONG, "", "there is no column 'item'"),
    (Format.CSV_LONG, f"item,{PLANTED},label\na,b,c\n", "no column 'annotator'"),
    (Format.CSV_LONG, f"item,annotator,label,{PLANTED}\na,b,c,d\n", "line 1: column 4 is none of"),
    (Format.CSV_LONG, "item,annotator,label,item\na,b,c,d\n", "line 1: column 4 has the name of an earlier one"),
    (Format.CSV_LONG, LONG, "has no annotation"),
    (Format.CSV_LONG, LONG + f"a,b,{PLANTED}\n", "line 2: 3 cells where the first row has 4"),
    (Format.CSV_LONG, LONG + f"a,b,c,\n{PLANTED},,c,\n", "line 3: the annotator is empty"),
    (Format.CSV_LONG, LONG + f"a,b,{PLANTED * 20},\n", "line 2: the label has more than 256 characters"),
    (Format.CSV_LONG, LONG + f"{PLANTED}\x00,b,c,\n", "line 2: the item has more than 256 characters, or unprintable"),
    (Format.CSV_LONG, LONG + f"a,b,c,{PLANTED}\n", "line 2: the time is not ISO 8601"),
    (Format.CSV_LONG, LONG + "a,b,c,2026-03-01T12:00:00\n", "line 2: the time is not ISO 8601 with a time zone"),
    (Format.CSV_LONG, LONG + "a,b,c,0001-01-01T00:00:00+14:00\n", "line 2: the time is not ISO 8601"),
    (Format.CSV_LONG, LONG + f'a,"b{PLANTED}\n', "line 2: not a row of a CSV file"),
    (Format.CSV_LONG, LONG.encode() + b"a,b,\xff,\n", "is not in UTF-8"),
    (Format.CSV_WIDE, LONG + "a,b,c,\n", "line 1: columns 'annotator' and 'label'"),
    (Format.CSV_WIDE, f"item,{PLANTED},\nx,a,b\n", "line 1: the name of column 3 is empty"),
    (Format.CSV_WIDE, f"item,Anna,Anna\n{PLANTED},a,b\n", "column 3 has the name of an earlier one"),
    (Format.LABEL_STUDIO, f'{{"{PLANTED}": 1}}', "is not a list of tasks"),
    (Format.LABEL_STUDIO, "[" * 100_000, "is not JSON"),
    (Format.LABEL_STUDIO, f'["{PLANTED}"]', "task 1: no object"),
    (Format.LABEL_STUDIO, f'[{{"id": 1, "sentiment": "{PLANTED}"}}]', "task 1: there is no list 'annotations'"),
    (Format.LABEL_STUDIO, '[{"annotations": []}]', "task 1: the id is missing"),
    (Format.LABEL_STUDIO, '[{"id": true, "annotations": []}]', "task 1: the id is missing"),
    (Format.LABEL_STUDIO, '[{"id": 1, "annotations": [{"completed_by": 1}]}]', "whose result is no list"),
    (
        Format.LABEL_STUDIO,
        json.dumps([{"id": 1, "annotations": [{"completed_by": 1, "result": [choices([PLANTED, "b"])]}]}]),
        "task 1: 2 labels at once",
    ),
    (
        Format.LABEL_STUDIO,
        json.dumps([{"id": 1, "annotations": [{"completed_by": None, "result": [choices([PLANTED])]}]}]),
        "task 1: the annotator (completed_by) is missing",
    ),
    (Format.DOCCANO, f'{{"id": 1, "label": ["a"]}}\n{PLANTED}\n', "line 2: not JSON"),
    (Format.DOCCANO, f'["{PLANTED}"]\n', "line 1: no object"),
    (Format.DOCCANO, f'{{"id": 1, "label": ["{PLANTED}", "b"]}}\n', "line 1: 2 labels at once"),
    (Format.DOCCANO, '{"id": 1, "label": [[0, 3, "ORG"]]}\n', "line 1: the label is missing, or is no text"),
    (Format.DOCCANO, f'{{"text": "{PLANTED}", "label": ["a"]}}\n', "line 1: the item ('id') is missing"),
    (Format.DOCCANO, f'{{"id": 1, "annotations": "{PLANTED}"}}\n', "'annotations' is no list of objects"),
    (Format.DOCCANO, f'{{"id": 1, "text": "{PLANTED}"}}\n', "neither a list 'label' nor a list 'annotations'"),
    (Format.DOCCANO, f'{{"id": {"9" * 5000}, "label": ["a"]}}\n', "line 1: not JSON"),
]


@pytest.mark.parametrize(("layout", "text", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_told_where_and_what_and_not_quoted(
    tmp_path: Path, layout: Format, text: str | bytes, says: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, layout, text, annotator="Anna")
    assert says in caught.value.message
    assert PLANTED not in caught.value.explain()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("layout", list(Format))
@given(
    text=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(["id", "label", "annotations", "result", "value", "choices", "user"]), inner
                ),
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps([value]).encode()),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, layout: Format, text: bytes) -> None:
    try:
        found = read(tmp_path, layout, text, annotator="Anna")
    except OperatorError:
        return
    assert all(a.item and a.annotator and a.label for a in found)


def test_huge_files_are_refused_before_they_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(formats.MOST_BYTES + 1)
    for layout in Format:
        with pytest.raises(DataError, match=r"larger than \d+ MiB"):
            read_annotations(Source(path, layout))
    monkeypatch.setattr(platforms, "LONGEST_LINE", 50)
    with pytest.raises(DataError, match="line 2: longer than"):
        read(
            tmp_path, Format.DOCCANO, '{"id": 1, "label": ["a"]}\n{"id": 2, "text": "' + "x" * 50 + '"}', annotator="A"
        )
    monkeypatch.setattr(formats, "LONGEST_LINE", 40)
    for text in ("item,A\nx,a\ny," + "b" * 40, 'item,A\nx,a\n"' + "y" * 40 + '",b'):
        with pytest.raises(DataError, match="line 3: longer than"):
            read(tmp_path, Format.CSV_WIDE, text)
    monkeypatch.setattr(formats, "MOST_ANNOTATIONS", 3)
    with pytest.raises(DataError, match="more than 3 annotations"):
        read(tmp_path, Format.CSV_WIDE, "item,A,B\nx,a,b\ny,a,b\n")
    assert len(read(tmp_path, Format.CSV_WIDE, "item,A,B\nx,a,b\ny,a,\n")) == 3


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="is not a file"):
            read_annotations(Source(path, Format.CSV_LONG))


def test_one_label_an_item(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text("label,item\nlow,x1\nhigh,x2\n", encoding="utf-8")
    assert read_labels(path) == {"x1": "low", "x2": "high"}
    for text, says in (
        (f"item,label\nx1,low\nx1,{PLANTED}\n", "line 3: the item stands on an earlier line too"),
        (f"item,label,{PLANTED}\nx1,low,a\n", "columns are not item and label"),
        ("item,label\n", "has no label"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=says) as caught:
            read_labels(path)
        assert PLANTED not in caught.value.explain()
