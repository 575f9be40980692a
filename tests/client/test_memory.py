"""What a site's store keeps for an app from round to round: never of an attempt that came to nothing, never of a run
that is over, and the same after a crash.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from support.flower import (
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
    refused_with,
)
from support.planes import EQUAL, Planes, training

from fedseal.client.records import control_bytes
from fedseal.client.release import MEMORY
from fedseal.client.remembered import CONTROL_VARIATE, last_counted
from fedseal.client.session import Session
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, PrivacyPlan
from fedseal.privacy.secagg.messages import MaskRequest, RefusalCode, Stage

RUN, OTHER = b"r" * 16, b"o" * 16


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


def recall(federation: Federation, counted: int, *, run: bytes = RUN, name: str = "c") -> bytes | None:
    with federation.site(1).transaction() as transaction:
        return transaction.recall(run, name, counted=counted)


def remember(federation: Federation, value: bytes, fl_round: int, *, run: bytes = RUN, name: str = "c") -> None:
    with federation.site(1).transaction() as transaction:
        transaction.remember(run, name, value, fl_round)


def test_what_was_counted_holds_from_the_next_round_on(federation: Federation) -> None:
    assert recall(federation, 0) is None
    remember(federation, b"one", 1)
    assert recall(federation, 1) == b"one"
    remember(federation, b"two", 2)
    assert recall(federation, 2) == b"two"
    # Asked again: the same.
    assert recall(federation, 2) == b"two"


def test_a_round_that_did_not_count_is_forgotten(federation: Federation) -> None:
    """Also if its number comes round again: it was discarded when the next attempt began."""
    remember(federation, b"one", 1)
    assert recall(federation, 0) is None
    assert recall(federation, 1) is None
    remember(federation, b"again", 1)
    assert recall(federation, 1) == b"again"
    remember(federation, b"two", 2)
    assert recall(federation, 1) == b"again"
    assert recall(federation, 2) == b"again"


def test_what_held_is_forgotten_where_no_round_counts_any_more(federation: Federation) -> None:
    remember(federation, b"one", 1)
    assert recall(federation, 1) == b"one"
    remember(federation, b"two", 2)
    assert recall(federation, 0) is None
    assert recall(federation, 2) is None


def test_a_later_attempt_replaces_a_pending_one_and_not_what_holds(federation: Federation) -> None:
    remember(federation, b"one", 1)
    recall(federation, 1)
    remember(federation, b"first attempt", 2)
    remember(federation, b"second attempt", 2)
    assert recall(federation, 2) == b"second attempt"


def test_runs_and_names_do_not_meet_and_a_closed_run_keeps_nothing(federation: Federation) -> None:
    for run in (RUN, OTHER):
        for name in ("c", "d"):
            remember(federation, run + name.encode(), 1, run=run, name=name)
    assert recall(federation, 1, run=OTHER, name="d") == OTHER + b"d"
    with federation.site(1).transaction() as transaction:
        transaction.close_run(RUN)
    assert recall(federation, 1) is None
    assert recall(federation, 1, name="d") is None
    assert recall(federation, 1, run=OTHER) == OTHER + b"c"


# Through the mod.


def keeping(value: bytes | str) -> Script:
    """An app whose site 1 keeps something."""

    def alter(content: RecordDict) -> None:
        content[MEMORY] = ConfigRecord({"c": value})

    return Script({1: 0.5, 2: -1.0, 3: 2.0}, alter={1: alter})


def test_any_app_may_keep_bytes_and_none_of_them_leaves(federation: Federation) -> None:
    value = b"what nobody else may see"
    header = header_for(federation, fl_round=4)
    state, seen = Nodes(federation, ordinary_app(keeping(value))).run(header)
    assert state.survivors == (1, 2, 3)
    for _, reply in seen.values():
        assert set(reply.content) <= {"fedseal", "vector"}
        assert value not in control_bytes(reply)
    assert recall(federation, 4, run=header.run) == value


def test_it_is_written_with_the_answer_or_not_at_all(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> Any:
        raise KeyboardInterrupt

    header = header_for(federation, fl_round=4)
    nodes = Nodes(federation, ordinary_app(keeping(b"x")))
    with monkeypatch.context() as patched:
        patched.setattr(Session, "_keep", lambda self, t, h, stage, *rest: KEEP(self, t, h, stage, *rest, crash=crash))
        with pytest.raises(KeyboardInterrupt):
            nodes.run(header)
    assert recall(federation, 4, run=header.run) is None


KEPT = Session._keep


def KEEP(self: Session, transaction: Any, header: Any, stage: Stage, *rest: Any, crash: Any) -> Any:  # noqa: N802
    return crash() if stage is Stage.MASK else KEPT(self, transaction, header, stage, *rest)


def test_something_else_than_bytes_is_a_fault_of_the_app(federation: Federation) -> None:
    nodes = Nodes(federation, ordinary_app(keeping("text")))
    state, _ = nodes.run(header_for(federation, fl_round=4), until=Stage.MASK)
    assert refused_with(state) == {1: RefusalCode.TASK}
    assert "something else than bytes" in nodes.incident(1)


# Of SCAFFOLD.

PRIVATE = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=0.5, steps=5, releases=4, retries=1)


def crashing(times: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A network of nodes of which one dies after training, before it answers, and is asked again when it is back."""
    answer = Session._answer_mask

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    def deliver(app: ClientApp, message: Message, context: Context) -> Message:
        node = int(context.node_config["number"])
        if times.get(node) and control_bytes(message)[3] == MaskRequest.TAG:
            times[node] -= 1
            monkeypatch.setattr(Session, "_answer_mask", die)
            with pytest.raises(KeyboardInterrupt):
                app(message, context)
            monkeypatch.setattr(Session, "_answer_mask", answer)
        return app(message, context)

    return deliver


