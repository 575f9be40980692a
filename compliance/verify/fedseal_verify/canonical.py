"""The canonical JSON of a leaf: RFC 8785 (JCS) with fedseal's narrower rules.

Keys are ``[a-z0-9_]{1,40}``, strings are NFC, integers have at most 53 bits, and there are no floats: then sorting keys
by code point and the shortest escapes are all that JCS asks, and Python's encoder writes it.
"""

import json
import re
import unicodedata
from typing import NoReturn

from fedseal_verify.errors import MalformedError

MAX_LEAF_BYTES = 16 * 1024
MAX_DEPTH = 64
MAX_INTEGER = (1 << 53) - 1
_KEY = re.compile(r"[a-z0-9_]{1,40}")

Json = dict[str, "Json"] | list["Json"] | str | int | bool | None


def encode(value: object) -> bytes:
    """The canonical bytes of a value that ``check_values`` accepts.

    Raises:
        MalformedError: a string with a lone surrogate, which has no UTF-8.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MalformedError("a string holds a lone surrogate") from None


def decode(leaf: bytes) -> dict[str, Json]:
    """The object in ``leaf``, which has to be its canonical bytes.

    Raises:
        MalformedError: with the rule that is broken.
    """
    if len(leaf) > MAX_LEAF_BYTES:
        raise MalformedError(f"it is longer than {MAX_LEAF_BYTES} bytes")
    value = _parse(leaf)
    check_values(value)
    if not is_canonical(leaf, value):
        raise MalformedError(_why_not(leaf))
    return value


def is_canonical(leaf: bytes, value: dict[str, Json]) -> bool:
    """Whether ``leaf`` is how ``value`` is written. Duplicate keys are seen here too: encoding leaves one of them."""
    return encode(value) == leaf


def _parse(leaf: bytes) -> dict[str, Json]:
    try:
        value = json.loads(leaf.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
    except UnicodeDecodeError:
        raise MalformedError("it is not UTF-8") from None
    except RecursionError:
        raise MalformedError(f"it is nested deeper than {MAX_DEPTH}") from None
    except ValueError:
        raise MalformedError("it is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("it is not a JSON object")
    return value


def _no_float(_: str) -> NoReturn:
    raise MalformedError("it holds a number that is no integer; reals are decimal strings")


def check_values(value: Json, depth: int = 0) -> None:
    """The rules for keys, strings and numbers, at every depth.

    Raises:
        MalformedError: with the rule that is broken.
    """
    if depth > MAX_DEPTH:
        raise MalformedError(f"it is nested deeper than {MAX_DEPTH}")
    match value:
        case str():
            if not value.isascii() and not unicodedata.is_normalized("NFC", value):
                raise MalformedError("a string is not in Unicode normal form C")
        case bool() | None:
            pass
        case int():
            if abs(value) > MAX_INTEGER:
                raise MalformedError("an integer has more than 53 bits")
        case list():
            for each in value:
                check_values(each, depth + 1)
        case dict():
            for key, each in value.items():
                if not _KEY.fullmatch(key):
                    raise MalformedError("a key is not of the form [a-z0-9_]{1,40}")
                check_values(each, depth + 1)


def _why_not(leaf: bytes) -> str:
    """Which rule a leaf that parses, but is not canonical, breaks."""

    def once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise MalformedError("a key occurs twice in one object")
        return dict(pairs)

    try:
        json.loads(leaf.decode(), object_pairs_hook=once)
    except MalformedError as error:
        return str(error)
    return "it is not in canonical form (order of keys, spaces or escapes)"
