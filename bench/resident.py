"""Resident nodes beside Flower's stock SuperNodes: exchanges, sealed rounds, memory, and what idleness costs.

Three sites and their server on this machine, over TLS with node authentication. Exchanges are of an app that sends
back what it gets; with the stock programs that is an app that `flwr run` ships, whose ServerApp asks for replies every
20 ms, as fast as ours. Rounds are those of the demo's study without a privacy plan. `--parts` chooses.

    python bench/resident.py --out resident.json                          # everything, a quarter of an hour
    python bench/resident.py --parts exchange,rounds,idle,state           # without the stock programs

*state* is what keeping Flower's state on disk would add to an exchange of three sites with five objects a message:
the same calls that the link makes, without the network. *mixed* has runs and messages in SQLite and objects in memory.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkState
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.superlink.federation import NoOpFederationManager
from support.residents import Residents, outcome, residents

from fedseal.client.fleet import Fleet, identify
from fedseal.client.node import ResidentNode
from fedseal.client.site_config import read_site
from fedseal.server.link import Link, LinkGrid
from fedseal.server.server_config import read_server
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.certificates import make_node_key, make_server_certificate
from fedseal.simulation.deployed.processes import Programs, free_ports

SIZES = {"empty": 0, "400 kB": 100_000, "4 MB": 1_000_000}
PARTS = ("exchange", "rounds", "idle", "state", "stock")
WARM_UP, TIMES, STOCK_TIMES = 3, 25, 3
ROUNDS = 10
IDLE = 30.0
STOCK_APP = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
client = ClientApp()
server = ServerApp()

@client.train()
def train(message, context):
    return Message(message.content, reply_to=message)

@server.main()
def main(grid, context):
    found = {}
    while len(list(grid.get_node_ids())) < 3:
        time.sleep(0.2)
    for name, size in json.loads(context.run_config["sizes"]).items():
        taken = []
        for turn in range(int(context.run_config["times"])):
            begun = time.monotonic()
            content = {"c": ConfigRecord({"turn": turn})}
            if size:
                content["v"] = ArrayRecord({"v": Array(np.full(size, turn, dtype=np.float32))})
            open_ids = set(grid.push_messages([
                Message(RecordDict(dict(content)), dst_node_id=n, message_type="train") for n in grid.get_node_ids()]))
            while open_ids:
                replies = list(grid.pull_messages(open_ids))
                assert all(r.has_content() for r in replies)
                open_ids -= {r.metadata.reply_to_message_id for r in replies}
                time.sleep(0.02)
            taken.append(time.monotonic() - begun)
            found[name] = taken
            Path(context.run_config["out"]).write_text(json.dumps(found))
    Path(context.run_config["out"]).with_suffix(".done").touch()
"""


def echo_node(config: Path) -> None:
    """A resident node whose app sends back what it gets; ends with its standard input."""
    site, app = read_site(config), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    node = ResidentNode(Fleet(site.address, site.trust, site.key), site, app)

    def end() -> None:
        sys.stdin.read()
        node.stop()

    threading.Thread(target=end, daemon=True).start()
    node.run()


