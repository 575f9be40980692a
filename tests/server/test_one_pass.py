"""What Starlette promises of a middleware's `dispatch` holds without its base class."""

import asyncio

import httpx
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedseal.server.one_pass import Dispatch, Handler, OnePass


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """In two pieces, with a header twice."""
    body = await Request(scope, receive).body()
    headers = [(b"x-said", b"one"), (b"x-said", b"two"), (b"x-notes", str(scope["state"].get("notes")).encode())]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body[:2], "more_body": True})
    await send({"type": "http.response.body", "body": body[2:]})


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise LookupError("inside")


async def outer(request: Request, call_next: Handler) -> Response:
    try:
        response = await call_next(request)
    except LookupError as error:
        return PlainTextResponse(f"caught: {error}", 409)
    response.headers["x-outer"] = request.url.path
    return response


async def inner(request: Request, call_next: Handler) -> Response:
    request.state.notes = f"{await request.body()!r}"
    if request.headers.get("x-stop"):
        return PlainTextResponse("stopped", 403)
    return await call_next(request)


def starlettes(app: ASGIApp, dispatches: list[Dispatch]) -> ASGIApp:
    """The twin: as Starlette nests them."""
    for dispatch in reversed(dispatches):
        app = BaseHTTPMiddleware(app, dispatch)
    return app


def asked(app: ASGIApp, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/", content=content, headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("app", "headers"), [(echo, {}), (failing, {}), (echo, {"x-stop": "1"})], ids=["answered", "failed", "stopped"]
)
def test_it_answers_as_starlette_does(app: ASGIApp, headers: dict[str, str]) -> None:
    made = [build(app, [outer, inner]) for build in (OnePass, starlettes)]
    found, expected = (asked(each, b"hello", headers) for each in made)
    assert (found.status_code, found.content) == (expected.status_code, expected.content)
    assert sorted(found.headers.multi_items()) == sorted(expected.headers.multi_items())


def test_what_comes_out_is_whole_and_went_through_all() -> None:
    found = asked(OnePass(echo, [outer, inner]), b"hello")
    assert (found.status_code, found.content) == (201, b"hello")
    assert found.headers.get_list("x-said") == ["one", "two"]
    assert found.headers["x-notes"] == "b'hello'"
    assert found.headers["x-outer"] == "/"


def test_an_error_that_nobody_catches_is_the_servers() -> None:
    with pytest.raises(LookupError, match="inside"):
        asked(OnePass(failing, [inner]), b"")


def test_what_is_no_request_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing() -> Message:
        raise AssertionError

    async def none(message: Message) -> None:
        raise AssertionError

    asyncio.run(OnePass(app, [outer])({"type": "lifespan"}, nothing, none))
    assert seen == ["lifespan"]
