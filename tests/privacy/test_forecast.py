"""What fits a ledger: every answer is tried on the ledger itself, and one more or a little less does not."""

from dataclasses import replace

import pytest
from support.books import gaussian
from support.studies import tiny

from fedseal.privacy.forecast import fits, most_releases, noise_that_fits, promise_that_fits, round_down, with_noise
from fedseal.privacy.ledger import open_ledger, open_terms
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, SharedGeometric, SharedSkellam, Unit
from fedseal.privacy.planning import plan_run

SMALL = gaussian(8.0, releases=3, retries=1)
LARGE = gaussian(40.0, 0.2, steps=5, releases=10, retries=2)


def test_no_kind_of_plan_is_forgotten_when_noise_is_sought() -> None:
    ledger = open_ledger(open_terms("train", epsilon=2.0, delta=1e-5, order=10.0))[0]
    shared = SharedSkellam(
        unit=int(Unit.PERSON), clip_norm=1.0, resolution=1 << 10, length=9, variance=1 << 18, releases=9, retries=1
    )
    plans: tuple[LocalGaussian | SharedSkellam | SharedGeometric, ...] = (
        SMALL,
        LARGE,
        shared,
        SharedGeometric(epsilon=3.0, cells=1, length=4, releases=2, retries=0),
    )
    for plan in plans:
        short = replace(plan, releases=4000)
        factor = noise_that_fits(ledger, [short])
        assert factor is not None
        assert factor > 1
        assert fits(ledger, [with_noise(short, factor)])
        assert not fits(ledger, [with_noise(short, factor * 0.999)])
    none = NoPrivacy(releases=4, retries=0)
    assert with_noise(none, 5.0) is none
    # With all the noise there may be, a plan of a billion releases is still too much.
    assert noise_that_fits(ledger, [replace(SMALL, releases=(1 << 32) - 1, retries=(1 << 32) - 1), shared]) != 1.0
    assert noise_that_fits(ledger, [replace(plans[3], releases=1 << 31)]) is None


def test_what_stands_beside_is_reserved_first() -> None:
    ledger = open_ledger(open_terms("train", epsilon=8.0, delta=1e-5, order=3.3))[0]
    alone, beside = most_releases(ledger, LARGE), most_releases(ledger, LARGE, [SMALL])
    assert 0 < beside < alone
    assert fits(ledger, [SMALL, replace(LARGE, releases=beside)])
    assert not fits(ledger, [SMALL, replace(LARGE, releases=beside + 1)])
    assert most_releases(ledger, LARGE, [replace(SMALL, releases=10_000)]) == 0


def test_a_promise_that_fits_already_is_left_as_it_is() -> None:
    contract = tiny(training={"sample_rate": 1.0}).contract
    ledger = open_ledger(open_terms("train", epsilon=8.0, delta=1e-5, order=plan_run(contract).order))[0]
    assert promise_that_fits(contract, None, ledger) == 8.0
    # At another order the same promise costs more than there is, and a little less is offered.
    other = open_ledger(open_terms("train", epsilon=8.0, delta=1e-5, order=8.0))[0]
    offered = promise_that_fits(contract, None, other)
    assert offered is not None
    assert 4.0 < offered < 8.0


@pytest.mark.parametrize(("value", "rounded"), [(3.14159, 3.14), (0.0012349, 0.00123), (999.9, 999.0), (2.0, 2.0)])
def test_rounding_is_down(value: float, rounded: float) -> None:
    assert round_down(value) == rounded
