"""What a coordination server shows its operators: runs, rounds and stages, who dropped out and why, its log, its disk.

Read from what the server has written, when somebody asks: the events of its runs, and the federation's log. Nothing in
the path of a round knows of it. All of it is known to the coordinator anyway.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fedseal import __version__
from fedseal.database import connect
from fedseal.errors import FedsealError
from fedseal.operation.listener import Check
from fedseal.operation.places import Expiry, certificate_expiry, free_bytes, store_bytes, store_check
from fedseal.privacy.membership.documents import Epoch
from fedseal.server.link import Link
from fedseal.server.log_facts import look_at_log, wrong_with_log
from fedseal.server.runs_folder import Happened, RunsFolder
from fedseal.server.server_config import Coordination
from fedseal.server.store import ServerStore

SECONDS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class ServerTelemetry(Collector):
    """A server's metrics, and whether it is ready. Counters begin with what happens after it was made.

    Args:
        config: the server's.
        link: its running listener.
    """

    def __init__(self, config: Coordination, link: Link) -> None:
        self._config = config
        self._link = link
        self._lock = threading.Lock()
        self._identity = ServerStore.open(config.store).identity
        self._engine = connect(config.store, reading=True)
        self.registry = registry = CollectorRegistry()
        # First, so that what it counts is shown by the counters that come after it.
        registry.register(self)
        Gauge("fedseal_build_info", "The version.", ["version"], registry=registry).labels(__version__).set(1)
        self._rounds = Counter("fedseal_server_rounds", "Rounds finished.", registry=registry)
        self._attempts = Counter("fedseal_server_attempts", "Attempts at finished rounds.", registry=registry)
        self._round_seconds = Histogram(
            "fedseal_server_round_seconds", "Seconds of a finished round.", buckets=SECONDS, registry=registry
        )
        self._stage_seconds = Histogram(
            "fedseal_server_stage_seconds",
            "Seconds of a stage of a finished round.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._dropouts = Counter(
            "fedseal_server_dropouts",
            "Sites that fell out of an attempt: silent, or with the fixed code of a refusal.",
            ["stage", "reason"],
            registry=registry,
        )
        self._runs = RunsFolder(config.runs)
        # What happened before is not counted.
        self._runs.new()
        self._seen = look_at_log(self._engine, self._identity.roster, None).entries

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count what is new, and look up the rest."""
        with self._lock:
            self._look_again()
            self._count(self._runs.new())
            yield from self._gauges()

    def ready(self) -> Sequence[Check]:
        """Does it listen, can its store be written, is its log whole?"""
        store = store_check(self._config.store)
        if not store.wrong:
            # Whoever asks waits no longer than that check did: opening a store that is held takes half a minute.
            self._look_again()
        listening = "" if self._link.alive() else "the listener for sites has ended"
        return [Check("listener", listening), store, self._log_check()]

    def _look_again(self) -> None:
        """A server may have moved to another epoch of its federation. What cannot be read now stays as it was."""
        if self._config.store.is_file():
            with contextlib.suppress(FedsealError):
                self._identity = ServerStore.open(self._config.store).identity

    def _count(self, events: Sequence[Happened]) -> None:
        for event in events:
            self._rounds.inc()
            self._attempts.inc(event.attempts)
            self._round_seconds.observe(event.seconds)
            for stage, seconds in event.stages:
                self._stage_seconds.labels(stage).observe(seconds)

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        config = self._config
        runs = GaugeMetricFamily("fedseal_server_runs", "Runs by state.", labels=["state"])
        for state, count in self._runs.states().items():
            runs.add_metric([state], count)
        yield runs
        online, enrolled = len(self._link.online()), len(self._identity.roster.sites)
        yield GaugeMetricFamily("fedseal_server_nodes_online", "Nodes that are connected.", value=online)
        yield GaugeMetricFamily("fedseal_server_nodes_enrolled", "Sites of the roster.", value=enrolled)
        yield GaugeMetricFamily(
            "fedseal_server_store_bytes", "What the store takes on disk.", value=store_bytes(config.store)
        )
        disk = GaugeMetricFamily("fedseal_server_disk_free_bytes", "Free on a disk.", labels=["place"])
        for place, path in (("store", config.store), ("runs", config.runs)):
            disk.add_metric([place], free_bytes(path))
        yield disk
        expires = GaugeMetricFamily("fedseal_server_expires_timestamp_seconds", "When it expires.", labels=["what"])
        for expiry in expiries(config, self._identity.epoch):
            expires.add_metric([expiry.what], expiry.at)
        yield expires
        yield from self._log_gauges()

    def _log_gauges(self) -> Iterator[GaugeMetricFamily]:
        entries = GaugeMetricFamily("fedseal_server_log_entries", "Entries of the federation's log.")
        newest = GaugeMetricFamily("fedseal_server_log_newest_timestamp_seconds", "When the newest was written.")
        cosigned = GaugeMetricFamily(
            "fedseal_server_log_cosigned_entries", "What a site has cosigned at most.", labels=["site"]
        )
        readable = 0
        try:
            facts = look_at_log(self._reading(), self._identity.roster, self._seen)
            entries.add_metric([], facts.entries)
            newest.add_metric([], facts.newest)
            for site, size in facts.cosigned:
                cosigned.add_metric([site], size)
            for stage, reason in facts.dropped:
                self._dropouts.labels(stage, reason).inc()
            # A log that was restored is shorter: then it is counted from its new end.
            self._seen, readable = facts.entries, 1
        except (FedsealError, SQLAlchemyError, OSError):
            # That there is nothing to read is what is told; `/readyz` says why.
            readable = 0
        yield entries
        yield newest
        yield cosigned
        yield GaugeMetricFamily("fedseal_server_store_readable", "1 if the store can be read.", value=readable)

    def _reading(self) -> Engine:
        # SQLite makes an empty file of one that is missing.
        if not self._config.store.is_file():
            raise FileNotFoundError
        return self._engine

    def _log_check(self) -> Check:
        try:
            return Check("log", wrong_with_log(self._reading(), self._identity.roster))
        except (FedsealError, SQLAlchemyError, OSError) as error:
            return Check("log", f"cannot be read: {type(error).__name__}")


def expiries(config: Coordination, epoch: Epoch | None) -> list[Expiry]:
    """What a server has that expires."""
    found = [certificate_expiry("certificate", config.listener.certificate)]
    member = [] if epoch is None else [Expiry("membership", float(epoch.membership.valid_until))]
    return [expiry for expiry in found if expiry is not None] + member
