"""How long a request's body may be, said before anything of it is read: for the sites' listener and the console's."""

from fastapi import status
from starlette.types import Scope

MOST_DIGITS = 20


def refused_length(scope: Scope, largest: int) -> int | None:
    """The status for a body that does not say how long it is, or is too long; None if it may be read.

    Args:
        scope: of an HTTP request.
        largest: bytes.
    """
    length = dict(scope["headers"]).get(b"content-length", b"")
    if not length.isdigit():
        return status.HTTP_411_LENGTH_REQUIRED
    # Python makes no number of very many digits.
    too_long = len(length) > MOST_DIGITS or int(length) > largest
    return status.HTTP_413_CONTENT_TOO_LARGE if too_long else None
