"""Files that people write:

TOML into frozen pydantic models, with errors that name the line, the key and its nearest neighbour.

Knows no layer: each layer owns its models and hands them in. Only the command line and the Flower apps read files.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedseal.errors import ConfigError


class Frozen(BaseModel):
    """Base of every model of a file: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# JSON Schema's words for ranges, and ours.
_LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}

F = TypeVar("F", bound=BaseModel)


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
    """The line on which a key stands, or the line of the closest table around it; None if neither is found."""
    lines = text.splitlines()
    for depth in range(len(place), 0, -1):
        table, key = place[: depth - 1], place[depth - 1]
        inside = not table
        for number, line in enumerate(lines, start=1):
            header = re.match(r"\s*\[{1,2}\s*([A-Za-z_\"'][^\]]*?)\s*\]{1,2}\s*(#.*)?$", line)
            if header:
                name = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
                if name == place[:depth]:
                    return number
                inside = name == table
            elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
    return None


def _fields_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """The keys a table inside a model may have."""
    current: Any = model
    for part in place:
        annotation = current.model_fields[part].annotation if part in getattr(current, "model_fields", {}) else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if found is None:
            return []
        current = found
    return [field.alias or name for name, field in current.model_fields.items()]


def _sentence(message: str) -> str:
    """pydantic's message with a small initial and without its technical prefix."""
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
