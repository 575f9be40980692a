"""What stands before the application that sites reach: which calls there are, for whom, and how large a body may be."""

import binascii
from base64 import b64decode
from collections.abc import Callable

from fastapi import status
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from starlette.types import ASGIApp, Receive, Scope, Send

from fedseal.server.bodies import refused_length

# Of Flower's twelve: not registration, which is the operator's, and not bundles of code, of which there are none.
CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run"),
    *("push-object", "pull-object", "confirm-message-received"),
)
PATHS = frozenset(f"/v1/fleet/{call}" for call in CALLS)
# Flower cuts arrays into objects of 5 MB. A body is read before its sender has proved to be who it names.
LARGEST_BODY = 16 << 20
KEY = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode("ascii")


class Gate:
    """Before anything is read: known calls only, in the name of nodes that are let in, and bodies that say how long
    they are and are not too long.

    Whether the sender *is* the node that it names is Flower's to check, behind this, by a signature. What a stranger
    sends is neither read nor handed on: to Flower's check a key that is none it can use is an error of its own.

    Args:
        app: what stands behind.
        knows: whether a node's public key, as Flower writes it, is that of one that is let in now.
    """

    def __init__(self, app: ASGIApp, knows: Callable[[bytes], bool]) -> None:
        self._app = app
        self._knows = knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = self._refused(scope)
        if code is None:
            await self._app(scope, receive, send)
            return
        # What was not read of the request is in the way of a next one.
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _refused(self, scope: Scope) -> int | None:
        if scope["method"] != "POST" or scope["path"] not in PATHS:
            return status.HTTP_404_NOT_FOUND
        try:
            named = b64decode(dict(scope["headers"]).get(KEY, b""), validate=True)
        except binascii.Error:
            return status.HTTP_401_UNAUTHORIZED
        if not self._knows(named):
            return status.HTTP_401_UNAUTHORIZED
        return refused_length(scope, LARGEST_BODY)
