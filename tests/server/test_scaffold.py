"""SCAFFOLD whose server derives the control variates, against the paper's algorithm, which sends both vectors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from support.flower import flower_task
from support.planes import EQUAL, START, UNEQUAL, Planes, Points, Vector, flat, silent, steps, training

from fedseal.client import remembered
from fedseal.client.app import client_app
from fedseal.client.records import control_bytes
from fedseal.errors import LocalError
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.secagg.messages import ConsistencyRequest, MaskRequest
from fedseal.server import counted, scaffold
from fedseal.server.app import build_strategy
from fedseal.server.scaffold import Scaffold
from fedseal.study import Training

ROUNDS = 5
EVERYONE = (1, 2, 3, 4)
# Where a message says what it is.
TAG_PLACE = 3


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


Present = Callable[[int], tuple[int, ...]]


def paper(planes: Planes, how: Training, present: Present) -> tuple[list[Vector], list[Vector]]:
    """Karimireddy et al. 2020, Algorithm 1, option II, with the sites' weights in place of 1/N; the models, and the
    sites' control variates at the end.

    Args:
        planes: the sites.
        how: K, eta_l, eta_g.
        present: who is in S, by round.
    """
    x, c = flat(START), np.zeros(4)
    own = [np.zeros(4) for _ in planes.sites]
    share = planes.weights
    models = []
    for number in range(1, how.rounds + 1):
        chosen = [i - 1 for i in present(number)]
        way, change = np.zeros(4), np.zeros(4)
        for i in chosen:
            y = steps(x, planes.sites[i], how, shift=c - own[i])
            renewed = own[i] - c + (x - y) / (how.local_steps * how.learning_rate)
            way += share[i] / share[chosen].sum() * (y - x)
            change += share[i] * (renewed - own[i])
            own[i] = renewed
        # x <- x + eta_g / |S| sum dx_i; c <- c + 1 / N sum dc_i
        x, c = x + how.server_rate * way, c + change
        models.append(x)
    return models, own


def everyone(number: int) -> tuple[int, ...]:
    return EVERYONE


def kept(planes: Planes, site: int) -> Vector:
    """What a site's store holds, pending or not."""
    with planes.federation.site(site).transaction() as transaction:
        raw = transaction.recall(planes.run, remembered.CONTROL_VARIATE, counted=len(planes.models))
    assert raw is not None
    return np.frombuffer(raw, dtype="<f8")


def tolerance(planes: Planes) -> float:
    """Quantisation and float32 in every round, in a model and, divided by K eta_l and fed back, in control variates."""
    return 10 * ROUNDS * (planes.error + 8 * float(np.spacing(np.float32(1.0))))


def assert_follows(planes: Planes, how: Training, present: Present) -> None:
    models, _ = paper(planes, how, present)
    assert len(planes.models) == how.rounds
    for found, expected in zip(planes.models, models, strict=True):
        assert np.abs(found - expected).max() <= tolerance(planes)


@pytest.mark.quick("sizes0-0.5")
@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL])
def test_it_follows_the_paper(sizes: tuple[int, ...], rate: float, tmp_path: Path) -> None:
    planes, how = Planes(tmp_path, sizes), training("scaffold", rounds=ROUNDS, server_learning_rate=rate)
    planes.train(how)
    assert_follows(planes, how, everyone)
    # And the sites' drift is corrected: without control variates it comes out elsewhere.
    x = flat(START)
    for _ in range(ROUNDS):
        x = x + rate * np.average([steps(x, s, how) - x for s in planes.sites], axis=0, weights=planes.weights)
    assert np.abs(planes.models[-1] - x).max() > 1000 * tolerance(planes)


@pytest.mark.slow
def test_it_finds_the_common_optimum_where_fedavg_does_not(tmp_path: Path) -> None:
    def gradient(x: Vector) -> float:
        common = np.average([s.gradient(x) for s in planes.sites], axis=0, weights=planes.weights)
        return float(np.abs(common).max())

    found = {}
    for name in ("fedavg", "scaffold"):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, UNEQUAL)
        planes.train(training(name, rounds=20, local_steps=8))
        found[name] = gradient(planes.models[-1])
    assert found["scaffold"] < 0.01
    assert found["fedavg"] > 0.1


# Sites that drop out.


