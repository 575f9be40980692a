"""Flower's own engine: Ray, one CPU an actor."""

from flower_apps import client_app, server_app
from flwr.simulation import run_simulation
from measure import Watch
from workloads import Workload


def run(workload: Workload, rounds: int, watch: Watch) -> float:
    """The accuracy."""
    app, accuracy = server_app(workload, rounds, watch, by_message=True)
    run_simulation(
        server_app=app,
        client_app=client_app(workload.name),
        num_supernodes=workload.users,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}},
    )
    return accuracy[0]
