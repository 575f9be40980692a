"""Who is signed in: kept in the memory of the console's process, so a restart signs everybody out.

A cookie holds 256 random bits, and this keeps their hash only. A session is renewed at sign-in, never carried over.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from fedseal.privacy.secret import Secret
from fedseal.server.console.settings import Limits
from fedseal.server.console.users import User

TOKEN_BYTES = 32
# A user's oldest session ends when one more begins.
SESSIONS_A_USER = 5


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's session. ``csrf`` is in every form that it is shown; times are seconds of the sessions' clock."""

    user: str
    credential: str
    csrf: Secret
    began: float
    seen: float


class Sessions:
    """All sessions.

    Args:
        limits: how long they last.
        clock: seconds that only go forward.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[bytes, Session] = {}

    def begin(self, user: User) -> Secret:
        """Begin a session; what its cookie holds, in URL-safe base 64."""
        token = Secret(secrets.token_urlsafe(TOKEN_BYTES).encode("ascii"))
        now = self._clock()
        csrf = Secret(secrets.token_urlsafe(TOKEN_BYTES).encode("ascii"))
        with self._lock:
            self._forget_old(now)
            own = sorted((s.began, key) for key, s in self._open.items() if s.user == user.name)
            for _, key in own[: max(0, len(own) + 1 - SESSIONS_A_USER)]:
                del self._open[key]
            self._open[_key(token)] = Session(user.name, user.credential, csrf, now, now)
        return token

    def find(self, token: Secret, *, touch: bool) -> Session | None:
        """The open session of a cookie. With ``touch`` somebody has done something: it counts as used now."""
        now = self._clock()
        with self._lock:
            self._forget_old(now)
            session = self._open.get(_key(token))
            if session is not None and touch:
                session = self._open[_key(token)] = replace(session, seen=now)
        return session

    def end(self, token: Secret) -> None:
        """End a session, if it is open."""
        with self._lock:
            self._open.pop(_key(token), None)

    def end_all(self, user: str) -> None:
        """End all sessions of a user."""
        with self._lock:
            for key in [key for key, session in self._open.items() if session.user == user]:
                del self._open[key]

    def count(self, user: str) -> int:
        """How many sessions a user has open."""
        now = self._clock()
        with self._lock:
            self._forget_old(now)
            return sum(session.user == user for session in self._open.values())

    def _forget_old(self, now: float) -> None:
        limits = self._limits
        old = [k for k, s in self._open.items() if now - s.seen >= limits.idle or now - s.began >= limits.whole]
        for key in old:
            del self._open[key]


def _key(token: Secret) -> bytes:
    # Looked up by hash: how long that takes says nothing about a token.
    return hashlib.sha256(token.reveal()).digest()
