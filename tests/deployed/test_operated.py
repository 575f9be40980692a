"""A server and nodes as processes, looked after: asked for health and metrics, backed up and stopped in a run."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from support.launched import COMMAND
from support.residents import Residents, outcome, residents

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.server.archive import read_archive
from fedseal.simulation.deployed.processes import free_ports

pytestmark = pytest.mark.slow

ROUNDS = 40


def fedseal(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


def operated(made: Residents) -> dict[str, str]:
    """Give every program a listener of its own, and a log in JSON."""
    files = {"server": made.files.server, **made.files.nodes}
    found = {}
    for (name, file), port in zip(files.items(), free_ports(len(files)), strict=True):
        found[name] = f"127.0.0.1:{port}"
        with file.open("a", encoding="utf-8") as content:
            content.write(f'\n[operation]\nlog = "json"\nmetrics = "{found[name]}"\n')
    return found


def ready(address: str, within: float = 90.0) -> None:
    end = time.monotonic() + within
    while (done := fedseal("health", address)).returncode:
        assert time.monotonic() < end, done.stdout
        time.sleep(0.5)


def metrics(address: str) -> dict[str, float]:
    import urllib.request

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_a_federation_is_watched_backed_up_and_stopped_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with residents(tmp_path / "federation", rounds=ROUNDS) as made:
        addresses = operated(made)
        made.start_all()
        for address in addresses.values():
            ready(address)
        order = made.order()
        made.said("hospital-2", '"group": "2"')
        kept = fedseal("server", "backup", "--config", made.files.server, tmp_path / "kept")
        assert kept.returncode == 0, kept.stderr
        assert read_archive(tmp_path / "kept").entries > 0
        # So that there is something to stop.
        stopped = fedseal("server", "stop", "--config", made.files.server)
        assert stopped.returncode == 0, stopped.stderr
        assert made.processes["server"].wait(10) == 0
        if "Under way" not in stopped.stdout:
            pytest.skip("the run was over before the server was asked to stop")
        assert f"Under way: {order.folder.name}" in stopped.stdout
        assert fedseal("health", addresses["server"]).returncode == 1
        made.start("server")
        assert outcome(order)[-1]["event"] == "finished"
        site, server = metrics(addresses["hospital-1"]), metrics(addresses["server"])
        assert site["fedseal_site_connected"] == 1
        assert site['fedseal_site_messages_total{outcome="answered",stage="mask"}'] >= ROUNDS
        assert server["fedseal_server_nodes_online"] == 3
        assert server['fedseal_server_runs{state="finished"}'] == 1
        assert server["fedseal_server_log_entries"] > 10
        made.stop()
        for name in addresses:
            lines = [json.loads(line) for line in made.log(name).read_text(encoding="utf-8").splitlines()]
            assert {"event", "time", "level", "logger"} <= set.intersection(*(set(line) for line in lines))
            assert lines[-1]["event"] == "stopped"
        with open_log(made.files.enrolled.server_store) as copy:
            assert verify_copy(copy).code is AuditCode.OK
