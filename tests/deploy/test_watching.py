"""Alerts and dashboards name metrics that there are, every alert has a page, and Prometheus' own tool agrees."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from support.flower import make_federation
from support.watched import site_of

from fedseal.client.telemetry import SiteTelemetry
from fedseal.operation.config import OperationPart
from fedseal.operation.counting import EventCounter
from fedseal.server.listening import Listener
from fedseal.server.server_config import Coordination
from fedseal.server.telemetry import ServerTelemetry

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
PROMTOOL = shutil.which("promtool")
ALARMS = ROOT / "docs" / "operate" / "alarms.md"
COUNTING = ROOT / "src" / "fedseal" / "operation" / "counting.py"
RULES = sorted(PROMETHEUS.glob("*-alerts.yml"))


class Link:
    def alive(self) -> bool:
        return True

    def online(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all series, without the endings of histograms."""
    folder = tmp_path_factory.mktemp("federation")
    federation = make_federation(folder, 3)
    (folder / "runs").mkdir()
    listener = Listener("127.0.0.1", 0, folder / "none.pem", folder / "none.pem")
    config = Coordination(listener, federation.server, folder / "runs", {}, OperationPart())
    server = ServerTelemetry(config, Link())  # type: ignore[arg-type]
    EventCounter(server.registry)
    return names(server.registry) | names(SiteTelemetry(site_of(federation, 1), 60.0).registry)


def names(registry: CollectorRegistry) -> set[str]:
    return {f"{m.name}_total" if m.type == "counter" else m.name for m in registry.collect()}


def alerts(path: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    found = re.findall(r"\bfedseal_(?:server|site|build|events)_[a-z_]+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def expressions() -> list[str]:
    found = [rule["expr"] for path in RULES for rule in alerts(path)]
    for path in GRAFANA.glob("*.json"):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    return found


def test_every_metric_that_is_named_is_there_and_a_wrong_name_would_be_found(known: set[str]) -> None:
    used = set[str]().union(*map(metrics_in, expressions()))
    assert used - known == set()
    assert len(used) > 20
    assert metrics_in("rate(fedseal_server_round_total[1h])") - known


def test_every_metric_is_on_a_dashboard(known: set[str]) -> None:
    shown = {
        name
        for path in GRAFANA.glob("*.json")
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
        for name in metrics_in(target["expr"])
    }
    assert known - shown == set()


def test_no_metric_has_a_label_that_grows_without_bound() -> None:
    """By what labels there are: a stage, a code, a state, a population, a place, a site of the roster, a version."""
    text = "".join(p.read_text("utf-8") for p in (ROOT / "server/telemetry.py", ROOT / "client/telemetry.py", COUNTING))
    lists = re.findall(r"\[(\"[a-z]+\"(?:, \"[a-z]+\")*)\]", text)
    labels = {name for found in lists for name in re.findall(r'"([a-z]+)"', found)}
    assert labels == {"version", "stage", "reason", "outcome", "state", "place", "what", "site", "population", "event"}


def test_the_dashboards_are_those_of_their_source() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboards.py"))
    for dashboard in made["DASHBOARDS"]:
        text = (GRAFANA / dashboard.file).read_text(encoding="utf-8")
        assert text == made["dashboard_text"](dashboard), "run: python deploy/grafana/dashboards.py"


def test_every_alert_says_what_it_is_and_has_a_section_of_the_runbook() -> None:
    page = ALARMS.read_text(encoding="utf-8")
    sections = re.findall(r"(?m)^### (Fedseal\w+)$", page)
    named = [rule["alert"] for path in RULES for rule in alerts(path)]
    assert sorted(sections) == sorted(named)
    for path in RULES:
        for rule in alerts(path):
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["annotations"]["summary"]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: Debian's package prometheus brings it")
def test_prometheus_own_tool_accepts_the_files_and_the_alerts_fire_as_they_should() -> None:
    assert PROMTOOL is not None
    checks = (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", *(path.name for path in RULES)],
        ["test", "rules", "alerts-test.yml"],
    )
    for arguments in checks:
        done = subprocess.run([PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
