"""One engine on one workload, in a process of its own: `python run.py ENGINE WORKLOAD ROUNDS`."""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import Watch
from workloads import WORKLOADS, Workload

Engine = Callable[[Workload, int, Watch], float | None]

# Engines by name: the module beside this one and what its `run` is told.
ENGINES: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("plain", {}),
    "flower-ray": ("flower_ray", {}),
    "pfl-2": ("apple_pfl", {}),
    "local": ("pool", {"reuse": False, "summed": False, "workers": 0}),
    "pool": ("pool", {"reuse": False, "summed": False}),
    "pool-sums": ("pool", {"reuse": False, "summed": True}),
    "pool-reuse": ("pool", {"reuse": True, "summed": False}),
    "pool-reuse-sums": ("pool", {"reuse": True, "summed": True}),
    "sealed": ("sealed", {}),
    "vectorised": ("vectorised", {}),
}


def main() -> None:
    """Run it."""
    engine, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.filterwarnings("ignore")
    workload = WORKLOADS[name]
    watch = Watch(engine, name, workload.cohort, rounds)
    module, options = ENGINES[engine]
    run: Engine = partial(importlib.import_module(module).run, **options)
    # Flower sets its own level when it is loaded.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    accuracy = run(workload, rounds, watch)
    if accuracy is not None and os.environ.get("RANK", "0") == "0":
        watch.report(accuracy)


main()
