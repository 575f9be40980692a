"""What a backup of a server is: a folder with a manifest of every file in it, and where each belongs.

It holds the server's signing key and the key of its certificate. Whoever has it can be the server, and cannot see what
sites send: sums stay sealed.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, Field

from fedseal.config import Frozen, validate
from fedseal.errors import ConfigError
from fedseal.server.server_config import ConsolePart, ServerConfig

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
CONFIG, STORE, RUNS, NAMED = "server.toml", "server.sqlite", "runs", "named"
_AGAIN = "Nothing has changed. Take another backup."


class Kept(Frozen):
    """One file: where it is in the backup, its bytes, their SHA-256, and the permissions that it gets."""

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: int = Field(ge=0, le=0o777)


class Archive(Frozen):
    """The manifest of a backup.

    ``entries`` and ``root`` are the federation's log as the backup has it, ``server_key`` the server's public key.
    """

    schema_version: int = Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)
    made: str
    fedseal: str
    federation: str
    server_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    entries: int = Field(ge=0)
    root: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: tuple[Kept, ...]


def read_archive(folder: Path) -> Archive:
    """Read a backup's manifest and compare every file with it.

    Raises:
        ConfigError: it is no backup, or not as it was made: which file, and how.
    """
    place = folder / MANIFEST
    try:
        text = place.read_text(encoding="utf-8")
        table = json.loads(text)
    except (OSError, ValueError):
        raise ConfigError(
            f"{folder} is no backup of a server: it has no manifest that can be read", next_step=_AGAIN
        ) from None
    archive = validate(Archive, table, text=text, source=str(place))
    listed = {kept.path for kept in archive.files}
    found = {str(PurePosixPath(p.relative_to(folder))) for p in folder.rglob("*") if not p.is_dir()} - {MANIFEST}
    for path in sorted(listed ^ found):
        what = "is missing" if path in listed else "is in no manifest"
        raise ConfigError(f"{folder}: {path} {what}", next_step=_AGAIN)
    if len(listed) != len(archive.files) or not {CONFIG, STORE} <= listed:
        raise ConfigError(f"{folder} is no whole backup of a server", next_step=_AGAIN)
    for kept in archive.files:
        _compare(folder, kept)
    return archive


def _compare(folder: Path, kept: Kept) -> None:
    path = folder / kept.path
    if ".." in PurePosixPath(kept.path).parts or path.is_symlink() or not path.is_file():
        raise ConfigError(f"{folder}: {kept.path} is no file of a backup", next_step=_AGAIN)
    if path.stat().st_size != kept.size or digest_of(path) != kept.sha256:
        raise ConfigError(f"{folder}: {kept.path} is not what was kept", next_step=_AGAIN)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_files(config: ServerConfig) -> dict[str, Path]:
    """The files and folders that a server's file names, other than its store and its runs, by the keys that lead to
    them; the console's also where they are not written out.
    """
    whole = config if config.console is not None else config.model_copy(update={"console": ConsolePart()})
    return {key: path for key, path in _paths(whole) if key not in ("server.store", "server.runs")}


def is_needed(key: str) -> bool:
    """Whether a server does not start without the file that a key of its file leads to."""
    return key.startswith(("listen.", "nodes."))


def _paths(value: object, key: str = "") -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield key, value
    inner: dict[str, object] = {}
    if isinstance(value, BaseModel):
        inner = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        inner = {str(name): found for name, found in value.items()}
    for name, found in inner.items():
        yield from _paths(found, f"{key}.{name}" if key else name)
