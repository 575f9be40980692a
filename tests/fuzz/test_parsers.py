"""Every parser that faces a peer or an operator's file: for any bytes a value, or one of the errors that it names.

`bench/fuzz.py` runs the same targets for as long as one likes, guided by coverage.
"""

import struct
import tracemalloc
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzz_targets import TARGETS
from support.fuzzing import CHANGES, ContractError, Target, changed, judge

from fedseal.privacy.counts import Tables
from fedseal.wire import DecodeError, decode

EACH = pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
# Inputs that hypothesis draws a seed for, and how many are made of it.
SEEDS, BATCH = 6, 25
# More than any of these inputs is worth: they have at most 64 KiB.
MOST_MEMORY = 48 << 20
SETTINGS = settings(max_examples=SEEDS, deadline=None, suppress_health_check=list(HealthCheck))


def test_names_are_those_of_one_target() -> None:
    names = [target.name for target in TARGETS]
    assert len(set(names)) == len(names) > 60


@EACH
def test_what_is_valid_is_taken_and_written_again(target: Target) -> None:
    taken = [judge(target, raw) for raw in target.corpus()]
    assert all(taken) if target.total else any(taken)


@EACH
@SETTINGS
@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_changed_is_taken_or_refused_by_name(target: Target, seed: int) -> None:
    random, corpus = Random(seed), target.corpus()
    for _ in range(BATCH):
        judge(target, changed(random, corpus))


@EACH
@SETTINGS
@given(raw=st.binary(max_size=64) | st.text(max_size=32).map(lambda said: said.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_taken_or_refused_by_name(target: Target, raw: bytes) -> None:
    judge(target, raw)


def bombs(corpus: Sequence[bytes]) -> Sequence[bytes]:
    """Inputs that promise much: a huge length at every place of the beginning, and nesting."""
    first = corpus[0]
    lengths = [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20]
    found = [
        first[:at] + struct.pack(order, length) + first[at + 4 :]
        for at in range(0, min(len(first), 96), 3)
        for length in lengths
        for order in (">I", "<I")
    ]
    return [*found, b"[" * 60_000, b'{"a":' * 12_000, first[: len(first) // 2] + b"[" * 60_000]


@EACH
def test_a_length_is_believed_by_nobody(target: Target) -> None:
    """Memory is not taken for what an input only says that it has."""
    made = bombs(target.corpus())
    judge(target, made[0])
    tracemalloc.start()
    try:
        for raw in made:
            judge(target, raw)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def caught(target: Target, tries: int = 400) -> bool:
    """Whether changed inputs show that a parser does not keep its promise."""
    corpus = target.corpus()
    for seed in range(tries):
        try:
            judge(target, changed(Random(seed), corpus))
        except Exception:  # noqa: BLE001
            return True
    return False


def by_name(name: str) -> Target:
    return next(target for target in TARGETS if target.name == name)


def test_a_parser_with_a_check_removed_is_caught() -> None:
    """Twins: one that lets a named error's cause through, one that takes two spellings, one that believes a length."""
    wire, tables = by_name("wire"), by_name("tables")
    assert not caught(tables)

    def unguarded(raw: bytes) -> object:
        try:
            return decode(raw, Tables)
        except DecodeError:
            raise struct.error("unpack requires a buffer") from None

    def spare(raw: bytes) -> object:
        """Without the check for trailing bytes."""
        for end in range(len(raw), max(len(raw) - 40, 0), -1):
            try:
                return wire.parse(raw[:end])
            except DecodeError:
                continue
        raise DecodeError("none")

    assert caught(Target("unguarded", unguarded, tables.refuses, tables.corpus, tables.encode))
    assert caught(Target("spare", spare, wire.refuses, wire.corpus, wire.encode))

    def trusting(raw: bytes) -> object:
        (length,) = struct.unpack(">I", raw[:4].ljust(4, b"\0"))
        return bytearray(min(length, 1 << 27))

    with pytest.raises(AssertionError):
        test_a_length_is_believed_by_nobody(Target("trusting", trusting, (), lambda: [b"\0\0\0\1a"]))


def test_a_contract_that_is_broken_is_named() -> None:
    with pytest.raises(ContractError, match="twice takes bytes"):
        judge(Target("twice", lambda raw: raw, (), lambda: [b"a"], lambda value: b"b"), b"a")


def test_changes_are_the_same_for_a_seed_and_of_every_kind() -> None:
    corpus = [b'{"a": 12, "b": [1, 2, 3]}', b"\x00\x00\x00\x04abcd"]
    made = [changed(Random(seed), corpus) for seed in range(300)]
    assert made == [changed(Random(seed), corpus) for seed in range(300)]
    assert len(set(made)) > 200
    for change in CHANGES:
        assert any(bytes(change(Random(seed), bytearray(corpus[0]), corpus)) != corpus[0] for seed in range(20)), change
