"""Two doors out of a site, no third: every record of every message that leaves a site is walked.

Allowed is one ConfigRecord with one byte string that decodes to a message of the protocol, and at MASK one
ArrayRecord with one flat integer array. The walker's twin shows that it notices an app without the mod, and any extra
record.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from support.flower import Script, flower_task, local_grid, make_federation, model, ordinary_app, train_messages
from support.studies import material, tiny

from fedseal.client import app as client_app_module
from fedseal.privacy.runs import ControlMessage, Introduction, RunClosed
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    Masked,
    Openings,
    Refusal,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
)
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.simulation import training
from fedseal.simulation.grid import LocalGrid
from fedseal.wire import DecodeError, decode, encode

OUTER: tuple[Any, ...] = (Signed, ShareReply, Refusal, ControlMessage)
PAYLOADS: dict[Stage, Any] = {
    Stage.ADVERTISE: Advertisement,
    Stage.SHARE: ShareHead,
    Stage.MASK: Masked,
    Stage.CONSISTENCY: Confirmation,
    Stage.UNMASK: Openings,
}


class Leak(AssertionError):  # noqa: N818
    """Something left a site that has no door."""


def walk(reply: Message) -> Any:
    """Check everything a reply carries; the decoded message.

    Raises:
        Leak: a record, key, type or byte that is not in the closed list.
    """
    if reply.has_error():
        raise Leak("a Flower error, whose text quotes the exception")
    content = reply.content
    if set(content.config_records) != {"fedseal"} or content.metric_records:
        raise Leak(f"records {sorted(content)}")
    if set(content["fedseal"]) != {"message"}:
        raise Leak("another key beside the control bytes")
    raw: Any = content["fedseal"]["message"]
    try:
        message: Any = decode(raw, *OUTER)
        inner: Any = _inner(message)
    except DecodeError as error:
        raise Leak(f"bytes that are no message: {error.message}") from None
    vectors = list(content.array_records.values())
    if isinstance(inner, Masked) != bool(vectors):
        raise Leak("an array beside something else than a masked vector")
    if vectors:
        _check_vector(vectors)
    if encode(message) != raw:
        raise Leak("bytes that are not canonical")
    return message


def _inner(message: Any) -> Any:
    match message:
        case Signed():
            return decode(message.payload, PAYLOADS[Stage(message.stage)])
        case ShareReply():
            return decode(message.head.payload, ShareHead)
        case ControlMessage():
            kinds: tuple[Any, ...] = (Introduction, RunClosed)
            return decode(message.payload, *kinds)
    return message


def _check_vector(records: list[ArrayRecord]) -> None:
    (record,) = records
    if set(record) != {"vector"}:
        raise Leak(f"arrays {sorted(record)}")
    array = record["vector"]
    if array.dtype not in ("uint32", "uint64") or len(array.shape) != 1:
        raise Leak(f"an array of {array.dtype} with shape {array.shape}")


class Walker:
    """Delivers messages and walks every reply; keeps all bytes that left."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.bytes: list[bytes] = []

    def __call__(self, app: ClientApp, message: Message, context: Context) -> Message:
        reply = app(message, context)
        walked = walk(reply)
        self.kinds.add(type(walked).__name__)
        self.bytes.append(encode(walked))
        self.bytes += [a.data for r in reply.content.array_records.values() for a in r.values()]
        return reply

    def holds(self, needle: bytes) -> bool:
        return any(needle in raw for raw in self.bytes)


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
            super().__init__(*arguments, **options, deliver=walker)

    monkeypatch.setattr(training, "LocalGrid", WalkedGrid)
    trained = training.train(material(study, tmp_path / "data"), study.contract, tmp_path / "federation")
    assert len(trained.rounds) == 2
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
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
        lambda c: c["fedseal"].update({"message": encode(Refusal(2, None)) + b"x"}),
        lambda c: c["fedseal"].update({"message": b"anything"}),
        lambda c: c.update({"vector": ArrayRecord({"vector": Array(np.zeros(3, dtype=np.uint32))})}),
        lambda c: c.pop("fedseal"),
    ],
    ids=[
        "metric record",
        "extra config",
        "extra key",
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
