"""Flower's records as plain values and places in shared memory, and back.

The bytes of an array are Flower's own (numpy's file format for its arrays) and stay as they are. Of a record that many
messages carry, the model of a round, they are written once for all.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedseal.privacy.npy import bytes_npy, view_npy
from fedseal.simulation.engine.area import SharedArea


class StoredArray(NamedTuple):
    """One array: what Flower says of it, and where its bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stype: str
    place: int
    length: int


class Arrays(NamedTuple):
    """An ArrayRecord."""

    stored: tuple[StoredArray, ...]


class Config(NamedTuple):
    """A ConfigRecord."""

    values: dict[str, Any]


class Metrics(NamedTuple):
    """A MetricRecord."""

    values: dict[str, Any]


Record = Arrays | Config | Metrics
Records = tuple[tuple[str, Record], ...]


class Writer:
    """Writes the records of the messages of one push, each record once."""

    def __init__(self, area: SharedArea) -> None:
        self._area = area
        # The records themselves are kept besides: an id is one only as long as its object lives.
        self._written: dict[int, tuple[object, Record]] = {}

    def records(self, content: RecordDict) -> Records:
        """The records of a message, in their order."""
        return tuple((name, self._record(record)) for name, record in content.items())

    def _record(self, record: ArrayRecord | ConfigRecord | MetricRecord) -> Record:
        if id(record) not in self._written:
            self._written[id(record)] = record, self._made(record)
        return self._written[id(record)][1]

    def _made(self, record: ArrayRecord | ConfigRecord | MetricRecord) -> Record:
        match record:
            case ArrayRecord():
                return Arrays(tuple(self._stored(record.items())))
            case ConfigRecord():
                return Config(dict(record))
            case _:
                return Metrics(dict(record))

    def _stored(self, arrays: Iterable[tuple[str, Array]]) -> Iterator[StoredArray]:
        for name, array in arrays:
            data = array.data
            yield StoredArray(name, array.dtype, tuple(array.shape), array.stype, self._area.put(data), len(data))


class Reader:
    """Reads what a `Writer` wrote in the same push. Every array is copied out once, and that copy never changes."""

    def __init__(self, area: SharedArea) -> None:
        self._area = area
        self._read: dict[tuple[int, int], bytes] = {}

    def content(self, records: Records) -> RecordDict:
        """The records of a message: objects of their own for each message, so that nobody sees another's changes."""
        content = RecordDict()
        for name, record in records:
            match record:
                case Arrays(stored):
                    content[name] = self._arrays(stored)
                case Config(values):
                    content[name] = ConfigRecord(_own(values))
                case Metrics(values):
                    content[name] = MetricRecord(_own(values))
        return content

    def _arrays(self, stored: tuple[StoredArray, ...]) -> ArrayRecord:
        record = ArrayRecord()
        for array in stored:
            place = array.place, array.length
            if place not in self._read:
                self._read[place] = self._area.get(*place)
            record[array.name] = QuickArray(array.dtype, array.shape, array.stype, self._read[place])
        return record


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """A record's values with lists of its own."""
    return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


class QuickArray(Array):
    """An Array whose numbers are copied out of its bytes directly; Flower's way reads them as a file."""

    def numpy(self) -> NDArray[Any]:
        """The array, in memory of its own and writable, as Flower gives it."""
        found = view_npy(self.data) if self.stype == "numpy.ndarray" else None
        return super().numpy() if found is None else found.copy()

    def __eq__(self, other: object) -> bool:
        """By what it holds: the other may be Flower's."""
        if not isinstance(other, Array):
            return NotImplemented
        mine, its = ((a.dtype, tuple(a.shape), a.stype, a.data) for a in (self, other))
        return mine == its

    __hash__ = None  # type: ignore[assignment]


# Flower writes a class's name into what it hashes, and this is nothing but an Array.
QuickArray.__qualname__ = Array.__qualname__


def quick_saves() -> None:
    """Have this process, a worker, make Flower's Arrays without going through a file object: the same bytes.

    Apps make their Arrays themselves, so this is the one place where Flower's own class is changed.
    """
    Array.from_numpy_ndarray = classmethod(_saved)  # type: ignore[assignment, method-assign]


def _saved(_: type[Array], ndarray: NDArray[Any]) -> Array:
    """What Flower's `from_numpy_ndarray` makes."""
    data = bytes_npy(ndarray)
    if data is None:
        return _flowers_own(ndarray)
    array = Array.__new__(Array)
    array.__dict__.update(dtype=str(ndarray.dtype), shape=ndarray.shape, stype="numpy.ndarray", data=data)
    return array


_flowers_own = Array.from_numpy_ndarray
