"""The files of a data folder, and whether they are still what they were: one `stat` a file as long as nothing was
touched, its SHA-256 when something was.

A file's size, times and inode say whether to read it again; what is in it decides. A program that writes into a file
changes its ctime, which no program can set back. A file touched within two seconds of when it was hashed is read
again: a clock may be too coarse to tell.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.errors import DataError

RACY_NS = 2_000_000_000
# st_ino may be any 64-bit number, SQLite's integers are signed.
_INODE = 8


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was hashed, at ``hashed_ns`` (nanoseconds since 1970, as ``mtime_ns``)."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: bytes
    sha256: bytes
    hashed_ns: int

    def fresh(self, found: os.stat_result) -> bool:
        """Whether a file that now looks like this need not be read again."""
        same = _looks(found) == (self.size, self.mtime_ns, self.ctime_ns, self.inode)
        return same and self.hashed_ns - max(self.mtime_ns, self.ctime_ns) > RACY_NS


States = Mapping[str, FileState]


def file_states(folder: Path, known: States | None = None) -> dict[str, FileState]:
    """Every file below a folder by its path there, hidden ones too; those that look as they did are not read.

    Raises:
        DataError: there is no such folder, a file changes while it is read, or something in it is neither file nor
            folder, or a link to a folder, whose files could change unseen.
    """
    found = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        before = (known or {}).get(name)
        found[name] = before if before is not None and before.fresh(path.stat()) else _hashed(path, name)
    return found


def differences(registered: States, found: States) -> list[str]:
    """How the files differ from the registered ones, one sentence for each; what they look like does not count."""
    said = [f"{name} is missing" for name in sorted(set(registered) - set(found))]
    said += [f"{name} is new" for name in sorted(set(found) - set(registered))]
    both = sorted(set(registered) & set(found))
    return said + [f"{name} has changed" for name in both if registered[name].sha256 != found[name].sha256]


def _hashed(path: Path, name: str) -> FileState:
    try:
        with path.open("rb") as file:
            # Before anything is read: what is written from now on is later than this.
            now, before = time.time_ns(), os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__})") from None
    if _looks(before) != _looks(after):
        raise DataError(
            f"{path} changed while it was read",
            next_step="Wait until whoever writes it has finished, and try again.",
        )
    return FileState(name, *_looks(after), digest, now)


def _looks(found: os.stat_result) -> tuple[int, int, int, bytes]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino.to_bytes(_INODE, "big")


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", next_step="Give the folder that `fedseal-data` names.")
    for where, folders, names in os.walk(folder):
        here = Path(where)
        linked = [here / name for name in folders if (here / name).is_symlink()]
        odd = [here / n for n in names if not (here / n).exists() or not stat.S_ISREG((here / n).stat().st_mode)]
        for path in linked + odd:
            raise DataError(
                f"{path} is no file of this folder",
                next_step="Put the files themselves there: what lies behind a link to a folder could change unseen.",
            )
        folders.sort()
        yield from (here / name for name in sorted(names))


def renewed(registered: States, found: States) -> dict[str, FileState]:
    """States worth remembering: those of files that were read again and have not changed."""
    return {name: s for name, s in found.items() if name in registered and registered[name] != s}
