"""`sealed_mod` from outside: what it refuses, what it repeats, and that an error leaves as a fixed code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    code_of,
    default_task,
    flower_task,
    header_for,
    make_federation,
    model,
    ordinary_app,
    refused_with,
)

from fedseal.client.mod import STORE_KEY, refusal_for, sealed_mod
from fedseal.client.release import TaskError
from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.site_rules.refused import Refused
from fedseal.errors import BudgetExceeded, ConfigError, DataError, LocalError, PeerError, PolicyRefused
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.quantize import RangeError
from fedseal.privacy.releases import MetricRange
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.messages import (
    ConsistencyRequest,
    Refusal,
    RefusalCode,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.server.exchange import control_of, vector_of
from fedseal.wire import decode, encode

SITES = 3
OPENED, RESERVED, CHARGED = EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE
LATER: tuple[Any, ...] = (ShareRequest, ConsistencyRequest, UnmaskRequest)
CHANGED: dict[Stage, dict[str, Any]] = {
    Stage.SHARE: {"advertisements": ()},
    Stage.CONSISTENCY: {"survivors": (1, 2)},
    Stage.UNMASK: {"survivors": (1, 2)},
}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, SITES)


def nodes(federation: Federation, script: Script | None = None) -> Nodes:
    return Nodes(federation, ordinary_app(script or Script({1: 1.0, 2: 2.0, 3: 3.0})))


def test_a_whole_round_through_the_mod_gives_the_sum(federation: Federation) -> None:
    finished, _ = nodes(federation).run(header_for(federation))
    assert finished.total.weight == 30
    assert federation.kinds(1) == [OPENED, RESERVED, CHARGED]


def test_a_node_without_a_store_answers_nothing(federation: Federation) -> None:
    app = ordinary_app(Script())
    message = Message(RecordDict({"arrays": model()}), dst_node_id=9, message_type="train")
    for config in ({}, {STORE_KEY: "/nowhere/site.sqlite"}, {STORE_KEY: 7}):
        assert code_of(app(message, Context(1, 9, dict(config), RecordDict(), {}))) is RefusalCode.NOT_ENROLLED


def test_an_unsealed_message_is_refused(federation: Federation) -> None:
    script = Script()
    running = nodes(federation, script)
    plain = Message(RecordDict({"arrays": model()}), dst_node_id=101, message_type="train")
    assert code_of(running.app(plain, running.contexts[1])) is RefusalCode.PROTOCOL
    assert script.calls == []


@pytest.mark.parametrize("kind", ["train.extra", "query", "query.extra", "evaluate"])
def test_message_types_that_carry_no_release_are_refused(federation: Federation, kind: str) -> None:
    """Also with a header that would be right for `train`: an app may have such functions, and they stay closed."""
    called: list[str] = []
    app = ClientApp(mods=[sealed_mod])

    def leak(message: Message, context: Context) -> Message:
        called.append(kind)
        return Message(RecordDict({"arrays": model()}), reply_to=message)

    app.train("extra")(leak)
    app.query()(leak)
    app.query("extra")(leak)
    app.evaluate()(leak)
    running = Nodes(federation, app)
    assert running.refusal(1, running.opening(header_for(federation)), kind=kind) is RefusalCode.PROTOCOL
    plain = Message(RecordDict({"arrays": model()}), dst_node_id=101, message_type=kind)
    assert code_of(app(plain, running.contexts[1])) is RefusalCode.PROTOCOL
    assert called == []


@pytest.mark.parametrize("control", [b"", b"FS", b"FS\x01\x0c", b"FS\x02\x0b" + bytes(80), bytes(2000)])
def test_garbage_is_refused_with_a_code(federation: Federation, control: bytes) -> None:
    assert nodes(federation).refusal(1, control) is RefusalCode.PROTOCOL


def test_the_same_request_gets_the_same_bytes_also_after_a_restart(federation: Federation) -> None:
    running = nodes(federation)
    _, seen = running.run(header_for(federation))
    for (stage, site), (raw, reply) in seen.items():
        again = nodes(federation).send(site, raw, task=default_task() if stage is Stage.MASK else None)
        assert control_of(again) == control_of(reply)
        if stage is Stage.MASK:
            assert np.array_equal(vector_of(again), vector_of(reply))  # type: ignore[arg-type]
    assert federation.kinds(1) == [OPENED, RESERVED, CHARGED]


@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.CONSISTENCY, Stage.UNMASK])
def test_another_request_in_place_of_an_answered_one_is_refused(federation: Federation, stage: Stage) -> None:
    running = nodes(federation)
    _, seen = running.run(header_for(federation), until=stage)
    raw, _ = seen[stage, 1]
    request: Any = decode(raw, *LATER)
    other = replace(request, **CHANGED[stage])
    assert running.refusal(1, encode(other)) is RefusalCode.PROTOCOL
    assert "answered already" in running.incident(1)


def test_a_header_is_answered_once_and_never_behind_it(federation: Federation) -> None:
    running = nodes(federation)
    running.run(header_for(federation, release_seq=5, attempt=1))
    for seq, attempt in ((5, 1), (5, 0), (4, 9)):
        header = header_for(federation, release_seq=seq, attempt=attempt, fl_round=77)
        assert running.refusal(1, running.opening(header)) is RefusalCode.PROTOCOL
        assert "at or behind" in running.incident(1)
    # Other runs are independent, and a newer attempt is welcome.
    assert isinstance(
        decode(control_of(running.send(1, running.opening(header_for(federation, run=b"o" * 16)))) or b"", Signed),
        Signed,
    )
    assert decode(
        control_of(running.send(1, running.opening(header_for(federation, release_seq=5, attempt=2)))) or b"", Signed
    )


def test_a_round_that_a_newer_one_replaced_is_over(federation: Federation) -> None:
    running = nodes(federation)
    _, seen = running.run(header_for(federation), until=Stage.SHARE)
    running.send(1, running.opening(header_for(federation, release_seq=2)))
    assert running.refusal(1, seen[Stage.SHARE, 1][0]) is RefusalCode.PROTOCOL
    assert "newer one has replaced" in running.incident(1)


def test_an_exception_of_the_app_leaves_as_a_code_and_its_text_stays(federation: Federation) -> None:
    canary = "patient Jane Roe has a tumour of 31 mm"
    running = nodes(federation, Script(error=ValueError(canary)))
    state, _ = running.run(header_for(federation), until=Stage.MASK)
    assert set(refused_with(state).values()) == {RefusalCode.TASK}
    assert canary in running.incident(1)
    # Without privacy nothing was charged, and the site may be asked again.
    assert federation.kinds(1) == [OPENED, RESERVED]
    finished, _ = nodes(federation).run(header_for(federation, attempt=1))
    assert finished.survivors == (1, 2, 3)


def test_the_refusal_itself_holds_nothing_but_the_code(federation: Federation) -> None:
    canary = "31 mm"
    running = nodes(federation, Script(error=RuntimeError(canary)))
    _, seen = running.run(header_for(federation), until=Stage.MASK)
    control = control_of(seen[Stage.MASK, 1][1])
    assert control == encode(Refusal(int(RefusalCode.TASK), None))


def test_metrics_may_not_ride_along_a_private_release(federation: Federation) -> None:
    header = header_for(federation, PRIVATE, metrics={"loss": MetricRange(0.0, 5.0)})
    running = nodes(federation)
    assert running.refusal(1, running.opening(header)) is RefusalCode.PROTOCOL
    assert "beside a private release" in running.incident(1)


def test_the_policy_decides_about_plans_and_cohorts(tmp_path: Path) -> None:
    strict = make_federation(tmp_path, SITES, policy='[cohort]\nminimum = 3\n[releases]\nupdate = ["local"]\n')
    running = nodes(strict)
    assert running.refusal(1, running.opening(header_for(strict, site_minimum=3))) is RefusalCode.POLICY
    assert "not allowed at this site" in running.incident(1)
    assert running.refusal(1, running.opening(header_for(strict))) is RefusalCode.POLICY
    assert "asks for 3" in running.incident(1)


def test_an_exhausted_budget_is_a_refusal_that_costs_nothing(tmp_path: Path) -> None:
    poor = make_federation(tmp_path, SITES, epsilon=2.0)
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=0.5, sample_rate=1.0, steps=5, releases=3, retries=0)
    running = nodes(poor)
    assert running.refusal(1, running.opening(header_for(poor, plan))) is RefusalCode.BUDGET
    assert "is left" in running.incident(1)
    assert poor.kinds(1) == [OPENED]


def test_a_restored_ledger_is_seen_by_the_others(federation: Federation) -> None:
    """Site 2's store is put back to a backup; at the next round the others refuse to share with it."""
    backup = federation.sites[2].read_bytes()
    running = nodes(federation)
    running.run(header_for(federation))
    for extra in ("-wal", "-shm"):
        federation.sites[2].with_name(federation.sites[2].name + extra).unlink(missing_ok=True)
    federation.sites[2].write_bytes(backup)
    state, _ = running.run(header_for(federation, release_seq=2), until=Stage.SHARE)
    assert [(r.site, r.refusal.blamed) for r in state.refused] == [(1, 2), (3, 2)]
    assert "restored from a backup" in running.incident(1)


