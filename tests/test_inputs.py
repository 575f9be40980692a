"""The digest of what a site computes on: the same for the same inputs, another for any other inputs.

The order of arrays is one of the inputs; that of settings and of records is not.
"""

import copy
import hashlib
import struct
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from fedseal.inputs import input_digest, task_digest

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
one_record = st.dictionaries(names, values, max_size=3)
all_settings = st.dictionaries(names, one_record, max_size=2)


def backwards(entries: dict[str, Any]) -> dict[str, Any]:
    """The same entries in the other order."""
    return dict(reversed(list(entries.items())))


def form(value: Any) -> Any:
    """Whatever distinguishes two settings, as nested tuples of types and exact values."""
    if isinstance(value, list):
        return ("list", *(form(v) for v in value))
    return (type(value).__name__, value.hex() if isinstance(value, float) else value)


def settings_picture(settings_: Settings) -> Any:
    """Whatever distinguishes two sets of settings."""
    return {r: {n: form(v) for n, v in e.items()} for r, e in settings_.items()}


def picture(arrays: Arrays, settings_: Settings) -> Any:
    """Whatever distinguishes two tasks; arrays in their order."""
    return (
        {r: [(n, a.dtype.str, a.shape, a.tobytes()) for n, a in e.items()] for r, e in arrays.items()},
        settings_picture(settings_),
    )


@settings(max_examples=150, deadline=None)
@given(all_arrays, all_settings)
def test_the_order_of_records_and_of_settings_does_not_matter(arrays: Arrays, settings_: Settings) -> None:
    digest = task_digest(arrays, settings_)
    assert len(digest) == 32
    turned = backwards({record: backwards(entries) for record, entries in settings_.items()})
    assert task_digest(backwards(arrays), turned) == digest
    assert task_digest(copy.deepcopy(arrays), copy.deepcopy(settings_)) == digest


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, some_array, min_size=2, max_size=4), st.data())
def test_the_order_of_arrays_in_a_record_counts(record: dict[str, NDArray[Any]], data: st.DataObject) -> None:
    """An app may take them by position."""
    order = data.draw(st.permutations(list(record)))
    turned = {name: record[name] for name in order}
    assert (task_digest({"r": turned}, {}) == task_digest({"r": record}, {})) == (order == list(record))


@settings(max_examples=200, deadline=None)
@given(all_arrays, all_settings, all_arrays, all_settings)
def test_another_task_has_another_digest(a: Arrays, s: Settings, b: Arrays, t: Settings) -> None:
    assume(picture(a, s) != picture(b, t))
    assert task_digest(a, s) != task_digest(b, t)


@settings(max_examples=150, deadline=None)
@given(some_array, st.data())
def test_any_change_of_an_array_changes_the_digest(array: NDArray[Any], data: st.DataObject) -> None:
    before = task_digest({"r": {"n": array}}, {})
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
            assert task_digest({"r": {"n": other}}, {}) != before
    assert task_digest({"q": {"n": array}}, {}) != before
    assert task_digest({"r": {"m": array}}, {}) != before
    assert task_digest({"r": {}}, {}) != before
    assert task_digest({"r": {"n": array}, "q": {}}, {}) != before
    assert task_digest({"r": {"n": array}}, {"s": {}}) != before


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_settings_of_another_type_or_value_have_another_digest(one: Any, two: Any) -> None:
    same = form(one) == form(two)
    assert (task_digest({}, {"s": {"x": one}}) == task_digest({}, {"s": {"x": two}})) == same
    assert (input_digest(bytes(32), {"x": one}) == input_digest(bytes(32), {"x": two})) == same


def test_values_that_python_calls_equal_are_told_apart() -> None:
    ones: list[Any] = [True, 1, 1.0, "1", b"1", "True", [True], [1], [1.0], ["1", "1"], ["11"], "11"]
    zeros: list[Any] = [False, 0, 0.0, -0.0, "", b"", [], [[]]]
    digests = {task_digest({}, {"s": {"x": value}}) for value in ones + zeros}
    assert len(digests) == len(ones) + len(zeros)


def test_a_list_and_a_tuple_are_the_same_setting() -> None:
    assert task_digest({}, {"s": {"x": [1, 2]}}) == task_digest({}, {"s": {"x": (1, 2)}})


@pytest.mark.parametrize("value", [None, {}, {1}, object(), 1j, np.int64(1), np.zeros(2), bytearray(b"x"), [None]])
def test_a_setting_of_a_foreign_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a setting of type"):
        task_digest({}, {"s": {"x": value}})
    with pytest.raises(TypeError, match="a setting of type"):
        input_digest(bytes(32), {"x": value})


