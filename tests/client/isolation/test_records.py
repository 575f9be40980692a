"""Records go to the study's process and come back as they were; bytes that are none are refused by name."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedseal.client.isolation.messages import Answered, ArrayPart, Value
from fedseal.client.isolation.pieces import PIECE, cut, joined
from fedseal.client.isolation.records import FORMS, arrays_in, metric_record, parts_of, settings_in, values_of
from fedseal.wire import DecodeError, decode, encode

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS: list[st.SearchStrategy[Any]] = [
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20),
]
SETTINGS = st.dictionaries(NAMES, st.one_of(*SCALARS, *(st.lists(kind, max_size=4) for kind in SCALARS)), max_size=6)
ARRAYS = st.dictionaries(
    NAMES,
    st.sampled_from(sorted(FORMS)).flatmap(
        lambda form: hnp.arrays(np.dtype(form), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(SETTINGS)
def test_settings_come_back(given_ones: dict[str, Any]) -> None:
    found = settings_in(values_of(given_ones))
    assert list(found) == list(given_ones)
    # By their text: a NaN is none of its own equals.
    assert repr(found) == repr(given_ones)


@settings(max_examples=80, deadline=None)
@given(ARRAYS)
def test_arrays_come_back(arrays: dict[str, Any]) -> None:
    found = arrays_in(parts_of(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_an_array_in_another_order_is_the_same_array() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    (found,) = arrays_in(parts_of({"v": array})).values()
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.dtype("<f4")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=3 * 40))
def test_whatever_bytes_come_are_an_answer_or_a_named_error(raw: bytes) -> None:
    for data in (raw, b"FS\x01\xce" + raw):
        try:
            answered = decode(data, Answered)
            arrays_in(answered.arrays)
            metric_record(answered.metrics or ())
        except DecodeError:
            continue


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.builds(
            ArrayPart,
            NAMES,
            st.sampled_from([*sorted(FORMS), "|O", "<U4", "|V8", "<c16", ">f4", "", "x"]),
            st.lists(st.sampled_from([0, 1, 2, 1 << 31, 1 << 63]), max_size=40).map(tuple),
            st.binary(max_size=16),
        ),
        max_size=3,
    ).map(tuple),
    st.lists(
        st.builds(Value, NAMES, st.integers(0, 255), st.booleans(), st.lists(st.binary(max_size=9)).map(tuple)),
        max_size=3,
    ).map(tuple),
)
def test_whatever_parts_come_are_records_or_a_named_error(
    parts: tuple[ArrayPart, ...], values: tuple[Value, ...]
) -> None:
    for read in (lambda: arrays_in(parts), lambda: settings_in(values), lambda: metric_record(values)):
        try:
            read()
        except DecodeError:
            continue


def test_metrics_are_numbers() -> None:
    with pytest.raises(DecodeError, match="no number"):
        metric_record(values_of({"m": "text"}))
    assert dict(metric_record(values_of({"a": 1, "b": [0.5, float("inf")]}))) == {"a": 1, "b": [0.5, float("inf")]}


def test_pieces_are_joined_up_to_a_limit() -> None:
    for length in (0, 1, PIECE, PIECE + 1, 3 * PIECE):
        message = bytes(length)
        assert joined(cut(message), length) == message
        assert max(len(piece.value) for piece in cut(message)) <= PIECE
    with pytest.raises(DecodeError, match="more than the 10 bytes"):
        joined(cut(bytes(11)), 10)
    assert encode(Answered((), None, None, False, None, None))
