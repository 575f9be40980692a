"""Everything that fedseal's programs say in their logs: a closed list of events with typed fields.

A field is a number, or a text that is known to be harmless: the name of a site, of a run or of a file, an address, a
digest, a fixed code, or words of fedseal's own about a connection. What a study's code or a library says is none of
these, and has no field.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

Value = str | int | float
# What a text field may hold at most; more is cut.
LONGEST = 300


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One thing that happened. Subclasses name it and say it in words."""

    name: ClassVar[str]
    level: ClassVar[int] = logging.INFO

    @property
    def words(self) -> str:
        """The event as a line of text, without time and place."""
        raise NotImplementedError

    def values(self) -> dict[str, Value]:
        """Its fields, texts shortened and on one line."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __str__(self) -> str:
        return one_line(self.words)


def one_line(text: str) -> str:
    """A text without control characters, at most `LONGEST` characters long: nobody writes lines of their own."""
    return "".join(c if c.isprintable() else " " for c in text)[:LONGEST]


def _plain(value: Value) -> Value:
    return one_line(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Stopped(LogEvent):
    """A program ended as it was asked to."""

    name: ClassVar[str] = "stopped"

    @property
    def words(self) -> str:
        return "stopped"


@dataclass(frozen=True, slots=True)
class Stopping(LogEvent):
    """A program was asked to end. ``after`` says what it still waits for."""

    name: ClassVar[str] = "stopping"
    after: str

    @property
    def words(self) -> str:
        return f"stopping{self.after and ' '}{self.after}"


@dataclass(frozen=True, slots=True)
class Watched(LogEvent):
    """Metrics and health are answered at an address."""

    name: ClassVar[str] = "operation.listening"
    host: str
    port: int

    @property
    def words(self) -> str:
        return f"metrics and health at http://{self.host}:{self.port}"


# The server


@dataclass(frozen=True, slots=True)
class Listening(LogEvent):
    """The server's listener for sites is up."""

    name: ClassVar[str] = "server.listening"
    host: str
    port: int
    sites: int

    @property
    def words(self) -> str:
        return f"listening at {self.host}:{self.port} for {self.sites} sites"


@dataclass(frozen=True, slots=True)
class EpochBegun(LogEvent):
    """A running server follows its store to the next epoch of the federation."""

    name: ClassVar[str] = "epoch.begun"
    epoch: int
    sites: int

    @property
    def words(self) -> str:
        return f"epoch {self.epoch} of the federation: {self.sites} sites"


