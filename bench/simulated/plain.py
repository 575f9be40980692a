"""What all engines are compared with: a loop over clients in plain PyTorch, one thread, one module."""

import torch
from measure import Watch
from workloads import Workload


def run(workload: Workload, rounds: int, watch: Watch) -> float:
    """Federated averaging on a page; the accuracy."""
    torch.set_num_threads(1)
    module = workload.first_model()
    model = {name: value.clone() for name, value in module.state_dict().items()}
    for fl_round in range(1, rounds + 1):
        total = {name: torch.zeros_like(value) for name, value in model.items()}
        for user in workload.cohort_of(fl_round):
            module.load_state_dict(model)
            workload.train(module, fl_round, user)
            for name, value in module.state_dict().items():
                total[name] += value
        model = {name: value / workload.cohort for name, value in total.items()}
        watch.round_over()
    module.load_state_dict(model)
    return workload.accuracy(module)
