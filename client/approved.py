"""What a site's node computes with: the study's code that its file names and no other, in its own process or in the
node's.
"""

import logging
import os
from typing import TYPE_CHECKING, Protocol

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedseal.client.facts import TASK
from fedseal.client.mod import DATA_KEY, STORE_KEY, STUDY_KEY, sealed_mod
from fedseal.client.site_config import Site
from fedseal.operation.events import StudyWithin
from fedseal.operation.logs import say

if TYPE_CHECKING:
    from fedseal.client.app import Warm

log = logging.getLogger("fedseal.node")


class Work(Protocol):
    """The site's own functions for the messages that compute something."""

    def read_data(self) -> None: ...

    def train(self, message: Message, context: Context) -> Message: ...

    def evaluate(self, message: Message, context: Context) -> Message: ...

    def close(self) -> None: ...


class ApprovedWork:
    """The site's own functions in the node's own process: loaded once, from code that is approved.

    Args:
        site: whose code and data.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._warm: Warm | None = None

    def load(self) -> "Warm":
        """Load the study's code and what it trains with.

        Raises:
            ConfigError: the code is not, or no longer, what was approved.
        """
        if self._warm is None:
            from fedseal.client.app import Warm
            from fedseal.study_code import load_task

            _limit_threads(self._site.threads)
            self._site.check_code()
            load_task(self._site.study.contract.task, self._site.study.folder)
            # Again: what was loaded is what was approved, or it is not used.
            self._site.check_code()
            self._warm = Warm()
        return self._warm

    def read_data(self) -> None:
        """Load the code and read the site's data, so that the first message finds them; DataError as for a message."""
        from fedseal.privacy.store import SiteStore

        config: dict[str, bool | float | int | str] = {TASK: self._site.study.contract.task}
        self.load().work(Context(0, 0, node_config(self._site), RecordDict(), config), SiteStore.open(self._site.store))

    def train(self, message: Message, context: Context) -> Message:
        """Train, as `client.app` does."""
        return self.load().train(message, context)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Measure, as `client.app` does."""
        return self.load().evaluate(message, context)

    def close(self) -> None:
        """Nothing to end: it ends with the node."""


def work_of(site: Site) -> Work:
    """The site's own functions, in a process of their own unless the site's file says otherwise.

    Raises:
        ConfigError: that process cannot be kept apart as the file requires.
    """
    if site.isolation.mode == "off":
        say(log, StudyWithin())
        return ApprovedWork(site)
    from fedseal.client.isolation.work import IsolatedWork

    work = IsolatedWork(site)
    work.start()
    return work


def resident_app(site: Site, work: Work) -> ClientApp:
    """The sealed ClientApp that a site's node runs.

    Args:
        site: whose.
        work: what it computes with; to be closed when the node stops.
    """
    app = ClientApp(mods=[sealed_mod])
    app.train()(work.train)
    app.evaluate()(work.evaluate)
    if site.preload:
        work.read_data()
    return app


def node_config(site: Site) -> dict[str, bool | float | int | str]:
    """What a node's app is told by its own side: where its store, its data and its code are."""
    return {STORE_KEY: str(site.store), DATA_KEY: str(site.data), STUDY_KEY: str(site.study.folder)}


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
