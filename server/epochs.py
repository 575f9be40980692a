"""A running server follows its store to the next epoch of the federation: who is let in, which certificate is shown.

Nodes that are in the federation no more are refused within a second of `fedseal server adopt`, also while a run is
under way. The run itself keeps the roster that it began with; the next one has the new roster.
"""

import logging
import threading
from pathlib import Path
from typing import Self

from fedseal.errors import ConfigError
from fedseal.operation.events import EpochBegun, EpochUnclear
from fedseal.operation.logs import say
from fedseal.privacy.membership.documents import Epoch
from fedseal.server.link import Link
from fedseal.server.listening import Listener
from fedseal.server.server_config import check_shown, node_keys
from fedseal.server.store import ServerStore

log = logging.getLogger("fedseal.server")

LOOK = 1.0


class EpochWatch:
    """Looks at the store once a second; a context manager.

    Args:
        link: the running SuperLink.
        listener: what it shows.
        store: the server's.
        epoch: the one that the link was started with; None where the server's file says who is let in, and nothing is
            to be followed.
    """

    def __init__(self, link: Link, listener: Listener, store: Path, epoch: Epoch | None) -> None:
        self._link = link
        self._listener = listener
        self._store = store
        self._epoch = epoch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="epochs", daemon=True)

    def __enter__(self) -> Self:
        if self._epoch is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._epoch is not None:
            self._thread.join(10)

    def look(self) -> None:
        """Follow the store, if it has moved on.

        Raises:
            ConfigError: its files do not fit its epoch, yet.
        """
        epoch = ServerStore.open(self._store).identity.epoch
        if epoch is None or self._epoch is None or epoch.membership == self._epoch.membership:
            return
        # Who is refused comes first: it does not wait for a certificate.
        self._link.admit(node_keys(epoch))
        check_shown(self._listener, epoch)
        self._link.show_anew()
        say(log, EpochBegun(epoch.number, len(epoch.roster.sites)))
        self._epoch = epoch

    def _watch(self) -> None:
        said = ""
        while not self._stopped.wait(LOOK):
            try:
                self.look()
            except ConfigError as error:
                # Files are being replaced, or somebody has to look: said once.
                if error.message != said:
                    said = error.message
                    say(log, EpochUnclear(error.message))