@contextmanager
def echoing(made: Residents) -> Iterator[tuple[Link, LinkGrid]]:
    """A link in this process and three echoing nodes in processes of their own."""
    found = read_server(made.files.server)
    command = [sys.executable, __file__, "--echo"]
    with Link(found.listener, found.nodes) as link:
        nodes = [
            subprocess.Popen([*command, str(file)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
            for file in made.files.nodes.values()
        ]
        try:
            wait(lambda: len(link.online()) == len(nodes))
            with link.run({"fedseal-task": made.study.contract.task}) as grid:
                yield link, grid
        finally:
            for node in nodes:
                node.communicate()


def wait(ready: Callable[[], bool], within: float = 180.0) -> None:
    end = time.monotonic() + within
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def content_of(size: int, turn: int) -> RecordDict:
    content = RecordDict({"c": ConfigRecord({"turn": turn})})
    if size:
        content["v"] = ArrayRecord({"v": Array(np.full(size, turn, dtype=np.float32))})
    return content


def exchanges(grid: LinkGrid, size: int) -> dict[str, float]:
    """Seconds of an exchange with every node, from the first object to the last reply, and the server's CPU."""
    taken, cpu = [], []
    for turn in range(WARM_UP + TIMES):
        begun, used = time.monotonic(), time.process_time()
        sent = [Message(content_of(size, turn), dst_node_id=n, message_type="train") for n in grid.get_node_ids()]
        replies = list(grid.send_and_receive(sent, timeout=60))
        taken.append(time.monotonic() - begun)
        cpu.append(time.process_time() - used)
        if [r.content.config_records["c"]["turn"] for r in replies] != [turn] * 3:
            raise ValueError("not what was sent")
    return {**spread(taken[WARM_UP:]), "server_cpu": statistics.median(cpu[WARM_UP:])}


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p10": ordered[len(ordered) // 10],
        "p90": ordered[-1 - len(ordered) // 10],
        "n": len(ordered),
    }


def sealed_rounds(folder: Path) -> dict[str, Any]:
    """The demo's rounds: seconds of the first and of the others, by stage; memory of a site that has trained."""
    with residents(folder, rounds=ROUNDS) as made:
        made.start_all()
        for name in made.files.nodes:
            made.said(name, "connected to")
        events = outcome(made.order())
        rounds = [event for event in events if event["event"] == "round"]
        after = {name: proportional_memory(process.pid) for name, process in made.processes.items()}
        return {
            "first": rounds[0]["seconds"],
            "others": spread([event["seconds"] for event in rounds[1:]]),
            "stages": {
                stage: statistics.median(event["stages"][stage]["seconds"] for event in rounds[1:])
                for stage in rounds[0]["stages"]
            },
            "memory_mb": after,
        }


def idle(folder: Path) -> dict[str, Any]:
    """Memory and CPU of nodes and server that wait; the first site has not loaded the libraries for training."""
    with residents(folder) as made:
        first = next(iter(made.files.nodes.values()))
        text = first.read_text(encoding="utf-8").replace("[site]\n", "[site]\npreload = false\n")
        first.write_text(text, encoding="utf-8")
        made.start_all()
        for name in made.files.nodes:
            made.said(name, "connected to")
        time.sleep(3)
        before = {name: cpu_seconds(process.pid) for name, process in made.processes.items()}
        time.sleep(IDLE)
        return {
            name: {
                "memory_mb": proportional_memory(process.pid),
                "cpu_percent": 100 * (cpu_seconds(process.pid) - before[name]) / IDLE,
                "torch": name != "server" and name != next(iter(made.files.nodes)),
            }
            for name, process in made.processes.items()
        }


def proportional_memory(pid: int) -> float:
    """What a process holds of memory in MB, shared pages by their share (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state_calls(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds of CPU and wall that the state takes for one exchange, in memory, mixed, and on disk."""
    found = {}
    for kind in ("memory", "mixed", "disk"):
        state = make_state(kind, folder)
        wall, cpu = [], []
        run = state.create_run("x", None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
        task = state.get_run_info(run_ids=[run])[0].primary_task_id
        state.claim_task(task or 0), state.activate_task(task or 0)
        keys = [f"key {number}".encode() for number in range(3)]
        nodes = [state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0) for key in keys]
        for node in nodes:
            state.activate_node(node, 30)
        identify(run, 1)
        for turn in range(WARM_UP + TIMES):
            begun, used = time.monotonic(), time.process_time()
            one_exchange(state, run, dict(zip(nodes, keys, strict=True)), turn)
            wall.append(time.monotonic() - begun)
            cpu.append(time.process_time() - used)
        found[kind] = {"wall": statistics.median(wall[WARM_UP:]), "cpu": statistics.median(cpu[WARM_UP:])}
    return found


def make_state(kind: str, folder: Path) -> LinkState:
    manager = NoOpFederationManager()
    if kind == "memory":
        return InMemoryLinkState(manager, InMemoryObjectStore())
    objects = InMemoryObjectStore()
    if kind == "disk":
        objects = SqlObjectStore(str(folder / "objects.sqlite"))
        objects.initialize()
    state = SqlLinkState(str(folder / f"{kind}.sqlite"), manager, objects)
    state.initialize()
    return state


def one_exchange(state: LinkState, run: int, nodes: dict[int, bytes], turn: int) -> None:
    """What 3 nodes and the server ask of the state, with 400 kB each way: every request also looks up who asks, and
    whether the run is running.
    """

    def request(node: int) -> None:
        state.get_node_id_by_public_key(nodes[node])
        state.get_run_status({run})

    def store(message: Message, node: int | None) -> None:
        message.metadata.__dict__["_message_id"] = message.object_id
        session = state.start_session(run)
        objects = get_all_nested_objects(message)
        _, missing = state.store_message_and_object_tree(message, get_object_tree(message), session)
        for name in missing:
            if node is not None:
                request(node)
            state.store_object(run, session, name, objects[name].deflate())

    sent = [Message(content_of(100_000, turn), dst_node_id=node, message_type="train") for node in nodes]
    for message in sent:
        store(message, None)
    for node in nodes:
        request(node)
        (message,) = state.get_message_ins(node, 1)
        for place in iterate_object_tree(state.object_store.get_object_tree(message.metadata.message_id)):
            request(node)
            state.get_object(run, place.object_id)
        request(node)
        store(Message(content_of(100_000, turn + 1), reply_to=message), node)
        request(node)
        state.object_store.delete(message.metadata.message_id)
    names = {message.metadata.message_id for message in sent}
    for reply in state.get_message_res(set(names), run):
        for place in iterate_object_tree(state.object_store.get_object_tree(reply.metadata.message_id)):
            state.get_object(run, place.object_id)
        state.object_store.delete(reply.metadata.message_id)
    state.delete_messages(names)


def stock(folder: Path) -> dict[str, dict[str, float]]:
    """Exchanges of Flower's own programs."""
    tls, app = folder / "tls", folder / "app"
    tls.mkdir(parents=True), app.mkdir()
    certificate = make_server_certificate(tls)
    port, *ports = free_ports(4)
    link = flower.SuperLink(f"127.0.0.1:{port}", certificate.authority)
    nodes = [flower.Node(f"node-{n}", p, make_node_key(tls, f"node-{n}"), folder, folder) for n, p in enumerate(ports)]
    out = folder / "times.json"
    config = {"sizes": json.dumps(SIZES), "times": STOCK_TIMES, "out": str(out)}
    write_stock_app(app, config)

    def environment(name: str) -> dict[str, str]:
        return flower.environment(folder / "home" / name)

    with Programs(folder / "logs") as programs:
        command = flower.superlink_command(certificate, port, folder / "superlink.sqlite")
        superlink = programs.start("superlink", command, environment=environment("superlink"))
        programs.wait_until(lambda: flower.answers(link), [superlink], within=120, what="ready")
        flower.write_connection(folder / "home" / "coordinator", link)
        for node in nodes:
            done = programs.start(
                "register", flower.register_command(node.key.public), environment=environment("coordinator")
            )
            programs.wait_for_end([done], within=120)
            programs.start(node.name, flower.supernode_command(node, link), environment=environment(node.name))
        run = programs.start("run", flower.run_command(app), environment=environment("coordinator"))
        programs.wait_until(out.with_suffix(".done").exists, [superlink], within=580, what="measured")
        programs.wait_for_end([run], within=60)
    # Of the first exchange of all the nodes are still getting ready.
    found = json.loads(out.read_text(encoding="utf-8"))
    return {name: spread(times[1:]) for name, times in found.items()}


def write_stock_app(app: Path, config: dict[str, Any]) -> None:
    rows = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    (app / "LICENSE").write_text("None.\n", encoding="utf-8")
    (app / "echo_app.py").write_text(STOCK_APP, encoding="utf-8")
    (app / "pyproject.toml").write_text(
        f"""\
[project]
name = "echo"
version = "1.0.0"
description = "sends back"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "bench"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "echo_app:server"
clientapp = "echo_app:client"

[tool.flwr.app.config]
{rows}
""",
        encoding="utf-8",
    )


def measure(parts: list[str], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"load_before": os.getloadavg(), "cpus": os.cpu_count()}
    if "state" in parts:
        (folder / "state").mkdir()
        found["state"] = state_calls(folder / "state")
    if "exchange" in parts:
        with echoing(Residents(folder / "exchange")) as (_, grid):
            found["exchange"] = {name: exchanges(grid, size) for name, size in SIZES.items()}
    if "stock" in parts:
        found["stock"] = stock(folder / "stock")
    if "exchange" in parts and "stock" in parts:
        # Again, as the machine may have been busier before than after.
        with echoing(Residents(folder / "again")) as (_, grid):
            found["exchange_again"] = {name: exchanges(grid, size) for name, size in SIZES.items()}
    if "rounds" in parts:
        found["rounds"] = sealed_rounds(folder / "rounds")
    if "idle" in parts:
        found["idle"] = idle(folder / "idle")
    found["load_after"] = os.getloadavg()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--echo", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Flower logs every call.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    if options.echo is not None:
        echo_node(options.echo)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(measure(options.parts.split(","), Path(folder)), indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
