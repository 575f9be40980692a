"""Ditto against the paper's algorithm in doubles: the federation's model sealed, a site's own at home."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from support.doors import Walker
from support.flower import flower_task
from support.planes import EQUAL, START, UNEQUAL, Planes, Vector, flat, silent, steps, training

from fedseal.client import personal, remembered
from fedseal.client.personal import MEMORY_NAME, pack, unpack
from fedseal.client.records import control_bytes
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.secagg.messages import ConsistencyRequest, MaskRequest
from fedseal.server.app import task_settings
from fedseal.study import Training

ROUNDS = 4
EVERYONE = (1, 2, 3, 4)
TAG_PLACE = 3
HOW: dict[str, Any] = {"rounds": ROUNDS, "ditto_lambda": 0.7}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def own_steps(v: Vector, w: Vector, planes: Planes, site: int, how: Training) -> Vector:
    """v_k <- v_k - eta (grad F_k(v_k) + lambda (v_k - w^t)), s times."""
    rate = how.personal_learning_rate or how.learning_rate
    for _ in range(how.personal_steps or how.local_steps):
        v = v - rate * (planes.sites[site - 1].gradient(v) + how.ditto_lambda * (v - w))
    return v


def paper(
    planes: Planes, how: Training, absent: dict[int, set[int]] | None = None
) -> tuple[list[Vector], list[Vector]]:
    """Li et al. 2021, Algorithm 1 with FedAvg as its solver: the global models, and the personal ones at the end.

    ``absent``: by round, whose vector is not in the sum.
    """
    w = flat(START)
    own = [w.copy() for _ in planes.sites]
    models = []
    for number in range(1, how.rounds + 1):
        there = [s for s in EVERYONE if s not in (absent or {}).get(number, set())]
        ways = [steps(w, planes.sites[s - 1], how) - w for s in there]
        for s in there:
            own[s - 1] = own_steps(own[s - 1], w, planes, s, how)
        w = w + np.average(ways, axis=0, weights=[planes.sizes[s - 1] for s in there])
        models.append(w)
    return models, own


def kept(planes: Planes, site: int) -> Vector:
    """The personal model in a site's store, also after the run."""
    with planes.federation.site(site).transaction() as transaction:
        raw = transaction.kept(planes.run, MEMORY_NAME)
    assert raw is not None
    return flat(unpack(raw, START))


def assert_follows(planes: Planes, how: Training, absent: dict[int, set[int]] | None = None) -> None:
    models, own = paper(planes, how, absent)
    largest = max(float(np.abs(model).max()) for model in (*planes.models, *own))
    tolerance = 4 * ROUNDS * (planes.error + 8 * float(np.spacing(np.float32(largest))))
    for found, expected in zip(planes.models, models, strict=True):
        assert np.abs(found - expected).max() <= tolerance
    for site in EVERYONE:
        assert np.abs(kept(planes, site) - own[site - 1]).max() <= tolerance


@pytest.mark.quick("changes1")
@pytest.mark.parametrize("changes", [{}, {"personal_steps": 9, "personal_learning_rate": 0.03}])
def test_it_follows_the_paper(changes: dict[str, Any], tmp_path: Path) -> None:
    planes, how = Planes(tmp_path, UNEQUAL), training("ditto", **HOW | changes)
    planes.train(how)
    assert_follows(planes, how)
    # Personal models differ from the federation's and from each other.
    own = [kept(planes, site) for site in EVERYONE]
    assert min(np.abs(v - planes.models[-1]).max() for v in own) > 1e-2
    assert np.abs(own[0] - own[1]).max() > 1e-2


@pytest.mark.slow
def test_the_federations_model_is_fedavgs_to_the_last_bit(tmp_path: Path) -> None:
    models = {}
    for name in ("fedavg", "ditto"):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, UNEQUAL)
        planes.train(training(name, rounds=3))
        models[name] = [m.tolist() for m in planes.models]
    assert models["fedavg"] == models["ditto"]


