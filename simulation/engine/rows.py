"""The persons of several sites as rows of one set of tensors, and whom each site draws."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from fedseal.client.normalise import Normalisation, normalised
from fedseal.client.task import Batch, Persons, batch_of, size
from fedseal.client.trainer import TrainSettings, lots
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness, Stream, heads
from fedseal.simulation.engine.sites import Sites
from fedseal.simulation.engine.splits import IndexedSplits

Index = NDArray[np.int64]
# So many sites' persons are kept as tensors, where they are not index arrays anyway.
KEPT_CHUNKS = 64
# How many numbers of persons are fetched ahead of the steps that use them: what the cache holds.
FETCHED = 1 << 17


@dataclass(frozen=True, slots=True)
class Rows:
    """Persons of sites one after the other.

    ``tensors`` have a first dimension of persons; row ``i`` is the person at ``index[i]``, or at ``i`` where there is
    no index. ``counts`` are the sites' numbers of persons, shape (sites,).
    """

    tensors: Batch
    counts: Index
    index: Index | None = None

    @property
    def starts(self) -> Index:
        """Where each site's rows begin."""
        return np.cumsum(self.counts) - self.counts

    def batch(self, rows: Index) -> Batch:
        """The persons of some rows as one batch."""
        places = torch.from_numpy(rows if self.index is None else self.index[rows])
        return tuple(tensor.index_select(0, places) for tensor in self.tensors)


class RowSource:
    """Gives the persons of sites, normalised as the federation agreed.

    Args:
        sites: the federation's.
    """

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._pools: dict[Normalisation | None, Batch] = {}
        self._kept: OrderedDict[tuple[bool, Normalisation | None, tuple[int, ...]], Rows] = OrderedDict()

    def training(self, numbers: tuple[int, ...], normalisation: Normalisation | None) -> Rows:
        """The training persons of some sites."""
        return self._rows(numbers, normalisation, validation=False)

    def validation(self, numbers: tuple[int, ...], normalisation: Normalisation | None) -> Rows:
        """The validation persons of some sites."""
        return self._rows(numbers, normalisation, validation=True)

    def _rows(self, numbers: tuple[int, ...], normalisation: Normalisation | None, *, validation: bool) -> Rows:
        splits = self._sites.splits
        if isinstance(splits, IndexedSplits):
            parts = [splits.validation_rows(n) if validation else splits.train_rows(n) for n in numbers]
            counts = np.array([len(part) for part in parts], dtype=np.int64)
            return Rows(self._pool(splits, normalisation), counts, np.concatenate(parts))
        key = (validation, normalisation, numbers)
        if key not in self._kept:
            chosen = [self._sites.split(n) for n in numbers]
            self._kept[key] = _joined([s.validation if validation else s.train for s in chosen], normalisation)
            if len(self._kept) > KEPT_CHUNKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _pool(self, splits: IndexedSplits, normalisation: Normalisation | None) -> Batch:
        if normalisation not in self._pools:
            # Of one agreement at a time: it is a copy of everyone.
            self._pools = {normalisation: _tensors(normalised(TensorDataset(*splits.pool), normalisation))}
        return self._pools[normalisation]


def _joined(parts: list[Persons], normalisation: Normalisation | None) -> Rows:
    counts = np.array([size(part) for part in parts], dtype=np.int64)
    tensors = [_tensors(part) for part in parts]
    joined = tuple(torch.cat(column) for column in zip(*tensors, strict=True))
    return Rows(_tensors(normalised(TensorDataset(*joined), normalisation)), counts)


def _tensors(persons: Persons) -> Batch:
    if isinstance(persons, TensorDataset):
        return persons.tensors
    return batch_of(persons, np.arange(size(persons)))


@dataclass(frozen=True, slots=True)
class Draw:
    """One local step of several sites: ``rows`` of the persons, shape (sites, largest batch), what each one's loss is
    multiplied by (0 where a row only fills up), and how many each site drew.
    """

    rows: Index
    weights: Tensor


class Streams:
    """A site's randomness for one attempt at one release, as `client.facts.ReleaseStreams` gives it."""

    def __init__(self, seed: int, site: int, release: tuple[int, int]) -> None:
        self._randomness = KeyedRandomness(seed, "site", site)
        self._release = release

    def __call__(self, *purpose: str | int) -> Stream:
        """The stream of one purpose."""
        return self._randomness.stream(*purpose, *self._release)


