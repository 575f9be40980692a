"""A Flower app as anyone would write it, for Flower's own engine and for fedseal's: neither is told of the other."""

from collections.abc import Callable, Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from measure import Watch
from torch import nn
from workloads import WORKLOADS, Workload


def client_app(name: str, *, reuse: bool = False, mods: Iterable[object] = ()) -> ClientApp:
    """The ClientApp. ``reuse``: it keeps its module from call to call instead of building one each time."""
    app = ClientApp(mods=list(mods))  # type: ignore[arg-type]
    modules: list[nn.Module] = []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        workload = WORKLOADS[name]
        config = message.content.config_records["config"]
        user = int(str(config.get("user", context.node_config["partition-id"])))
        model = modules[0] if modules else workload.model()
        if reuse and not modules:
            modules.append(model)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        workload.train(model, int(str(config["server-round"])), user)
        metrics = MetricRecord({"num-examples": workload.examples})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


class Scheduled(FedAvg):
    """FedAvg over the cohorts that the workload prescribes."""

    sum_only = True

    def __init__(self, workload: Workload, *, by_message: bool) -> None:
        """``by_message``: node ids say nothing, and whose turn it is stands in each message."""
        super().__init__(fraction_evaluate=0.0, min_train_nodes=workload.cohort, min_available_nodes=workload.cohort)
        self._workload, self._by_message = workload, by_message

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each user of the round's cohort."""
        users = self._workload.cohort_of(server_round)
        config["server-round"] = server_round
        if not self._by_message:
            return self._construct_messages(RecordDict({"arrays": arrays, "config": config}), users, "train")
        nodes = list(grid.get_node_ids())[: len(users)]
        return [
            Message(
                RecordDict({"arrays": arrays, "config": ConfigRecord({**config, "user": user})}),
                dst_node_id=node,
                message_type="train",
            )
            for node, user in zip(nodes, users, strict=True)
        ]


def server_app(
    workload: Workload,
    rounds: int,
    watch: Watch,
    *,
    by_message: bool = False,
    wrap: Callable[[Grid, FedAvg], Grid] = lambda grid, _: grid,
) -> tuple[ServerApp, list[float]]:
    """The ServerApp, and a list in which the accuracy will stand. ``wrap``: what seals the grid."""
    app, accuracy = ServerApp(), list[float]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)
        module = workload.first_model()

        def evaluate(server_round: int, arrays: ArrayRecord) -> None:
            if server_round:
                watch.round_over()
            if server_round == rounds:
                module.load_state_dict(arrays.to_torch_state_dict())
                accuracy.append(workload.accuracy(module))

        strategy = Scheduled(workload, by_message=by_message)
        strategy.start(
            grid=wrap(grid, strategy),
            initial_arrays=ArrayRecord(module.state_dict()),
            num_rounds=rounds,
            evaluate_fn=evaluate,  # type: ignore[arg-type]
        )

    return app, accuracy
