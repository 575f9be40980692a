"""Under every strategy the server gets control bytes and masked vectors from the sites, and the strategy one reply."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg
from support.doors import Walker
from support.flower import flower_task
from support.planes import UNEQUAL, Planes, start_of, training

from fedseal.server.grid import SealedGrid
from fedseal.server.scaffold import VARIATE_PREFIX
from fedseal.server.strategies import MEMORY
from fedseal.study import Training

STRATEGIES = get_args(Training.model_fields["strategy"].annotation)
ROUNDS = 3


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


class Desk:
    """Looks over a strategy's shoulder."""

    def __init__(self) -> None:
        self.replies: list[list[Message]] = []

    def __call__(self, grid: SealedGrid, strategy: FedAvg) -> None:
        aggregate: Any = strategy.aggregate_train

        def look(server_round: int, replies: Iterable[Message]) -> Any:
            batch = list(replies)
            self.replies.append(batch)
            return aggregate(server_round, batch)

        strategy.aggregate_train = look  # type: ignore[method-assign]


def vectors(walker: Walker) -> set[int]:
    """How long the arrays that left sites were."""
    return {len(raw) for raw in walker.bytes if raw[:2] != b"FS"}


@pytest.mark.quick("scaffold")
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_server_saw_only_sums(name: str, tmp_path: Path) -> None:
    walker, desk = Walker(), Desk()
    planes = Planes(tmp_path, UNEQUAL, deliver=walker)
    planes.train(training(name, rounds=ROUNDS), watch=desk)
    # The walker raises at everything else. HELLO, five exchanges a round and CLOSE, of four sites.
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    # Clustered training asks twice a round: who goes where, and then for updates.
    releases = 2 * ROUNDS if name == "clustered" else ROUNDS
    assert sum(raw[:2] == b"FS" for raw in walker.bytes) == 4 * (2 + 5 * releases)
    assert sum(raw[:2] != b"FS" for raw in walker.bytes) == 4 * releases
    assert [len(batch) for batch in desk.replies] == [1] * ROUNDS
    for (reply,) in desk.replies:
        assert sorted(reply.content) == ["arrays", "fedseal", "metrics"]
        assert list(reply.content["arrays"]) == list(start_of(training(name)))
        metrics: dict[str, Any] = dict(reply.content["metrics"])
        # What a strategy adds for itself are weighted means in the same vector.
        own = {"fednova": "nova-steps", "clustered": "cluster-members"}.get(name)
        assert np.sum(metrics.pop(own) if own else 1.0) == pytest.approx(1.0)
        assert metrics == {"num-examples": pytest.approx(sum(UNEQUAL))}
        assert dict(reply.content["fedseal"]) == {"survivors": [1, 2, 3, 4]}


def test_scaffold_sends_no_longer_a_vector_up_than_fedavg(tmp_path: Path) -> None:
    lengths = []
    for name in ("fedavg", "scaffold"):
        (tmp_path / name).mkdir()
        walker = Walker()
        planes = Planes(tmp_path / name, deliver=walker)
        planes.train(training(name, rounds=2))
        lengths.append(vectors(walker))
        assert not walker.holds(VARIATE_PREFIX.encode())
    assert lengths[0] == lengths[1]
    assert len(lengths[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_goes_on_after_a_crash_as_if_there_had_been_none(name: str, tmp_path: Path) -> None:
    """To the last bit: the strategy's memory and the sites' own are those of the last finished round."""
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    how = training(name, rounds=3)
    whole, stopped = Planes(tmp_path / "whole", UNEQUAL), Planes(tmp_path / "stopped", UNEQUAL)
    whole.train(how)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(how, stop_after=2)
    # Another process: nothing is left but the stores.
    stopped.train(how, run=stopped.run)
    assert [m.tolist() for m in stopped.models] == [m.tolist() for m in whole.models]


def test_every_strategy_of_a_study_can_be_resumed() -> None:
    from fedseal.server.app import build_strategy

    assert all(type(build_strategy(training(name), 4)) in MEMORY for name in STRATEGIES)
