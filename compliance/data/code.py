"""The digest of a folder of code: which files it has, and what is in them.

Computed the same at a site and by whoever wrote the study, so that what ran can be compared with what was approved.
"""

import hashlib
import os
from pathlib import Path

from fedseal.errors import ConfigError

# What is no part of the code, wherever it stands: caches and the history. `runs`, only at the top, holds results.
IGNORED = frozenset({"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", ".DS_Store"})
RESULTS = "runs"
_DOMAIN = b"fedseal/code/1\x00"


def code_digest(folder: Path) -> bytes:
    """SHA-256 over the paths, relative and with ``/``, and the SHA-256 of every file, in the order of the paths' UTF-8.

    Times, owners and permissions do not count, nor do empty folders.

    Raises:
        ConfigError: there is no such folder, or it holds a link: what a link leads to is no part of the folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    out = hashlib.sha256(_DOMAIN)
    for name, path in sorted(_files(folder)):
        out.update(len(name).to_bytes(4, "big") + name + file_digest(path))
    return out.digest()


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _files(folder: Path) -> list[tuple[bytes, Path]]:
    found = []
    for where, folders, files in os.walk(folder):
        here = Path(where)
        ignored = IGNORED | {RESULTS} if here == folder else IGNORED
        folders[:] = [name for name in folders if name not in ignored]
        for name in [*folders, *files]:
            if (here / name).is_symlink():
                raise ConfigError(
                    f"{here / name} is a link",
                    next_step="Put the file itself there: a digest of code counts no links.",
                )
        kept = [here / name for name in files if name not in ignored and not name.endswith(".pyc")]
        found += [(path.relative_to(folder).as_posix().encode("utf-8"), path) for path in kept]
    return found
