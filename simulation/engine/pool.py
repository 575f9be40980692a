"""`PoolGrid`: a `LocalGrid` whose nodes run in a few processes. Same apps, same strategies, same bytes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from flwr.app import Message

from fedseal.errors import ConfigError
from fedseal.simulation.engine.codec import Arrays, Writer
from fedseal.simulation.engine.worker import Letter, reply_in
from fedseal.simulation.engine.workers import Unit, Workers
from fedseal.simulation.grid import LocalGrid, Observer, Setting

# Loaded by who asks for sums: an app as it is starts without the protocol.
if TYPE_CHECKING:
    from fedseal.privacy.quantize import IntegerSum
    from fedseal.simulation.engine.sums import IntegerSums, SumOrder


class PoolGrid(LocalGrid):
    """All nodes on this machine, in a few processes.

    A round's model goes to the workers once, through shared memory. A node that leaves nothing in its Context runs
    wherever there is room; one that does runs where it has left it. The answers are in the order of the messages, so a
    run does not depend on the number of workers as long as an app depends on its message and Context alone.

    What an app keeps elsewhere, in a variable of its module, is its worker's: with ``sticky`` a node always runs in the
    worker where it ran first, so that an app that keeps its nodes' data in memory keeps each node's once.

    Args:
        workers: started before; whoever started them ends them.
        nodes: per node id its configuration.
        run_config: the run's configuration, as the nodes see it.
        observer: told of what the ServerApp announces.
        sums: replies are summed in the workers, and the strategy gets one: `send_and_receive` is then all that this
            grid does.
        sticky: whether a node stays in its worker even if it leaves nothing in its Context.
    """

    def __init__(
        self,
        workers: Workers,
        nodes: Mapping[int, Mapping[str, Setting]],
        *,
        run_config: Mapping[str, Setting],
        observer: Observer | None = None,
        sums: "IntegerSums | None" = None,
        sticky: bool = False,
    ) -> None:
        super().__init__(workers.client_app, nodes, run_config=run_config, observer=observer)
        self._workers = workers
        self._session = workers.begin(run_config)
        self._sums = sums
        self._sticky = sticky
        self._homes: dict[int, int] = {}
        self._pushes = 0
        # The last round's sum, where replies are summed.
        self.last_sum: IntegerSum | None = None

    def answers(self, messages: Iterable[Message]) -> Iterator[tuple[Message, Message | None]]:
        """Each message with its node's answer, in the order of the messages.

        Raises:
            ConfigError: a worker has ended.
        """
        batch = list(messages)
        found = self._answers(batch, None)
        return ((message, found.get(index)) for index, message in enumerate(batch))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver each message and keep its answer until it is pulled; refused where replies are summed."""
        if self._sums is not None:
            raise ConfigError(
                "a grid that sums sends rounds, not single messages",
                next_step="Use send_and_receive with all messages of a round.",
            )
        return super().push_messages(messages)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull in one. Where replies are summed: the one reply, and the errors.

        Raises:
            ConfigError: a worker has ended, or replies that cannot be summed.
        """
        if self._sums is None:
            return super().send_and_receive(messages, timeout=timeout)
        from fedseal.simulation.engine.sums import combined, round_sum

        batch = list(self._numbered(messages))
        if not batch:
            return []
        summing = round_sum(self._sums, batch)
        found = self._answers(batch, summing.order)
        errors = [found[index] or self.silent(batch[index]) for index in sorted(found)]
        parts = self._workers.parts()
        sites = sum(sites for sites, _ in parts)
        if not sites:
            return errors
        vector = combined(summing.order, [vector for _, vector in parts])
        reply, self.last_sum = summing.reply(batch[0], sites, vector)
        return [reply, *errors]

    def _answers(self, batch: list[Message], order: "SumOrder | None") -> dict[int, Message | None]:
        """By the message's index: a reply, or None if there is none; nothing where it is in the sum."""
        self._pushes += 1
        writer = Writer(self._workers.clear(self._session))
        units: dict[int, Unit] = {}
        largest = 0
        for index, message in enumerate(batch):
            node = message.metadata.dst_node_id
            records = writer.records(message.content)
            letter = Letter(index, self._nodes[node], message.metadata, records)
            units.setdefault(node, Unit([], self._homes.get(node))).letters.append(letter)
            largest = max(largest, sum(a.length for _, r in records if isinstance(r, Arrays) for a in r.stored))
        found: dict[int, Message | None] = {}
        for answer, worker, reader in self._workers.deliver(self._pushes, list(units.values()), order, largest):
            node = batch[answer.number].metadata.dst_node_id
            if answer.kept or self._sticky:
                self._homes[node] = worker
            else:
                self._homes.pop(node, None)
            if not answer.summed:
                found[answer.number] = reply_in(answer, reader)
        return found
