"""Federations in memory around ordinary Flower apps: numpy only, no torch, values that a test can predict.

`local_grid` carries what an honest server sends; `Nodes` lets a test be the server, an honest one or not.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from support.keys import SERVER, key, make_roster, signed
from support.rounds import make_header

from fedseal.client.mod import STORE_KEY, sealed_mod
from fedseal.client.records import CONTROL, received_digest
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE
from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.errors import ConfigError
from fedseal.inputs import input_digest
from fedseal.privacy.ledger import EntryKind, open_terms
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan, encode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import (
    REGISTRY,
    UPDATE,
    MetricRange,
    Population,
    ReleaseKind,
    release_layout,
    shapes_hash,
)
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.header import AdvertiseRequest, Header, sign_header
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, ShareReply, Signed, Stage
from fedseal.privacy.secagg.server_states import Aborted, Finished, MaskedReply
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.exchange import control_of, vector_of
from fedseal.server.store import ServerStore
from fedseal.simulation.grid import Deliver, LocalGrid
from fedseal.wire import decode, encode

# Where a message says what it is.
TAG_PLACE = 3

OPEN_POLICY = """
version = 1
[cohort]
minimum = 2
[releases]
update = ["none", "local"]
moments = ["none", "local"]
evaluation = ["none"]
members = ["none"]
"""


@dataclass(frozen=True)
class Federation:
    """Stores of one federation, and a grid over them."""

    folder: Path
    roster: Roster
    sites: Mapping[int, Path]
    server: Path

    def site(self, number: int) -> SiteStore:
        """One site's store, opened anew."""
        return SiteStore.open(self.sites[number])

    def nodes(self, **config: str) -> dict[int, dict[str, Any]]:
        """Node 100 + i is site i."""
        return {100 + i: {STORE_KEY: str(path), "number": i, **config} for i, path in self.sites.items()}

    def kinds(self, site: int, population: str = "train") -> list[EntryKind]:
        """What a site's ledger did, in order."""
        with self.site(site).transaction() as transaction:
            return [EntryKind(e.kind) for e in transaction.entries(population)]

    def charges(self, site: int) -> int:
        """How often a site was charged for its training persons."""
        return self.kinds(site).count(EntryKind.CHARGE)

    def incidents(self, site: int) -> list[tuple[str, str]]:
        """Codes and texts of what a site wrote down."""
        with self.site(site).transaction() as transaction:
            return transaction.incidents()


def make_federation(
    folder: Path, sites: int, *, policy: str = OPEN_POLICY, epsilon: float = 10.0, order: float = 7.25, seed: int = 1
) -> Federation:
    """Enrol sites 1 to ``sites`` of a simulated federation."""
    roster = make_roster(sites)
    terms = tuple(open_terms(p.value, epsilon=epsilon, delta=1e-5, order=order) for p in Population)
    paths = {}
    for entry in roster.sites:
        paths[entry.site] = folder / f"{entry.name}.sqlite"
        enrolment = Enrolment(entry.site, key(entry.name), signed(roster), roster.digest(), policy, terms, seed)
        SiteStore.create(paths[entry.site], enrolment)
    server = folder / "server.sqlite"
    ServerStore.create(server, key=SERVER, roster=signed(roster), pinned=roster.digest())
    return Federation(folder, roster, paths, server)


@dataclass
class Script:
    """What the ordinary app does at each site: adds ``change[number]`` to every array, and reports some metrics.

    ``done``: whether it says that it made the release under its plan. ``alter`` changes what a site returns.
    ``seen`` keeps what a site's function was given: the message, and the run's configuration.
    """

    change: Mapping[int, float] = field(default_factory=dict)
    examples: Mapping[int, float] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    done: bool = False
    error: BaseException | Mapping[int, BaseException] | None = None
    alter: Mapping[int, Callable[[RecordDict], object]] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    seen: dict[int, tuple[Message, dict[str, Any]]] = field(default_factory=dict)

    def called(self, message: Message, context: Context) -> int:
        """Which site this is; raises what is scripted for it."""
        number = int(context.node_config["number"])
        self.calls.append(number)
        self.seen[number] = message, dict(context.run_config)
        error = self.error.get(number) if isinstance(self.error, Mapping) else self.error
        if error is not None:
            raise error
        return number

    def reply_metrics(self, number: int) -> MetricRecord:
        """Examples and scripted metrics."""
        record = MetricRecord({"num-examples": self.examples.get(number, 10)})
        for name, by_site in self.metrics.items():
            if number in by_site:
                record[name] = by_site[number]
        return record

    def reply(self, number: int, message: Message, content: RecordDict) -> Message:
        """What leaves the app's function."""
        if self.done:
            facts = message.content.config_records[CONTROL]
            content[DONE] = ConfigRecord({DONE_RELEASE: facts["release"], DONE_PLAN: facts["plan"]})
        if (alter := self.alter.get(number)) is not None:
            alter(content)
        return Message(content, reply_to=message)


