"""The inversion demonstration: what it reads is read from released sums, and noise ends it."""

import numpy as np
import pytest

from fedseal.privacy.audit.inversion import candidates, recovered
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.planning import plan_run
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.audit import inversion
from fedseal.simulation.audit.inversion import NOISE, SCENES, Scene, crafted_model, demonstrate


def shares(*scenes: Scene, trials: int = 4, seed: int = 2) -> list[float]:
    return [row.fraction for row in demonstrate(seed, trials, scenes)]


def test_a_site_that_is_not_sealed_is_read_and_large_batches_blend() -> None:
    one, eight, many = shares(*SCENES[:3], trials=10)
    assert one == 1.0
    assert 0.1 < eight < 0.8
    assert many < 0.1


@pytest.mark.slow
def test_a_sealed_sum_of_small_batches_is_read_too_and_noise_ends_it() -> None:
    sealed, noisy = shares(SCENES[3], SCENES[6], trials=3)
    assert sealed > 0.5
    assert noisy == 0.0


@pytest.mark.slow
def test_a_server_that_makes_the_model_reads_more() -> None:
    honest, crafted = shares(SCENES[4], SCENES[5], trials=1)
    assert honest < 0.1
    assert crafted > 0.2


def test_who_has_not_seen_the_sum_reads_nothing() -> None:
    # A twin: the same attack on the release of other persons.
    features, labels = inversion._persons(KeyedRandomness(1, "a"), 5)
    others, _ = inversion._persons(KeyedRandomness(1, "b"), 5)
    model = inversion.first_model(KeyedRandomness(1, "m"))
    after = inversion._unsealed(features[:1], labels[:1], model, KeyedRandomness(1, "m"))
    found = candidates(*(model[n].astype(np.float64) - after[n] for n in ("0.weight", "0.bias")))
    assert recovered(found, features).tolist() == [True, False, False, False, False]
    assert not recovered(found, others).any()


def test_the_scenes_noise_is_what_it_says() -> None:
    plan = plan_run(inversion._contract(SCENES[6])).update
    assert isinstance(plan, LocalGaussian)
    assert plan.noise_multiplier == pytest.approx(NOISE, rel=2e-3)
    assert [row.epsilon for row in demonstrate(1, 1, SCENES[:1])] == [None]


def test_a_crafted_model_is_one_projection_with_many_thresholds() -> None:
    model = crafted_model(KeyedRandomness(4, "m"))
    assert (model["0.weight"] == model["0.weight"][0]).all()
    assert (np.diff(model["0.bias"]) < 0).all()
    assert (model["2.weight"] == model["2.weight"][:, :1]).all()
