"""Sites that are summed computed the same thing: whatever an app can see is in the signed header's digest, or fixed.

A dishonest server sends one site something else than the others, under one header; that site must refuse, or its app
must not be able to tell.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    default_task,
    flower_task,
    header_for,
    make_federation,
    model,
    ordinary_app,
    refused_with,
)

from fedseal.client.mod import sealed_mod
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE
from fedseal.inputs import input_digest, task_digest
from fedseal.privacy.plan import encode_plan
from fedseal.privacy.releases import MOMENTS, REGISTRY, UPDATE
from fedseal.privacy.secagg.messages import RefusalCode, Stage

CONFIG: dict[str, bool | int | float | str] = {"task": "task:Study", "lr": 0.1, "rounds": 3, "on": True}
VICTIM = 1
SCRIPT = {1: 1.0, 2: 2.0, 3: 3.0}
Records = Mapping[str, Any]


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


def over_the_wire(records: Records) -> RecordDict:
    """The records as Flower's transport delivers them."""
    return recorddict_from_proto(recorddict_to_proto(RecordDict(dict(records))))


def different(federation: Federation, others: Records, victim: Records, **header: Any) -> tuple[Any, Script]:
    """A round whose header is about one task, and site 1 is sent another; the state after MASK."""
    script = Script(SCRIPT)
    nodes = Nodes(federation, ordinary_app(script))
    state, _ = nodes.run(
        header_for(federation, **{"task": {**others}, **header}),
        until=Stage.MASK,
        task=lambda site: over_the_wire(victim if site == VICTIM else others),
    )
    return state, script


def settings(**values: Any) -> ConfigRecord:
    return ConfigRecord(values)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another setting": lambda r: r.update(config=settings(lr=0.2)),
    "another type": lambda r: r.update(config=settings(lr="0.1")),
    "one setting more": lambda r: r.update(config=settings(lr=0.1, steps=3)),
    "no settings": lambda r: r.pop("config"),
    "settings under another name": lambda r: r.update(setup=r.pop("config")),
    "another number": lambda r: r["arrays"].update(bias=Array(np.array([0.5, -0.25, 1.5], np.float32))),
    "another dtype": lambda r: r["arrays"].update(bias=Array(np.array([0.5, -0.25, 1.0], np.float64))),
    "another shape": lambda r: r["arrays"].update(bias=Array(np.array([[0.5, -0.25, 1.0]], np.float32))),
    "another order of arrays": lambda r: r.update(arrays=ArrayRecord(dict(reversed(list(r["arrays"].items()))))),
    "one array more": lambda r: r["arrays"].update(more=Array(np.zeros(1))),
    "arrays under another name": lambda r: r.update(model=r.pop("arrays")),
}


@pytest.mark.quick("another setting", "another type", "no settings", "another shape", "another order of arrays")
@pytest.mark.parametrize("name", CHANGES)
def test_another_task_than_the_headers_is_refused(federation: Federation, name: str) -> None:
    victim = default_task()
    CHANGES[name](victim)
    state, script = different(federation, default_task(), victim)
    assert refused_with(state) == {VICTIM: RefusalCode.PROTOCOL}
    assert sorted(script.calls) == [2, 3]
    assert "not the one in the signed header" in federation.incidents(VICTIM)[-1][1]


TWOFOLD: dict[str, Records] = {
    "two settings": {"arrays": model(), "a": settings(lr=0.5), "b": settings(lr=0.0)},
    "two models": {"a": model(), "b": ArrayRecord({"weight": Array(np.zeros(2))}), "config": settings(lr=0.1)},
    "metrics": {"arrays": model(), "hyper": MetricRecord({"lr": 1.0})},
}


@pytest.mark.parametrize("name", TWOFOLD)
def test_a_task_with_more_than_one_record_of_a_kind_is_refused(federation: Federation, name: str) -> None:
    """The app takes the first it finds, and the transport keeps the order that a server gives to each site."""
    records = TWOFOLD[name]
    bound = {n: r for n, r in records.items() if not isinstance(r, MetricRecord)}
    state, script = different(federation, records, dict(reversed(list(records.items()))), task=bound)
    assert refused_with(state) == dict.fromkeys((1, 2, 3), RefusalCode.PROTOCOL)
    assert script.calls == []
    assert "more than one record" in federation.incidents(2)[-1][1]


def test_the_order_of_settings_and_records_does_not_reach_the_app(federation: Federation) -> None:
    """Two orders are one task, and the app sees it in one form."""
    one = {"arrays": model(), "config": settings(lr=0.1, steps=2)}
    other = {"config": settings(steps=2, lr=0.1), "arrays": model()}
    state, script = different(federation, one, other)
    assert refused_with(state) == {}
    orders = [
        [(n, list(r)) for n, r in message.content.items() if isinstance(r, ArrayRecord | ConfigRecord)]
        for message, _ in script.seen.values()
    ]
    assert orders[0] == orders[1] == orders[2]


