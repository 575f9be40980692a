"""The coins are fair, the noise is normal, and a keyed stream depends on its seed, component and purpose alone."""

import hashlib
import math
import pickle
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from fedseal.errors import LocalError
from fedseal.privacy.randomness import KeyedRandomness, Stream, SystemRandomness

COUNT = 200_000


def stream(purpose: int = 0) -> Stream:
    return Stream(purpose.to_bytes(32, "big"))


def slow_raw(key: bytes, length: int) -> bytes:
    """Counter blocks encrypted one by one."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the definition of counter mode
    return b"".join(ecb.update(i.to_bytes(16, "big")) for i in range(-(-length // 16)))[:length]


def slow_key(*parts: str | int) -> bytes:
    """The key of a purpose: a hash over its parts, each with its length and its type."""
    message = b"fedseal/keyed-randomness/1"
    for part in parts:
        text = (b"i" if isinstance(part, int) else b"s") + str(part).encode()
        message += len(text).to_bytes(4, "big") + text
    return hashlib.sha256(message).digest()


# Streams


def test_a_stream_is_the_keystream_of_its_key_and_goes_on_where_it_stopped() -> None:
    one, key = stream(7), (7).to_bytes(32, "big")
    drawn = one.raw(5) + one.raw(0) + one.raw(30) + one.raw(1)
    assert drawn == slow_raw(key, 36)
    raw = slow_raw(key, 32)
    assert [int(w) for w in stream(7).words32(8)] == [
        int.from_bytes(raw[4 * i : 4 * i + 4], "little") for i in range(8)
    ]
    assert [int(w) for w in stream(7).words64(4)] == [
        int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(4)
    ]


def test_no_draw_is_given_out_twice() -> None:
    one = stream()
    assert not np.array_equal(one.words64(100), one.words64(100))
    assert not np.array_equal(one.normal(100), one.normal(100))
    assert not np.array_equal(one.coins(0.5, 1000), one.coins(0.5, 1000))


def test_uniform_numbers_stay_in_their_half_open_intervals() -> None:
    low, high = stream(1).uniform32(COUNT), stream(2).uniform53(COUNT)
    assert 0.0 <= low.min() <= low.max() < 1.0
    assert 0.0 < high.min() <= high.max() <= 1.0
    assert np.array_equal(low * 2.0**32, np.floor(low * 2.0**32))
    assert np.array_equal(high * 2.0**53, np.floor(high * 2.0**53))
    for uniform in (low, high):
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3


class Extreme(Stream):
    """A stream whose words are all zeros or all ones."""

    def __init__(self, byte: int) -> None:
        super().__init__(bytes(32))
        self.byte = byte

    def raw(self, length: int) -> bytes:
        return bytes([self.byte]) * length


def test_the_extreme_words_give_the_ends_of_the_intervals() -> None:
    assert Extreme(0).uniform32(1)[0] == 0.0
    assert Extreme(255).uniform32(1)[0] == 1.0 - 2.0**-32
    assert Extreme(0).uniform53(1)[0] == 2.0**-53
    assert Extreme(255).uniform53(1)[0] == 1.0
    for byte in (0, 255):
        assert math.isfinite(Extreme(byte).normal(1)[0])


# Coins


@pytest.mark.parametrize("probability", [1e-4, 0.01, 0.1, 0.25, 0.5, 0.73, 0.999])
def test_coins_fall_as_often_as_they_should(probability: float) -> None:
    found = int(stream(3).coins(probability, COUNT).sum())
    assert abs(found - COUNT * probability) <= 4 * math.sqrt(COUNT * probability * (1 - probability))


def test_coins_of_probability_zero_and_one_are_certain() -> None:
    for source in (stream(), Extreme(0), Extreme(255)):
        assert not source.coins(0.0, 1000).any()
        assert source.coins(1.0, 1000).all()


def test_the_smallest_and_largest_probabilities_are_not_certain() -> None:
    tiny, nearly = 2.0**-64, 1.0 - 2.0**-53
    assert Extreme(0).coins(tiny, 1).all()
    assert not Extreme(1).coins(tiny, 1).any()
    assert not Extreme(255).coins(nearly, 1).any()
    assert Extreme(254).coins(nearly, 1).all()


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan, math.inf, -math.inf, -1e-300])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(LocalError, match="between 0 and 1"):
        stream().coins(probability, 1)


# Noise


def test_the_noise_is_standard_normal() -> None:
    noise = stream(4).normal(COUNT)
    assert noise.shape == (COUNT,)
    assert abs(noise.mean()) <= 4 / math.sqrt(COUNT)
    assert abs(noise.var() - 1) <= 4 * math.sqrt(2 / COUNT)
    assert abs(stats.skew(noise)) <= 4 * math.sqrt(6 / COUNT)
    assert abs(stats.kurtosis(noise)) <= 4 * math.sqrt(24 / COUNT)
    assert stats.kstest(noise, "norm").pvalue > 1e-3


def test_the_tails_of_the_noise_are_as_heavy_as_they_should_be() -> None:
    noise = np.abs(stream(5).normal(COUNT))
    for limit in (2.0, 3.0, 3.5):
        expected = COUNT * 2 * float(stats.norm.sf(limit))
        assert abs(int((noise > limit).sum()) - expected) <= 4 * math.sqrt(expected)


def test_neighbouring_draws_are_independent() -> None:
    noise = stream(6).normal(COUNT)
    for lag in (1, 2, 3, 4, 8):
        assert abs(float(np.corrcoef(noise[:-lag], noise[lag:])[0, 1])) <= 4 / math.sqrt(COUNT)
    assert abs(float(np.corrcoef(noise[:-1] ** 2, noise[1:] ** 2)[0, 1])) <= 4 / math.sqrt(COUNT)


def test_the_noise_is_half_the_sum_of_four_normal_variates() -> None:
    """The slow twin draws the same uniform numbers one vector at a time and uses the textbook formula."""
    twin = stream(8)
    total = np.zeros(50)
    for _ in range(4):
        u, v = twin.uniform53(50), twin.uniform53(50)
        total += np.array([math.sqrt(-2 * math.log(a)) * math.cos(2 * math.pi * b) for a, b in zip(u, v, strict=True)])
    assert np.allclose(stream(8).normal(50), total / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_few_draws_are_as_good_as_many(count: int) -> None:
    assert stream().normal(count).shape == (count,)
    assert stream().coins(0.5, count).shape == (count,)


# Where keys come from


PURPOSES: list[tuple[str | int, ...]] = [
    (),
    ("",),
    ("ab", "c"),
    ("a", "bc"),
    ("abc",),
    (1,),
    ("1",),
    ("i1",),
    (1, 2),
    (12,),
    ("noise", 1, 0, 3),
    ("noise", 1, 3, 0),
    ("noise", -1),
    ("rounding", 1, 0, 3),
]


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_key_of_a_purpose_equals_the_slow_derivation(purpose: tuple[str | int, ...]) -> None:
    found = KeyedRandomness(5, "site", 3).stream(*purpose).raw(40)
    assert found == slow_raw(slow_key(5, "site", 3, *purpose), 40)
    assert found == KeyedRandomness(5, "site", 3).stream(*purpose).raw(40)


def test_no_two_purposes_have_the_same_stream() -> None:
    keyed = KeyedRandomness(5, "site", 3)
    for one, two in combinations(PURPOSES, 2):
        assert keyed.stream(*one).raw(32) != keyed.stream(*two).raw(32), (one, two)


def test_no_two_seeds_or_components_have_the_same_stream() -> None:
    sources = [KeyedRandomness(seed, "site", site) for seed in (0, 1, 2**62, -1) for site in (1, 2, 12)]
    sources += [KeyedRandomness(0, "server"), KeyedRandomness(0), KeyedRandomness(0, "site", "1")]
    assert len({s.stream("noise", 1).raw(32) for s in sources}) == len(sources)


def test_other_streams_do_not_change_a_stream() -> None:
    keyed = KeyedRandomness(5)
    one = keyed.stream("a")
    keyed.stream("b").raw(1000)
    keyed.stream("a").raw(1000)
    assert one.raw(32) == KeyedRandomness(5).stream("a").raw(32)


def test_the_operating_systems_streams_never_repeat() -> None:
    system = SystemRandomness()
    drawn = {system.stream("noise", 1).raw(16) for _ in range(1000)}
    assert len(drawn) == 1000
    assert SystemRandomness().stream().raw(16) not in drawn


def test_the_operating_systems_streams_ask_for_a_whole_key(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def urandom(length: int) -> bytes:
        asked.append(length)
        return bytes(length)

    monkeypatch.setattr("os.urandom", urandom)
    assert SystemRandomness().stream("noise").raw(32) == slow_raw(bytes(32), 32)
    assert asked == [32]


def test_a_copy_in_another_process_gives_the_same_streams() -> None:
    keyed = KeyedRandomness(7, "site", 3)
    copied = pickle.loads(pickle.dumps(keyed))  # noqa: S301
    assert copied.stream("noise", 1).raw(64) == keyed.stream("noise", 1).raw(64)