@pytest.mark.parametrize(
    ("error", "code", "blamed"),
    [
        (PolicyRefused("x"), RefusalCode.POLICY, None),
        (Refused(RefusedRule.COHORT, "x", next_step="y"), RefusalCode.POLICY, None),
        (Refused(RefusedRule.DENIED, "x", next_step="y"), RefusalCode.POLICY, None),
        (Refused(RefusedRule.PERIOD, "x", next_step="y"), RefusalCode.BUDGET, None),
        (Refused(RefusedRule.HOURS, "x", next_step="y"), RefusalCode.LATER, None),
        (Refused(RefusedRule.WAITING, "x", next_step="y"), RefusalCode.WAITING, None),
        (BudgetExceeded("x"), RefusalCode.BUDGET, None),
        (PeerError("x", peer="server", blamed=4), RefusalCode.BAD_PEER, 4),
        (PeerError("x", peer="server"), RefusalCode.PROTOCOL, None),
        (TaskError("x"), RefusalCode.TASK, None),
        (ConfigError("x"), RefusalCode.TASK, None),
        (DataError("x"), RefusalCode.TASK, None),
        (ValueError("x"), RefusalCode.TASK, None),
        (SystemExit("x"), RefusalCode.TASK, None),
        (LocalError("x"), RefusalCode.INTERNAL, None),
        # Bounding comes first, so a value that is out of range when it is quantised is a bug of ours.
        (RangeError("loss"), RefusalCode.INTERNAL, None),
    ],
)
def test_every_error_has_a_code(error: Any, code: RefusalCode, blamed: int | None) -> None:
    assert refusal_for(error) == Refusal(int(code), blamed)


