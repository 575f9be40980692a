"""Any t shares rebuild the secret, t - 1 shares are consistent with every secret, and the field is a field."""

import random
from collections.abc import Sequence
from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.keys import Bytes

from fedseal.privacy.secagg.messages import Opening, SecretKind, ShareEntry
from fedseal.privacy.secagg.shamir import (
    PRIME,
    SHARE_LENGTH,
    combine,
    is_share,
    lagrange_at_zero,
    split,
)
from fedseal.privacy.secagg.sharing import opens, share_commitment

secrets = st.binary(min_size=32, max_size=32)
seeds = st.text(max_size=8)
sizes = st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))


def probably_prime(n: int, rounds: int = 64) -> bool:
    """Miller and Rabin; a composite passes with a probability of at most 4^-rounds."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    rng = random.Random(1)
    for _ in range(rounds):
        x = pow(rng.randrange(2, n - 1), odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def slow_interpolate(points: dict[int, int], at: int) -> int:
    """The value at ``at`` of the polynomial through some points: Newton's divided differences."""
    xs = list(points)
    table = [points[x] for x in xs]
    for level in range(1, len(xs)):
        for i in range(len(xs) - 1, level - 1, -1):
            table[i] = (table[i] - table[i - 1]) * pow(xs[i] - xs[i - level], -1, PRIME) % PRIME
    value = 0
    for x, coefficient in zip(reversed(xs), reversed(table), strict=True):
        value = (value * (at - x) + coefficient) % PRIME
    return value


def rebuilt(shares: Sequence[bytes], positions: Sequence[int]) -> bytes | None:
    """What the shares at some positions, counted from 1, say."""
    return combine({x: shares[x - 1] for x in positions}, lagrange_at_zero(positions))


def test_the_field_is_that_of_the_smallest_prime_above_all_secrets() -> None:
    assert PRIME == 2**256 + 297
    assert probably_prime(PRIME)
    assert not any(probably_prime(n) for n in range(2**256 + 1, PRIME, 2))


@settings(max_examples=100, deadline=None)
@given(secrets, sizes, seeds, st.randoms())
def test_any_threshold_of_shares_rebuilds_the_secret(
    secret: bytes, size: tuple[int, int], seed: str, rng: random.Random
) -> None:
    threshold, count = size
    shares = split(secret, threshold, count, Bytes(seed))
    assert len(shares) == count
    assert all(is_share(share) for share in shares)
    for used in range(threshold, count + 1):
        assert rebuilt(shares, rng.sample(range(1, count + 1), used)) == secret


def test_every_choice_of_shares_rebuilds_the_extreme_secrets() -> None:
    for secret in (bytes(32), b"\xff" * 32, b"\x00" * 31 + b"\x01"):
        shares = split(secret, 3, 6, Bytes("x"))
        assert {rebuilt(shares, chosen) for chosen in combinations(range(1, 7), 3)} == {secret}


@settings(max_examples=100, deadline=None)
@given(secrets, secrets, sizes, seeds)
def test_one_share_less_is_consistent_with_every_secret(
    secret: bytes, other: bytes, size: tuple[int, int], seed: str
) -> None:
    """Through t - 1 shares and any other secret goes a polynomial of the same degree: the shares rule nothing out."""
    threshold, count = size
    shares = split(secret, threshold, count, Bytes(seed))
    known = {x: int.from_bytes(shares[x - 1], "big") for x in range(1, threshold)}
    points = known | {0: int.from_bytes(other, "big")}
    others = [slow_interpolate(points, x).to_bytes(SHARE_LENGTH, "big") for x in range(1, count + 1)]
    assert others[: threshold - 1] == shares[: threshold - 1]
    for chosen in (range(1, threshold + 1), range(count - threshold + 1, count + 1)):
        assert rebuilt(others, chosen) == other