def test_the_layout_in_memory_does_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    digest = task_digest({"r": {"n": array}}, {})
    assert task_digest({"r": {"n": np.asfortranarray(array)}}, {}) == digest
    assert task_digest({"r": {"n": np.repeat(array, 2, axis=1)[:, ::2]}}, {}) == digest
    assert task_digest({"r": {"n": array.astype(">f4")}}, {}) == digest
    assert task_digest({"r": {"n": array.T}}, {}) != digest


def test_a_number_and_a_vector_of_one_number_are_told_apart() -> None:
    digests = {task_digest({"r": {"n": np.full(shape, 2.0)}}, {}) for shape in ((), (1,), (1, 1))}
    assert len(digests) == 3


# Records are not confused


def words(text: bytes) -> NDArray[Any]:
    """An array of those bytes."""
    array: NDArray[Any] = np.frombuffer(text, dtype="<f4")
    return array


def test_an_array_does_not_pose_as_settings() -> None:
    """Two different tasks whose parts, one after the other, are the same bytes but for the numbers of entries."""
    as_arrays = task_digest({"a": {"settings": words(b"!aaa"), "szzz": words(b"sabc")}}, {})
    as_settings = task_digest({"a": {}}, {"<f4:1": {"!aaa": "zzz", "<f4:1": "abc"}})
    assert as_arrays != as_settings


def test_entries_do_not_move_between_records() -> None:
    one, two = np.ones(1), np.zeros(1)
    tasks: list[Arrays] = [
        {"a": {"x": one, "y": two}},
        {"a": {"x": one}, "y": {"y": two}},
        {"a": {"x": one}, "b": {"y": two}},
        {"a": {}, "b": {"x": one, "y": two}},
        {"b": {"x": one, "y": two}},
        {"a": {"x": one, "y": two}, "b": {}},
    ]
    assert len({task_digest(task, {}) for task in tasks}) == len(tasks)
    sets: list[Settings] = [
        {"a": {"x": 1, "y": 2}},
        {"a": {"x": 1}, "b": {"y": 2}},
        {"a": {}, "b": {"x": 1, "y": 2}},
        {"b": {"x": 1, "y": 2}},
        {"a": {"x": 1, "y": 2}, "b": {}},
    ]
    assert len({task_digest({}, each) for each in sets}) == len(sets)


# The run's configuration


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=32, max_size=32), one_record, st.binary(min_size=32, max_size=32), one_record)
def test_the_inputs_are_the_task_and_the_runs_configuration(
    task: bytes, config: dict[str, Any], other_task: bytes, other_config: dict[str, Any]
) -> None:
    digest = input_digest(task, config)
    assert len(digest) == 32
    assert input_digest(task, backwards(config)) == digest
    assert digest != task
    for t, c in ((other_task, config), (task, other_config), (other_task, other_config)):
        same = t == task and settings_picture({"": c}) == settings_picture({"": config})
        assert (input_digest(t, c) == digest) == same


def test_a_task_with_the_runs_configuration_in_it_is_another_input() -> None:
    """A setting of the task does not pose as one of the run, also not in a record of that name."""
    config = {"lr": 0.1}
    digests = {
        input_digest(task_digest({}, {}), config),
        input_digest(task_digest({}, {"run-config": config}), {}),
        input_digest(task_digest({}, {"run-config": config}), config),
        input_digest(task_digest({}, {"config": config}), {}),
        input_digest(task_digest({}, {}), {}),
        task_digest({}, {"run-config": config}),
    }
    assert len(digests) == 6


def parts(*each: bytes) -> bytes:
    """Each part behind its length."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in each)


def test_the_digests_are_those_of_the_written_form() -> None:
    """Spelt out once more: servers and sites of different builds have to agree on it."""
    arrays: Arrays = {"model": {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array(7, dtype=np.int8)}}
    task = task_digest(arrays, {"config": {"lr": 0.5, "go": True, "n": 12, "s": ["a", b"b"]}})
    listed = b"l" + parts(b"sa", b"yb")
    written = parts(b"arrays", b"model", b"2", b"w", b"<f4:2", struct.pack("<ff", 1, 2), b"b", b"|i1:", b"\x07")
    written += parts(b"settings", b"config", b"4", b"go", b"b\x01", b"lr", b"f\x3f\xe0" + bytes(6), b"n", b"i12")
    written += parts(b"s", listed)
    assert task == hashlib.sha256(b"fedseal/task/1" + written).digest()
    config = parts(b"settings", b"run-config", b"1", b"rounds", b"i2")
    assert input_digest(task, {"rounds": 2}) == hashlib.sha256(b"fedseal/inputs/1" + task + config).digest()
