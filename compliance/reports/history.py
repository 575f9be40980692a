"""Which entries of a log are about a model: those of the runs that led to it, their data, labels and code.

One pass over the log; then a walk back from the model over its runs to the models that these began with.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.reports.template import Scope
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.merkle import leaf_hash


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that was read, and where it stands."""

    index: int
    event: Event

    @property
    def body(self) -> Frozen:
        """What it says."""
        return self.event.body

    @property
    def leaf_hash(self) -> bytes:
        """Its hash in the tree."""
        return leaf_hash(self.event.leaf)

    @property
    def type(self) -> str:
        """Its type without the version."""
        return self.event.kind.name.partition("/")[0]


@dataclass(slots=True)
class History:
    """A log, sorted for the reports about one model.

    ``models`` are the model and its ancestors, newest first; ``runs`` those that led from one to the next.
    """

    entries: list[Entry]
    models: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    datasets: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    code: set[str] = field(default_factory=set)
    guidelines: set[str] = field(default_factory=set)

    @property
    def model(self) -> str:
        """The model that the report is about."""
        return self.models[0]

    def knows(self, scope: Scope) -> bool:
        """Whether the log names anything of a scope: only then does it say something that it lacks an entry there."""
        named = {"runs": self.runs, "data": self.datasets, "labels": self.labels, "code": self.code}
        return bool(named.get(scope, True))

    def of(self, kind: str, scope: Scope = "log") -> list[Entry]:
        """The entries of a type within a scope, in the log's order."""
        return [entry for entry in self.entries if entry.type == kind and self._within(entry, scope)]

    def _within(self, entry: Entry, scope: Scope) -> bool:
        match scope:
            case "log":
                return True
            case "runs":
                return entry.event.run in self.runs
            case "model":
                return getattr(entry.body, "model", None) == self.model
            case "ancestors":
                return getattr(entry.body, "model", None) in self.models[1:]
            case "data":
                return getattr(entry.body, "dataset", None) in self.datasets
            case "labels":
                return (
                    getattr(entry.body, "label_set", None) in self.labels
                    or getattr(entry.body, "guideline", None) in self.guidelines
                )
            case "code":
                named = getattr(entry.body, "code", None) or getattr(entry.body, "environment", None)
                return named in self.code


def read_history(leaves: Iterable[bytes], model: str) -> History:
    """A log as seen from one of its models.

    Args:
        leaves: all of it.
        model: the digest, or how it begins; with or without ``sha256:``.

    Raises:
        ConfigError: no model of the log is called so, or several are.
        PeerError: an entry cannot be read.
    """
    history = History([Entry(index, read_event(leaf)) for index, leaf in enumerate(leaves)])
    _walk(history, _named(history.entries, model))
    _collect(history)
    return history


def _named(entries: list[Entry], model: str) -> str:
    known: dict[str, None] = {}
    for entry in entries:
        for name in ("model", "model_in"):
            digest = getattr(entry.body, name, None)
            if isinstance(digest, str):
                known[digest] = None
    wanted = "sha256:" + model.removeprefix("sha256:").lower()
    found = [digest for digest in known if digest.startswith(wanted)] if len(wanted) >= 11 else []
    if len(found) != 1:
        said = "several models of this log begin so" if found else "this log knows no such model"
        raise ConfigError(said, next_step="Give its digest as `sha256sum model.safetensors` shows it.")
    return found[0]


def _walk(history: History, model: str) -> None:
    """Back from a model: through the run that made it, to the model that the run began with, and so on."""
    made: dict[str, list[str]] = {}
    began: dict[str, list[str]] = {}
    for entry in history.entries:
        run = entry.event.run
        match entry.body:
            case bodies.RunCreated() as body if run is not None:
                began.setdefault(run, []).extend(d for d in (body.model_in, *body.selected_with) if d is not None)
            case bodies.RunFinished(model=str() as digest) | bodies.Aggregated(model_in=str() as digest) if run:
                made.setdefault(digest, []).append(run)
            case subjects.ModelRegistered(model=digest, parent=str() as parent):
                began.setdefault(digest, []).append(parent)
                made.setdefault(digest, []).append(digest)
            case _:
                pass
    waiting, runs = [model], dict[str, None]()
    while waiting:
        digest = waiting.pop(0)
        if digest in history.models:
            continue
        history.models.append(digest)
        for run in made.get(digest, []):
            # A run's first model is not made by it.
            if digest not in began.get(run, []):
                runs[run] = None
                waiting += began.get(run, [])
    history.runs = [run for run in runs if not run.startswith("sha256:")]


def _collect(history: History) -> None:
    """Which data, labels, guidelines and code the runs name."""
    for entry in history.entries:
        if entry.event.run in history.runs:
            for name, found in (
                ("dataset", history.datasets),
                ("label_set", history.labels),
                ("code", history.code),
                ("environment", history.code),
            ):
                value = getattr(entry.body, name, None)
                if value is not None:
                    found.add(value)
    history.guidelines |= {
        entry.body.guideline
        for entry in history.entries
        if isinstance(entry.body, subjects.LabelSetRegistered) and entry.body.label_set in history.labels
    }
