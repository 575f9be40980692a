"""`sealed_mod` from outside: what it refuses, what it repeats, and that an error leaves as a fixed code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from support.flower import Federation, Script, flower_task, make_federation, model, numpy_of, ordinary_app
from support.keys import SERVER, make_roster
from support.rounds import make_header

from fedseal.client.mod import STORE_KEY, refusal_for, sealed_mod
from fedseal.errors import BudgetExceeded, ConfigError, DataError, LocalError, PeerError, PolicyRefused
from fedseal.inputs import input_digest
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan, encode_plan
from fedseal.privacy.quantize import RangeError
from fedseal.privacy.releases import REGISTRY, UPDATE, MetricRange, release_layout, shapes_hash
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import (
    ConsistencyRequest,
    Refusal,
    RefusalCode,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.secagg.server_states import Finished, MaskedReply
from fedseal.server.exchange import control_of, vector_of
from fedseal.wire import decode, encode

SITES = 3
ANSWERS: tuple[Any, ...] = (Signed, ShareReply, Refusal)
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


def header_for(federation: Federation, plan: PrivacyPlan | None = None, **changes: Any) -> Header:
    """A header for an update of the test model."""
    arrays = numpy_of(model())
    layout = release_layout(
        REGISTRY[UPDATE],
        values=sum(a.size for a in arrays.values()),
        value_range=100.0,
        weight_key="num-examples",
        largest_weight=100,
        metrics=changes.pop("metrics", {}),
        sites=SITES,
    )
    fields = {
        "shapes_hash": shapes_hash([(n, a.shape) for n, a in arrays.items()]),
        "plan": encode_plan(plan or NoPrivacy(releases=1, retries=0)),
        "input_digest": input_digest({"arrays": arrays}, {"config": {"lr": 0.1}}),
    }
    return make_header(federation.roster, [1, 2, 3], layout, **{**fields, **changes})


class Nodes:
    """Drives the real mod at each site with requests of a real server state machine."""

    def __init__(self, federation: Federation, app: ClientApp) -> None:
        self.federation, self.app = federation, app
        self.contexts = {
            i: Context(1, 100 + i, {STORE_KEY: str(path), "number": i}, RecordDict(), {})
            for i, path in federation.sites.items()
        }

    def send(self, site: int, control: bytes, *, task: bool = False, kind: str = "train") -> Message:
        """One request to one site."""
        content = RecordDict({"fedseal": ConfigRecord({"message": control})})
        if task:
            content["arrays"], content["config"] = model(), ConfigRecord({"lr": 0.1})
        return self.app(Message(content, dst_node_id=100 + site, message_type=kind), self.contexts[site])

    def refusal(self, site: int, control: bytes, **options: Any) -> RefusalCode:
        """The code that a site answers with."""
        return code_of(self.send(site, control, **options))

    def incident(self, site: int) -> str:
        """The text that the site wrote down last."""
        with self.federation.site(site).transaction() as transaction:
            return transaction.incidents()[-1][1]

    def run(
        self, header: Header, until: Stage | None = None
    ) -> tuple[Any, dict[tuple[Stage, int], tuple[bytes, Message]]]:
        """A round, up to and including a stage; the last state, and every request with its reply."""
        seen: dict[tuple[Stage, int], tuple[bytes, Message]] = {}
        step = server.open_round(header, self.federation.roster, SERVER)
        while not isinstance(step.state, Finished):
            state: Any = step.state
            stage = server.stage_of(state)
            for site, request in step.requests.items():
                raw = encode(request)
                reply = self.send(site, raw, task=stage is Stage.MASK)
                seen[stage, site] = (raw, reply)
                answer: Any = decode(control_of(reply) or b"", *ANSWERS)
                vector = vector_of(reply)
                state = server.receive(state, site, MaskedReply(answer, vector) if vector is not None else answer)
            if stage is until:
                return state, seen
            step = server.close(state)
        return step.state, seen


def code_of(reply: Message) -> RefusalCode:
    return RefusalCode(decode(control_of(reply) or b"", Refusal).code)


def nodes(federation: Federation, script: Script | None = None) -> Nodes:
    return Nodes(federation, ordinary_app(script or Script({1: 1.0, 2: 2.0, 3: 3.0})))


def opening(header: Header) -> bytes:
    step = server.open_round(header, make_roster(SITES), SERVER)
    return encode(next(iter(step.requests.values())))


def ledger_kinds(federation: Federation, site: int) -> list[int]:
    with federation.site(site).transaction() as transaction:
        return [e.kind for e in transaction.entries("train")]


def test_a_whole_round_through_the_mod_gives_the_sum(federation: Federation) -> None:
    finished, _ = nodes(federation).run(header_for(federation))
    assert finished.total.weight == 30
    assert ledger_kinds(federation, 1) == [0, 1, 2]


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
    assert running.refusal(1, opening(header_for(federation)), kind=kind) is RefusalCode.PROTOCOL
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
        again = nodes(federation).send(site, raw, task=stage is Stage.MASK)
        assert control_of(again) == control_of(reply)
        if stage is Stage.MASK:
            assert np.array_equal(vector_of(again), vector_of(reply))  # type: ignore[arg-type]
    assert ledger_kinds(federation, 1) == [0, 1, 2]


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
        assert running.refusal(1, opening(header)) is RefusalCode.PROTOCOL
        assert "at or behind" in running.incident(1)
    # Other runs are independent, and a newer attempt is welcome.
    assert isinstance(
        decode(control_of(running.send(1, opening(header_for(federation, run=b"o" * 16)))) or b"", Signed), Signed
    )
    assert decode(control_of(running.send(1, opening(header_for(federation, release_seq=5, attempt=2)))) or b"", Signed)


def test_a_round_that_a_newer_one_replaced_is_over(federation: Federation) -> None:
    running = nodes(federation)
    _, seen = running.run(header_for(federation), until=Stage.SHARE)
    running.send(1, opening(header_for(federation, release_seq=2)))
    assert running.refusal(1, seen[Stage.SHARE, 1][0]) is RefusalCode.PROTOCOL
    assert "newer one has replaced" in running.incident(1)


def test_an_exception_of_the_app_leaves_as_a_code_and_its_text_stays(federation: Federation) -> None:
    canary = "patient Jane Roe has a tumour of 31 mm"
    running = nodes(federation, Script(error=ValueError(canary)))
    state, _ = running.run(header_for(federation), until=Stage.MASK)
    assert {RefusalCode(r.refusal.code) for r in state.refused} == {RefusalCode.TASK}
    assert canary in running.incident(1)
    # Nothing was charged, and the site may be asked again.
    assert ledger_kinds(federation, 1) == [0, 1]


def test_the_refusal_itself_holds_nothing_but_the_code(federation: Federation) -> None:
    canary = "31 mm"
    running = nodes(federation, Script(error=RuntimeError(canary)))
    _, seen = running.run(header_for(federation), until=Stage.MASK)
    control = control_of(seen[Stage.MASK, 1][1])
    assert control == encode(Refusal(int(RefusalCode.TASK), None))


def test_the_task_must_be_the_one_in_the_signed_header(federation: Federation) -> None:
    running = nodes(federation)
    state, _ = running.run(header_for(federation, input_digest=bytes(32)), until=Stage.MASK)
    assert {RefusalCode(r.refusal.code) for r in state.refused} == {RefusalCode.PROTOCOL}
    assert "not the one in the signed header" in running.incident(2)


def test_a_private_plan_needs_a_train_function_that_runs_it(federation: Federation) -> None:
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=5.0, sample_rate=0.5, steps=1, releases=1, retries=0)
    running = nodes(federation)
    state, _ = running.run(header_for(federation, plan), until=Stage.MASK)
    assert {RefusalCode(r.refusal.code) for r in state.refused} == {RefusalCode.TASK}
    assert "did not run it" in running.incident(1)
    assert ledger_kinds(federation, 1) == [0, 1]


def test_metrics_may_not_ride_along_a_private_release(federation: Federation) -> None:
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=5.0, sample_rate=0.5, steps=1, releases=1, retries=0)
    header = header_for(federation, plan, metrics={"loss": MetricRange(0.0, 5.0)})
    running = nodes(federation)
    assert running.refusal(1, opening(header)) is RefusalCode.PROTOCOL
    assert "beside a private release" in running.incident(1)


def test_the_policy_decides_about_plans_and_cohorts(tmp_path: Path) -> None:
    strict = make_federation(tmp_path, SITES, policy='[cohort]\nminimum = 3\n[releases]\nupdate = ["local"]\n')
    running = nodes(strict)
    assert running.refusal(1, opening(header_for(strict, site_minimum=3))) is RefusalCode.POLICY
    assert "not allowed at this site" in running.incident(1)
    assert running.refusal(1, opening(header_for(strict))) is RefusalCode.POLICY
    assert "asks for 3" in running.incident(1)


def test_an_exhausted_budget_is_a_refusal_that_costs_nothing(tmp_path: Path) -> None:
    poor = make_federation(tmp_path, SITES, epsilon=2.0)
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=0.5, sample_rate=1.0, steps=5, releases=3, retries=0)
    running = nodes(poor)
    assert running.refusal(1, opening(header_for(poor, plan))) is RefusalCode.BUDGET
    assert "is left" in running.incident(1)
    assert ledger_kinds(poor, 1) == [0]


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
        (BudgetExceeded("x"), RefusalCode.BUDGET, None),
        (PeerError("x", peer="server", blamed=4), RefusalCode.BAD_PEER, 4),
        (PeerError("x", peer="server"), RefusalCode.PROTOCOL, None),
        (RangeError("loss"), RefusalCode.OUT_OF_RANGE, None),
        (ConfigError("x"), RefusalCode.TASK, None),
        (DataError("x"), RefusalCode.TASK, None),
        (LocalError("x"), RefusalCode.INTERNAL, None),
    ],
)
def test_every_error_has_a_code(error: Any, code: RefusalCode, blamed: int | None) -> None:
    assert refusal_for(error) == Refusal(int(code), blamed)


def test_arrays_of_another_shape_are_the_tasks_fault(federation: Federation) -> None:
    app = ClientApp(mods=[sealed_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        wrong = ArrayRecord({"weight": Array(np.zeros(2, dtype=np.float32))})
        return Message(RecordDict({"arrays": wrong}), reply_to=message)

    running = Nodes(federation, app)
    state, _ = running.run(header_for(federation), until=Stage.MASK)
    assert {RefusalCode(r.refusal.code) for r in state.refused} == {RefusalCode.TASK}