def ordinary_app(script: Script, *, sealed: bool = True) -> ClientApp:
    """A Flower app as anyone would write it; one argument seals it."""
    app = ClientApp(mods=[sealed_mod] if sealed else [])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = script.called(message, context)
        received = {n: a.numpy() for n, a in _arrays(message).items()}
        trained = {
            n: a + np.asarray(script.change.get(number, 0.0), dtype=a.dtype) * _pattern(a) for n, a in received.items()
        }
        content = RecordDict(
            {
                "arrays": ArrayRecord({n: Array(a.astype(received[n].dtype)) for n, a in trained.items()}),
                "metrics": script.reply_metrics(number),
            }
        )
        return script.reply(number, message, content)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        number = script.called(message, context)
        return script.reply(number, message, RecordDict({"metrics": script.reply_metrics(number)}))

    return app


def _arrays(message: Message) -> ArrayRecord:
    return next(iter(message.content.array_records.values()))


def _pattern(array: NDArray[Any]) -> NDArray[Any]:
    """A different multiple for every coordinate."""
    return np.linspace(-1, 1, array.size).reshape(array.shape).astype(array.dtype)


@contextmanager
def flower_task() -> Iterator[None]:
    """Flower's messages need a task identity; put back afterwards."""
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def local_grid(
    federation: Federation,
    app: ClientApp,
    *,
    run_config: Mapping[str, bool | int | float | str] | None = None,
    deliver: Deliver | None = None,
) -> LocalGrid:
    """All sites of a federation in this process."""
    return LocalGrid(app, federation.nodes(), run_config=run_config or {}, deliver=deliver)


def model() -> ArrayRecord:
    """Two small float32 arrays, in an order that is not that of their names."""
    return ArrayRecord(
        {
            "weight": Array(np.arange(12, dtype=np.float32).reshape(3, 4) / 7),
            "bias": Array(np.array([0.5, -0.25, 1.0], dtype=np.float32)),
        }
    )


def numpy_of(record: object) -> dict[str, NDArray[Any]]:
    """The arrays of an ArrayRecord by name."""
    if not isinstance(record, ArrayRecord):
        raise TypeError("not an ArrayRecord")
    return {name: array.numpy() for name, array in record.items()}