def test_the_app_sees_the_task_and_the_facts_of_the_header_and_no_control_bytes(federation: Federation) -> None:
    script = Script(SCRIPT, done=True)
    nodes = Nodes(federation, ordinary_app(script))
    header = header_for(federation, PRIVATE, fl_round=7, release_seq=4, attempt=2)
    nodes.run(header, until=Stage.MASK)
    for message, _ in script.seen.values():
        assert sorted(message.content) == ["arrays", "config", "fedseal"]
        assert dict(message.content["fedseal"]) == {
            "run": header.run,
            "release": UPDATE,
            "sequence": 4,
            "attempt": 2,
            "plan": encode_plan(PRIVATE),
            "ranges": [100.0],
        }
        assert message.content["arrays"] == model()
        assert message.content["config"] == settings(lr=0.1)
        assert message.metadata.group_id == "7"
        assert message.metadata.message_type == "train"


def test_flowers_group_id_is_the_headers_round(federation: Federation) -> None:
    """It is outside the digest, so what the server writes there does not reach the app."""
    script = Script(SCRIPT)
    nodes = Nodes(federation, ordinary_app(script))
    send = nodes.send
    nodes.send = lambda site, control, **options: send(site, control, **options, group=f"lr={site}")  # type: ignore[method-assign]
    nodes.run(header_for(federation, fl_round=3), until=Stage.MASK)
    assert {message.metadata.group_id for message, _ in script.seen.values()} == {"3"}


def test_nothing_else_in_flowers_metadata_reaches_the_app(federation: Federation) -> None:
    """Ids, times and lifetimes are the server's to choose, for each site as it likes."""
    script = Script(SCRIPT)
    app = ordinary_app(script)
    nodes = Nodes(federation, ClientApp())

    def deliver(message: Message, context: Context) -> Message:
        number = int(context.node_config["number"])
        message.metadata.ttl = 1000.0 + number
        message.metadata.created_at = 1e9 + number
        message.metadata.__dict__["_message_id"] = f"lr={number}"
        return app(message, context)

    nodes.app = deliver  # type: ignore[assignment]
    nodes.run(header_for(federation), until=Stage.MASK)
    seen = [m.metadata for m, _ in script.seen.values()]
    assert len({(m.ttl, m.message_id, m.run_id, m.src_node_id) for m in seen}) == 1
    # The site's own clock may be seen.
    assert all(m.created_at > 1e9 + 10 for m in seen)


def raw_array(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (3,)) -> Array:
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


