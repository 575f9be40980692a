"""Ways written piece by piece: bit for bit what one site bounds and weighs on its own."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedseal.client.release import brought_within
from fedseal.privacy.quantize import Layout, Segment, bound
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.engine import rounding
from fedseal.simulation.engine.rounding import BYTE, Bounds
from fedseal.simulation.engine.ways import Start, Ways

SHAPES = {"b.weight": (7, 5), "a.bias": (7,), "b.bias": (2,)}
LENGTH = 44


def drawn(seed: int, sites: int) -> tuple[dict[str, NDArray[Any]], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    received = {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
    trained = {
        n: torch.from_numpy(a + rng.normal(0, 0.2, (sites, *a.shape)).astype(np.float32)) for n, a in received.items()
    }
    return received, trained


def alone(received: dict[str, NDArray[Any]], trained: dict[str, torch.Tensor], k: int) -> NDArray[Any]:
    """The slow twin: one site's way, as a whole, in doubles."""
    return np.concatenate(
        [
            (trained[n][k].numpy().astype(np.float64) - received[n].astype(np.float64)).reshape(-1)
            for n in sorted(received)
        ]
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sites=st.integers(1, 6),
    width=st.integers(1, 50),
    limit=st.sampled_from([0.8, 1.3, 9.0]),
)
def test_ways_are_each_sites_own_in_whatever_pieces(seed: int, sites: int, width: int, limit: float) -> None:
    received, trained = drawn(seed, sites)
    ways = Ways(Start(received), trained, limit)
    ways.shares = np.linspace(0.3, 1.0, sites)
    found = np.empty((sites, LENGTH))
    for start in range(0, LENGTH, width):
        piece = slice(start, min(start + width, LENGTH))
        ways.write(piece, found[:, piece])
    for k in range(sites):
        expected = alone(received, trained, k)
        assert ways.factors[k] == brought_within(expected, limit)
        expected *= ways.shares[k]
        assert np.array_equal(found[k], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_no_number_is_nothing_and_what_is_too_large_is_scaled(value: float) -> None:
    received, trained = drawn(1, 3)
    trained["a.bias"][1, 2] = value
    ways, found = Ways(Start(received), trained, 100.0), np.empty((3, LENGTH))
    ways.write(slice(0, LENGTH), found)
    expected = alone(received, trained, 1)
    factor = brought_within(expected, 100.0)
    if factor is None:
        assert np.isnan(ways.factors[1])
        assert not found[1].any()
    else:
        assert ways.factors[1] == factor
        assert np.array_equal(found[1], expected)
    assert ways.factors[[0, 2]].tolist() == [1.0, 1.0]


def test_more_coins_than_a_byte_counts_are_all_counted() -> None:
    layout = Layout(32, 1, (Segment("a", 3, -1.0, 1.0, 9.0, True),))
    bounds, row = Bounds(layout), np.array([0.11, -0.3, 1.0])
    total, expected = bounds.nothing(), np.zeros(3, dtype="<u4")

    def write(piece: slice, out: NDArray[Any]) -> None:
        out[...] = row[piece]

    for site in range(BYTE + 50):
        stream = KeyedRandomness(site).stream("rounding")
        # Known to be inside, so that its coins are counted in bytes.
        bounds.add(total, write, [stream], slice(0, 3))
        expected += bound({"a": row}, layout, KeyedRandomness(site).stream("rounding")).vector
    assert np.array_equal(bounds.in_ring(total), expected)


def test_a_byte_that_holds_too_many_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""
    monkeypatch.setattr(rounding, "BYTE", 2 * BYTE)
    with pytest.raises(AssertionError):
        test_more_coins_than_a_byte_counts_are_all_counted()
