"""How often somebody may try to sign in: by name, by address, and so many at once.

Names that do not exist are counted like those that do, so nothing is learned from being locked out.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Wrong tries until a name is locked, the seconds of its first lock, which doubles with each further wrong try, and the
# longest.
FREE = 5
FIRST_LOCK = 30.0
LONGEST_LOCK = 15 * 60.0
# Wrong tries of one address within the seconds of a window.
BY_ADDRESS = 20
WINDOW = 60.0
# Names and addresses that are remembered; the ones that were not used for longest are forgotten.
REMEMBERED = 10_000


@dataclass(slots=True)
class _Name:
    wrong: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _Address:
    begun: float
    tries: int = 0


class Tries:
    """Counts tries; kept in memory. ``clock``: seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    def admit(self, address: str) -> bool:
        """Whether an address may try once more; counts the try."""
        now = self._clock()
        with self._lock:
            found = self._addresses.pop(address, None)
            if found is None or now - found.begun >= WINDOW:
                found = _Address(now)
            found.tries += 1
            self._addresses[address] = found
            _trim(self._addresses)
            return found.tries <= BY_ADDRESS

    def locked(self, name: str) -> bool:
        """Whether a name is locked for the moment."""
        with self._lock:
            found = self._names.get(name)
            return found is not None and self._clock() < found.until

    def wrong(self, name: str) -> None:
        """A wrong try, which may lock the name."""
        with self._lock:
            found = self._names.pop(name, None) or _Name()
            found.wrong += 1
            if found.wrong >= FREE:
                found.until = self._clock() + min(FIRST_LOCK * 2.0 ** min(found.wrong - FREE, 30), LONGEST_LOCK)
            self._names[name] = found
            _trim(self._names)

    def right(self, name: str, address: str) -> None:
        """Somebody has signed in: earlier wrong tries of the name are forgotten, and the address has not tried."""
        with self._lock:
            self._names.pop(name, None)
            found = self._addresses.get(address)
            if found is not None:
                found.tries -= 1


def _trim(table: OrderedDict[str, _Name] | OrderedDict[str, _Address]) -> None:
    while len(table) > REMEMBERED:
        table.popitem(last=False)
