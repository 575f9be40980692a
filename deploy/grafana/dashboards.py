"""Write the Grafana dashboards beside this file. A test keeps them up to date: python deploy/grafana/dashboards.py"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Grafana's grid is 24 wide.
WIDE, HIGH, ACROSS = 8, 7, 3
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """A graph, or with ``now`` a number: title, unit as Grafana names it, and expressions by their legends."""

    title: str
    unit: str
    lines: dict[str, str]
    now: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: its file, its title, its panels in reading order."""

    file: str
    title: str
    job: str
    panels: tuple[Panel, ...]


ON = '{instance=~"$instance"}'


def slow(metric: str, by: str) -> str:
    """The time that 95 of 100 stay below, over the last quarter of an hour."""
    return f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{ON}[15m])))"


SERVER = Dashboard(
    "server.json",
    "fedseal server",
    "fedseal-server",
    (
        Panel("Sites connected", "none", {"online": f"fedseal_server_nodes_online{ON}"}, now=True),
        Panel("Sites enrolled", "none", {"enrolled": f"fedseal_server_nodes_enrolled{ON}"}, now=True),
        Panel("Version", "none", {"{{version}}": f"fedseal_build_info{ON}"}, now=True),
        Panel("Runs", "none", {"{{state}}": f"fedseal_server_runs{ON}"}),
        Panel(
            "Rounds and attempts an hour",
            "none",
            {
                "rounds": f"increase(fedseal_server_rounds_total{ON}[1h])",
                "attempts": f"increase(fedseal_server_attempts_total{ON}[1h])",
            },
        ),
        Panel("Seconds of a round, 95 %", "s", {"round": slow("fedseal_server_round_seconds", "instance")}),
        Panel("Seconds of a stage, 95 %", "s", {"{{stage}}": slow("fedseal_server_stage_seconds", "stage")}),
        Panel(
            "Dropouts an hour",
            "none",
            {"{{stage}}: {{reason}}": f"increase(fedseal_server_dropouts_total{ON}[1h])"},
        ),
        Panel(
            "Entries of the log, and what sites have cosigned",
            "none",
            {
                "entries": f"fedseal_server_log_entries{ON}",
                "{{site}}": f"fedseal_server_log_cosigned_entries{ON}",
            },
        ),
        Panel("Age of the newest entry", "s", {"age": f"time() - fedseal_server_log_newest_timestamp_seconds{ON}"}),
        Panel(
            "Store and disk",
            "bytes",
            {
                "store": f"fedseal_server_store_bytes{ON}",
                "free, {{place}}": f"fedseal_server_disk_free_bytes{ON}",
            },
        ),
        Panel("Expires in", "s", {"{{what}}": f"fedseal_server_expires_timestamp_seconds{ON} - time()"}, now=True),
        Panel("Store readable", "none", {"readable": f"fedseal_server_store_readable{ON}"}, now=True),
        Panel("Events of the log an hour", "none", {"{{event}}": f"increase(fedseal_events_total{ON}[1h])"}),
    ),
)
SITE = Dashboard(
    "site.json",
    "fedseal site",
    "fedseal-site",
    (
        Panel("Connected", "none", {"connected": f"fedseal_site_connected{ON}"}, now=True),
        Panel("Stopped by a contradiction", "none", {"halted": f"fedseal_site_halted{ON}"}, now=True),
        Panel("Version", "none", {"{{version}}": f"fedseal_build_info{ON}"}, now=True),
        Panel("Budget left", "percentunit", {"{{population}}": f"fedseal_site_ledger_available_ratio{ON}"}),
        Panel("Whole budget, epsilon", "none", {"{{population}}": f"fedseal_site_ledger_epsilon{ON}"}, now=True),
        Panel("Since the last answer", "s", {"seconds": f"time() - fedseal_site_last_answer_timestamp_seconds{ON}"}),
        Panel(
            "Messages an hour",
            "none",
            {"{{stage}}: {{outcome}}": f"increase(fedseal_site_messages_total{ON}[1h])"},
        ),
        Panel("Seconds of a message, 95 %", "s", {"{{stage}}": slow("fedseal_site_message_seconds", "stage")}),
        Panel("Connections an hour", "none", {"joined": f"increase(fedseal_site_connections_total{ON}[1h])"}),
        Panel(
            "Store and disk",
            "bytes",
            {"store": f"fedseal_site_store_bytes{ON}", "free": f"fedseal_site_disk_free_bytes{ON}"},
        ),
        Panel("Expires in", "s", {"{{what}}": f"fedseal_site_expires_timestamp_seconds{ON} - time()"}, now=True),
        Panel("Store readable", "none", {"readable": f"fedseal_site_store_readable{ON}"}, now=True),
        Panel("Events of the log an hour", "none", {"{{event}}": f"increase(fedseal_events_total{ON}[1h])"}),
    ),
)


def dashboard_text(made: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    panels = [_panel(number, panel) for number, panel in enumerate(made.panels)]
    whole = {
        "title": made.title,
        "uid": made.job,
        "tags": ["fedseal"],
        "editable": True,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), _instances(made.job)]},
        "panels": panels,
    }
    return json.dumps(whole, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, ACROSS)
    targets = [
        {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": SOURCE, "instant": panel.now}
        for i, (legend, expr) in enumerate(panel.lines.items())
    ]
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "stat" if panel.now else "timeseries",
        "datasource": SOURCE,
        "gridPos": {"h": HIGH, "w": WIDE, "x": column * WIDE, "y": row * HIGH},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"textMode": "value_and_name"} if panel.now else {"tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _instances(job: str) -> dict[str, Any]:
    query = f'label_values(up{{job="{job}"}}, instance)'
    return {
        "name": "instance",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


DASHBOARDS = (SERVER, SITE)

if __name__ == "__main__":
    for each in DASHBOARDS:
        (Path(__file__).parent / each.file).write_text(dashboard_text(each), encoding="utf-8")
