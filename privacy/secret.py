"""A byte string that does not print and compares in constant time."""

import hmac


class Secret:
    """Wraps key material. ``repr`` and ``str`` never show it; ``==`` takes the same time wherever the bytes differ.

    Public: that it is a secret and its length. Everything else leaves through `reveal`, which is easy to search for.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves. Callers hand them to a primitive at once and keep no copy."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    # A hash would be one more place where equality leaks, and secrets have no business in sets or keys.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Secret(<{len(self._value)} bytes>)"

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")
