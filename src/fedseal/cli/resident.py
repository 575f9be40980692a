"""`fedseal site run`: the site's resident node, as a service runs it."""

import logging
import signal
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fedseal.cli.services import operated, warn
from fedseal.operation.config import LogFormat
from fedseal.operation.events import NodeBegun, PolicyAdopted, Stopped, Stopping
from fedseal.operation.logs import log_to_stderr, say

if TYPE_CHECKING:
    from fedseal.client.node import ResidentNode

log = logging.getLogger("fedseal.node")
# Windows has no SIGHUP.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_node(config: Path, log_format: LogFormat | None) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        config: the node's file.
        log_format: in place of what the file says.

    Raises:
        ConfigError: the file, or something that it names, is not as it has to be. Nothing was sent anywhere.
    """
    from fedseal.client.fleet import Fleet
    from fedseal.client.node import ResidentNode, resident_app, work_of
    from fedseal.client.running import alone
    from fedseal.client.site_config import read_site
    from fedseal.client.telemetry import SiteTelemetry
    from fedseal.compliance.site_rules.adopt import adopt_policy
    from fedseal.privacy.store import SiteStore

    log_to_stderr(log_format or "text")
    site = read_site(config)
    log_to_stderr(log_format or site.operation.log)
    warn(log, site.check_now(datetime.now(UTC)))
    telemetry = SiteTelemetry(site, site.operation.patience)
    with ExitStack() as services:
        services.enter_context(alone(site.store))
        store = SiteStore.open(site.store)
        say(log, NodeBegun(store.identity.name, store.identity.roster.federation))
        if site.policy is not None and adopt_policy(store, site.policy, datetime.now(UTC)):
            say(log, PolicyAdopted())
        services.enter_context(operated(site.operation, telemetry.registry, telemetry.ready))
        work = services.enter_context(closing(work_of(site)))
        node = ResidentNode(Fleet(site.address, site.trust, site.key), site, resident_app(site, work), telemetry)
        handle_signals(node)
        try:
            node.run()
        except KeyboardInterrupt:
            say(log, Stopping("at once"))
    say(log, Stopped())


def handle_signals(node: "ResidentNode") -> None:
    """The first signal stops the node after the message that it works at, at once if there is none; a second one ends
    it there and then.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        node.stop()
        if len(asked) > 1 or not node.busy:
            raise KeyboardInterrupt
        say(log, Stopping("after this message"))

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ask)