@settings(max_examples=50, deadline=None)
@given(secrets, sizes, seeds)
def test_rebuilding_equals_the_slow_interpolation(secret: bytes, size: tuple[int, int], seed: str) -> None:
    threshold, count = size
    shares = split(secret, threshold, count, Bytes(seed))
    points = {x: int.from_bytes(shares[x - 1], "big") for x in range(1, threshold + 1)}
    assert slow_interpolate(points, 0) == int.from_bytes(secret, "big")
    assert all(slow_interpolate(points, x) == int.from_bytes(shares[x - 1], "big") for x in range(1, count + 1))


def test_too_few_shares_rebuild_something_else() -> None:
    shares = split(b"s" * 32, 3, 5, Bytes("x"))
    assert rebuilt(shares, [1, 2]) != b"s" * 32


def test_an_altered_share_does_not_rebuild_the_secret() -> None:
    shares = split(b"s" * 32, 3, 5, Bytes("x"))
    shares[1] = ((int.from_bytes(shares[1], "big") + 1) % PRIME).to_bytes(SHARE_LENGTH, "big")
    assert rebuilt(shares, [1, 2, 3]) != b"s" * 32
    assert rebuilt(shares, [1, 3, 4]) == b"s" * 32


@pytest.mark.parametrize("value", [1 << 256, PRIME - 1])
def test_a_value_that_is_no_secret_rebuilds_to_nothing(value: int) -> None:
    """297 field elements are larger than any 32 bytes; a dealer may choose one, but no secret comes out."""
    share = value.to_bytes(SHARE_LENGTH, "big")
    assert combine({1: share}, lagrange_at_zero([1])) is None


def test_the_smallest_threshold_hands_out_the_secret_itself() -> None:
    assert split(b"s" * 32, 1, 3, Bytes("x")) == [b"\x00" + b"s" * 32] * 3


def test_the_polynomial_has_the_degree_of_the_threshold() -> None:
    """The coefficients are fresh: t - 1 draws of 48 bytes, none of them used twice."""
    drawn: list[int] = []
    source = Bytes("x")

    def random_bytes(length: int) -> bytes:
        drawn.append(length)
        return source(length)

    split(b"s" * 32, 5, 9, random_bytes)
    assert drawn == [48] * 4


@pytest.mark.parametrize(
    ("length", "threshold", "count"), [(31, 2, 3), (33, 2, 3), (0, 2, 3), (32, 0, 3), (32, 4, 3), (32, -1, 3)]
)
def test_lengths_and_thresholds_out_of_range_are_refused(length: int, threshold: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected a secret of 32 bytes"):
        split(bytes(length), threshold, count, Bytes("x"))


@pytest.mark.parametrize("positions", [[0, 1], [1, 1], [2, 3, 2], [-1, 2]])
def test_positions_that_are_zero_or_occur_twice_are_refused(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct positions"):
        lagrange_at_zero(positions)


def test_the_weights_of_a_constant_add_up_to_one() -> None:
    for positions in ([1], [1, 2], [7, 3, 200], range(1, 50)):
        assert sum(lagrange_at_zero(positions).values()) % PRIME == 1


@pytest.mark.parametrize(
    ("share", "good"),
    [
        (bytes(33), True),
        ((PRIME - 1).to_bytes(33, "big"), True),
        (PRIME.to_bytes(33, "big"), False),
        ((PRIME + 1).to_bytes(33, "big"), False),
        (b"\xff" * 33, False),
        (bytes(32), False),
        (bytes(34), False),
        (b"", False),
    ],
)
def test_a_share_is_a_reduced_field_element_of_33_bytes(share: bytes, good: bool) -> None:
    assert is_share(share) is good


def test_a_share_that_is_not_reduced_does_not_open_its_commitment() -> None:
    """The same field element has two encodings in 33 bytes; a dealer that commits to the longer one opens nothing."""
    session, salt = bytes(32), bytes(16)
    for share, good in (((5).to_bytes(33, "big"), True), ((PRIME + 5).to_bytes(33, "big"), False)):
        commitments = [share_commitment(session, 1, 2, kind, share, salt) for kind in SecretKind]
        entry = ShareEntry(2, b"", *commitments)
        for kind in SecretKind:
            assert opens(Opening(1, int(kind), share, salt), entry, session, 2) is good
