"""The bytes of a leaf: JSON in the one form of RFC 8785, without floats.

Keys are ``[a-z0-9_]{1,40}``, so their order by UTF-16 units (RFC 8785, 3.2.3) is that of their code points; text is in
Unicode's normal form C without lone surrogates; integers are at most 2^53 - 1 in size; a real number is written as a
decimal string by whoever needs one. At most 16 KiB: an entry of C2SP tlog-tiles has a 16-bit length.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NoReturn

from fedseal.compliance.log.malformed import MalformedError

Json = None | bool | int | str | Sequence["Json"] | Mapping[str, "Json"]

MAX_BYTES = 16 * 1024
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
_KEY = re.compile(r"[a-z0-9_]{1,40}", re.ASCII)


class CanonicalError(MalformedError):
    """A value that has no canonical form, or bytes that are not in it."""


def encode(value: Json) -> bytes:
    """The canonical bytes of ``value``; tuples are written as arrays.

    Raises:
        CanonicalError: a float, a key, text, an integer or a length that the rules do not allow.
    """
    _check(value, MAX_DEPTH)
    raw = written(value)
    if len(raw) > MAX_BYTES:
        raise CanonicalError(f"longer than {MAX_BYTES} bytes")
    return raw


def written(value: Json) -> bytes:
    """The same for a value whose form was checked before, as part of a larger one or in another place."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def decode(raw: bytes) -> Json:
    """The value that ``raw`` is the canonical form of: objects as dicts, arrays as lists.

    Raises:
        CanonicalError: it is none, so also where another spelling of the same value was sent.
    """
    if len(raw) > MAX_BYTES:
        raise CanonicalError(f"longer than {MAX_BYTES} bytes")
    try:
        value: Json = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise CanonicalError("not JSON") from None
    if encode(value) != raw:
        raise CanonicalError("JSON, but not in its canonical form")
    return value


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CanonicalError("a key stands twice in one object")
    return found


def _refuse(_: str) -> NoReturn:
    raise CanonicalError("a number that is no integer")


def _check(value: Json, depth: int) -> None:
    if depth < 0:
        raise CanonicalError(f"more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise CanonicalError("an integer beyond 2^53 - 1")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or _KEY.fullmatch(key) is None:
                raise CanonicalError("a key that is not [a-z0-9_]{1,40}")
            _check(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth - 1)
    else:
        raise CanonicalError(f"a value of type {type(value).__name__}")


def _check_text(text: str) -> None:
    if text.isascii():
        return
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise CanonicalError("text with a lone surrogate")
    if not unicodedata.is_normalized("NFC", text):
        raise CanonicalError("text that is not in Unicode's normal form C")