@pytest.mark.slow
@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
def test_after_a_crash_between_charge_and_answer_a_site_computes_the_same(
    plan: PrivacyPlan | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds 1 to 3: without anything kept, with something pending, and with something that holds."""
    models, charges = [], []
    for name, times in (("whole", {}), ("crashing", {2: 3, 3: 1})):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, EQUAL, plan=plan, deliver=crashing(times, monkeypatch))
        planes.train(training("scaffold", rounds=3))
        models.append([m.tolist() for m in planes.models])
        charges.append([planes.federation.charges(site) for site in (1, 2, 3, 4)])
        assert not any(times.values())
        # The run is closed: sites have forgotten.
        with planes.federation.site(2).transaction() as transaction:
            assert transaction.recall(planes.run, CONTROL_VARIATE, counted=3) is None
    assert models[0] == models[1]
    assert charges[0] == charges[1] == [3] * 4


@pytest.mark.slow
def test_a_private_scaffold_ends_elsewhere_than_private_fedavg(tmp_path: Path) -> None:
    """The control variates of noisy updates are used, from the second round on."""
    models = {}
    for name in ("fedavg", "scaffold"):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, EQUAL, plan=PRIVATE)
        planes.train(training(name, rounds=2))
        models[name] = planes.models
    assert models["fedavg"][0].tolist() == models["scaffold"][0].tolist()
    assert abs(models["fedavg"][1] - models["scaffold"][1]).max() > 1e-4


def test_a_task_that_does_not_say_who_was_counted_is_refused() -> None:
    assert last_counted(ConfigRecord({"control-sites": [2, 5], "control-rounds": [7, 3]}), 5) == 3
    assert last_counted(ConfigRecord({"control-sites": [2, 5], "control-rounds": [7, 3]}), 4) == 0
    for broken in ({}, {"control-sites": [1]}, {"control-sites": [1], "control-rounds": [1, 2]}):
        with pytest.raises(ConfigError, match="which sites were"):
            last_counted(ConfigRecord(broken), 1)  # type: ignore[arg-type]
