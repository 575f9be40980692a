"""`fedseal site run`: the site's resident node, as a service runs it."""

import logging
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fedseal.cli.services import service_logs

if TYPE_CHECKING:
    from fedseal.client.node import ResidentNode

log = logging.getLogger("fedseal.node")
# Windows has no SIGHUP.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run_node(config: Path) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        config: the node's file.

    Raises:
        ConfigError: the file, or something that it names, is not as it has to be. Nothing was sent anywhere.
    """
    from fedseal.client.fleet import Fleet
    from fedseal.client.node import ResidentNode, resident_app
    from fedseal.client.running import alone
    from fedseal.client.site_config import read_site
    from fedseal.compliance.site_rules.adopt import adopt_policy
    from fedseal.privacy.store import SiteStore

    service_logs()
    site = read_site(config)
    with alone(site.store):
        store = SiteStore.open(site.store)
        log.info("site %s of federation %s", store.identity.name, store.identity.roster.federation)
        if site.policy is not None and adopt_policy(store, site.policy, datetime.now(UTC)):
            log.info("the policy has changed; its commitment goes into both logs")
        node = ResidentNode(Fleet(site.address, site.trust, site.key), site, resident_app(site))
        handle_signals(node)
        try:
            node.run()
        except KeyboardInterrupt:
            log.info("interrupted")
        log.info("stopped")


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
        log.info("stopping after this message")

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ask)