def asked(message: Message, tag: int) -> bool:
    return control_bytes(message)[TAG_PLACE] == tag


class Round:
    """Which Flower round the network is in, by the requests to train that passed."""

    def __init__(self) -> None:
        self.number = 0
        self._asked: set[int] = set()

    def see(self, node: int, message: Message) -> int:
        if asked(message, MaskRequest.TAG):
            if node in self._asked or not self._asked:
                self.number, self._asked = self.number + 1, set()
            self._asked.add(node)
        return self.number


@pytest.mark.quick("1-never asked-sizes0")
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("heard", [False, True], ids=["never asked", "answer lost"])
@pytest.mark.parametrize("first", [1, 2])
def test_a_site_that_is_not_in_the_sum_keeps_what_it_had(
    sizes: tuple[int, ...], heard: bool, first: int, tmp_path: Path
) -> None:
    """Also if it trained, and only its answer got lost: the server's next task says who was counted."""
    rounds = Round()

    def lose(node: int, message: Message) -> bool:
        return rounds.see(node, message) in (first, first + 2) and node == 2 and asked(message, MaskRequest.TAG)

    planes = Planes(tmp_path, sizes, deliver=silent(lose, heard=heard))
    how = training("scaffold", rounds=ROUNDS)
    planes.train(how)
    assert [r.sites for r in planes.records] == [3 if n in (first, first + 2) else 4 for n in range(1, ROUNDS + 1)]

    def present(number: int) -> tuple[int, ...]:
        return (1, 3, 4) if number in (first, first + 2) else EVERYONE

    if sizes == EQUAL or first > 1:
        assert_follows(planes, how, present)
    else:
        models, _ = paper(planes, how, present)
        assert np.abs(planes.models[0] - models[0]).max() <= tolerance(planes)


@pytest.mark.slow
def test_weights_that_are_not_known_yet_are_made_up_for(tmp_path: Path) -> None:
    """Before everybody was there once, the server takes the absent for average; afterwards c is the mean."""
    rounds, strategy = Round(), build_strategy(training("scaffold"), 4)
    assert isinstance(strategy, Scaffold)

    def lose(node: int, message: Message) -> bool:
        return rounds.see(node, message) == 1 and node == 4 and asked(message, MaskRequest.TAG)

    planes = Planes(tmp_path, UNEQUAL, deliver=silent(lose))
    with pytest.raises(KeyboardInterrupt):
        planes.train(training("scaffold", rounds=ROUNDS), strategy=strategy, stop_after=3)
    assert [r.sites for r in planes.records] == [3, 4, 4]
    mean = np.average([kept(planes, site) for site in EVERYONE], axis=0, weights=planes.weights)
    np.testing.assert_allclose(flat(strategy.variate(START)), mean, atol=1e-5)


@pytest.mark.slow
def test_a_site_that_was_counted_and_then_fell_silent_goes_on_from_it(tmp_path: Path) -> None:
    """Its vector is in the sum although it did not answer afterwards and never heard how the round ended."""
    rounds = Round()

    def lose(node: int, message: Message) -> bool:
        return rounds.see(node, message) == 2 and node == 3 and asked(message, ConsistencyRequest.TAG)

    planes, how = Planes(tmp_path, UNEQUAL, deliver=silent(lose, heard=False)), training("scaffold", rounds=ROUNDS)
    planes.train(how)
    assert [r.sites for r in planes.records] == [4] * ROUNDS
    assert_follows(planes, how, everyone)


def shrinking(folder: Path, rounds: Round, at: int) -> Callable[[ClientApp, Message, Context], Message]:
    """Site 4 loses most of its rows before a round; every site begins with a new process there."""
    later = client_app()

    def deliver(app: ClientApp, message: Message, context: Context) -> Message:
        if rounds.see(int(context.node_config["number"]), message) < at:
            return app(message, context)
        path = folder / "data-4" / "persons.csv"
        pd.read_csv(path).iloc[:8].to_csv(path, index=False)
        return later(message, context)

    return deliver


