"""Rings of fewer than 32 bits: exact sums end to end, and packed vectors that no honest site sends."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.keys import key
from support.rounds import Cohort, clear_sum, make_cohort, signed_sum

from fedseal.errors import ConfigError
from fedseal.privacy.quantize import Layout, Segment, levels_for, ranged_segment
from fedseal.privacy.secagg.checks import vector_digest
from fedseal.privacy.secagg.masks import MaskedSum, vector_from_bytes, wire_form, wire_length
from fedseal.privacy.secagg.messages import Masked, Stage, sign
from fedseal.privacy.secagg.packing import packed_length
from fedseal.privacy.secagg.server_states import Finished, MaskedReply
from fedseal.wire import decode

BITS = pytest.mark.parametrize("bits", [12, 20, 22, 31])


@BITS
@pytest.mark.parametrize("d", [1, 32, 1000, 40_000])
@pytest.mark.parametrize("gone", [set(), {2}, {1, 5}])
def test_the_sum_is_the_clear_integer_sum(bits: int, d: int, gone: set[int]) -> None:
    cohort = make_cohort(7, d, m=1, ring_bits=bits, silent={Stage.MASK: gone})
    sent: list[int] = []

    def hook(stage: Stage, site: int, reply: Any) -> Any:
        if stage is Stage.MASK:
            sent.append(len(reply.vector))
        return reply

    cohort.reply_hook = hook
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert set(finished.survivors) == set(cohort.header.cohort) - gone
    assert np.array_equal(signed_sum(finished), clear_sum(cohort, finished.survivors))
    assert set(sent) == {packed_length(d, bits)}


@settings(max_examples=40, deadline=None)
@given(st.integers(12, 31), st.integers(2, 8), st.integers(1, 200), st.integers(0, 2**31), st.data())
def test_every_ring_is_exact_for_any_cohort(bits: int, n: int, d: int, seed: int, data: st.DataObject) -> None:
    spare = n - n // 2 - 1
    gone = data.draw(st.sets(st.integers(1, n), max_size=max(spare, 0)))
    stage = data.draw(st.sampled_from([Stage.SHARE, Stage.MASK, Stage.UNMASK]))
    cohort = make_cohort(n, d, ring_bits=bits, seed=seed, silent={stage: gone})
    # The ends of the range, in every coordinate but the drawn ones.
    top = int(cohort.header.layout.segments[0].high)
    for values in cohort.values.values():
        values[: d // 2] = top if seed % 2 else -top
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert np.array_equal(signed_sum(finished), clear_sum(cohort, finished.survivors))


def test_a_masked_vector_of_another_ring_would_not_add_up() -> None:
    """The twin: the same sum, read in a ring one bit smaller than its values ask for, is another one."""
    values = np.array([1500, 600], dtype=np.int32)
    for bits, right in ((13, True), (12, False)):
        total = MaskedSum(2, bits)
        for _ in range(2):
            total.add(wire_form(values.view(np.uint32), bits))
        assert (total.unmask((), ()).view(np.int32).tolist() == [3000, 1200]) is right


def resigned(cohort: Cohort, site: int, reply: Any, vector: Any) -> MaskedReply:
    """The reply with another vector, under that site's own true signature."""
    session = decode(reply.message.payload, Masked).session
    payload = Masked(session, vector_digest(vector))
    return MaskedReply(sign(Stage.MASK, site, cohort.header.digest(), payload, key(f"site-{site}")), vector)


def padded(vector: Any) -> Any:
    out = vector.copy()
    out[-1] |= np.uint32(1 << 31)
    return out


def untouched(vector: Any) -> Any:
    return vector.copy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (padded, "padding"),
        (lambda v: v[:-1].copy(), "another shape"),
        (lambda v: np.append(v, np.uint32(0)), "another shape"),
        (lambda v: np.zeros(33, dtype=np.uint32), "another shape"),
        (lambda v: v.astype(np.uint64), "another shape"),
        (untouched, None),
    ],
)
def test_what_is_no_packed_vector_is_refused_and_its_site_left_out(change: Any, said: str | None) -> None:
    """33 coordinates leave padding. The last case is the twin: signed anew and not changed, it counts."""
    cohort = make_cohort(5, 33, ring_bits=20)

    def hook(stage: Stage, site: int, reply: Any) -> Any:
        return resigned(cohort, site, reply, change(reply.vector)) if stage is Stage.MASK and site == 4 else reply

    cohort.reply_hook = hook
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert (4 in finished.survivors) is (said is None)
    assert np.array_equal(signed_sum(finished), clear_sum(cohort, finished.survivors))
    if said is not None:
        assert said in cohort.refusals[-4].message
        assert cohort.refusals[-4].peer == "site 4"


def test_unpacked_words_are_no_vector_of_a_small_ring() -> None:
    """A site that forgot to pack sends d words where fewer are due."""
    cohort = make_cohort(5, 64, ring_bits=20)

    def hook(stage: Stage, site: int, reply: Any) -> Any:
        whole = np.arange(64, dtype=np.uint32)
        return resigned(cohort, site, reply, whole) if stage is Stage.MASK and site == 2 else reply

    cohort.reply_hook = hook
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert finished.survivors == (1, 3, 4, 5)


@BITS
def test_no_cohort_that_fits_a_layout_can_wrap(bits: int) -> None:
    for n in (2, 3, 10, 100):
        segment = ranged_segment("x", 1, -1.0, 1.0, sites=n, ring_bits=bits, weighted=False)
        assert n * segment.levels <= 2 ** (bits - 1) - 1 < (n + 1) * levels_for(n, bits) + n
        assert Layout(bits, 0, (segment,)).capacity() >= n
        bound = float(levels_for(n, bits) + 1)
        with pytest.raises(ValueError, match="wrap around"):
            replace(make_cohort(n, 1, ring_bits=bits).header, layout=one_segment(bits, bound))
        assert replace(make_cohort(n, 1, ring_bits=bits).header, layout=one_segment(bits, bound - 1))


def one_segment(bits: int, bound: float) -> Layout:
    return Layout(bits, 0, (Segment("x", 1, -bound, bound, 1.0, False),))


def test_a_ring_with_hardly_a_level_for_each_site_makes_no_layout() -> None:
    assert ranged_segment("x", 1, -1.0, 1.0, sites=511, ring_bits=12, weighted=False).levels == 3
    with pytest.raises(ConfigError, match="12 bits leave each of 512 sites 3 levels"):
        ranged_segment("x", 1, -1.0, 1.0, sites=512, ring_bits=12, weighted=False)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_larger_rings_cross_the_wire_as_they_are(bits: int) -> None:
    vector = vector_from_bytes(bytes(range(40)), bits)[:5]
    assert wire_form(vector, bits) is vector
    assert wire_length(5, bits) == 5
