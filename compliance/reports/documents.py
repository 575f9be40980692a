"""Documents beside a log that an operator names for a report: a risk file, a plan for the time after. Digests only."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from fedseal.config import Frozen, parse_toml, validate
from fedseal.errors import ConfigError

Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class Document(Frozen):
    """A document: what it is called, and its SHA-256 in hex."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Documents(Frozen):
    """The operator's file: ``[document.risk-file]`` with title and sha256, and so on."""

    document: dict[Key, Document] = Field(default_factory=dict)


def read_documents(path: Path, known: frozenset[str]) -> Documents:
    """The documents of a file.

    Args:
        path: the operator's TOML.
        known: the keys that the report asks for.

    Raises:
        ConfigError: it cannot be read, or names a document that no item asks for.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read") from None
    documents = validate(Documents, parse_toml(text, path.name), text=text, source=path.name)
    unknown = sorted(set(documents.document) - known)
    if unknown:
        raise ConfigError(
            f"{path}: no item asks for a document {unknown[0]!r}",
            next_step=f"The report asks for: {', '.join(sorted(known))}.",
        )
    return documents
