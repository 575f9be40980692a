"""fedseal's general engine: the same apps in processes of this machine."""

from collections.abc import Iterator, Mapping

from flower_apps import Scheduled, client_app, server_app
from measure import Watch
from workloads import Workload, user_data

from fedseal.simulation.engine.pool import PoolGrid
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.grid import LocalGrid, Setting


class Users(Mapping[int, Mapping[str, Setting]]):
    """Node i is user i; nothing is stored for it."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, node: int) -> Mapping[str, Setting]:
        if not 0 <= node < self._count:
            raise KeyError(node)
        return {"partition-id": node, "num-partitions": self._count}

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count))

    def __len__(self) -> int:
        return self._count


def run(workload: Workload, rounds: int, watch: Watch, *, reuse: bool, summed: bool, workers: int = 2) -> float:
    """The accuracy. ``summed``: integer ring sums begun in the workers."""
    app, accuracy = server_app(workload, rounds, watch)
    nodes = Users(workload.users)
    # Drawn before the fork, so that the workers share it.
    user_data(workload.name, 0)
    if not workers:
        LocalGrid(client_app(workload.name, reuse=reuse), nodes, run_config={}).serve(app)
        return accuracy[0]
    sums = None
    if summed:
        from fedseal.simulation.engine.sums import IntegerSums

        sums = IntegerSums(Scheduled(workload, by_message=False), max_examples=workload.examples)
    with Workers(client_app(workload.name, reuse=reuse), workers) as started:
        PoolGrid(started, nodes, run_config={}, sums=sums).serve(app)
    return accuracy[0]
