"""Scenario files: found by path or by name in the library, read, and written again with everything resolved."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedseal.config import parse_toml, read_toml, validate
from fedseal.errors import ConfigError
from fedseal.simulation.scenario.language import Scenario, set_keys

LIBRARY = Path(__file__).parent / "library"
GOLDEN = Path(__file__).parent / "golden"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def library() -> dict[str, Path]:
    """The scenarios that ship with fedseal, by name."""
    return {path.stem: path for path in sorted(LIBRARY.glob("*.toml"))}


def is_scenario(name: str) -> bool:
    """Whether a word on the command line means a scenario: a TOML file, or a name of the library."""
    return name.endswith(".toml") or (name in library() and not Path(name).is_dir())


def find(name: str) -> Path:
    """The file of a scenario.

    Raises:
        ConfigError: neither a file nor in the library; names the nearest.
    """
    known = library()
    if name in known and not Path(name).is_file():
        return known[name]
    path = Path(name)
    if path.is_file():
        return path
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    advice = f"Did you mean {near[0]!r}?" if near else "See what there is with: fedseal scenario list"
    raise ConfigError(f"no scenario {name!r}: neither a file nor in the library", next_step=advice)


def load(name: str) -> Scenario:
    """Read a scenario by path or library name.

    Raises:
        ConfigError: it is missing or wrong; names the line and the nearest valid key.
    """
    path = find(name)
    tables, text = read_toml(path)
    return validate(Scenario, tables, text=text, source=str(path))


def parse(text: str, source: str) -> Scenario:
    """A scenario from its text."""
    return validate(Scenario, parse_toml(text, source), text=text, source=source)


def as_toml(scenario: Scenario) -> str:
    """A scenario as a file, with all of ``[scenario]`` and ``[run]`` written out; reading it gives the same again."""
    return toml_text(set_keys(scenario))


def toml_text(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Tables of strings, numbers, truth values, arrays and tables as TOML 1.0."""
    lines, below = [], []
    for key, value in tables.items():
        name = prefix + _key(key)
        if isinstance(value, Mapping):
            below.append(f"[{name}]\n" + toml_text(value, name + "."))
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            below += [f"[[{name}]]\n" + toml_text(v, name + ".") for v in value]
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    return "\n".join(lines) + ("\n" if lines else "") + "".join(f"\n{table}" for table in below)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _scalar(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    # JSON's strings, numbers and truth values are TOML's, if what is beyond ASCII stands for itself (JSON would write
    # it in halves) and a delete character does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
