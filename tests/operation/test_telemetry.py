"""Metrics of a server and of sites: what a run leaves in them, what they say of stores, and when nobody is ready."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from support.enrolled import settled
from support.flower import Federation, Script, make_federation
from support.spoilt import of_version
from support.watched import Watched, site_of

from fedseal.client.site_config import read_site
from fedseal.client.telemetry import SiteTelemetry
from fedseal.errors import ConfigError
from fedseal.operation.config import OperationPart
from fedseal.operation.listener import Check
from fedseal.operation.places import certificate_expiry
from fedseal.server.coordination import ordered
from fedseal.server.link import Link
from fedseal.server.listening import Listener
from fedseal.server.recording import Events
from fedseal.server.runs_folder import RunsFolder
from fedseal.server.server_config import Coordination, read_server
from fedseal.server.store import ServerStore
from fedseal.server.telemetry import ServerTelemetry
from fedseal.simulation.deployed.certificates import make_server_certificate

SAID = Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)


class StillLink:
    """A link of which two sites are connected."""

    def __init__(self) -> None:
        self.listens = True

    def alive(self) -> bool:
        return self.listens

    def online(self) -> list[str]:
        return ["site-1", "site-2"]


def server_of(federation: Federation) -> tuple[ServerTelemetry, StillLink]:
    folder = federation.folder
    if not (folder / "tls").is_dir():
        (folder / "tls").mkdir()
        made = make_server_certificate(folder / "tls")
        assert made.certificate.parent == folder / "tls"
        (folder / "runs").mkdir()
    certificate = next(p for p in (folder / "tls").iterdir() if b"BEGIN CERT" in p.read_bytes())
    listener = Listener("127.0.0.1", 0, certificate, certificate)
    link = StillLink()
    config = Coordination(listener, federation.server, folder / "runs", {}, OperationPart())
    return ServerTelemetry(config, cast(Link, link)), link


def value(registry: CollectorRegistry, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    return registry.get_sample_value(name, dict(labels or {}))


def wrong(checks: Callable[[], object]) -> list[str]:
    return [check.name for check in cast(list[Check], checks()) if check.wrong]


def test_a_site_counts_its_messages_and_shows_its_ledger(tmp_path: Path) -> None:
    watched = Watched(make_federation(tmp_path, 3, epsilon=50.0), SAID)
    before = value(watched.telemetry[1].registry, "fedseal_site_ledger_available_ratio", {"population": "train"})
    assert before == 1.0
    assert watched.train(rounds=2) is None
    registry = watched.telemetry[1].registry
    for stage in ("advertise", "share", "mask", "consistency", "unmask"):
        assert value(registry, "fedseal_site_messages_total", {"stage": stage, "outcome": "answered"}) == 2
        assert value(registry, "fedseal_site_message_seconds_count", {"stage": stage}) == 2
    # HELLO and the end of the run.
    assert value(registry, "fedseal_site_messages_total", {"stage": "run", "outcome": "answered"}) == 2
    assert value(registry, "fedseal_site_connected") == 1
    left = value(registry, "fedseal_site_ledger_available_ratio", {"population": "train"})
    assert left is not None
    assert 0 < left < before
    assert value(registry, "fedseal_site_ledger_epsilon", {"population": "train"}) == pytest.approx(50.0)
    assert value(registry, "fedseal_site_halted") == 0
    assert value(registry, "fedseal_site_store_readable") == 1
    assert (value(registry, "fedseal_site_store_bytes") or 0) > 10_000


def test_refusals_are_counted_by_their_fixed_code_at_both_sides(tmp_path: Path) -> None:
    failing = Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True, error={1: ValueError("odd")})
    federation = make_federation(tmp_path, 3, epsilon=50.0)
    Watched(federation, SAID).train(rounds=1)
    server, _ = server_of(federation)
    assert value(server.registry, "fedseal_server_log_entries")
    watched = Watched(federation, failing)
    watched.train(rounds=1)
    asked = {"stage": "mask", "outcome": "task"}
    assert value(watched.telemetry[1].registry, "fedseal_site_messages_total", asked) == 1
    assert value(watched.telemetry[2].registry, "fedseal_site_messages_total", asked) is None
    dropped = {"stage": "mask", "reason": "task"}
    assert value(server.registry, "fedseal_server_dropouts_total", dropped) == 1
    # Once, however often somebody asks.
    assert value(server.registry, "fedseal_server_dropouts_total", dropped) == 1


def test_what_happened_before_the_start_is_not_counted_again(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3, epsilon=50.0)
    Watched(federation, Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True, error={1: ValueError("odd")})).train(rounds=1)
    server, _ = server_of(federation)
    assert value(server.registry, "fedseal_server_dropouts_total", {"stage": "mask", "reason": "task"}) is None


def test_a_server_shows_its_log_its_sites_and_what_expires(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3, epsilon=50.0)
    server, _ = server_of(federation)
    assert value(server.registry, "fedseal_server_log_entries") == 0
    Watched(federation, SAID).train(rounds=1)
    registry = server.registry
    entries = value(registry, "fedseal_server_log_entries") or 0
    assert entries > 5
    cosigned = [value(registry, "fedseal_server_log_cosigned_entries", {"site": f"site-{n}"}) for n in (1, 2, 3)]
    assert all(c is not None and 0 < c <= entries for c in cosigned)
    assert (value(registry, "fedseal_server_nodes_online"), value(registry, "fedseal_server_nodes_enrolled")) == (2, 3)
    expires = value(registry, "fedseal_server_expires_timestamp_seconds", {"what": "certificate"})
    newest = value(registry, "fedseal_server_log_newest_timestamp_seconds") or 0
    assert expires is not None
    assert expires > newest > 1_700_000_000
    assert wrong(server.ready) == []


def order_with(runs: Path, name: str, *events: dict[str, object]) -> None:
    with ordered(runs, name) as (_, order):
        made = order({"fedseal-sites": 3})
    log = Events(made.folder)
    for event in events:
        log.write(str(event.pop("event")), **event)


def round_event(number: int, seconds: float, attempts: int = 1) -> dict[str, object]:
    stages = {"mask": {"seconds": seconds / 2, "up": 10}}
    return {"event": "round", "number": number, "seconds": seconds, "sites": 3, "attempts": attempts, "stages": stages}


def test_runs_rounds_and_stages_are_counted_as_they_are_written(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    (tmp_path / "runs").mkdir()
    (tmp_path / "tls").mkdir()
    make_server_certificate(tmp_path / "tls")
    order_with(tmp_path / "runs", "old", {"event": "started"}, round_event(1, 9.0), {"event": "finished"})
    server, _ = server_of(federation)
    registry = server.registry
    assert value(registry, "fedseal_server_rounds_total") == 0
    order_with(tmp_path / "runs", "new", {"event": "started"}, round_event(1, 2.0, attempts=3))
    order_with(tmp_path / "runs", "waits")
    assert value(registry, "fedseal_server_rounds_total") == 1
    assert value(registry, "fedseal_server_attempts_total") == 3
    assert value(registry, "fedseal_server_round_seconds_sum") == 2.0
    assert value(registry, "fedseal_server_stage_seconds_sum", {"stage": "mask"}) == 1.0
    states = {s: value(registry, "fedseal_server_runs", {"state": s}) for s in ("ordered", "running", "finished")}
    assert states == {"ordered": 1, "running": 1, "finished": 1}


def test_half_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    order_with(tmp_path, "run", {"event": "started"})
    runs = RunsFolder(tmp_path)
    assert runs.new() == []
    (folder,) = tmp_path.glob("[!.]*")
    line = json.dumps(round_event(2, 1.5)) + "\n"
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(line[:20])
        file.flush()
        assert runs.new() == []
        file.write(line[20:])
    (found,) = runs.new()
    assert (found.number, found.seconds, found.stages) == (2, 1.5, (("mask", 0.75),))
    assert runs.under_way() == [(folder.name, "running", 2)]


# Readiness, each check with what makes it fail


def test_a_server_whose_listener_has_ended_is_not_ready(tmp_path: Path) -> None:
    server, link = server_of(make_federation(tmp_path, 3))
    assert wrong(server.ready) == []
    link.listens = False
    assert wrong(server.ready) == ["listener"]


def test_a_server_whose_log_lost_its_checkpoint_is_not_ready(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3, epsilon=50.0)
    Watched(federation, SAID).train(rounds=1)
    server, _ = server_of(federation)
    assert wrong(server.ready) == []
    with ServerStore.open(federation.server).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE log_heads SET frontier = zeroblob(length(frontier))")
    assert wrong(server.ready) == ["log"]


def test_a_store_that_cannot_be_written_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedseal.operation import places

    federation = make_federation(tmp_path, 3)
    server, _ = server_of(federation)
    monkeypatch.setattr(places, "BUSY", 0.05)
    with ServerStore.open(federation.server).engine.begin():
        assert wrong(server.ready) == ["store"]
    monkeypatch.setattr(places, "LEAST_FREE", 1 << 62)
    assert wrong(server.ready) == ["store"]
    federation.server.unlink()
    assert "store" in wrong(server.ready)
    assert value(server.registry, "fedseal_server_store_readable") == 0


def test_a_site_is_not_ready_without_its_server_or_with_other_code(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    now = [0.0]
    site = site_of(federation, 1)
    telemetry = SiteTelemetry(site, 60.0, clock=lambda: now[0])
    assert wrong(telemetry.ready) == []
    now[0] = 61.0
    assert wrong(telemetry.ready) == ["server"]
    telemetry.connection(connected=True)
    assert wrong(telemetry.ready) == []
    telemetry.connection(connected=False)
    now[0] = 100.0
    # Lost again: it counts from when it was lost first.
    telemetry.connection(connected=False)
    assert wrong(telemetry.ready) == []
    now[0] = 122.0
    assert wrong(telemetry.ready) == ["server"]

    def other_code() -> None:
        raise ConfigError("the code is not what was approved")

    cast(SimpleNamespace, site).check_code = other_code
    telemetry.connection(connected=True)
    assert wrong(telemetry.ready) == ["code"]


def test_the_end_of_the_membership_is_shown_at_both_sides(tmp_path: Path) -> None:
    seats = settled(tmp_path, "a", "b", "c")
    server = read_server(seats.server_folder / "server.toml")
    (seats.server_folder / "runs").mkdir(exist_ok=True)
    site = read_site(seats.site_folder("a") / "site.toml")
    at_server, at_site = ServerTelemetry(server, cast(Link, StillLink())), SiteTelemetry(site, 60.0)
    what = {"what": "membership"}
    ends = float(seats.server.identity.epoch.membership.valid_until) if seats.server.identity.epoch else None
    assert ends == value(at_server.registry, "fedseal_server_expires_timestamp_seconds", what)
    assert ends == value(at_site.registry, "fedseal_site_expires_timestamp_seconds", what)
    authority = value(at_site.registry, "fedseal_site_expires_timestamp_seconds", {"what": "authority"})
    assert authority is not None
    # Another epoch is followed while the program runs.
    seats.take(seats.remove("c"), "a", "b")
    assert value(at_server.registry, "fedseal_server_nodes_enrolled") == 2


def test_a_file_without_a_certificate_has_no_expiry(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    assert certificate_expiry("certificate", tmp_path / "none.pem") is None
    assert certificate_expiry("certificate", tmp_path / "missing.pem") is None
    made = make_server_certificate(tmp_path)
    assert certificate_expiry("certificate", made.certificate) is not None
    (tmp_path / "other.pem").write_bytes(of_version(5, made.certificate.read_bytes()))
    assert certificate_expiry("certificate", tmp_path / "other.pem") is None
