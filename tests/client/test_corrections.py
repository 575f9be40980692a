"""What FedProx and SCAFFOLD add to a site's steps, plain and private, against the papers' steps in doubles."""

from typing import Any, cast

import numpy as np
import pytest
from support.planes import FOLDER, START, Points, Vector, flat, points
from torch import from_numpy
from torch.utils.data import TensorDataset

from fedseal.client.task import Persons, Task
from fedseal.client.trainer import Trainer, TrainSettings
from fedseal.client.variates import control_variates, divide, released_way
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.study_code import load_task

PLAIN = NoPrivacy(releases=1, retries=0)
PRIVATE = LocalGaussian(clip_norm=0.6, noise_multiplier=1.5, sample_rate=0.5, steps=4, releases=1, retries=0)
SETTINGS = {"learning_rate": 0.1, "sample_rate": 0.5, "local_steps": 4}
SHIFT = {"bias": np.array([0.3], np.float32), "weight": np.array([[-1.0, 2.0, 0.5]], np.float32)}
PERSONS = 20
CASES = [{"mu": 0.8}, {"shift": SHIFT}, {"mu": 0.8, "shift": SHIFT}]


def streams(*purpose: str | int) -> Stream:
    return KeyedRandomness(7, "test").stream(*purpose)


def trained(plan: LocalGaussian | NoPrivacy, site: Points, mu: float, shift: Any, **settings: Any) -> Vector:
    rows = TensorDataset(from_numpy(site.rows[:, 1:].astype(np.float32)), from_numpy(site.targets.astype(np.float32)))
    task = cast(Task, load_task("task:Plane", FOLDER))
    trainer = Trainer(task, cast(Persons, rows), public_persons=PERSONS)
    how = TrainSettings(**{**SETTINGS, **settings}, proximal_mu=mu)
    return flat(trainer.fit(START, how, plan, streams, shift))


def clipped_and_noisy(site: Points, w: Vector, lot: Any, noise: Stream) -> Vector:
    """Abadi et al. 2016, Algorithm 1; torch has the weights before the bias."""
    each = site.rows[lot] * (site.rows[lot] @ w - site.targets[lot])[:, None]
    each /= np.maximum(1.0, np.linalg.norm(each, axis=1, keepdims=True) / PRIVATE.clip_norm)
    weights, bias = noise.normal(3), noise.normal(1)
    deviation = PRIVATE.noise_multiplier * PRIVATE.clip_norm
    total = each.sum(axis=0) + deviation * np.concatenate([bias, weights])
    return np.asarray(total / (PRIVATE.sample_rate * PERSONS))


@pytest.mark.parametrize("private", [False, True], ids=["none", "local"])
@pytest.mark.parametrize("case", CASES, ids=["proximal", "variates", "both"])
def test_steps_are_the_papers(case: dict[str, Any], private: bool) -> None:
    """w <- w - eta (g + mu (w - w^t) + c - c_i), where g is clipped and noisy under a private plan and the rest is
    neither.
    """
    (site,) = points([PERSONS])
    mu, shift = case.get("mu", 0.0), case.get("shift")
    noise, w, start = streams("noise"), flat(START), flat(START)
    for step in range(4):
        lot = np.flatnonzero(streams("sampling", step).coins(0.5, PERSONS))
        if private:
            g = clipped_and_noisy(site, w, lot, noise)
        else:
            g = site.rows[lot].T @ (site.rows[lot] @ w - site.targets[lot]) / (0.5 * PERSONS)
        w = w - 0.1 * (g + mu * (w - start) + (flat(shift) if shift is not None else 0.0))
    plan = PRIVATE if private else PLAIN
    np.testing.assert_allclose(trained(plan, site, mu, shift), w, atol=2e-5)
    assert np.abs(trained(plan, site, 0.0, None) - w).max() > 5e-3


@pytest.mark.parametrize("batch", [None, 4])
def test_a_step_without_persons_is_a_step_all_the_same(batch: int | None) -> None:
    """K steps are K steps, at every site: what the server derives rests on it."""
    nobody = Points(np.zeros((0, 4)), np.zeros(0))
    found = trained(PLAIN, nobody, 0.0, SHIFT, batch_size=batch)
    np.testing.assert_allclose(found, flat(START) - 4 * 0.1 * flat(SHIFT), atol=1e-6)


def test_batches_under_a_private_plan_are_refused() -> None:
    with pytest.raises(ConfigError, match="not in batches"):
        trained(PRIVATE, points([PERSONS])[0], 0.0, None, batch_size=4)


# Control variates.


def test_the_received_arrays_are_told_apart() -> None:
    beside = {f"control/{name}": array for name, array in SHIFT.items()}
    model, found = divide({**START, **beside})
    assert model == START
    assert found == SHIFT
    assert divide(START) == (START, {})
    with pytest.raises(ConfigError, match="has not the model's arrays"):
        divide({**START, "control/bias": SHIFT["bias"]})


def test_a_control_variate_of_another_model_is_refused() -> None:
    assert control_variates(SHIFT, None).own.tolist() == [0.0] * 4
    with pytest.raises(ConfigError, match="another model"):
        control_variates(SHIFT, bytes(8 * 5))


def test_what_is_scaled_down_or_no_number_is_accounted_for_as_it_was_released() -> None:
    moved = {name: array + 3 for name, array in START.items()}
    np.testing.assert_allclose(released_way(START, moved, 100.0, private=False), np.full(4, 3.0))  # type: ignore[arg-type]
    np.testing.assert_allclose(released_way(START, moved, 3.0, private=False), np.full(4, 1.5))  # type: ignore[arg-type]
    broken = {**moved, "bias": np.array([np.nan], np.float32)}
    assert released_way(START, broken, 3.0, private=False) is None
    np.testing.assert_array_equal(released_way(START, broken, 3.0, private=True), np.zeros(4))
