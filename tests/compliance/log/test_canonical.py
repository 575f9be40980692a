"""What `canonical` writes is RFC 8785, as another implementation does it; what it reads is that and nothing else."""

import json
import unicodedata
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fedseal.compliance.log.canonical import MAX_BYTES, MAX_DEPTH, MAX_INTEGER, CanonicalError, decode, encode

TEXT = st.text(max_size=20).map(lambda t: unicodedata.normalize("NFC", t))
KEYS = st.text("az09_", min_size=1, max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@given(VALUES)
def test_it_is_rfc_8785(value: Any) -> None:
    assert encode(value) == rfc8785.dumps(value)
    assert decode(encode(value)) == value


# RFC 8785, 3.2.2.2 and its appendix's "structures", as far as floats and keys of other alphabets are not needed.
@pytest.mark.parametrize(
    ("value", "raw"),
    [
        ({"string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"}, '{"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'),
        ({"b": [56, {"d": True, "10": None, "1": []}], "a": {}}, '{"a":{},"b":[56,{"1":[],"10":null,"d":true}]}'),
        ("\u007f\b\t\f\r", '"\u007f\\b\\t\\f\\r"'),
        (MAX_INTEGER, "9007199254740991"),
        (-MAX_INTEGER, "-9007199254740991"),
    ],
)
def test_known_answers(value: Any, raw: str) -> None:
    assert encode(value) == raw.encode()
    assert decode(raw.encode()) == value


REFUSED: list[Any] = [
    1.5,
    1.0,
    float("nan"),
    MAX_INTEGER + 1,
    -MAX_INTEGER - 1,
    "e\u0301",
    "\ud800",
    {"": 1},
    {"A": 1},
    {"a" * 41: 1},
    {"a-b": 1},
    {"\u00e9": 1},
    {"a\n": 1},
    {1: 1},
    b"raw",
    {"a": {1, 2}},
    "x" * MAX_BYTES,
]


@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_a_value_without_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(CanonicalError):
        encode(value)
    with pytest.raises(CanonicalError):
        encode({"a": [value]})


UNREADABLE = [
    b"",
    b"{",
    b'{"a":1}\n',
    b' {"a":1}',
    b'{"a": 1}',
    b'{"b":1,"a":2}',
    b'{"a":1,"a":1}',
    b'{"a":[{"b":1,"b":2}]}',
    b"1.0",
    b"1e3",
    b"-0",
    b"01",
    b"NaN",
    b"Infinity",
    b"9007199254740992",
    b"1" * 5000,
    b'"\\u0041"',
    b'"\\/"',
    b'"\\u000F"',
    b'"\\ud800"',
    '"e\u0301"'.encode(),
    b'"\xff"',
    b'\xef\xbb\xbf{"a":1}',
    b"[" * 8000 + b"]" * 8000,
    b'"' + b"x" * MAX_BYTES + b'"',
    '{"a":"\u00e9"}'.encode("utf-16"),
]


@pytest.mark.parametrize("raw", UNREADABLE, ids=range(len(UNREADABLE)))
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(CanonicalError):
        decode(raw)


@given(VALUES, st.sampled_from([None, 1, 2]), st.booleans())
def test_another_spelling_of_the_same_value_is_refused(value: Any, indent: int | None, ascii_only: bool) -> None:
    other = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    if other != encode(value):
        with pytest.raises(CanonicalError):
            decode(other)


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_depth_has_a_limit() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(CanonicalError):
        encode(nested(MAX_DEPTH + 1))
    with pytest.raises(CanonicalError):
        encode(nested(100_000))
