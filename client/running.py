"""That one node runs on a site's store, and whether one does."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedseal.errors import ConfigError


def lock_of(store: Path) -> Path:
    """The file beside a store that its running node holds."""
    return store.with_name(f"{store.name}.lock")


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """Run as the store's only node. The operating system lets go of it however the process ends.

    Raises:
        ConfigError: another node runs on it, or its folder cannot be written in.
    """
    try:
        with lock_of(store).open("a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise ConfigError(f"another node runs on {store}", next_step="Stop it first; a site has one.") from None
    except PermissionError:
        raise ConfigError(
            f"{lock_of(store)} cannot be written", next_step="The node's account has to own the store's folder."
        ) from None


def is_running(store: Path) -> bool:
    """Whether a node runs on a store now."""
    try:
        with lock_of(store).open("r", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
