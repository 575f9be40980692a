"""Middlewares one in the other for requests and responses that are whole: no task, stream or queue between them.

Starlette's `BaseHTTPMiddleware` makes some of each for every middleware and every request, since what passes through
may be endless. Three of them took half of the server's time.
"""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
# What a Starlette middleware does with a request, and what is behind it.
Dispatch = Callable[[Request, Handler], Awaitable[Response]]


class OnePass:
    """An application behind middlewares. A request's body is read once, by whoever asks for it first; a response is
    sent when it is whole. What an inner one raises reaches the outer ones as it is.

    Args:
        app: what stands behind.
        dispatches: the middlewares, the outermost first.
    """

    def __init__(self, app: ASGIApp, dispatches: Sequence[Dispatch]) -> None:
        self._app = app
        handler: Handler = self._answer
        for dispatch in reversed(dispatches):
            handler = _within(dispatch, handler)
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        body: bytes | None = await request.body()

        async def receive() -> Message:
            nonlocal body
            if body is None:
                return await request.receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        head: Message = {"status": 500}
        parts: list[bytes] = []

        async def send(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._app(request.scope, receive, send)
        response = Response(b"".join(parts), head["status"])
        response.raw_headers = list(head.get("headers", []))
        return response


def _within(dispatch: Dispatch, inner: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        return await dispatch(request, inner)

    return handle
