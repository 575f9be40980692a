"""Waiting for what other threads do, without asking again and again."""

import threading
import time
from collections.abc import Callable


class Bell:
    """Lets threads wait until something is so: they look again at every ring."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0
        self._ended = False

    def ring(self) -> None:
        """Let everybody who waits look again."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def end(self) -> None:
        """From now on nobody waits."""
        self._ended = True
        self.ring()

    def wait_for(self, found: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so, or for some seconds."""
        end = time.monotonic() + seconds
        while True:
            with self._condition:
                seen = self._rings
            if found() or self._ended:
                return
            with self._condition:
                left = end - time.monotonic()
                if left <= 0 or not (self._rings != seen or self._condition.wait(left)):
                    return