def train_messages(grid: Grid, arrays: ArrayRecord, message_type: str = "train") -> list[Message]:
    """What FedAvg would send to all nodes."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1, "lr": 0.1})})
    return [Message(content, dst_node_id=n, message_type=message_type) for n in grid.get_node_ids()]


# A server by hand

PLENTY = NoPrivacy(releases=90, retries=10)
# Costs next to nothing, so that budgets are not in the way.
PRIVATE = LocalGaussian(clip_norm=1.0, noise_multiplier=1000.0, sample_rate=0.5, steps=1, releases=90, retries=10)
ANSWERS: tuple[Any, ...] = (Signed, ShareReply, Refusal)
Records = Mapping[str, ArrayRecord | ConfigRecord | MetricRecord]
Seen = dict[tuple[Stage, int], tuple[bytes, Message]]


def default_task() -> dict[str, ArrayRecord | ConfigRecord]:
    """The test model and one setting."""
    return {"arrays": model(), "config": ConfigRecord({"lr": 0.1})}


def header_for(
    federation: Federation,
    plan: PrivacyPlan | None = None,
    *,
    kind: ReleaseKind = REGISTRY[UPDATE],
    task: Mapping[str, ArrayRecord | ConfigRecord] | None = None,
    run_config: Mapping[str, bool | int | float | str] | None = None,
    shapes: Sequence[tuple[str, tuple[int, ...]]] | None = None,
    cohort: list[int] | None = None,
    metrics: Mapping[str, MetricRange] | None = None,
    value_range: float = 100.0,
    largest_weight: int = 100,
    ring_bits: int = 32,
    rounding: Rounding = Rounding.STOCHASTIC,
    **changes: Any,
) -> Header:
    """The header of a release on a task: an update of the test model unless told otherwise.

    ``shapes`` are those of the task's arrays if not given.
    """
    records = default_task() if task is None else dict(task)
    arrays = [(n, a.shape) for r in records.values() if isinstance(r, ArrayRecord) for n, a in numpy_of(r).items()]
    shapes = (arrays if shapes is None else shapes) if kind.has_values else []
    cohort = cohort or sorted(federation.sites)
    layout = release_layout(
        kind,
        values=sum(math.prod(shape) for _, shape in shapes),
        value_range=value_range,
        weight_key="num-examples",
        largest_weight=largest_weight,
        metrics=metrics or {},
        sites=len(cohort),
        ring_bits=ring_bits,
        rounding=rounding,
    )
    fields = {
        "release_name": kind.name,
        "shapes_hash": shapes_hash(shapes),
        "plan": encode_plan(plan or PLENTY),
        "input_digest": input_digest(received_digest(records), run_config or {}),
    }
    return make_header(federation.roster, cohort, changes.pop("layout", layout), **{**fields, **changes})


class Nodes:
    """Drives the real mod at each site with requests of a real server state machine.

    Args:
        federation: the sites.
        app: what they run.
        run_config: what Flower gives their apps.
        config: more of their node configurations, by site.
    """

    def __init__(
        self,
        federation: Federation,
        app: ClientApp,
        *,
        run_config: Mapping[str, bool | int | float | str] | None = None,
        config: Mapping[int, Mapping[str, str]] | None = None,
    ) -> None:
        self.federation, self.app = federation, app
        self.contexts = {
            node - 100: Context(
                1, node, {**own, **(config or {}).get(node - 100, {})}, RecordDict(), dict(run_config or {})
            )
            for node, own in federation.nodes().items()
        }

    def send(
        self, site: int, control: bytes, *, task: Records | None = None, kind: str = "train", group: str = ""
    ) -> Message:
        """One request to one site; what opens a round shows the log, as an honest server would."""
        content = RecordDict({CONTROL: control_record(self.federation, site, control), **(task or {})})
        message = Message(content, dst_node_id=100 + site, message_type=kind, group_id=group)
        return self.app(message, self.contexts[site])

    def refusal(self, site: int, control: bytes, **options: Any) -> RefusalCode:
        """The code that a site answers with."""
        return code_of(self.send(site, control, **options))

    def opening(self, header: Header) -> bytes:
        """The request that opens a round."""
        return encode(sign_header(header, SERVER))

    def incident(self, site: int) -> str:
        """The text that the site wrote down last."""
        return self.federation.incidents(site)[-1][1]

    def open(self, header: Header) -> server.Step:
        """The first step of a round."""
        return server.open_round(header, self.federation.roster, SERVER)

    def exchange(
        self,
        step: server.Step,
        seen: Seen,
        *,
        task: Records | Callable[[int], Records] | None = None,
        kind: str = "train",
    ) -> Any:
        """One exchange with all sites that a step asks; the state that has taken their answers."""
        state: Any = step.state
        stage = server.stage_of(state)
        for site, request in step.requests.items():
            raw = encode(request)
            records = task(site) if callable(task) else default_task() if task is None else task
            reply = self.send(site, raw, task=records if stage is Stage.MASK else None, kind=kind)
            seen[stage, site] = (raw, reply)
            answer: Any = decode(control_of(reply) or b"", *ANSWERS)
            vector = vector_of(reply)
            state = server.receive(state, site, MaskedReply(answer, vector) if vector is not None else answer)
        return state

    def run(self, header: Header, until: Stage | None = None, **options: Any) -> tuple[Any, Seen]:
        """A round, up to and including a stage; the last state, and every request with its reply."""
        seen: Seen = {}
        step = self.open(header)
        while not isinstance(step.state, Finished | Aborted):
            stage = server.stage_of(step.state)
            state = self.exchange(step, seen, **options)
            if stage is until:
                return state, seen
            step = server.close(state)
        return step.state, seen


def control_record(federation: Federation, site: int, control: bytes) -> ConfigRecord:
    """A request's control record; with the log where it opens a round."""
    record: dict[str, Any] = {"message": control}
    if control[TAG_PLACE : TAG_PLACE + 1] == bytes([AdvertiseRequest.TAG]):
        # A store that a test has broken is shown nothing.
        with suppress(ConfigError):
            record["log"] = shown_log(federation, site)
    return ConfigRecord(record)


def shown_log(federation: Federation, site: int) -> bytes:
    """What the server has to show a site of its log, wherever the site's store stands."""
    store = ServerStore.open(federation.server)
    journal = FederationJournal(store.engine, SERVER, federation.roster, faulty=0, now=lambda: datetime.now(UTC))
    kept = federation.site(site)
    with kept.transaction() as transaction:
        seen = SiteJournal(transaction.connection, kept.identity, datetime.now(UTC)).mirror.size
    return encode(journal.request_from(seen))


def code_of(reply: Message) -> RefusalCode:
    """The code of a refusal."""
    return RefusalCode(decode(control_of(reply) or b"", Refusal).code)


def refused_with(state: Any) -> dict[int, RefusalCode]:
    """Who refused in a round, and why."""
    return {r.site: RefusalCode(r.refusal.code) for r in state.refused}
