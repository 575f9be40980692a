"""Shamir's secret sharing over the prime field of 2^256 + 297 (the smallest prime above 2^256, so every 32-byte
secret fits).

Shares are 33 bytes. The x-coordinate of a member is its position, counted from 1, in the sorted list of members;
never 0.
"""

from collections.abc import Callable, Mapping, Sequence

PRIME = (1 << 256) + 297
SHARE_LENGTH = 33
SECRET_LENGTH = 32

RandomBytes = Callable[[int], bytes]


def split(secret: bytes, threshold: int, count: int, random_bytes: RandomBytes) -> list[bytes]:
    """Shares number 1 to ``count`` of a 32-byte secret, any ``threshold`` of which rebuild it and fewer of which say
    nothing.

    Args:
        secret: 32 bytes.
        threshold: 1 <= threshold <= count.
        count: number of shares.
        random_bytes: the operating system's generator, or a scripted one in tests.

    Raises:
        ValueError: lengths or numbers out of range.
    """
    if len(secret) != SECRET_LENGTH or not 1 <= threshold <= count:
        raise ValueError(f"expected a secret of {SECRET_LENGTH} bytes and 1 <= threshold <= count")
    # 48 random bytes reduced modulo a 257-bit prime are uniform up to 2^-127.
    polynomial = [int.from_bytes(secret, "big")]
    polynomial += [int.from_bytes(random_bytes(48), "big") % PRIME for _ in range(threshold - 1)]
    return [_evaluate(polynomial, x).to_bytes(SHARE_LENGTH, "big") for x in range(1, count + 1)]


def combine(shares: Mapping[int, bytes], weights: Mapping[int, int]) -> bytes | None:
    """The secret behind shares given by x-coordinate, or None if they lie on no polynomial with a 32-byte secret.

    Args:
        shares: at least the shares that ``weights`` names.
        weights: the result of `lagrange_at_zero` for exactly the x-coordinates to use.
    """
    total = sum(int.from_bytes(shares[x], "big") * weight for x, weight in weights.items()) % PRIME
    return total.to_bytes(SECRET_LENGTH, "big") if total >> 256 == 0 else None


def lagrange_at_zero(positions: Sequence[int]) -> dict[int, int]:
    """The weights with which shares at ``positions`` add up to the polynomial's value at zero; computed once for all
    secrets.

    Raises:
        ValueError: a position is 0 or occurs twice.
    """
    if len(set(positions)) != len(positions) or any(x < 1 for x in positions):
        raise ValueError("expected distinct positions, each at least 1")
    weights = {}
    for x in positions:
        numerator = denominator = 1
        for other in positions:
            if other != x:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - x) % PRIME
        weights[x] = numerator * pow(denominator, -1, PRIME) % PRIME
    return weights


def is_share(share: bytes) -> bool:
    """Whether ``share`` is the canonical encoding of a field element."""
    return len(share) == SHARE_LENGTH and int.from_bytes(share, "big") < PRIME


def _evaluate(polynomial: Sequence[int], x: int) -> int:
    """Horner's rule."""
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * x + coefficient) % PRIME
    return value
