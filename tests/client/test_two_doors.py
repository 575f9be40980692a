"""Two doors out of a site, no third: every record of every message that leaves a site is walked.

Allowed is one ConfigRecord with one byte string that decodes to a message of the protocol, and beside it one with a
cosignature and signed events of a closed schema; at MASK one ArrayRecord with one flat integer array. The walker's
twin shows that it notices an app without the mod, and any extra record.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from support.doors import Leak, Walker, walk
from support.flower import Script, flower_task, local_grid, make_federation, model, ordinary_app, train_messages
from support.studies import material, tiny

from fedseal.client import app as client_app_module
from fedseal.compliance.journal.attachment import LogReply
from fedseal.privacy.secagg.messages import Refusal
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.simulation import training
from fedseal.simulation.engine import processes
from fedseal.simulation.grid import LocalGrid
from fedseal.wire import encode


@pytest.mark.quick("task-none")
@pytest.mark.parametrize("plan", ["none", "local"])
@pytest.mark.parametrize("normalisation", ["task", "federated"])
def test_every_message_of_a_whole_training_has_its_door(
    tmp_path: Path, plan: str, normalisation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = {"kind": normalisation, "low": (-5, -5, -5), "high": (6, 6, 6)}
    study = tiny(privacy={"plan": plan}, normalisation=ranges, training={"rounds": 2})
    walker = Walker()

    class WalkedGrid(LocalGrid):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"deliver": walker})

    monkeypatch.setattr(processes, "LocalGrid", WalkedGrid)
    trained = training.train(material(study, tmp_path / "data"), study.contract, tmp_path / "federation")
    assert len(trained.rounds) == 2
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    assert set(walker.events) == {
        "party.joined/v1",
        "run.accepted/v1",
        "dp.budget_set/v1",
        "dp.spent/v1",
        "round.contributed/v1",
    }
    # Four sites; HELLO, five exchanges a release, CLOSE.
    releases = 2 + (normalisation == "federated")
    assert sum(1 for raw in walker.bytes if raw[:2] == b"FS") == 4 * (2 + 5 * releases)


def test_values_and_names_of_a_site_do_not_occur_in_what_leaves_it(tmp_path: Path) -> None:
    """Canaries in the update, in the metrics, in an exception and in the names of arrays: none is found in any byte."""
    canary = np.array([0x7E57DA7A, 0x5EC7E701], dtype="<u4")
    value = canary.view("<f4")

    def deliver_with(script: Script) -> Walker:
        walker = Walker()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        federation = make_federation(folder, 3)
        grid = local_grid(federation, ordinary_app(script), deliver=walker)
        sealed = SealedGrid(
            grid,
            FedAvg(),
            store=federation.server,
            max_examples=10**6,
            metrics={"loss": (0.0, 1e9)},
            cohort=CohortRules(retries=0),
        )
        list(sealed.send_and_receive(train_messages(grid, model())))
        return walker

    examples = {1: 123_457, 2: 5, 3: 7}
    with flower_task():
        walker = deliver_with(Script({1: float(value[0])}, examples, {"loss": {1: 424_242.125, 2: 1.0, 3: 2.0}}))
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    for needle in (
        canary[:1].tobytes(),
        (123_457).to_bytes(4, "little"),
        (123_457).to_bytes(4, "big"),
        b"weight",
        b"loss",
    ):
        assert not walker.holds(needle)


def test_an_exception_does_not_leave(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    walker = Walker()
    script = Script(error=KeyError("Jane Roe, born 1961"))
    grid = local_grid(federation, ordinary_app(script), deliver=walker)
    sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=CohortRules(retries=0))
    with flower_task(), pytest.raises(Exception, match="round 1"):
        list(sealed.send_and_receive(train_messages(grid, model())))
    assert "Refusal" in walker.kinds
    assert not walker.holds(b"Jane")
    assert not walker.holds(b"KeyError")


# The twins: what the walker has to notice.


def leaky(change: Callable[[RecordDict], None]) -> Message:
    """A reply with something that has no door."""
    with flower_task():
        request = Message(RecordDict(), dst_node_id=1, message_type="train")
        content = RecordDict({"fedseal": ConfigRecord({"message": encode(Refusal(2, None))})})
        change(content)
        return Message(content, reply_to=request)


def test_the_walker_lets_a_refusal_through() -> None:
    walk(leaky(lambda content: None))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update({"metrics": MetricRecord({"num-examples": 12})}),
        lambda c: c.update({"notes": ConfigRecord({"host": "x"})}),
        lambda c: c["fedseal"].update({"note": "x"}),
        lambda c: c["fedseal"].update({"log": b"anything"}),
        lambda c: c["fedseal"].update({"log": encode(LogReply(0, 0, b"", (b"{}",)))}),
        lambda c: c["fedseal"].update({"log": encode(LogReply(200, 0, b"any text", ()))}),
        lambda c: c["fedseal"].update({"message": encode(Refusal(2, None)) + b"x"}),
        lambda c: c["fedseal"].update({"message": b"anything"}),
        lambda c: c.update({"vector": ArrayRecord({"vector": Array(np.zeros(3, dtype=np.uint32))})}),
        lambda c: c.pop("fedseal"),
    ],
    ids=[
        "metric record",
        "extra config",
        "extra key",
        "no log reply",
        "an event of no schema",
        "a text in the cosignature's place",
        "trailing byte",
        "no message",
        "array in the wrong place",
        "none",
    ],
)
def test_the_walker_notices(change: Callable[[Any], Any]) -> None:
    with pytest.raises(Leak):
        walk(leaky(lambda content: change(content)))


def test_the_walker_notices_an_app_without_the_mod(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    with flower_task():
        grid = local_grid(federation, ordinary_app(Script(), sealed=False), deliver=Walker())
        with pytest.raises(Leak):
            list(grid.send_and_receive(train_messages(grid, model())))


def test_fedseals_own_app_is_sealed() -> None:
    assert [m.__name__ for m in client_app_module.app._mods] == ["sealed_mod"]
