"""What a site's node shows its own operators: how its connection, its messages, its ledgers and its store are.

All of it stays at the site: it is answered where the site's own file says, to whoever asks there, and the server never
asks. How long messages take does say something about how much data there is.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flwr.app import Message
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError

from fedseal import __version__
from fedseal.client.records import control_bytes
from fedseal.client.requests import STAGES
from fedseal.client.site_config import Site
from fedseal.compliance.journal.tables import EVIDENCE
from fedseal.errors import FedsealError, PeerError
from fedseal.operation.listener import Check
from fedseal.operation.places import Expiry, certificate_expiry, free_bytes, store_bytes, store_check
from fedseal.privacy.ledger import Terms
from fedseal.privacy.membership.documents import Epoch
from fedseal.privacy.runs import ControlMessage
from fedseal.privacy.secagg.header import AdvertiseRequest
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Stage
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import Transaction
from fedseal.wire import DecodeError, decode, tag_of

# What the messages of a round are, and those that open and close a run; anything else is none of ours.
_STAGES = {
    **{kind.TAG: stage.label for kind, stage in STAGES.items()},
    AdvertiseRequest.TAG: Stage.ADVERTISE.label,
    ControlMessage.TAG: "run",
}
OTHER = "other"
ANSWERED, NO_ANSWER = "answered", "none"
SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


def stage_of(message: Message) -> str:
    """What a message asks for: a stage of a round, ``run``, or ``other``."""
    try:
        return _STAGES.get(tag_of(control_bytes(message)) or 0, OTHER)
    except PeerError:
        return OTHER


def outcome_of(reply: Message) -> str:
    """How a message was answered: ``answered``, the fixed code of a refusal, or ``none`` if by no sealed message."""
    try:
        raw = control_bytes(reply) if reply.has_content() else b""
        if tag_of(raw) != Refusal.TAG:
            return ANSWERED if raw else NO_ANSWER
        return RefusalCode(decode(raw, Refusal).code).name.lower()
    except (PeerError, DecodeError):
        return NO_ANSWER


class SiteTelemetry:
    """A node's metrics, and whether it is ready.

    Args:
        site: whose node it is.
        patience: seconds without the server after which it is not ready.
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(self, site: Site, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._lost: float | None = clock()
        self.registry = CollectorRegistry()
        Gauge("fedseal_build_info", "The version.", ["version"], registry=self.registry).labels(__version__).set(1)
        self._connected = Gauge("fedseal_site_connected", "1 while the server has let it in.", registry=self.registry)
        self._connections = Counter("fedseal_site_connections", "How often it joined.", registry=self.registry)
        self._messages = Counter(
            "fedseal_site_messages", "Messages answered.", ["stage", "outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "fedseal_site_message_seconds",
            "Seconds that a message took at the site.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._last = Gauge("fedseal_site_last_answer_timestamp_seconds", "When it answered.", registry=self.registry)
        self.registry.register(SiteFacts(site))

    def connection(self, *, connected: bool) -> None:
        """The node was let in, or has lost the server."""
        with self._lock:
            if connected:
                self._connections.inc()
                self._lost = None
            elif self._lost is None:
                self._lost = self._clock()
        self._connected.set(int(connected))

    def answered(self, stage: str, outcome: str, seconds: float) -> None:
        """A message was answered; see `stage_of` and `outcome_of`."""
        self._messages.labels(stage, outcome).inc()
        self._seconds.labels(stage).observe(seconds)
        self._last.set_to_current_time()

    def ready(self) -> Sequence[Check]:
        """Is the server there, can the store be written, is the code still what was approved?"""
        with self._lock:
            away = 0.0 if self._lost is None else self._clock() - self._lost
        gone = f"without the server for {away:.0f} seconds" if away > self._patience else ""
        return [Check("server", gone), store_check(self._site.store), self._code()]

    def _code(self) -> Check:
        try:
            self._site.check_code()
        except FedsealError as error:
            return Check("code", error.message)
        return Check("code")


class SiteFacts(Collector):
    """What is looked up when somebody asks.

    Args:
        site: whose store and files are read.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics of store, ledgers and files."""
        store = self._site.store
        size = store_bytes(store)
        yield GaugeMetricFamily("fedseal_site_store_bytes", "What the store takes on disk.", value=size)
        yield GaugeMetricFamily("fedseal_site_disk_free_bytes", "Free on the store's disk.", value=free_bytes(store))
        left = GaugeMetricFamily(
            "fedseal_site_ledger_available_ratio", "Which part of a budget is left.", labels=["population"]
        )
        budget = GaugeMetricFamily("fedseal_site_ledger_epsilon", "A ledger's whole epsilon.", labels=["population"])
        halted, readable, epoch = 0, 0, self._site.epoch
        try:
            opened = SiteStore.open(store, reading=True)
            epoch = opened.identity.epoch
            with opened.transaction() as transaction:
                halted = int(_halted(transaction))
                for population, terms, ratio in _ledgers(transaction):
                    left.add_metric([population], ratio)
                    budget.add_metric([population], terms.epsilon)
            readable = 1
        except (FedsealError, SQLAlchemyError, OSError):
            # That there is nothing to read is what is told; `/readyz` says why.
            readable = 0
        yield left
        yield budget
        yield _expires(expiries(self._site.authority, epoch))
        yield GaugeMetricFamily("fedseal_site_halted", "1 where a log contradicted itself.", value=halted)
        yield GaugeMetricFamily("fedseal_site_store_readable", "1 if the store can be read.", value=readable)


def expiries(authority: Path, epoch: Epoch | None) -> list[Expiry]:
    """What a site has that expires: whom it trusts to be the server, and its epoch of the federation."""
    found = [certificate_expiry("authority", authority)]
    member = [] if epoch is None else [Expiry("membership", float(epoch.membership.valid_until))]
    return [expiry for expiry in found if expiry is not None] + member


def _expires(found: Sequence[Expiry]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("fedseal_site_expires_timestamp_seconds", "When it expires.", labels=["what"])
    for expiry in found:
        family.add_metric([expiry.what], expiry.at)
    return family


def _ledgers(transaction: Transaction) -> Iterator[tuple[str, Terms, float]]:
    for population in transaction.populations():
        # Of no run: only the totals are looked at.
        ledger = transaction.ledger(population, b"", b"")
        yield population, ledger.terms, ledger.available / ledger.terms.budget


def _halted(transaction: Transaction) -> bool:
    if not inspect(transaction.connection).has_table(EVIDENCE.name):
        # A site that no server has spoken to yet.
        return False
    query = select(EVIDENCE.c.number).where(EVIDENCE.c.settled.is_(None)).limit(1)
    return transaction.connection.execute(query).first() is not None