def draws(rows: Rows, settings: TrainSettings, streams: list[Streams]) -> Iterator[Draw]:
    """Whom the sites draw in each local step: each the persons that it would draw on its own.

    Args:
        rows: the training persons.
        settings: how to train.
        streams: one a site, in the order of ``rows``.

    Raises:
        ConfigError: nobody is there to draw at all.
    """
    if not rows.counts.sum():
        raise ConfigError("no site has training persons")
    if settings.batch_size is None:
        yield from _independent(rows, settings, streams)
        return
    if (rows.counts == rows.counts[0]).all():
        yield from _passes(rows, settings, settings.batch_size, streams)
        return
    each = [lots(int(n), settings, s) for n, s in zip(rows.counts, streams, strict=True)]
    starts = rows.starts
    for step in zip(*each, strict=True):
        longest = max(max(len(chosen) for chosen, _ in step), 1)
        # What fills up is some person there is; its loss is multiplied by nothing.
        places = np.zeros((len(step), longest), dtype=np.int64)
        weights = np.zeros((len(step), longest), dtype=np.float32)
        for k, (chosen, divisor) in enumerate(step):
            places[k, : len(chosen)] = chosen
            places[k, : len(chosen)] += starts[k]
            weights[k, : len(chosen)] = 1.0 / divisor
        yield Draw(places, torch.from_numpy(weights))


def _independent(rows: Rows, settings: TrainSettings, streams: list[Streams]) -> Iterator[Draw]:
    """What `lots` gives where each person is drawn by a coin: everyone's coins are looked at together."""
    expected = np.maximum(settings.sample_rate * rows.counts, 1.0)
    site = np.repeat(np.arange(len(rows.counts)), rows.counts)
    lengths, everyone = [8 * int(n) for n in rows.counts], settings.sample_rate == 1.0
    for step in range(settings.local_steps):
        raw = [] if everyone else [s("sampling", step).raw(n) for s, n in zip(streams, lengths, strict=True)]
        chosen = np.flatnonzero(heads(b"".join(raw), settings.sample_rate, len(site)))
        whose = site[chosen]
        many = np.bincount(whose, minlength=len(lengths))
        column = np.arange(len(chosen)) - np.repeat(np.cumsum(many) - many, many)
        # What fills up is some person there is; its loss is multiplied by nothing.
        shape = len(lengths), max(int(many.max()), 1)
        places, weights = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        places[whose, column] = chosen
        weights[whose, column] = (1.0 / expected)[whose]
        yield Draw(places, torch.from_numpy(weights))


def _passes(rows: Rows, settings: TrainSettings, batch: int, streams: list[Streams]) -> Iterator[Draw]:
    """What `lots` gives of batches where all sites have equally many persons: whole passes, cut for all at once."""
    persons = int(rows.counts[0])
    batches = -(-persons // batch)
    order = np.zeros((len(streams), 0), dtype=np.int64)
    # One tensor for all batches of a size: it is looked at once.
    weights: dict[int, Tensor] = {}
    for step in range(settings.local_steps):
        done = step % batches
        if not done:
            order = np.stack([stream("sampling", step).permutation(persons) for stream in streams])
            order += rows.starts[:, None]
        places = order[:, done * batch : (done + 1) * batch]
        size = places.shape[1]
        if size not in weights:
            weights[size] = torch.full(places.shape, 1.0 / size)
        yield Draw(places, weights[size])


def gathered(rows: Rows, steps: Iterable[Draw]) -> Iterator[tuple[Draw, Batch]]:
    """Each draw with its persons, site after site. Several small draws' persons are fetched at a time.

    Args:
        rows: the persons.
        steps: who is drawn.
    """
    width = sum(max(1, tensor[:1].numel()) for tensor in rows.tensors)
    waiting: list[Draw] = []
    size = 0
    for draw in steps:
        waiting.append(draw)
        size += draw.rows.size * width
        if size >= FETCHED:
            yield from _fetched(rows, waiting)
            waiting, size = [], 0
    if waiting:
        yield from _fetched(rows, waiting)


def _fetched(rows: Rows, steps: list[Draw]) -> Iterator[tuple[Draw, Batch]]:
    everyone = rows.batch(np.concatenate([draw.rows.reshape(-1) for draw in steps]))
    start = 0
    for draw in steps:
        end = start + draw.rows.size
        yield draw, tuple(tensor[start:end] for tensor in everyone)
        start = end
