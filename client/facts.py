"""A request as the app's own function gets it: the facts of the signed header, the settings, and where things are.

Without torch: a process that hands requests on reads them with this, too.
"""

from pathlib import Path
from typing import Protocol, cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from fedseal.client.mod import STORE_KEY
from fedseal.client.records import CONTROL
from fedseal.client.release import DONE_PLAN, DONE_RELEASE
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import Randomness, Stream

# Where a node keeps the tables of its windows: a folder, in it one folder for each window by its number.
WINDOWS_KEY = "fedseal-windows"


class Participant(Protocol):
    """Which site it is, and where its randomness comes from."""

    @property
    def number(self) -> int: ...

    def randomness(self) -> Randomness: ...


class ReleaseStreams:
    """A site's randomness for one attempt at one release."""

    def __init__(self, identity: Participant, sequence: int, attempt: int) -> None:
        self._randomness = identity.randomness()
        self._release = (sequence, attempt)

    @classmethod
    def of(cls, identity: Participant, facts: ConfigRecord) -> "ReleaseStreams":
        """Those of a request, by the facts of its header."""
        return cls(identity, int(cast(int, facts["sequence"])), int(cast(int, facts["attempt"])))

    def __call__(self, *purpose: str | int) -> Stream:
        """The stream of one purpose."""
        return self._randomness.stream(*purpose, *self._release)


def settings_of(message: Message) -> ConfigRecord:
    """The task's settings; none of its own is an empty record."""
    records = [r for name, r in message.content.config_records.items() if name != CONTROL]
    return records[0] if records else ConfigRecord()


def setting(context: Context, key: str) -> str:
    """A text of the node's own configuration; ConfigError if it has none."""
    value = context.node_config.get(key)
    if not isinstance(value, str):
        raise ConfigError(f"the node's configuration has no {key!r}")
    return value


def task_reference(context: Context) -> str:
    """Which task the run's configuration names; ConfigError if it names none."""
    value = context.run_config.get("fedseal-task")
    if not isinstance(value, str):
        raise ConfigError("the run's configuration has no 'fedseal-task'")
    return value


def task_of(message: Message) -> dict[str, ArrayRecord | ConfigRecord]:
    """The task's records, without the facts."""
    records = {name: r for name, r in message.content.items() if isinstance(r, ArrayRecord | ConfigRecord)}
    return {name: record for name, record in records.items() if name != CONTROL}


def windows_folder(context: Context) -> Path | None:
    """The folder of windows, if the node names one."""
    windows = context.node_config.get(WINDOWS_KEY)
    return Path(windows) if isinstance(windows, str) else None


def reports_folder(context: Context) -> Path:
    """Where a site's reports of its windows are: beside its store."""
    store = Path(setting(context, STORE_KEY))
    return store.with_name(f"{store.stem}-windows")


def done(facts: ConfigRecord) -> ConfigRecord:
    """What this app made: the release of these facts, under their plan. Only code that did it may say so."""
    return ConfigRecord({DONE_RELEASE: facts["release"], DONE_PLAN: facts["plan"]})
