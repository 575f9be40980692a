"""What stands before the application that sites reach: which calls there are, and how large a body may be."""

from fastapi import status
from starlette.types import ASGIApp, Receive, Scope, Send

# Of Flower's twelve: not registration, which is the operator's, and not bundles of code, of which there are none.
CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run"),
    *("push-object", "pull-object", "confirm-message-received"),
)
PATHS = frozenset(f"/v1/fleet/{call}" for call in CALLS)
# Flower cuts arrays into objects of 5 MB. A body is read before its sender is known.
LARGEST_BODY = 16 << 20
MOST_DIGITS = 20


class Gate:
    """Before anything is read: known calls only, and bodies that say how long they are and are not too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = self._refused(scope)
        if code is None:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": code, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    def _refused(scope: Scope) -> int | None:
        if scope["method"] != "POST" or scope["path"] not in PATHS:
            return status.HTTP_404_NOT_FOUND
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return status.HTTP_411_LENGTH_REQUIRED
        # Python makes no number of very many digits.
        too_large = len(length) > MOST_DIGITS or int(length) > LARGEST_BODY
        return status.HTTP_413_CONTENT_TOO_LARGE if too_large else None
