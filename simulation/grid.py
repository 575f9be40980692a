"""`LocalGrid`: a Flower Grid whose nodes are ClientApps in this process.

Messages are delivered when they are pushed and answered on the spot, node by node; each node has a Context and a
configuration of its own, as a SuperNode would give it. An app that fails and a node that does not answer are error
replies, as on Flower's own grids; that a node will not answer is known at once here, so nobody waits for it.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedseal.errors import LocalError

# A simulation of somebody's own app starts without the protocol's server, its databases and its statistics.
if TYPE_CHECKING:
    from fedseal.privacy.inference.tally import Tally
    from fedseal.privacy.planning import RunPlans
    from fedseal.server.means import Means
    from fedseal.server.rounds import RoundRecord
    from fedseal.server.statistics import Moments

SERVER_NODE = 1
Setting = bool | int | float | str
Deliver = Callable[[ClientApp, Message, Context], Message | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observer:
    """What a simulation wants to know while it runs. Functions, so that nothing else of it reaches the server."""

    planned: "Callable[[RunPlans, Moments | None, bytes], None]"
    round_finished: "Callable[[RoundRecord], None]"
    finished: Callable[[dict[str, NDArray[Any]]], None]
    evaluated: "Callable[[Tally], None]" = lambda _: None
    personalised: "Callable[[Means], None]" = lambda _: None


class LocalGrid(Grid):
    """All nodes in this process, one after the other.

    Args:
        client_app: the ClientApp that every node runs.
        nodes: per node id its configuration, as `--node-config` would give it.
        run_config: the run's configuration, as the nodes see it.
        observer: told of what the ServerApp announces.
        deliver: hands a message to a node and returns its answer; None is a node that does not answer. Replaced to
            simulate faults, see `answer_of`; what it raises itself ends the run.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: Mapping[int, Mapping[str, Setting]],
        *,
        run_config: Mapping[str, Setting],
        observer: Observer | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._app = client_app
        self._run = Run.create_empty(1)
        self._run_config = dict(run_config)
        self._nodes = nodes
        self._contexts = Contexts(nodes, run_config)
        self._observer = observer
        self._deliver = deliver or answer_of
        self._replies: dict[str, Message] = {}
        self._count = 0

    def serve(self, server_app: ServerApp, *, seed: int | None = None) -> None:
        """Run a ServerApp on this grid.

        Args:
            server_app: the very object that is deployed.
            seed: fixes Flower's choice of nodes, which uses Python's global generator; put back afterwards.
        """
        context = Context(1, SERVER_NODE, {}, RecordDict(), dict(self._run_config))
        with flower_task(self._run.run_id), seeded(seed):
            server_app(self, context)

    # A Grid

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, always. Not a list: of a million nodes nobody may ever want more than the number."""
        return self._nodes.keys()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver each message and keep its answer until it is pulled."""
        ids = []
        for message, answer in self.answers(self._numbered(messages)):
            self._replies[message.metadata.message_id] = answer or self.silent(message)
            ids.append(message.metadata.message_id)
        return ids

    def answers(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Message | None]]:
        """Each message with its node's answer, in the order of the messages. The one thing that an engine does its own
        way.
        """
        for message in messages:
            context = self._contexts.of(message.metadata.dst_node_id)
            answer = self._deliver(self._app, message, context)
            self._contexts.settle(context)
            yield message, answer

    @staticmethod
    def silent(message: Message) -> Message:
        """What stands for the answer of a node that does not answer: as a SuperLink says it where heartbeats have
        stopped.
        """
        return Message(Error(ErrorCode.NODE_UNAVAILABLE, "The node did not answer."), reply_to=message)

    def _numbered(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"local-{self._count}"
            yield message

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand out the answers, each once."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull in one."""
        return self.pull_messages(self.push_messages(messages))

    # A RoundObserver

    def run_planned(self, plans: "RunPlans", moments: "Moments | None", run: bytes) -> None:
        """Pass on."""
        if self._observer is not None:
            self._observer.planned(plans, moments, run)

    def round_finished(self, record: "RoundRecord") -> None:
        """Pass on."""
        if self._observer is not None:
            self._observer.round_finished(record)

    def run_evaluated(self, tally: "Tally") -> None:
        """Pass on."""
        if self._observer is not None:
            self._observer.evaluated(tally)

    def run_personalised(self, means: "Means") -> None:
        """Pass on."""
        if self._observer is not None:
            self._observer.personalised(means)

    def run_finished(self, model: dict[str, NDArray[Any]]) -> None:
        """Pass on."""
        if self._observer is not None:
            self._observer.finished(model)


class Contexts:
    """The nodes' Contexts, made when a node first runs and kept only if it left something there.

    So a node that does not run costs nothing, nor does one that has run and remembers nothing.
    """

    def __init__(self, nodes: Mapping[int, Mapping[str, Setting]], run_config: Mapping[str, Setting]) -> None:
        self._nodes, self._run_config = nodes, dict(run_config)
        self._kept: dict[int, Context] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def of(self, node: int) -> Context:
        """A node's Context; KeyError if there is no such node."""
        kept = self._kept.get(node)
        return kept or Context(1, node, dict(self._nodes[node]), RecordDict(), dict(self._run_config))

    def settle(self, context: Context) -> bool:
        """Keep a Context after its node has run, if it is not as it was made; whether it was kept."""
        node = context.node_id
        plain = not context.state and context.run_config == self._run_config
        if plain and context.node_config == self._nodes[node]:
            self._kept.pop(node, None)
            return False
        self._kept[node] = context
        return True


def answer_of(app: ClientApp, message: Message, context: Context) -> Message:
    """A node's answer: the app's, or an error if it raises one, in the words of a stock SuperNode.

    Those quote the exception. A sealed app raises none: `sealed_mod` answers with a code.
    """
    try:
        return app(message, context)
    # A study's own code may raise anything, and one site's failure is not the federation's.
    except Exception as error:
        log.error("the ClientApp of node %d raised an exception", context.node_id, exc_info=error)
        reason = f"{type(error)}:<'{error}'>"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


@contextmanager
def flower_task(run_id: int) -> Iterator[None]:
    """Flower keeps the identity of the running task in a class; messages cannot be made without it.

    Put back afterwards.
    """
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Python's global generator with a seed, put back afterwards; as it is without one."""
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class NodeList(Grid):
    """Nodes that no message reaches: whoever models them asks them by function call.

    Args:
        first: the first node's id.
        count: how many there are, numbered in a row.
    """

    def __init__(self, first: int, count: int) -> None:
        self._nodes = range(first, first + count)
        self._run = Run.create_empty(1)

    @contextmanager
    def task(self, seed: int) -> Iterator[None]:
        """Let messages be made, and Flower choose nodes by this seed."""
        with flower_task(self._run.run_id), seeded(seed):
            yield

    def request(self, records: Mapping[str, Any], message_type: str, group_id: str) -> Message:
        """A message with these records, to the first node: what it says is the same for all."""
        return self.create_message(RecordDict(dict(records)), message_type, self._nodes[0], group_id)

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, always; a range takes no memory."""
        return self._nodes

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: there is nobody to deliver to."""
        raise LocalError("these nodes are asked by function call, and get no messages")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused, as `push_messages` is."""
        raise LocalError("these nodes are asked by function call, and get no messages")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Refused, as `push_messages` is."""
        raise LocalError("these nodes are asked by function call, and get no messages")