@dataclass(frozen=True, slots=True)
class EpochUnclear(LogEvent):
    """A server's files do not fit the epoch of its store, or not yet. ``reason`` is fedseal's own words."""

    name: ClassVar[str] = "epoch.unclear"
    level: ClassVar[int] = logging.WARNING
    reason: str

    @property
    def words(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class EpochEnds(LogEvent):
    """The epoch that a server or a site has adopted ends soon. ``reason`` says when, in fedseal's own words."""

    name: ClassVar[str] = "epoch.ends"
    level: ClassVar[int] = logging.WARNING
    reason: str

    @property
    def words(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class ConsoleListening(LogEvent):
    """The console answers at an address."""

    name: ClassVar[str] = "console.listening"
    address: str

    @property
    def words(self) -> str:
        return f"console at {self.address}"


@dataclass(frozen=True, slots=True)
class RunBegun(LogEvent):
    """A run was begun or gone on with."""

    name: ClassVar[str] = "run.begun"
    run: str

    @property
    def words(self) -> str:
        return f"run {self.run}"


@dataclass(frozen=True, slots=True)
class RunFailed(LogEvent):
    """A run ended without its model. ``error`` is a class of fedseal's errors, ``reason`` its own words."""

    name: ClassVar[str] = "run.failed"
    level: ClassVar[int] = logging.ERROR
    run: str
    error: str
    reason: str

    @property
    def words(self) -> str:
        return f"run {self.run} failed: {self.reason}"


@dataclass(frozen=True, slots=True)
class RunBroken(LogEvent):
    """A run ended with something that nobody foresaw: the class of the exception. Its text is in the run's folder."""

    name: ClassVar[str] = "run.broken"
    level: ClassVar[int] = logging.ERROR
    run: str
    error: str
    kept: str

    @property
    def words(self) -> str:
        return f"run {self.run} failed with an unexpected {self.error}; see {self.kept} in the run's folder"


@dataclass(frozen=True, slots=True)
class RunStandsStill(LogEvent):
    """The disk takes nothing more: the run is tried again, and goes on when there is room."""

    name: ClassVar[str] = "run.standing"
    level: ClassVar[int] = logging.ERROR
    run: str
    fault: str

    @property
    def words(self) -> str:
        return f"run {self.run} stands still: {self.fault}; trying again"


@dataclass(frozen=True, slots=True)
class OrderUnreadable(LogEvent):
    """A folder among the runs holds no order that can be read."""

    name: ClassVar[str] = "order.unreadable"
    level: ClassVar[int] = logging.ERROR
    reason: str

    @property
    def words(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class WaitingForSites(LogEvent):
    """A run cannot begin before all its sites are connected."""

    name: ClassVar[str] = "run.waiting"
    online: int
    needed: int
    names: str

    @property
    def words(self) -> str:
        return f"waiting for sites: {self.online} of {self.needed} are connected ({self.names})"

    @classmethod
    def of(cls, online: Sequence[str], needed: int) -> "WaitingForSites":
        """From the names of those that are connected."""
        return cls(len(online), needed, ", ".join(online))


@dataclass(frozen=True, slots=True)
class NotIntroduced(LogEvent):
    """A node did not say under a signature which site it is."""

    name: ClassVar[str] = "site.not_introduced"
    level: ClassVar[int] = logging.WARNING
    node: int

    @property
    def words(self) -> str:
        return f"node {self.node} did not introduce itself"


@dataclass(frozen=True, slots=True)
class CloseUnconfirmed(LogEvent):
    """A site did not confirm that a run is over."""

    name: ClassVar[str] = "run.close_unconfirmed"
    level: ClassVar[int] = logging.WARNING

    @property
    def words(self) -> str:
        return "a site did not confirm that the run is closed"


@dataclass(frozen=True, slots=True)
class AnswerUnreadable(LogEvent):
    """What a node answered at a stage is no answer."""

    name: ClassVar[str] = "answer.unreadable"
    level: ClassVar[int] = logging.WARNING
    stage: str
    node: int

    @property
    def words(self) -> str:
        return f"{self.stage}: an answer of node {self.node} cannot be read"


@dataclass(frozen=True, slots=True)
class AnswerRefused(LogEvent):
    """What a site answered at a stage breaks the protocol; ``reason`` in fedseal's words."""

    name: ClassVar[str] = "answer.refused"
    level: ClassVar[int] = logging.WARNING
    stage: str
    peer: str
    reason: str

    @property
    def words(self) -> str:
        return f"{self.stage}: {self.peer}: {self.reason}"


@dataclass(frozen=True, slots=True)
class NodeFailed(LogEvent):
    """Flower says that a node did not answer: its fixed code, not its reason, which may quote a site's code."""

    name: ClassVar[str] = "node.failed"
    level: ClassVar[int] = logging.WARNING
    node: int
    code: int

    @property
    def words(self) -> str:
        return f"node {self.node}: Flower's error {self.code}"


@dataclass(frozen=True, slots=True)
class LogWordRefused(LogEvent):
    """What a site said about the federation's log is not taken."""

    name: ClassVar[str] = "log.word_refused"
    level: ClassVar[int] = logging.WARNING
    peer: str
    reason: str

    @property
    def words(self) -> str:
        return f"{self.peer}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Postponed(LogEvent):
    """Sites asked to be asked later, outside their hours or for a person to decide: the attempt is made again."""

    name: ClassVar[str] = "round.postponed"
    seconds: float

    @property
    def words(self) -> str:
        return f"a site asks to be asked later; again in {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class ScaffoldReset(LogEvent):
    """SCAFFOLD's variates begin anew."""

    name: ClassVar[str] = "scaffold.reset"
    level: ClassVar[int] = logging.WARNING
    round: int

    @property
    def words(self) -> str:
        return f"round {self.round}: the sites' whole weight has changed; SCAFFOLD begins anew"


# A site's node


@dataclass(frozen=True, slots=True)
class NodeBegun(LogEvent):
    """A site's node has read its file and its store."""

    name: ClassVar[str] = "node.begun"
    site: str
    federation: str

    @property
    def words(self) -> str:
        return f"site {self.site} of federation {self.federation}"


@dataclass(frozen=True, slots=True)
class PolicyAdopted(LogEvent):
    """The policy in the site's file is another one than before."""

    name: ClassVar[str] = "policy.adopted"

    @property
    def words(self) -> str:
        return "the policy has changed; its commitment goes into both logs"


@dataclass(frozen=True, slots=True)
class NumberNotKept(LogEvent):
    """The node's number could not be written beside the store: after a crash it joins as a new one."""

    name: ClassVar[str] = "node.number_not_kept"
    level: ClassVar[int] = logging.WARNING
    fault: str

    @property
    def words(self) -> str:
        return f"the node's number could not be kept: {self.fault}"


@dataclass(frozen=True, slots=True)
class Connected(LogEvent):
    """The server has let the node in."""

    name: ClassVar[str] = "node.connected"
    address: str
    node: int

    @property
    def words(self) -> str:
        return f"connected to {self.address} as node {self.node}"


@dataclass(frozen=True, slots=True)
class ConnectionLost(LogEvent):
    """The server cannot be reached, or does not let the node in. ``reason`` is about the connection."""

    name: ClassVar[str] = "node.connection_lost"
    level: ClassVar[int] = logging.WARNING
    reason: str

    @property
    def words(self) -> str:
        return f"{self.reason}; trying again"


@dataclass(frozen=True, slots=True)
class MessageNotFetched(LogEvent):
    """A message is there and could not be had."""

    name: ClassVar[str] = "message.not_fetched"
    level: ClassVar[int] = logging.WARNING
    reason: str

    @property
    def words(self) -> str:
        return f"a message could not be fetched: {self.reason}"


@dataclass(frozen=True, slots=True)
class MessageTooLate(LogEvent):
    """A message belongs to a run that the server no longer knows."""

    name: ClassVar[str] = "message.too_late"

    @property
    def words(self) -> str:
        return "a message of a run that is over; not answered"


@dataclass(frozen=True, slots=True)
class MessageAnswered(LogEvent):
    """A message was answered, if only with a refusal. ``group`` is the round, or what the exchange is for."""

    name: ClassVar[str] = "message.answered"
    group: str
    stage: str
    outcome: str
    seconds: float

    @property
    def words(self) -> str:
        said = "" if self.outcome == "answered" else f" ({self.stage}: {self.outcome})"
        return f"answered a message of group {self.group} after {self.seconds:.2f} s{said}"


@dataclass(frozen=True, slots=True)
class OtherTask(LogEvent):
    """A run names another task than the one that is approved here."""

    name: ClassVar[str] = "task.not_approved"
    level: ClassVar[int] = logging.ERROR

    @property
    def words(self) -> str:
        return "a run names a task which is not the approved study's; refused"


@dataclass(frozen=True, slots=True)
class AnswerUnwanted(LogEvent):
    """The server no longer waits for an answer."""

    name: ClassVar[str] = "answer.unwanted"
    reason: str

    @property
    def words(self) -> str:
        return f"an answer is no longer wanted: {self.reason}"


@dataclass(frozen=True, slots=True)
class AnswerNotArrived(LogEvent):
    """An answer could not be delivered yet."""

    name: ClassVar[str] = "answer.not_arrived"
    level: ClassVar[int] = logging.WARNING
    reason: str

    @property
    def words(self) -> str:
        return f"an answer has not arrived: {self.reason}; sending it again"


@dataclass(frozen=True, slots=True)
class StudyApart(LogEvent):
    """The study's code has a process of its own; by what each barrier holds."""

    name: ClassVar[str] = "study.apart"
    process: int
    barriers: str

    @property
    def words(self) -> str:
        return f"the study's code runs in process {self.process}, apart by {self.barriers}"


@dataclass(frozen=True, slots=True)
class StudyWithin(LogEvent):
    """The study's code runs in the node's own process, as the site's file says."""

    name: ClassVar[str] = "study.within"
    level: ClassVar[int] = logging.WARNING

    @property
    def words(self) -> str:
        return "the study's code runs in the node's own process, with the site's keys in its memory"


@dataclass(frozen=True, slots=True)
class StudyStopped(LogEvent):
    """The study's process was ended, or ended by itself. ``reason`` is fedseal's own words."""

    name: ClassVar[str] = "study.stopped"
    level: ClassVar[int] = logging.ERROR
    reason: str

    @property
    def words(self) -> str:
        return self.reason
