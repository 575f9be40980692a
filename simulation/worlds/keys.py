"""Keys that several tables of a world have, and tables in which one key decides about the others."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from fedseal.config import Frozen
from fedseal.simulation.worlds.schedule import FORMS, PLACES, parse_when, parse_where


def _when(text: str) -> str:
    parse_when(text)
    return text


def _where(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        value = tuple(value)
    elif not isinstance(value, str):
        raise ValueError(f"where is {PLACES}")
    parse_where(value)
    return value  # type: ignore[no-any-return]


def _features(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ValueError('a feature is a name, a list of names, or "all"')


_TEXT_OR_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
When = Annotated[str, AfterValidator(_when), WithJsonSchema({"type": "string", "description": f"When: {FORMS}."})]
Where = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_where),
    WithJsonSchema({**_TEXT_OR_TEXTS, "description": f"Where: {PLACES}."}),
]
Features = Annotated[tuple[str, ...], BeforeValidator(_features), WithJsonSchema(_TEXT_OR_TEXTS)]


class KeyedTable(Frozen):
    """A table in which one key decides which others it may have."""

    def check_keys(self, choice: str, value: str, *, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
        """That the keys that ``choice`` needs are set, and none that it would not use.

        Raises:
            ValueError: a sentence that names the key.
        """
        for key in needed:
            if key not in self.model_fields_set:
                raise ValueError(f'{choice} = "{value}" needs {key!r}')
        for key in sorted(self.model_fields_set):
            if key not in (*needed, *allowed):
                raise ValueError(f'{choice} = "{value}" does not use {key!r}')