@pytest.mark.slow
def test_it_begins_anew_when_the_whole_weight_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A site has other rows from round 3 on; control variates with its old weight would pull away from the optimum."""
    planes = Planes(tmp_path, UNEQUAL)
    planes.deliver = shrinking(tmp_path, Round(), 3)
    with caplog.at_level("WARNING", logger="fedseal.server"):
        planes.train(training("scaffold", rounds=20, local_steps=8))
    assert [r.message for r in caplog.records if "anew" in r.message] == [
        "round 3: the sites' whole weight has changed; SCAFFOLD begins anew"
    ]
    planes.sites[3] = Points(planes.sites[3].rows[:8], planes.sites[3].targets[:8])
    weights = np.array([len(site.targets) for site in planes.sites])
    common = np.average([s.gradient(planes.models[-1]) for s in planes.sites], axis=0, weights=weights)
    assert np.abs(common).max() < 0.005


@pytest.mark.slow
def test_a_failed_attempt_leaves_nothing_behind(tmp_path: Path) -> None:
    """All trained, none could be summed; the second attempt begins where the first began."""
    spoilt: list[int] = []

    def lose(node: int, message: Message) -> bool:
        if asked(message, ConsistencyRequest.TAG) and len(spoilt) < 8 and (len(spoilt) < 4 or len(planes.models) == 2):
            spoilt.append(node)
            return True
        return False

    planes, how = Planes(tmp_path, UNEQUAL, deliver=silent(lose)), training("scaffold", rounds=ROUNDS)
    planes.train(how)
    assert [r.attempts for r in planes.records] == [2, 1, 2, 1, 1]
    assert_follows(planes, how, everyone)


def test_the_servers_control_variate_is_the_mean_of_the_sites(tmp_path: Path) -> None:
    """Which it has never seen. Sites keep them until the run is closed, so this looks before the end."""
    planes, how = Planes(tmp_path, UNEQUAL), training("scaffold", rounds=ROUNDS)
    strategy = build_strategy(how, 4)
    assert isinstance(strategy, Scaffold)
    with pytest.raises(KeyboardInterrupt):
        planes.train(how, strategy=strategy, stop_after=3)
    own = [kept(planes, site) for site in EVERYONE]
    _, expected = paper(planes, training("scaffold", rounds=3), everyone)
    for found, papers in zip(own, expected, strict=True):
        np.testing.assert_allclose(found, papers, atol=tolerance(planes) / (how.local_steps * how.learning_rate))
    mean = np.average(own, axis=0, weights=planes.weights)
    np.testing.assert_allclose(flat(strategy.variate(START)), mean, atol=1e-5)


# Private.

PRIVATE = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=0.5, steps=5, releases=8, retries=1)


@pytest.mark.slow
def test_a_private_run_keeps_control_variates_of_noisy_updates_and_costs_what_fedavg_costs(tmp_path: Path) -> None:
    charges = {}
    for name in ("fedavg", "scaffold"):
        (tmp_path / name).mkdir()
        planes, how = Planes(tmp_path / name, EQUAL, plan=PRIVATE), training(name, rounds=3)
        strategy = build_strategy(how, 4)
        with pytest.raises(KeyboardInterrupt):
            planes.train(how, strategy=strategy, stop_after=2)
        charges[name] = [planes.federation.charges(site) for site in EVERYONE]
        if isinstance(strategy, Scaffold):
            # Weights are the roster's, all equal: the server derived the mean of what the sites keep.
            mean = np.mean([kept(planes, site) for site in EVERYONE], axis=0)
            np.testing.assert_allclose(flat(strategy.variate(START)), mean, atol=1e-5)
            assert np.abs(mean).max() > 0.01
    assert charges["scaffold"] == charges["fedavg"] == [2] * 4


# What is not right is said.


def test_both_sides_use_the_same_names() -> None:
    assert (scaffold.VARIATE_PREFIX, counted.SITES, counted.ROUNDS) == (
        remembered.VARIATE_PREFIX,
        remembered.SITES,
        remembered.ROUNDS,
    )


def test_it_works_on_sealed_sums_only(tmp_path: Path) -> None:
    """An unsealed grid returns a reply a site, among them control variates nobody asked for."""
    planes = Planes(tmp_path)
    strategy = build_strategy(training("scaffold"), 4)
    with pytest.raises(LocalError, match="SealedGrid"):
        strategy.aggregate_train(1, [])
        strategy._account(1, [], {})  # type: ignore[attr-defined]
    assert planes.models == []
