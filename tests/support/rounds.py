"""A whole round in memory, with sites that can be scripted to drop out or to misbehave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.keys import SERVER, Bytes, key, make_roster

from fedseal.errors import PeerError
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.quantize import BoundedUpdate, Layout, Rounding, Segment
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg import client, server
from fedseal.privacy.secagg.client_states import Idle, MaskedUpdate, Ready, State, Vector
from fedseal.privacy.secagg.header import AES_256_CTR, COMPLETE_GRAPH, HARARY_GRAPH, PROTOCOL, Header, sparse_for
from fedseal.privacy.secagg.masks import ring_dtype
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Stage
from fedseal.privacy.secagg.parameters import PROTOCOL_RULES, GraphRules, threshold
from fedseal.privacy.secagg.server_states import Aborted, Finished, MaskedReply, Request, SiteReply

PLAN = encode_plan(NoPrivacy(releases=1, retries=0))
Ints = NDArray[Any]


def ring_layout(length: int, sites: int, ring_bits: int = 32) -> Layout:
    """One segment of whole numbers, as large as the ring allows."""
    bound = float(((1 << ring_bits - 1) - 1) // sites) if ring_bits <= 32 else float((1 << 52) // sites)
    return Layout(ring_bits, int(Rounding.NEAREST), (Segment("values", length, -bound, bound, 1.0, False),))


def make_header(roster: Roster, cohort: list[int], layout: Layout, **changes: Any) -> Header:
    """A legal header, or one with some fields changed."""
    m = changes.pop("colluders", 0)
    fields: dict[str, Any] = {
        "protocol": PROTOCOL,
        "federation": roster.federation,
        "roster_hash": roster.digest(),
        "run": b"r" * 16,
        "fl_round": 1,
        "release_seq": 1,
        "attempt": 0,
        "release_name": "update",
        "cohort": tuple(cohort),
        "threshold": threshold(len(cohort), m),
        "colluders": m,
        "site_minimum": 2,
        "noise_minimum": 0,
        "mask_generator": AES_256_CTR,
        "graph": COMPLETE_GRAPH,
        "layout": layout,
        "shapes_hash": bytes(32),
        "plan": PLAN,
        "input_digest": bytes(32),
    }
    return Header(**{**fields, **changes})


@dataclass
class Cohort:
    """Sites 1 to n with values, one round, and a script.

    ``silent`` maps a stage to the sites that do not answer at it or later. ``request_hook`` and ``reply_hook`` may
    change what passes between server and site; a hook that returns None drops it.
    """

    header: Header
    roster: Roster
    values: dict[int, Ints]
    silent: Mapping[Stage, set[int]] = field(default_factory=dict)
    request_hook: Callable[[Stage, int, Request], Request | None] | None = None
    reply_hook: Callable[[Stage, int, SiteReply], SiteReply | None] | None = None
    states: dict[int, State] = field(default_factory=dict)
    sites: dict[int, client.Site] = field(default_factory=dict)
    refusals: dict[int, PeerError] = field(default_factory=dict)
    rules: GraphRules = PROTOCOL_RULES

    def __post_init__(self) -> None:
        for number in self.header.cohort:
            site_key = key(f"site-{number}")
            self.sites[number] = client.Site(number, site_key, self.roster, {}, Bytes(f"site-{number}"), self.rules)
            self.states[number] = Idle(1)

    def vector(self, number: int) -> BoundedUpdate:
        """A site's value in the ring."""
        dtype = ring_dtype(self.header.layout.ring_bits)
        words: Any = self.values[number].astype(np.int64).astype(dtype)
        return BoundedUpdate(self.header.layout, words)

    def answer(self, number: int, request: Request) -> SiteReply:
        """One site's answer; it keeps its next state only if it answers."""
        try:
            step = client.step(self.sites[number], self.states[number], request)
            if isinstance(step.state, Ready):
                receipt = Receipt(self.header.digest(), self.header.plan, 1)
                step = client.step(self.sites[number], step.state, Vector(self.vector(number), receipt))
        except PeerError as error:
            self.refusals[number] = error
            if error.blamed is not None:
                return Refusal(int(RefusalCode.BAD_PEER), error.blamed)
            return Refusal(int(RefusalCode.PROTOCOL), None)
        self.states[number] = step.state
        reply = step.reply
        if reply is None:
            raise AssertionError("a site that answers nothing")
        return MaskedReply(reply.message, reply.vector) if isinstance(reply, MaskedUpdate) else reply

    def run(self) -> Finished | Aborted:
        """The whole round."""
        step = server.open_round(self.header, self.roster, SERVER)
        while not isinstance(step.state, Finished | Aborted):
            step = server.close(self.collect(step))
        return step.state

    def collect(self, step: server.Step) -> Any:
        """One exchange."""
        state: Any = step.state
        stage = server.stage_of(state)
        quiet = {s for at, sites in self.silent.items() if at <= stage for s in sites}
        for number, request in step.requests.items():
            passed = request if self.request_hook is None else self.request_hook(stage, number, request)
            if passed is None or number in quiet:
                continue
            reply: SiteReply | None = self.answer(number, passed)
            if self.reply_hook is not None and reply is not None:
                reply = self.reply_hook(stage, number, reply)
            if reply is None:
                continue
            try:
                state = server.receive(state, number, reply)
            except PeerError as error:
                self.refusals[-number] = error
        return state


def make_cohort(
    n: int,
    d: int,
    *,
    m: int = 0,
    ring_bits: int = 32,
    seed: int = 0,
    others: int = 0,
    dropouts: float = 0.1,
    rules: GraphRules = PROTOCOL_RULES,
    **script: Any,
) -> Cohort:
    """n sites with random whole numbers as large as the ring allows, and ``others`` in the roster that do not take
    part; on the graph that the rules have for n.
    """
    roster = make_roster(n + others)
    layout = ring_layout(d, n, ring_bits)
    sparse = sparse_for(n, m, dropouts, rules)
    graph = COMPLETE_GRAPH if sparse is None else HARARY_GRAPH
    header = make_header(roster, list(range(1, n + 1)), layout, colluders=m, graph=graph, sparse=sparse)
    rng = np.random.default_rng(seed)
    top = int(layout.segments[0].high)
    values = {i: rng.integers(-top, top + 1, d) for i in header.cohort}
    return Cohort(header, roster, values, rules=rules, **script)


def clear_sum(cohort: Cohort, survivors: tuple[int, ...]) -> Ints:
    """The sum that the protocol has to give, in Python's own integers' stead: int64, which cannot wrap here."""
    total: Ints = np.stack([cohort.values[s] for s in survivors]).astype(np.int64).sum(axis=0)
    return total


def signed_sum(finished: Finished) -> Ints:
    """The unmasked sum as numbers."""
    vector = finished.total.vector
    return vector.view(np.int32 if vector.dtype.itemsize == 4 else np.int64).astype(np.int64)