def test_the_codes_are_a_closed_list() -> None:
    """A code of its own for values out of range would tell the server about a single site."""
    assert [(code.name, int(code)) for code in RefusalCode] == [
        ("NOT_ENROLLED", 1),
        ("PROTOCOL", 2),
        ("BAD_PEER", 3),
        ("POLICY", 4),
        ("BUDGET", 5),
        ("TASK", 6),
        ("INTERNAL", 7),
        ("LOG", 8),
        ("LATER", 9),
        ("WAITING", 10),
    ]


def drop(name: str) -> Any:
    """Takes a record or a metric away from what a site returns."""

    def change(content: RecordDict) -> None:
        (content if name in content else content["metrics"]).pop(name)

    return change


@pytest.mark.quick(
    "<lambda>-other arrays0",
    "<lambda>-2 array records",
    "<lambda>-several metric records",
    "change-lack the number of examples0",
)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update({"arrays": ArrayRecord({"weight": Array(np.zeros(2, np.float32))})}), "other arrays"),
        (lambda c: c["arrays"].update({"bias": Array(np.zeros((3, 1), np.float32))}), "other arrays"),
        (lambda c: c.update({"more": model()}), "2 array records"),
        (drop("arrays"), "0 array records"),
        (lambda c: c.update({"more": MetricRecord({"num-examples": 1})}), "several metric records"),
        (drop("num-examples"), "lack the number of examples"),
        (drop("metrics"), "lack the number of examples"),
        (lambda c: c["metrics"].update({"loss": [1.0, 2.0]}), "declared with 1 values, the metrics have 2"),
    ],
)
def test_a_return_value_of_the_wrong_form_is_the_tasks_fault(federation: Federation, change: Any, reason: str) -> None:
    running = nodes(federation, Script(alter={2: change}))
    state, _ = running.run(header_for(federation, metrics={"loss": MetricRange(0.0, 5.0)}), until=Stage.MASK)
    assert refused_with(state) == {2: RefusalCode.TASK}
    assert reason in running.incident(2)


@pytest.mark.parametrize("kind", ["query", "evaluate", "train.extra"])
def test_at_mask_too_no_function_runs_that_carries_no_release(federation: Federation, kind: str) -> None:
    """The header came with `train`; the request for its vector comes with a type that calls another function."""
    called: list[str] = []
    app = ClientApp(mods=[sealed_mod])

    def leak(message: Message, context: Context) -> Message:
        called.append(kind)
        return Message(RecordDict({"arrays": model()}), reply_to=message)

    app.train()(leak)
    app.train("extra")(leak)
    app.query()(leak)
    app.evaluate()(leak)
    running = Nodes(federation, app)
    state, _ = running.run(header_for(federation, PRIVATE), until=Stage.SHARE)
    raw = encode(server.close(state).requests[1])
    assert running.refusal(1, raw, task=default_task(), kind=kind) is RefusalCode.PROTOCOL
    assert called == []
    assert federation.charges(1) == 0


def test_a_plan_without_privacy_costs_its_attempts(federation: Federation) -> None:
    """So their number is limited by what the plan says."""
    running = nodes(federation)
    plan = NoPrivacy(releases=1, retries=1)
    for attempt in (0, 1):
        running.run(header_for(federation, plan, attempt=attempt))
    assert federation.kinds(1) == [OPENED, RESERVED, CHARGED, CHARGED]
    state, _ = running.run(header_for(federation, plan, attempt=2), until=Stage.MASK)
    assert set(refused_with(state).values()) == {RefusalCode.BUDGET}
    assert "used up what its plan reserved" in running.incident(1)
    assert federation.charges(1) == 2
