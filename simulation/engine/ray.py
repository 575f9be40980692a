"""`RayGrid`: the same apps on Flower's own engine, which is Ray's, for what one machine cannot hold.

Flower knows nodes by the number of their partition and gives them nothing else; here every node gets its
configuration, and every app the run's. Nodes of a sealed study keep their stores in files, so all of Ray has to see
the same folder.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry
from flwr.supercore.run import Run
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.simulation.grid import Observer, Setting, flower_task, seeded

if TYPE_CHECKING:
    from fedseal.privacy.inference.tally import Tally
    from fedseal.privacy.planning import RunPlans
    from fedseal.server.means import Means
    from fedseal.server.rounds import RoundRecord
    from fedseal.server.statistics import Moments

PARTITION = "partition-id"


class RayGrid:
    """A run on Flower's Ray engine. Not a Grid before it is served: Flower makes that itself.

    Args:
        load: gives the ClientApp in whichever process runs it; a function of a module, so that an app that keeps its
            nodes' data in memory keeps it.
        nodes: per node its configuration. Flower gives the nodes other ids, in an order that only it knows.
        run_config: the run's configuration, as server and nodes see it.
        observer: told of what the ServerApp announces.
        actors: how many processes, of one CPU each; as many as there are CPUs if None.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self,
        load: Callable[[], ClientApp],
        nodes: Mapping[int, Mapping[str, Setting]],
        *,
        run_config: Mapping[str, Setting],
        observer: Observer | None = None,
        actors: int | None = None,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("Ray is not installed", next_step='Install it: pip install "fedseal[ray]".')
        self._app = PlacedApp(load, [dict(config) for config in nodes.values()], dict(run_config))
        self._nodes = len(nodes)
        self._run_config = dict(run_config)
        self._observer = observer
        self._actors = actors

    def serve(self, server_app: ServerApp, *, seed: int | None = None) -> None:
        """Run a ServerApp.

        Args:
            server_app: the very object that is deployed.
            seed: fixes what is drawn from Python's global generator; put back afterwards. Which node is which site is
                Flower's choice, so a sealed study does not depend on it, and a choice of nodes does.
        """
        # Neither of the two asks again; both would tell somebody else of this run.
        telemetry.FLWR_TELEMETRY_ENABLED = "0"
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from flwr.simulation import run_simulation

        app, run_config, observer = ServerApp(), self._run_config, self._observer

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            told = Context(context.run_id, context.node_id, {}, RecordDict(), dict(run_config))
            server_app(grid if observer is None else ObservedGrid(grid, observer), told)

        init: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._actors is not None:
            init["num_cpus"] = self._actors
        with flower_task(1), seeded(seed):
            run_simulation(
                server_app=app,
                client_app=self._app,
                num_supernodes=self._nodes,
                backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": init},
            )


class PlacedApp(ClientApp):
    """A ClientApp whose nodes are given their configurations, by the number of their partition."""

    def __init__(
        self, load: Callable[[], ClientApp], configs: list[dict[str, Setting]], run_config: dict[str, Setting]
    ) -> None:
        super().__init__()
        self._load, self._configs, self._given = load, configs, run_config

    def __call__(self, message: Message, context: Context) -> Message:
        """The app's answer, as a node of its own."""
        config = self._configs[int(context.node_config[PARTITION])]
        # A context of the app's own, with the node's state: Flower refuses one whose run configuration was changed.
        own = Context(context.run_id, context.node_id, dict(config), context.state, dict(self._given))
        return self._load()(message, own)


class ObservedGrid(Grid):
    """Flower's grid, and an ear for what the ServerApp announces."""

    def __init__(self, grid: Grid, observer: Observer) -> None:
        self._grid, self._observer = grid, observer

    def set_run(self, run: Run) -> None:
        """As Flower's."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """As Flower's."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """As Flower's."""
        return self._grid.get_node_ids()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """As Flower's."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As Flower's."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As Flower's."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def run_planned(self, plans: "RunPlans", moments: "Moments | None", run: bytes) -> None:
        """Pass on."""
        self._observer.planned(plans, moments, run)

    def round_finished(self, record: "RoundRecord") -> None:
        """Pass on."""
        self._observer.round_finished(record)

    def run_evaluated(self, tally: "Tally") -> None:
        """Pass on."""
        self._observer.evaluated(tally)

    def run_personalised(self, means: "Means") -> None:
        """Pass on."""
        self._observer.personalised(means)

    def run_finished(self, model: dict[str, NDArray[Any]]) -> None:
        """Pass on."""
        self._observer.finished(model)
