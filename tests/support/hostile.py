"""Facts of pages in which every text is an attacker's."""

import dataclasses
from enum import Enum
from typing import Any

from support.consoles import HOSTILE

# Addresses, which the readers have made, escaped.
OURS = ("href",)


def poisoned(value: Any) -> Any:
    """The same facts with a hostile text in the place of every text."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(poisoned(one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in OURS]
        return dataclasses.replace(value, **{name: poisoned(getattr(value, name)) for name in fields})
    return value
