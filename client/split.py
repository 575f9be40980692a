"""Which part of the study a person belongs to: decided by a hash of the person's id, the same at every site, in every
run, for ever.

Nobody can be trained on in one run and tested on in the next, and a person who moves between sites stays in the same
part.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import DataError

Indices = NDArray[np.intp]


def by_hash(
    persons: Iterable[object], *, study: str, validation: float = 0.1, test: float = 0.2, records: bool = False
) -> tuple[Indices, Indices, Indices]:
    """Indices of the train, validation and test persons.

    Args:
        persons: an id for each item; the same id always lands in the same part.
        study: the study's name, so that studies split differently.
        validation: share of validation persons.
        test: share of test persons.
        records: the rows are records, of which a person may have several; items are made of them afterwards.

    Raises:
        DataError: an id is missing, or occurs twice where rows are persons: the privacy promise is made to a person,
            and with two items it would be half of one. The column is named, never the id.
        ValueError: the shares are not between 0 and 1, or leave nothing to train on.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ValueError("expected shares of at least 0 that leave something to train on")
    found = list(persons)
    if not records:
        _refuse_repeated(found, getattr(persons, "name", None))
    places = np.array([_place(study, person) for person in found])
    is_test, is_validation = places < test, (places >= test) & (places < test + validation)
    return np.flatnonzero(~is_test & ~is_validation), np.flatnonzero(is_validation), np.flatnonzero(is_test)


def _refuse_repeated(persons: list[object], name: object) -> None:
    what = "the ids of persons" if name is None else f"column {name!r}"
    if any(person is None or person != person for person in persons):  # noqa: PLR0124 - NaN alone is not itself
        raise DataError(f"{what}: a person has no id", next_step="Every person needs an id.")
    if len({person_text(person) for person in persons}) < len(persons):
        raise DataError(
            f"{what}: a person occurs more than once",
            next_step="One item is one person: the privacy promise is made to persons. Make one item of all records of "
            "a person with person_items() of fedseal.client.items.",
        )


def person_text(person: object) -> str:
    """A person's id as text: the same whether a file gave it as 7, 7.0 or "7"."""
    return str(int(person)) if isinstance(person, float | np.floating) and float(person).is_integer() else str(person)


def _place(study: str, person: object) -> float:
    """A number in [0, 1), uniform over ids."""
    digest = hashlib.sha256(f"{study}\x00{person_text(person)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64
