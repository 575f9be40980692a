"""The ClientApp for stock SuperNodes, which import it anew for every message: what each exchange makes them import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from support.flower import make_federation
from support.planes import FOLDER, START, points

from fedseal.client import stock
from fedseal.client.mod import DATA_KEY, STUDY_KEY, sealed_mod

HEAVY = ("torch", "opacus", "pandas", "dp_accounting")
LOADED = f"import sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"

# A whole round of three sites with everything of the server in the same process. After each answer: the request's
# message, and what has been imported by then.
ROUND = f"""
import json, sys
from pathlib import Path
import numpy as np
from flwr.serverapp.strategy import FedAvg
from fedseal.client.records import control_bytes
from fedseal.client.stock import app
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.runs import ControlMessage
from fedseal.privacy.secagg.header import AdvertiseRequest
from fedseal.privacy.secagg.messages import ConsistencyRequest, MaskRequest, ShareRequest, UnmaskRequest
from fedseal.server.grid import SealedGrid
from fedseal.server.rounds import Plan, run_rounds
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import LocalGrid

KINDS = (ControlMessage, AdvertiseRequest, ShareRequest, MaskRequest, ConsistencyRequest, UnmaskRequest)
nodes, start, server = json.loads(sys.argv[1])

def deliver(app, message, context):
    answer = app(message, context)
    kind = next(kind.__name__ for kind in KINDS if kind.TAG == control_bytes(message)[3])
    print(json.dumps([kind, [name for name in {HEAVY!r} if name in sys.modules]]))
    return answer

def main(grid, context):
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    rules = CohortRules(minimum=3, colluders=0, retries=0, stage_timeout=0.0)
    sealed = SealedGrid(
        grid, strategy, store=server, max_examples=64, cohort=rules, run_config=context.run_config
    )
    settings = {{"learning-rate": 0.1, "sample-rate": 1.0, "local-steps": 2}}
    arrays = {{name: np.array(values, np.float32) for name, values in start.items()}}
    run_rounds(sealed, strategy, arrays, Plan(1, settings, timeout=60.0), lambda record: None)

from flwr.serverapp import ServerApp
server_app = ServerApp()
server_app.main()(main)
nodes = {{int(number): config for number, config in nodes.items()}}
local = LocalGrid(app, nodes, run_config={{"fedseal-task": "task:Plane"}}, deliver=deliver)
local.serve(server_app)
"""


def said(code: str, *arguments: str) -> list[str]:
    """What a new process prints, line by line."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_the_app_of_a_stock_node_imports_neither_torch_nor_accounting() -> None:
    assert said(f"import {stock.__name__}\n{LOADED}") == ["[]"]


@pytest.mark.slow
def test_importing_the_resident_app_does() -> None:
    """The twin: the check sees it when they are imported."""
    (line,) = said(f"import fedseal.client.app\n{LOADED}")
    assert {"torch", "opacus", "pandas"} <= set(json.loads(line))


@pytest.mark.slow
def test_only_the_exchange_that_trains_imports_torch(tmp_path: Path) -> None:
    federation, sites = make_federation(tmp_path, 3), points([8, 12, 16])
    nodes = federation.nodes(**{STUDY_KEY: str(FOLDER)})
    for number, config in enumerate(nodes.values(), start=1):
        config[DATA_KEY] = str(tmp_path / f"data-{number}")
        (tmp_path / f"data-{number}").mkdir()
        site = sites[number - 1]
        rows = [",".join(map(str, [*row[1:], y])) for row, y in zip(site.rows, site.targets, strict=True)]
        (tmp_path / f"data-{number}" / "persons.csv").write_text("\n".join(["a,b,c,y", *rows]) + "\n", encoding="utf-8")
    start = {name: array.tolist() for name, array in START.items()}
    lines = [json.loads(line) for line in said(ROUND, json.dumps([nodes, start, str(federation.server)]))]
    order = [kind for kind, _ in lines]
    assert order == [
        kind
        for kind in (
            "ControlMessage",
            "AdvertiseRequest",
            "ShareRequest",
            "MaskRequest",
            "ConsistencyRequest",
            "UnmaskRequest",
            "ControlMessage",
        )
        for _ in range(3)
    ]
    first = order.index("MaskRequest")
    assert all(loaded == [] for _, loaded in lines[:first])
    assert {"torch", "opacus"} <= set(lines[first][1])


def test_it_is_sealed_as_the_resident_app_is() -> None:
    app: ClientApp = stock.app
    assert app._mods == [sealed_mod]


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_every_message_of_a_process_finds_the_same_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does live on does not read the persons again."""
    from fedseal.client.app import Warm

    seen: list[Warm] = []
    monkeypatch.setattr(Warm, name, lambda warm, message, context: seen.append(warm))
    for _ in range(2):
        getattr(stock, name)(None, None)
    assert seen[0] is seen[1]
