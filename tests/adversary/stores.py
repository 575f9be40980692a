"""Honest sites with their policy, ledger and store, under the same attacker. Every request finds the store opened anew,
as after a restart.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from adversary.attack import Fault, Refusal
from adversary.field import Field, Words
from adversary.mole import Mole
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from support.flower import OPEN_POLICY, Federation, control_record, default_task, flower_task, make_federation, numpy_of
from support.rounds import Cohort

from fedseal.client.records import CONTROL
from fedseal.client.release import DONE, DONE_PLAN, DONE_RELEASE
from fedseal.client.requests import Answer
from fedseal.client.session import Session
from fedseal.errors import FedsealError
from fedseal.privacy.quantize import IntegerSum
from fedseal.privacy.releases import VALUES
from fedseal.privacy.secagg.client_states import MaskedUpdate
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import MaskRequest, ShareReply, Signed
from fedseal.wire import decode, encode

REPLIES: tuple[type[Signed | ShareReply], ...] = (Signed, ShareReply)
# All sites have as many examples as a site may have: what they send is weighted by 1.
EXAMPLES = 100


@dataclass(frozen=True, slots=True)
class Own:
    """What a site's data say: by how much it moves the model, and its loss."""

    change: float
    loss: float = 0.0


DATA: Mapping[int, Own] = {1: Own(1.0, 4.0), 2: Own(-2.0, 1.0), 3: Own(0.5, 3.0), 4: Own(0.25, 2.0)}


class Stores(Field):
    """A field whose honest sites are stores. A task and a kind of message go with MASK, as the attacker likes.

    Args:
        refusals: where to note what was refused.
        federation: the sites' stores.
        header: the round.
        moles: sites that the attacker plays.
    """

    def __init__(
        self, refusals: list[Refusal], federation: Federation, header: Header, moles: Mapping[int, Mole]
    ) -> None:
        super().__init__(refusals, Cohort(header, federation.roster, {}), moles)
        self.federation = federation
        self.task: Callable[[int], Mapping[str, Any]] = lambda _: default_task()
        self.kind = "train"
        self.ran: list[tuple[int, str]] = []
        self.while_training: Callable[[], object] = lambda: None
        self._before = ""

    def again(self, header: Header) -> None:
        """Another round with the same sites."""
        self.use(header)
        self.signed, self.told, self.dealt, self.shares = [], {}, {}, {}

    def ask(self, site: int, request: Any) -> Any:
        """One request to one site, which has just been started."""
        answer = self.answer(site, request if isinstance(request, bytes) else encode(request), request)
        if not isinstance(request, bytes) or answer.control[3] in {k.TAG for k in REPLIES}:
            reply = decode(answer.control, *REPLIES)
            if isinstance(reply, Signed) and answer.vector is not None:
                return MaskedUpdate(reply, answer.vector)
            return reply
        return answer.control

    def answer(self, site: int, raw: bytes, request: Any = None) -> Answer:
        """What leaves a site; a refusal is noted and ends the attack."""
        task = dict(self.task(site)) if isinstance(request, MaskRequest) else {}
        content = RecordDict({CONTROL: control_record(self.federation, site, raw), **task})
        message = Message(content, dst_node_id=100 + site, message_type=self.kind)
        store = self.federation.site(site)
        self._before = self.dump(site)
        try:
            return Session(store, 100 + site, {}).answer(raw, message, lambda m, _: self.train(site, m))
        except FedsealError as error:
            unchanged = self.dump(site) == self._before
            self.refusals.append(Refusal(Fault.of(f"site {site}", error), error.message, unchanged))
            raise

    def train(self, site: int, message: Message) -> Message:
        """The site's app. Its query function, which no release calls, returns what is to stay there."""
        self.ran.append((site, message.metadata.message_type))
        self.while_training()
        self._before = self.dump(site)
        received = numpy_of(next(iter(message.content.array_records.values())))
        moved = {n: a + a * np.float32(DATA[site].change) for n, a in received.items()}
        if message.metadata.message_type == "query":
            moved = {n: a + np.float32(site) for n, a in received.items()}
        metrics = MetricRecord({"num-examples": EXAMPLES, "loss": DATA[site].loss})
        facts = message.content.config_records[CONTROL]
        done = ConfigRecord({DONE_RELEASE: facts["release"], DONE_PLAN: facts["plan"]})
        arrays = ArrayRecord({n: Array(a.astype(np.float32)) for n, a in moved.items()})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics, DONE: done}), reply_to=message)

    def dump(self, site: int) -> str:
        """All that a site's store holds, but for what it has seen and said of the log.

        That is its witness's memory, which moves whatever becomes of the rest of a message.
        """
        connection = sqlite3.connect(self.federation.sites[site])
        try:
            return "\n".join(line for line in connection.iterdump() if '"log_' not in line and " log_" not in line)
        finally:
            connection.close()

    def whole_round(self) -> None:
        """As an honest server would."""
        everyone = self.header.cohort
        self.advertise()
        self.share()
        self.mask()
        self.confirm(lambda _: everyone)
        self.unmask(lambda _: everyone)

    def read(self, name: str, found: Words | None) -> Words:
        """One segment of a sum, in its own units."""
        if found is None:
            return np.full(1, np.nan)
        return IntegerSum(self.header.layout, 1, found).real(name)

    def is_sum(self, found: Words | None, sites: Any) -> bool:
        """Whether a vector is the sum of what these sites' data say, but for rounding."""
        true = sum(DATA[s].change * self.model() for s in sites)
        return bool(np.allclose(self.read(VALUES, found), true, atol=1e-4))

    def model(self) -> Words:
        """What sites are sent, as one vector."""
        arrays = numpy_of(default_task()["arrays"])
        return np.concatenate([arrays[n].ravel() for n in sorted(arrays)]).astype(np.float64)


Script = Callable[[Stores], bool]


def at_stores(
    script: Script,
    header: Callable[[Federation], Header],
    *,
    sites: int = 3,
    moles: Callable[[], Mapping[int, Mole]] = dict,
    policy: str = OPEN_POLICY,
    epsilon: float = 10.0,
) -> Callable[[list[Refusal]], bool]:
    """A script for a federation of new stores."""

    def play(refusals: list[Refusal]) -> bool:
        with tempfile.TemporaryDirectory() as folder, flower_task():
            federation = make_federation(Path(folder), sites, policy=policy, epsilon=epsilon)
            return script(Stores(refusals, federation, header(federation), moles()))

    return play
