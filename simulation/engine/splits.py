"""Persons of very many sites as index arrays over one pool: a site's own tensors exist only while it runs."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from fedseal.client.task import Split, size
from fedseal.errors import LocalError

Index = NDArray[np.int64]


class IndexedSplits(Mapping[str, Split]):
    """Splits over one pool of persons.

    Args:
        pool: the tensors of all persons, first dimension persons.
        train: places in the pool of the training persons, site after site.
        train_ends: shape (sites,): where each site's part of ``train`` ends.
        validation, validation_ends: likewise; none if not given. Test persons belong to no site: an `Oracle` has them.

    Raises:
        LocalError: the arrays do not fit one another.
    """

    def __init__(
        self,
        pool: tuple[torch.Tensor, ...],
        train: Index,
        train_ends: Index,
        validation: Index | None = None,
        validation_ends: Index | None = None,
    ) -> None:
        none = np.zeros(0, dtype=np.int64), np.zeros(len(train_ends), dtype=np.int64)
        self.pool = pool
        self._train = train, _starts(train_ends)
        both = none if validation is None or validation_ends is None else (validation, validation_ends)
        self._validation = both[0], _starts(both[1])
        for places, starts in (self._train, self._validation):
            if len(starts) != len(train_ends) + 1 or int(starts[-1]) != len(places) or (np.diff(starts) < 0).any():
                raise LocalError("the ends of the sites' parts do not fit the places")
            if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(pool[0]):
                raise LocalError("a place outside of the pool")
        self._width = len(str(len(train_ends)))

    def __len__(self) -> int:
        return len(self._train[1]) - 1

    def __iter__(self) -> Iterator[str]:
        return (self.name(number) for number in range(1, len(self) + 1))

    def __getitem__(self, name: str) -> Split:
        number = int(name.removeprefix("site-"))
        train, validation = self.train_rows(number), self.validation_rows(number)
        return Split(self._persons(train), self._persons(validation), self._persons(train[:0]))

    def name(self, number: int) -> str:
        """The name of the site with this number, from 1."""
        return f"site-{number:0{self._width}d}"

    def train_sizes(self) -> Index:
        """How many training persons each site has, shape (sites,)."""
        return np.diff(self._train[1])

    def train_rows(self, number: int) -> Index:
        """The places of a site's training persons."""
        places, starts = self._train
        return places[starts[number - 1] : starts[number]]

    def validation_rows(self, number: int) -> Index:
        """The places of a site's validation persons."""
        places, starts = self._validation
        return places[starts[number - 1] : starts[number]]

    def _persons(self, places: Index) -> TensorDataset:
        chosen = torch.from_numpy(places)
        return TensorDataset(*(tensor.index_select(0, chosen) for tensor in self.pool))


def _starts(ends: Index) -> Index:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.asarray(ends, dtype=np.int64)])


def training_sizes(splits: Mapping[str, Split]) -> dict[str, int]:
    """Training persons by site, without building any site's tensors where they are index arrays."""
    if isinstance(splits, IndexedSplits):
        return dict(zip(splits, splits.train_sizes().tolist(), strict=True))
    return {name: size(split.train) for name, split in splits.items()}
