"""A site's reference: its training persons by the cells of a watch, with noise added once, kept for the model's life.

What a window's sum is made of is also these persons' data, and the noise in the sum is not theirs. So the reference is
a release of its own to the site itself: charged to the training persons' ledger before it is made (`Session`), noised
by the site alone, and from then on used as it is. It never leaves.
"""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord

from fedseal.client.records import WATCH, WINDOW, arrays_of
from fedseal.errors import ConfigError
from fedseal.inputs import task_digest
from fedseal.privacy.counts import Axis, Real, Whole
from fedseal.privacy.randomness import Stream
from fedseal.privacy.store import SiteStore
from fedseal.privacy.watch import (
    Reference,
    Watch,
    decode_reference,
    encode_reference,
    noised_reference,
    read_watch,
)


def reference_key(records: Mapping[str, ArrayRecord | ConfigRecord]) -> bytes:
    """What a reference is kept under: the model, the watch and how features are scaled; not the window."""
    arrays = {name: arrays_of(record) for name, record in records.items() if isinstance(record, ArrayRecord)}
    settings = {
        name: {key: value for key, value in record.items() if key != WINDOW}
        for name, record in records.items()
        if isinstance(record, ConfigRecord)
    }
    return hashlib.sha256(b"fedseal/reference/1" + task_digest(arrays, settings)).digest()


def kept_reference(store: SiteStore, key: bytes, watch: Watch, count: Callable[[], Whole], stream: Stream) -> Reference:
    """The reference under a key; made, noised and kept at the first call. Never noised twice: what is kept stands.

    Args:
        store: the site's.
        key: see `reference_key`.
        watch: what is watched.
        count: the training persons by the cells of `reference_tables`, flat; called if nothing is kept.
        stream: where the noise comes from.
    """
    with store.transaction() as transaction:
        kept = transaction.reference(key)
    if kept is not None:
        return decode_reference(kept)
    made = noised_reference(watch, count(), stream)
    with store.transaction() as transaction:
        # Another process of this site may have been faster.
        kept = transaction.reference(key)
        if kept is None:
            transaction.keep_reference(key, encode_reference(made))
    return made if kept is None else decode_reference(kept)


def window_of(settings: ConfigRecord) -> tuple[Watch, int]:
    """The watch and the window's number in a request's settings; ConfigError if there is no number."""
    number = settings.get(WINDOW)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
        raise ConfigError("the task's settings have no number of a window")
    return read_watch(settings.get(WATCH)), number


def joined(parts: tuple[Callable[[Axis], Real], ...]) -> Callable[[Axis], Real]:
    """The numbers of several groups of persons, one group after the other."""

    def numbers(axis: Axis) -> Real:
        return np.concatenate([part(axis) for part in parts])

    return numbers
