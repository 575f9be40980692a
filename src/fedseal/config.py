"""Files that people write:

TOML into frozen pydantic models, with errors that name the line, the key and its nearest neighbour.

Knows no layer: each layer owns its models and hands them in. Only the command line and the Flower apps read files.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fedseal.errors import ConfigError


class Frozen(BaseModel):
    """Base of every model of a file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# JSON Schema's words for ranges, and ours.
_LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}

F = TypeVar("F", bound=BaseModel)

_HEADER = re.compile(r"\s*(?P<brackets>\[{1,2})\s*(?P<name>[A-Za-z_\"'][^\]]*?)\s*\]{1,2}\s*(#.*)?$")


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """The tables of a TOML file and its text.

    Raises:
        ConfigError: the file is missing, is not UTF-8 or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"{path} does not exist") from None
    except (UnicodeDecodeError, PermissionError):
        raise ConfigError(f"{path} cannot be read as text") from None
    return parse_toml(text, str(path)), text


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a TOML text; ConfigError where it is none. ``source`` is its name in the message."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
    # tomllib leaves Python's own limits to whoever calls it: of digits, and of nesting.
    except (ValueError, RecursionError):
        raise ConfigError(f"{source}: a number that is too long, or tables that are nested too deep") from None


def validate(model: type[F], table: Any, *, text: str, source: str, where: tuple[str, ...] = ()) -> F:
    """Check a table against a model.

    Args:
        model: the pydantic model that says what is allowed.
        table: the value found at ``where``.
        text: the whole file, for line numbers.
        source: the file's name, for messages.
        where: the keys that lead to ``table``.

    Raises:
        ConfigError: the first thing that is wrong, with its line, and the nearest valid key for an unknown one.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A key that is unknown explains one that is missing: it may be the same, misspelt.
        problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    place = (*where, *(str(p) for p in problem["loc"]))
    name = ".".join(place) or "the file"
    line = line_of(text, place)
    prefix = f"{source}:{line}" if line else source
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, tuple(problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        advice = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}."
        raise ConfigError(f"{prefix}: unknown key {name!r}", next_step=advice)
    if problem["type"] == "missing":
        raise ConfigError(f"{prefix}: {name!r} is missing")
    raise ConfigError(f"{prefix}: {name!r}: {_sentence(problem['msg'])}")


def allowed_range(model: type[BaseModel], key: str) -> str:
    """What a key of a model may be, in words: ``"above 0 and at most 1000"``; empty if any value may be."""
    schema = model.model_json_schema()["properties"][key]
    limits = {word: schema[limit] for limit, word in _LIMITS.items() if limit in schema}
    return " and ".join(f"{word} {v:g}" if isinstance(v, float) else f"{word} {v}" for word, v in limits.items())


def line_of(text: str, place: tuple[str, ...]) -> int | None:
    """The line on which a key stands, or the line of the closest table around it; None if neither is found.

    In an array of tables the number of a table, from 0, follows the array's name: ``("drift", "1", "kind")``.
    """
    lines = text.splitlines()
    for depth in range(len(place), 0, -1):
        table, key = place[: depth - 1], place[depth - 1]
        inside = not table
        seen: dict[tuple[str, ...], int] = {}
        for number, line in enumerate(lines, start=1):
            header = _HEADER.match(line)
            if header:
                bare = tuple(part.strip().strip("\"'") for part in header.group("name").split("."))
                if header.group("brackets") == "[[":
                    seen[bare] = seen.get(bare, -1) + 1
                name = _numbered(bare, seen)
                if place[:depth] in (name, bare):
                    return number
                inside = name == table
            elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
    return None


def _numbered(name: tuple[str, ...], seen: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """A header's name with the number of the table after every array of tables in it."""
    numbered: list[str] = []
    for depth, part in enumerate(name, start=1):
        numbered.append(part)
        if name[:depth] in seen:
            numbered.append(str(seen[name[:depth]]))
    return tuple(numbered)


def _fields_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """The keys a table inside a model may have; a number in ``place`` is that of a table in an array."""
    current: Any = model
    for part in place:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        found = None if field is None else _model_in(field.annotation)
        if found is None:
            return []
        current = found
    return [field.alias or name for name, field in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in a type such as ``Model | None`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def _sentence(message: str) -> str:
    """pydantic's message with a small initial and without its technical prefix."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