BIAS = np.array([0.5, -0.25, 1.0], dtype="<f4")
ENCODINGS = {
    "another byte order": raw_array(saved(BIAS.astype(">f4"))),
    "another header": raw_array(saved(BIAS, version=(3, 0))),
    "bytes behind the array": raw_array(saved(BIAS) + b"lr=5"),
    "another label": raw_array(saved(BIAS), dtype="lr=5"),
    "another shape on the label": raw_array(saved(BIAS), shape=(5, 5)),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_arrays_of_equal_values_reach_the_app_in_equal_bytes(federation: Federation, name: str) -> None:
    """The digest is over values; how they were encoded is the server's choice, for each site as it likes."""
    victim = default_task()
    victim["arrays"] = ArrayRecord({"weight": model()["weight"], "bias": ENCODINGS[name]})
    state, script = different(federation, default_task(), victim)
    if refused_with(state):
        assert refused_with(state) == {VICTIM: RefusalCode.PROTOCOL}
        return
    arrays = [message.content.array_records["arrays"]["bias"] for message, _ in script.seen.values()]
    assert len({(a.dtype, tuple(a.shape), a.stype, a.data) for a in arrays}) == 1


def test_a_fortran_array_is_the_same_task_in_the_same_form(federation: Federation) -> None:
    victim = default_task()
    weight = model()["weight"].numpy()
    victim["arrays"] = ArrayRecord({"weight": Array(np.asfortranarray(weight)), "bias": model()["bias"]})
    state, script = different(federation, default_task(), victim)
    assert refused_with(state) == {}
    weights = [message.content.array_records["arrays"]["weight"].numpy() for message, _ in script.seen.values()]
    assert all(weight.flags["C_CONTIGUOUS"] for weight in weights)


# The run's configuration


def test_a_bound_run_config_is_shown(federation: Federation) -> None:
    script = Script(SCRIPT)
    nodes = Nodes(federation, ordinary_app(script), run_config=CONFIG)
    state, _ = nodes.run(header_for(federation, run_config=CONFIG), until=Stage.MASK)
    assert refused_with(state) == {}
    assert [config for _, config in script.seen.values()] == [CONFIG] * 3


def test_an_unbound_run_config_is_hidden(federation: Federation) -> None:
    """A header without one is answered, by an app that sees none; the node's own context keeps it."""
    script = Script(SCRIPT)
    nodes = Nodes(federation, ordinary_app(script), run_config=CONFIG)
    state, _ = nodes.run(header_for(federation), until=Stage.MASK)
    assert refused_with(state) == {}
    assert [config for _, config in script.seen.values()] == [{}] * 3
    assert nodes.contexts[1].run_config == CONFIG


@pytest.mark.parametrize("changed", [{"lr": 0.2}, {"lr": "0.1"}, {"on": 1}, {"more": 1}])
def test_a_site_with_another_run_config_than_the_headers_refuses(
    federation: Federation, changed: dict[str, Any]
) -> None:
    script = Script(SCRIPT)
    nodes = Nodes(federation, ordinary_app(script), run_config=CONFIG)
    nodes.contexts[VICTIM].run_config = {**CONFIG, **changed}
    state, _ = nodes.run(header_for(federation, run_config=CONFIG), until=Stage.MASK)
    assert refused_with(state) == {VICTIM: RefusalCode.PROTOCOL}
    assert sorted(script.calls) == [2, 3]


def test_a_run_config_does_not_pose_as_a_task() -> None:
    arrays = {"arrays": {"w": np.zeros(2)}}
    task = task_digest(arrays, {})
    digests = {
        input_digest(task, {}),
        input_digest(task, {"lr": 0.1}),
        input_digest(task_digest(arrays, {"run-config": {"lr": 0.1}}), {}),
        input_digest(task_digest(arrays, {"run-config": {}}), {}),
        task,
    }
    assert len(digests) == 5


# Apps that hand back what they were given


def echoing_app() -> ClientApp:
    """Changes the message it received and returns it, as some apps do; knows nothing of plans."""
    app = ClientApp(mods=[sealed_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = message.content
        arrays = content.array_records["arrays"]
        content["arrays"] = ArrayRecord({n: Array(a.numpy() + 1) for n, a in arrays.items()})
        content["metrics"] = MetricRecord({"num-examples": 10})
        return Message(content, reply_to=message)

    return app


def test_an_app_that_returns_what_it_received_did_not_run_the_plan(federation: Federation) -> None:
    nodes = Nodes(federation, echoing_app())
    state, _ = nodes.run(header_for(federation, PRIVATE), until=Stage.MASK)
    assert refused_with(state) == dict.fromkeys((1, 2, 3), RefusalCode.TASK)
    assert "did not make release 'update' under the round's plan" in nodes.incident(1)


def test_nor_when_the_server_puts_the_words_into_its_mouth(federation: Federation) -> None:
    """The task's settings are a record that says it was done: an app that hands it back has not said so."""
    done = ConfigRecord({DONE_RELEASE: UPDATE, DONE_PLAN: encode_plan(PRIVATE)})
    task: dict[str, ArrayRecord | ConfigRecord] = {"arrays": model(), DONE: done}
    nodes = Nodes(federation, echoing_app())
    state, _ = nodes.run(header_for(federation, PRIVATE, task=task), until=Stage.MASK, task=task)
    assert set(refused_with(state)) == {1, 2, 3}


@pytest.mark.parametrize("wrong", [{DONE_RELEASE: "moments"}, {DONE_PLAN: b""}, {DONE_PLAN: encode_plan(PRIVATE)[:-1]}])
def test_another_release_or_plan_than_the_headers_was_not_done(federation: Federation, wrong: dict[str, Any]) -> None:
    script = Script(SCRIPT, done=True, alter={2: lambda content: content[DONE].update(wrong)})
    nodes = Nodes(federation, ordinary_app(script))
    state, _ = nodes.run(header_for(federation, PRIVATE), until=Stage.MASK)
    assert refused_with(state) == {2: RefusalCode.TASK}


@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
def test_statistics_are_made_by_an_app_that_says_so(federation: Federation, plan: Any) -> None:
    """A policy may allow exact statistics and no exact updates: trained arrays must not leave under their name."""
    header = header_for(federation, plan, kind=REGISTRY[MOMENTS])
    state, _ = Nodes(federation, ordinary_app(Script(SCRIPT))).run(header, until=Stage.MASK)
    assert refused_with(state) == dict.fromkeys((1, 2, 3), RefusalCode.TASK)
    assert "did not make release 'moments'" in federation.incidents(1)[-1][1]
    header = header_for(federation, plan, kind=REGISTRY[MOMENTS], run=b"o" * 16)
    state, _ = Nodes(federation, ordinary_app(Script(SCRIPT, done=True))).run(header)
    assert state.survivors == (1, 2, 3)


def test_an_ordinary_app_still_serves_a_round_without_privacy(federation: Federation) -> None:
    state, _ = Nodes(federation, echoing_app()).run(header_for(federation))
    assert state.survivors == (1, 2, 3)