def test_the_personal_model_stays_at_its_site(tmp_path: Path) -> None:
    """Nothing leaves but control bytes and one masked vector as long as FedAvg's, and no number of it is in there."""
    walker = Walker()
    planes = Planes(tmp_path, EQUAL, deliver=walker)
    planes.train(training("ditto", **HOW))
    for site in EVERYONE:
        with planes.federation.site(site).transaction() as transaction:
            raw = transaction.kept(planes.run, MEMORY_NAME)
        assert raw is not None
        for array in unpack(raw, START).values():
            assert not any(walker.holds(value.tobytes()) for value in array.ravel())
        assert not walker.holds(raw[-16:])


def asked(message: Message, tag: int) -> bool:
    return control_bytes(message)[TAG_PLACE] == tag


def test_a_round_whose_sum_it_is_not_in_does_not_move_a_personal_model(tmp_path: Path) -> None:
    """The answer got lost after the site had trained: the next task says that it was not counted."""
    seen: list[int] = []

    def lose(node: int, message: Message) -> bool:
        if node == 2 and asked(message, MaskRequest.TAG):
            seen.append(node)
            return len(seen) == 2
        return False

    planes, how = Planes(tmp_path, UNEQUAL, deliver=silent(lose)), training("ditto", **HOW)
    planes.train(how)
    assert [r.sites for r in planes.records] == [4, 3, 4, 4]
    assert_follows(planes, how, {2: {2}})


@pytest.mark.slow
def test_an_aborted_attempt_is_rolled_back(tmp_path: Path) -> None:
    """All have trained, none could be summed; the second attempt begins where the first did."""
    spoilt: list[int] = []

    def lose(node: int, message: Message) -> bool:
        if asked(message, ConsistencyRequest.TAG) and len(planes.models) == 2 and len(spoilt) < 4:
            spoilt.append(node)
            return True
        return False

    planes, how = Planes(tmp_path, UNEQUAL, deliver=silent(lose)), training("ditto", **HOW)
    planes.train(how)
    assert [r.attempts for r in planes.records] == [1, 1, 2, 1]
    assert_follows(planes, how)


@pytest.mark.slow
def test_after_a_crash_of_the_server_sites_go_on_from_their_own(tmp_path: Path) -> None:
    planes, how = Planes(tmp_path, UNEQUAL), training("ditto", **HOW)
    with pytest.raises(KeyboardInterrupt):
        planes.train(how, stop_after=2)
    planes.train(how, run=planes.run)
    assert_follows(planes, how)


PRIVATE = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=0.5, steps=5, releases=8, retries=1)


@pytest.mark.slow
def test_under_a_private_plan_it_costs_what_fedavg_costs_and_sends_the_same(tmp_path: Path) -> None:
    charges, models = {}, {}
    for name in ("fedavg", "ditto"):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, EQUAL, plan=PRIVATE)
        planes.train(training(name, rounds=2))
        charges[name] = [planes.federation.charges(site) for site in EVERYONE]
        models[name] = [m.tolist() for m in planes.models]
    assert charges["ditto"] == charges["fedavg"] == [2] * 4
    assert models["ditto"] == models["fedavg"]
    # The personal models have no noise of their own: they are the paper's, from the noisy models that were sent.
    w, how = [flat(START), *planes.models], training("ditto", rounds=2, sample_rate=1.0)
    for site in EVERYONE:
        v = w[0]
        for received in w[:2]:
            v = own_steps(v, received, planes, site, how)
        np.testing.assert_allclose(kept(planes, site), v, atol=1e-5)


def test_both_sides_use_the_same_names() -> None:
    told = task_settings(training("ditto", personal_steps=3, personal_learning_rate=0.2), None)
    names = (remembered.DITTO_LAMBDA, personal.DITTO_STEPS, personal.DITTO_RATE)
    assert [told[name] for name in names] == [0.1, 3, 0.2]


def test_the_personal_model_of_another_model_is_refused() -> None:
    for broken in (pack({"bias": START["bias"]}), b"no safetensors"):
        with pytest.raises(ConfigError, match="belongs to another model"):
            unpack(broken, START)
