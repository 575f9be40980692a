"""The digest of what a site computes on: the same for the same inputs in any order, another for any other inputs."""

import copy
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from fedseal.inputs import input_digest

Arrays = dict[str, dict[str, NDArray[Any]]]
Settings = dict[str, dict[str, Any]]

DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "uint32", "int64", "bool"]
names = st.text(max_size=4)
scalars: st.SearchStrategy[Any] = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
)
values = scalars | st.lists(scalars, max_size=3)
some_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
all_arrays = st.dictionaries(names, st.dictionaries(names, some_array, max_size=3), max_size=2)
all_settings = st.dictionaries(names, st.dictionaries(names, values, max_size=3), max_size=2)


def reordered(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same records, all put in the other way round."""
    return {r: dict(reversed(list(entries.items()))) for r, entries in reversed(list(records.items()))}


def form(value: Any) -> Any:
    """Whatever distinguishes two settings, as nested tuples of types and exact values."""
    if isinstance(value, list):
        return ("list", *(form(v) for v in value))
    return (type(value).__name__, value.hex() if isinstance(value, float) else value)


def picture(arrays: Arrays, settings_: Settings) -> Any:
    """Whatever distinguishes two inputs."""
    return (
        {r: {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in e.items()} for r, e in arrays.items()},
        {r: {n: form(v) for n, v in e.items()} for r, e in settings_.items()},
    )


@settings(max_examples=200, deadline=None)
@given(all_arrays, all_settings)
def test_the_order_of_records_and_entries_does_not_matter(arrays: Arrays, settings_: Settings) -> None:
    digest = input_digest(arrays, settings_)
    assert len(digest) == 32
    assert input_digest(reordered(arrays), reordered(settings_)) == digest
    assert input_digest(copy.deepcopy(arrays), copy.deepcopy(settings_)) == digest


@settings(max_examples=300, deadline=None)
@given(all_arrays, all_settings, all_arrays, all_settings)
def test_other_inputs_have_another_digest(a: Arrays, s: Settings, b: Arrays, t: Settings) -> None:
    assume(picture(a, s) != picture(b, t))
    assert input_digest(a, s) != input_digest(b, t)


@settings(max_examples=200, deadline=None)
@given(some_array, st.data())
def test_any_change_of_an_array_changes_the_digest(array: NDArray[Any], data: st.DataObject) -> None:
    before = input_digest({"r": {"n": array}}, {})
    kinds = [d for d in DTYPES if d != array.dtype.name]
    with np.errstate(all="ignore"):
        others = [array.astype(data.draw(st.sampled_from(kinds))), array[np.newaxis], array.reshape(-1)]
    if array.size:
        changed = array.copy().reshape(-1)
        place = data.draw(st.integers(0, array.size - 1))
        changed.view(np.uint8)[place * array.itemsize] ^= 1
        others += [changed.reshape(array.shape), array.reshape(-1)[:-1]]
    for other in others:
        if (other.dtype, other.shape, other.tobytes()) != (array.dtype, array.shape, array.tobytes()):
            assert input_digest({"r": {"n": other}}, {}) != before
    assert input_digest({"q": {"n": array}}, {}) != before
    assert input_digest({"r": {"m": array}}, {}) != before
    assert input_digest({"r": {}}, {}) != before
    assert input_digest({"r": {"n": array}, "q": {}}, {}) != before
    assert input_digest({"r": {"n": array}}, {"s": {}}) != before


@settings(max_examples=300, deadline=None)
@given(values, values)
def test_settings_of_another_type_or_value_have_another_digest(one: Any, two: Any) -> None:
    same = form(one) == form(two)
    assert (input_digest({}, {"s": {"x": one}}) == input_digest({}, {"s": {"x": two}})) == same


def test_values_that_python_calls_equal_are_told_apart() -> None:
    ones: list[Any] = [True, 1, 1.0, "1", b"1", "True", [True], [1], [1.0], ["1", "1"], ["11"], "11"]
    zeros: list[Any] = [False, 0, 0.0, -0.0, "", b"", [], [[]]]
    digests = {input_digest({}, {"s": {"x": value}}) for value in ones + zeros}
    assert len(digests) == len(ones) + len(zeros)


def test_a_list_and_a_tuple_are_the_same_setting() -> None:
    assert input_digest({}, {"s": {"x": [1, 2]}}) == input_digest({}, {"s": {"x": (1, 2)}})


@pytest.mark.parametrize("value", [None, {}, {1}, object(), 1j, np.int64(1), np.zeros(2), bytearray(b"x"), [None]])
def test_a_setting_of_a_foreign_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a setting of type"):
        input_digest({}, {"s": {"x": value}})


def test_the_layout_in_memory_does_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    digest = input_digest({"r": {"n": array}}, {})
    assert input_digest({"r": {"n": np.asfortranarray(array)}}, {}) == digest
    assert input_digest({"r": {"n": np.repeat(array, 2, axis=1)[:, ::2]}}, {}) == digest
    assert input_digest({"r": {"n": array.astype(">f4")}}, {}) == digest
    assert input_digest({"r": {"n": array.T}}, {}) != digest


def test_a_number_and_a_vector_of_one_number_are_told_apart() -> None:
    digests = {input_digest({"r": {"n": np.full(shape, 2.0)}}, {}) for shape in ((), (1,), (1, 1))}
    assert len(digests) == 3


def test_an_array_does_not_pose_as_settings() -> None:
    """Two different inputs whose parts, one after the other, are the same bytes."""
    first: NDArray[Any]
    second: NDArray[Any]
    first, second = np.frombuffer(b"!aaa", dtype="<f4"), np.frombuffer(b"sabc", dtype="<f4")
    as_arrays = input_digest({"a": {"settings": first, "szzz": second}}, {})
    as_settings = input_digest({"a": {}}, {"<f4:1": {"!aaa": "zzz", "<f4:1": "abc"}})
    assert as_arrays != as_settings
