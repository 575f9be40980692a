"""What passes between a node and the process of its study's code: frozen messages in fedseal's own encoding.

The node is trusted by the process; what the process answers may be anything, and is read as such. `isolation.proto`
names the calls in which they travel.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedseal.wire import F64, U8, U16, U32, U64, Blob, Bool, Str, Text

# A model's array. What a whole answer may hold is bounded by the call, before anything is read.
LARGEST = (1 << 32) - 1
Name = Annotated[str, Text(1024)]
PathText = Annotated[str, Text(4096)]
Reference = Annotated[str, Text(512)]
Data = Annotated[bytes, Blob(LARGEST)]
Told = Annotated[str, Text(1 << 16)]


@dataclass(frozen=True, slots=True)
class Launch:
    """What a process is told at its start, through its standard input.

    Args:
        socket: where it listens; the node made the folder, and nobody else may enter it.
        scratch: an empty folder, under which it may have a place to write.
        readable: places that it may read: Python's own, the study and the data.
        memory_mb, scratch_mb, open_files, threads: see `IsolationPart`.
        training_threads: how many threads training may use.
    """

    TAG: ClassVar[int] = 200

    socket: PathText
    scratch: PathText
    readable: tuple[PathText, ...]
    memory_mb: U32
    scratch_mb: U32
    open_files: U32
    threads: U32
    training_threads: U16


@dataclass(frozen=True, slots=True)
class Hold:
    """One barrier: by what it holds, nothing if it does not; and what is missing, if something is."""

    barrier: Str
    by: Str
    missing: Str


@dataclass(frozen=True, slots=True)
class Described:
    """What the process has given up."""

    TAG: ClassVar[int] = 201

    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Load a study's task and a site's data.

    Args:
        task: the reference, ``module:Name``.
        study, data: folders.
        site: the site's name.
        number: its number.
        persons: the roster's rounded number of its training persons.
    """

    TAG: ClassVar[int] = 202

    task: Reference
    study: PathText
    data: PathText
    site: Str
    number: U16
    persons: U64


@dataclass(frozen=True, slots=True)
class Loaded:
    """The data has been read."""

    TAG: ClassVar[int] = 203


@dataclass(frozen=True, slots=True)
class ArrayPart:
    """An array in row order and little-endian; ``form`` is numpy's, as ``<f4``."""

    name: Name
    form: Str
    shape: tuple[U64, ...]
    data: Data


@dataclass(frozen=True, slots=True)
class Value:
    """A setting, a fact or a metric: one item, or a list of them.

    ``kind`` is one of `records.KINDS`.
    """

    name: Name
    kind: U8
    listed: Bool
    items: tuple[Data, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a round, as the app's own function gets it.

    Args:
        group: the round.
        facts: of the signed header.
        arrays: the record of arrays, if the task has one, with the record's name.
        settings: likewise.
        memory: what the site keeps under the name that the strategy asks for.
    """

    TAG: ClassVar[int] = 204

    group: Str
    facts: tuple[Value, ...]
    arrays_name: Name | None
    arrays: tuple[ArrayPart, ...]
    settings_name: Name | None
    settings: tuple[Value, ...]
    memory: Data | None


@dataclass(frozen=True, slots=True)
class Errors:
    """The chart of errors before a window: see `CusumState`."""

    rise: F64
    fall: F64
    windows: U64


@dataclass(frozen=True, slots=True)
class Compare:
    """A request about a window of new persons: the request's bytes, the site's past as it is kept, the chart."""

    TAG: ClassVar[int] = 205

    asked: Data
    reference: Data
    errors: Errors | None
    windows: PathText | None


@dataclass(frozen=True, slots=True)
class Answered:
    """What the study's code came to.

    Args:
        arrays: to be bounded and summed, if there are any.
        metrics: reported beside them; None if there is no record of them.
        unclipped: for a clip norm that adapts.
        made: whether the app says that it made the release under its plan.
        memory: to be kept under the name that the strategy asks for.
        report: of a window, JSON, for the site's own eyes.
    """

    TAG: ClassVar[int] = 206

    arrays: tuple[ArrayPart, ...]
    metrics: tuple[Value, ...] | None
    unclipped: F64 | None
    made: Bool
    memory: Data | None
    report: Data | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The study's code raised something: the text is for the site's own people, and leaves in no message.

    ``kind`` is one of `FailureKind`.
    """

    TAG: ClassVar[int] = 207

    kind: U8
    message: Told
    next_step: Told
    trace: Told
