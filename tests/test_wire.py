"""One value has one encoding, one encoding one value, for every message there is; and nothing else is taken for one."""

import math
import pickle
import struct
import tracemalloc
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from support.keys import make_roster
from support.messages import message_classes, messages
from support.rounds import make_header, ring_layout

from fedseal.privacy.quantize import Segment
from fedseal.privacy.secagg.client_states import STORED_STATES
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ConsistencyRequest,
    MaskRequest,
    Opening,
    Openings,
    Refusal,
    ShareEntry,
    ShareReply,
    ShareRequest,
    Signed,
    UnmaskRequest,
)
from fedseal.privacy.secret import Secret
from fedseal.wire import (
    F64,
    MAX_ITEMS,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Bytes,
    Bytes16,
    DecodeError,
    EncodeError,
    Str,
    decode,
    encode,
)

CLASSES = message_classes()
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
Body = Callable[..., None]


def few(examples: int) -> Callable[[Body], Body]:
    """Hypothesis, with no clock and a number of examples that suits a test run for each class."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """A field of every type."""

    TAG: ClassVar[int] = 9

    small: U8 = 1
    medium: U16 = 2
    large: U32 = 3
    huge: U64 = 4
    number: F64 = 0.5
    flag: Bool = True
    fixed: Bytes16 = bytes(16)
    blob: Bytes = b"blob"
    text: Str = "text"
    items: tuple[U16, ...] = (7, 8)
    maybe: U32 | None = None


def test_all_message_classes_are_found() -> None:
    names = {kind.__name__ for kind in CLASSES}
    assert {"Roster", "Layout", "Header", "Signed", "Openings", "Shared", "LocalGaussian", "Entry", "Hello"} <= names
    assert len(CLASSES) >= 36


def test_no_two_classes_share_a_tag() -> None:
    tags = [kind.TAG for kind in CLASSES]
    assert len(set(tags)) == len(tags)
    assert all(0 <= tag < 256 for tag in tags)


@every_class
def test_what_is_encoded_is_decoded(kind: type[Any]) -> None:
    @few(25)
    @given(messages(kind))
    def check(message: Any) -> None:
        raw = encode(message)
        assert raw[:4] == b"FS\x01" + bytes([kind.TAG])
        assert decode(raw, kind) == message
        assert decode(raw, *CLASSES) == message

    check()


@every_class
def test_every_truncation_and_every_trailing_byte_is_refused(kind: type[Any]) -> None:
    @few(4)
    @given(messages(kind), st.binary(min_size=1, max_size=3))
    def check(message: Any, more: bytes) -> None:
        raw = encode(message)
        for end in range(len(raw)):
            with pytest.raises(DecodeError):
                decode(raw[:end], kind)
        with pytest.raises(DecodeError, match="after the end"):
            decode(raw + more, kind)

    check()


@every_class
def test_altered_bytes_are_refused_or_are_the_encoding_of_what_they_say(kind: type[Any]) -> None:
    @few(30)
    @given(messages(kind), st.data())
    def check(message: Any, data: st.DataObject) -> None:
        raw = bytearray(encode(message))
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = decode(bytes(raw), kind)
        except DecodeError:
            return
        assert encode(found) == bytes(raw)

    check()


@every_class
def test_another_tag_version_or_magic_is_refused(kind: type[Any]) -> None:
    @few(3)
    @given(messages(kind))
    def check(message: Any) -> None:
        raw = encode(message)
        others = [c for c in CLASSES if c is not kind]
        with pytest.raises(DecodeError, match=f"unexpected message tag {kind.TAG}"):
            decode(raw, *others)
        with pytest.raises(DecodeError, match="version 2"):
            decode(raw[:2] + b"\x02" + raw[3:], kind)
        with pytest.raises(DecodeError, match="not a fedseal message"):
            decode(b"fs" + raw[2:], kind)

    check()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(CLASSES))
def test_noise_after_a_right_prefix_is_refused_or_canonical(noise: bytes, kind: type[Any]) -> None:
    raw = b"FS\x01" + bytes([kind.TAG]) + noise
    try:
        found = decode(raw, kind)
    except DecodeError:
        return
    assert encode(found) == raw


# What no message may hold. Each line is a field and a value that its type does not admit.
INADMISSIBLE: list[tuple[str, Any]] = [
    *[(name, bad) for name in ("small", "medium", "large", "huge") for bad in (-1, 1.0, True, None, "1")],
    ("small", 1 << 8),
    ("medium", 1 << 16),
    ("large", 1 << 32),
    ("huge", 1 << 64),
    *[("number", bad) for bad in (math.nan, math.inf, -math.inf, -0.0, 1, None)],
    *[("flag", bad) for bad in (0, 1, None)],
    *[("fixed", bad) for bad in (b"", bytes(15), bytes(17), bytearray(16), "x" * 16)],
    *[("blob", bad) for bad in (bytes((1 << 20) + 1), bytearray(3), "text")],
    *[("text", bad) for bad in ("x" * 257, "é" * 129)],
    ("items", (1 << 16,)),
    ("items", (0,) * (MAX_ITEMS + 1)),
    ("maybe", 1 << 32),
]


@pytest.mark.parametrize(("name", "value"), INADMISSIBLE, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_a_value_outside_its_type_is_never_encoded(name: str, value: Any) -> None:
    assert decode(encode(Sample()), Sample) == Sample()
    with pytest.raises(EncodeError):
        encode(replace(Sample(), **{name: value}))


def test_text_that_utf8_cannot_write_is_never_encoded() -> None:
    with pytest.raises(EncodeError):
        encode(Sample(text="\ud800"))


def patched(message: Any, old: bytes, new: bytes) -> bytes:
    """The encoding of a message with the only occurrence of some bytes replaced."""
    raw = encode(message)
    assert raw.count(old) == 1
    return raw.replace(old, new)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    raw = patched(Sample(number=1234.5), struct.pack(">d", 1234.5), struct.pack(">d", number))
    with pytest.raises(DecodeError, match="not finite"):
        decode(raw, Sample)


def test_text_that_is_not_utf8_is_refused() -> None:
    for bad in (b"\xff\xff\xff\xff", b"\xc0\x80ab", b"\xed\xa0\x80a"):  # garbage, an overlong zero, a surrogate
        with pytest.raises(DecodeError, match="UTF-8"):
            decode(patched(Sample(), b"text", bad), Sample)


def test_a_truth_value_is_zero_or_one() -> None:
    raw = patched(Sample(number=1234.5), struct.pack(">d", 1234.5) + b"\x01", struct.pack(">d", 1234.5) + b"\x02")
    with pytest.raises(DecodeError, match="neither 0 nor 1"):
        decode(raw, Sample)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"\x00\x00\x00\x04blob", r"a field of \d+ bytes|ends too early"),
        (b"\x00\x00\x00\x04text", r"a field of \d+ bytes"),
        (b"\x00\x00\x00\x02\x00\x07", r"a list of \d+ items"),
    ],
    ids=["blob", "text", "items"],
)
@pytest.mark.parametrize("length", [(1 << 32) - 1, (1 << 20) + 1, 1 << 16, 1000])
def test_lengths_and_counts_beyond_the_message_are_refused_without_allocating(
    encoded: bytes, message: str, length: int
) -> None:
    raw = patched(Sample(), encoded, length.to_bytes(4, "big") + encoded[4:])
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=message):
            decode(raw, Sample)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16


def signed(site: int) -> Signed:
    return Signed(0, site, bytes(32), b"", bytes(64))


SELF_CONTRADICTIONS: list[Callable[[], object]] = [
    lambda: Signed(5, 1, bytes(32), b"", bytes(64)),
    lambda: Opening(1, 2, bytes(33), bytes(16)),
    lambda: Refusal(0, None),
    lambda: ShareRequest(bytes(32), (signed(2), signed(1))),
    lambda: ShareReply(signed(1), one_entry_twice()),
    lambda: MaskRequest(bytes(32), (3, 2), ()),
    lambda: ConsistencyRequest(bytes(32), (2, 2)),
    lambda: UnmaskRequest(bytes(32), (1, 2), (signed(1), signed(1))),
    lambda: Openings(bytes(32), (Opening(2, 0, bytes(33), bytes(16)), Opening(1, 0, bytes(33), bytes(16)))),
    lambda: Advertisement(bytes(32), bytes(32), bytes(32), 1 << 62),
    lambda: Segment("x", 1, 1.0, 1.0, 1.0, False),
    lambda: Segment("x", 1, 0.0, 1.0, 0.0, False),
    lambda: Segment("x", 0, 0.0, 1.0, 1.0, False),
]


def one_entry_twice() -> Any:
    return (ShareEntry(1, b"", bytes(32), bytes(32)),) * 2


@pytest.mark.parametrize("make", SELF_CONTRADICTIONS)
def test_a_message_that_contradicts_itself_cannot_exist(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"order|unknown|segment|no ledger reaches"):
        make()


def header() -> Header:
    return make_header(make_roster(3), [1, 2, 3], ring_layout(4, 3))


def test_bytes_of_a_message_that_contradicts_itself_are_refused_in_its_own_words() -> None:
    one = ConsistencyRequest(bytes(32), (0x01020304, 0x0A0B0C0D))
    raw = patched(one, bytes.fromhex("010203040a0b0c0d"), bytes.fromhex("0a0b0c0d01020304"))
    with pytest.raises(DecodeError, match="ConsistencyRequest: site numbers are not in strictly increasing order"):
        decode(raw, ConsistencyRequest)


@pytest.mark.parametrize(
    "changes",
    [{"graph": 1}, {"mask_generator": 2}, {"threshold": 3}, {"colluders": 2}, {"release_seq": 1 << 63}],
    ids=str,
)
def test_a_header_that_this_build_does_not_speak_cannot_exist(changes: dict[str, int]) -> None:
    values = {f.name: getattr(header(), f.name) for f in fields(Header)}
    with pytest.raises(ValueError, match=r"this build|threshold|colluders|no run reaches"):
        Header(**(values | changes))


def test_numbers_that_a_site_has_to_remember_end_where_its_store_does() -> None:
    """SQLite counts to 2^63 - 1, and a confirmation adds one to an advertised counter."""
    last: list[tuple[Any, bytes, bytes]] = [
        (replace(header(), release_seq=(1 << 63) - 1), b"\x7f" + bytes([255] * 7), b"\x80" + bytes(7)),
        (Advertisement(bytes(32), bytes(32), bytes(32), (1 << 62) - 1), b"\x3f" + bytes([255] * 7), b"\x40" + bytes(7)),
    ]
    for message, most, more in last:
        assert decode(encode(message), type(message)) == message
        for beyond in (more, bytes([255] * 8)):
            with pytest.raises(DecodeError, match=r"no run reaches|no ledger reaches"):
                decode(patched(message, most, beyond), type(message))


def test_a_header_whose_range_is_finer_than_any_double_is_refused() -> None:
    """The server picks low, high and scale; whatever it picks, a site answers with a refusal and not with a crash."""
    segment = replace(header().layout.segments[0], low=-0.1, high=0.1, scale=1234.5)
    one = replace(header(), layout=replace(header().layout, segments=(segment,)))
    raw = patched(one, struct.pack(">d", 1234.5), struct.pack(">d", 5e-324))
    with pytest.raises(DecodeError):
        decode(raw, Header)


@pytest.mark.parametrize("kind", STORED_STATES, ids=lambda kind: kind.__name__)
def test_no_secret_shows_when_a_state_is_printed(kind: type[Any]) -> None:
    @few(5)
    @given(messages(kind))
    def check(state: Any) -> None:
        for name in hidden:
            value = bytes(range(100, 132))
            shown = repr(replace(state, **{name: Secret(value)}))
            assert f"{name}=Secret(<32 bytes>)" in shown
            assert repr(value)[2:-1] not in shown
            assert value.hex() not in shown

    hints = typing.get_type_hints(kind, include_extras=True)
    hidden = [f.name for f in fields(kind) if typing.get_args(hints[f.name])[:1] == (Secret,)]
    assert bool(hidden) == (kind.__name__ in ("Advertised", "Shared"))
    check()


def test_a_secret_never_prints_and_is_not_pickled() -> None:
    secret = Secret(b"correct horse battery staple")
    assert "horse" not in f"{secret!r}{secret!s}{secret}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret == Secret(b"correct horse battery staple")
    assert secret != Secret(b"correct horse battery stapler")
    assert secret != b"correct horse battery staple"
