"""How often each event of the log has happened, as a metric."""

import logging

from prometheus_client import CollectorRegistry, Counter

from fedseal.operation.events import LogEvent
from fedseal.operation.logs import UNLISTED


class EventCounter(logging.Handler):
    """Counts what is logged, by the names of the closed list.

    Args:
        registry: gets the metric.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._count = Counter("fedseal_events", "Events that were logged.", ["event"], registry=registry)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        name = record.msg.name if isinstance(record.msg, LogEvent) else UNLISTED
        self._count.labels(name).inc()
