"""Folders of runs: one appears when everything in it is written, and what a killed run left behind is removed.

While a run lives it holds a lock (flock) on a file beside its folder. The system gives the lock back however the
process ends, so a lock that can be had belongs to nobody any more. No process number is asked: by then it may be
another's.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fedseal.errors import ConfigError

PARTIAL, LOCK = ".partial", ".lock"
_LOCK_NAME = re.compile(r"\..+-\d{8}-\d{6}-[0-9a-f]{6}\.lock")


@contextmanager
def run_folder(out: Path, name: str) -> Iterator[tuple[Path, str]]:
    """A folder under a hidden name that gets its real one when the block ends well, and is removed when it does not.

    Two runs at once never meet: names hold random characters, and the folder is made exclusively.
    """
    run = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    partial, lock = out / f".{run}{PARTIAL}", out / f".{run}{LOCK}"
    held = -1
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
            held = _hold(lock)
            partial.mkdir()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"{out} cannot hold runs: {reason}", next_step="Give another --out.") from None
        yield partial, run
        partial.replace(out / run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if held >= 0:
            lock.unlink(missing_ok=True)
            os.close(held)


def remove_leftovers(out: Path) -> int:
    """Remove what runs that were killed have left in a folder of runs, copies of data among it; how many these were.

    A run that lives is left alone, and so is whatever has no lock beside it: it is not known to be ours.
    """
    removed = 0
    for lock in sorted(out.glob(f".*{LOCK}")) if out.is_dir() else ():
        if _LOCK_NAME.fullmatch(lock.name):
            removed += _remove(lock, lock.with_suffix(PARTIAL))
    return removed


def _remove(lock: Path, partial: Path) -> bool:
    """Remove a run's hidden folder and its lock if nobody holds that; whether there was a folder and now is none."""
    try:
        held = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        # Gone by now, or another person's.
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = partial.is_dir()
        shutil.rmtree(partial, ignore_errors=True)
        if partial.exists():
            return False
        lock.unlink(missing_ok=True)
        return found
    except OSError:
        return False
    finally:
        os.close(held)


def _hold(lock: Path) -> int:
    """Make a lock file and hold its lock; the open file."""
    while True:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        # Between the two calls another run may have taken it for a dead one's and removed it.
        if lock.exists() and os.path.samestat(os.fstat(held), lock.stat()):
            return held
        os.close(held)
