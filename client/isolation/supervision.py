"""In the node: has a process of the study ready, loaded with what is asked for, and starts another where one ended."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from fedseal.client.isolation.messages import Answered, Failed, Hold, Load, Loaded
from fedseal.client.isolation.output import StudyLog
from fedseal.client.isolation.pieces import Call
from fedseal.client.isolation.places import check_secrets, readable
from fedseal.client.isolation.process import StoppedError, StudyProcess
from fedseal.client.isolation.service import FailureKind
from fedseal.client.isolation.settings import Barrier
from fedseal.client.release import TaskError
from fedseal.client.site_config import Site
from fedseal.errors import ConfigError, DataError, OperatorError
from fedseal.operation.events import StudyApart, StudyStopped
from fedseal.operation.logs import say
from fedseal.wire import DecodeError, decode, encode

log = logging.getLogger("fedseal.node")

M = TypeVar("M", Answered, Loaded)
# Bytes: an answer that holds nothing but a failure.
WORDS = 1 << 19


@dataclass(frozen=True, slots=True)
class Loading:
    """What a process has to have loaded: the study with one version of the data.

    ``version`` is the registered one's number; None at a site that has registered none. ``roster`` is its digest.
    """

    load: Load
    version: int | None
    roster: bytes


class Supervised:
    """The study's process of a site, started at the first use.

    Args:
        site: whose.
        windows: the folder of windows, if the node has one.
    """

    def __init__(self, site: Site, windows: Path | None = None) -> None:
        self._site = site
        self._windows = windows
        self._process: StudyProcess | None = None
        self._loaded: Loading | None = None

    def start(self) -> StudyProcess:
        """The running process; a new one if there is none.

        Raises:
            ConfigError: a barrier that the site's file requires does not hold here, or a secret lies where the
                study's code may read.
        """
        if self._process is None:
            places = readable(self._site.study.folder, self._site.data, self._windows)
            check_secrets(places, (self._site.store, self._site.key_file))
            store = self._site.store
            printed = StudyLog(store.with_name(f"{store.stem}-study.log"))
            process = StudyProcess(self._site.isolation, places, self._site.threads, printed)
            try:
                check_required(process.holds, self._site.isolation.require)
            except ConfigError:
                process.end()
                raise
            told = "; ".join(f"{hold.barrier}: {hold.by or 'NOT HELD'}" for hold in process.holds)
            say(log, StudyApart(process.number, told))
            self._process, self._loaded = process, None
        return self._process

    def ask(self, loading: Loading, seen: Callable[[], object], call: Call, message: bytes, limit: int) -> Answered:
        """Make a call to a process that has loaded what it needs.

        A process that was killed from outside is started once more: no answer has left it. Whatever else ends it is an
        error, and the next call finds a new one.

        Args:
            loading: what it needs.
            seen: looks whether the data still is what it was, after it has been read.
            call: which.
            message: what is asked.
            limit: bytes that an answer can need.

        Raises:
            StoppedError: the process was ended, or ended by itself.
            TaskError, ConfigError, DataError: what the study's code raised.
        """
        again = False
        while True:
            try:
                process = self._ready(loading, seen)
                return self._read(process.ask(call, message, limit), Answered)
            except StoppedError as error:
                say(log, StudyStopped(error.message))
                self.close()
                if again or not error.killed:
                    raise
                again = True

    def load(self, loading: Loading, seen: Callable[[], object]) -> None:
        """Have the study and the data loaded; raises as `ask` does."""
        try:
            self._ready(loading, seen)
        except StoppedError:
            self.close()
            raise

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process, self._loaded = self._process, None, None
        if process is not None:
            process.end()

    def _ready(self, loading: Loading, seen: Callable[[], object]) -> StudyProcess:
        process = self.start()
        if self._loaded != loading:
            self._loaded = None
            self._site.check_code()
            self._read(process.ask(Call.LOAD, encode(loading.load), WORDS), Loaded)
            # Again: what was loaded is what was approved, and what was read is what was registered.
            self._site.check_code()
            seen()
            self._loaded = loading
        return process

    def _read(self, raw: bytes, kind: type[M]) -> M:
        try:
            found = decode(raw, kind, Failed)
        except DecodeError as error:
            raise StoppedError(f"its answer cannot be read: {error.message}") from None
        if isinstance(found, kind):
            return found
        raise failure(cast(Failed, found))


def failure(failed: Failed) -> OperatorError:
    """What a failure of the study's code is at the node; its trace is for the site's own incidents."""
    error: OperatorError
    match failed.kind:
        case FailureKind.CONFIG:
            error = ConfigError(failed.message, next_step=failed.next_step)
        case FailureKind.DATA:
            error = DataError(failed.message, next_step=failed.next_step)
        case _:
            error = TaskError(f"the study's code raised {failed.message}")
    error.add_note(f"in the study's process:\n{failed.trace}")
    return error


def check_required(holds: tuple[Hold, ...], required: tuple[Barrier, ...]) -> None:
    """See that everything holds that a site requires; ConfigError names what does not, and why."""
    held = {hold.barrier: hold for hold in holds}
    for barrier in required:
        hold = held.get(barrier.value)
        if hold is None or not hold.by:
            why = "nothing is known of it" if hold is None else hold.missing
            kept = ", ".join(f'"{other.value}"' for other in required if other is not barrier)
            raise ConfigError(
                f"the study's code cannot be kept apart here: {barrier.value}: {why}",
                next_step="Run the node on Linux 5.13 or newer with Landlock, outside of containers that forbid it; "
                f"or do without: require = [{kept}] in the site's file, table [isolation].",
            )
