"""What stands before and around every page: known hosts, bodies of a known length, and the headers of every answer."""

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedseal.server.bodies import refused_length

# A form, and a signed file that is sent with one.
LARGEST_BODY = 2 << 20
TOLD = {411: b"A form has to say how long it is.", 413: b"That is too long."}
STATIC = "/static/"
# Nothing from elsewhere, no code or style within a page, no frames, no forms to elsewhere.
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types fedseal",
)
CONTENT_POLICY = "; ".join(_POLICY)
# Not "no-referrer": browsers then say "null" where a form comes from, and every form is refused.
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
STRICT_TRANSPORT = "max-age=31536000"


class Guard:
    """Around the whole application, its error pages included.

    Args:
        app: what is guarded.
        names: of hosts that people may have asked for, in lower case, without a port.
        secure: whether it is reached by TLS.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str], *, secure: bool) -> None:
        self._app = app
        self._names = frozenset(names)
        self._headers = {**HEADERS, "strict-transport-security": STRICT_TRANSPORT} if secure else dict(HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers["cache-control"] = "no-cache" if scope["path"].startswith(STATIC) else "no-store"
            await send(message)

        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, answer)
            return
        code, text = refused
        length = str(len(text)).encode("ascii")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length)]
        await answer({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _refused(self, scope: Scope) -> tuple[int, bytes] | None:
        headers = Headers(scope=scope)
        if host_name(headers.get("host", "")) not in self._names:
            return 421, b"This console does not answer to that name. Its operator can add it: [console] names."
        # As browsers send them. Starlette decodes an address as UTF-8 wherever it is shown or followed.
        if not (scope["query_string"].isascii() and scope["path"].isprintable()):
            return 400, b"The address holds something that cannot be read."
        if scope["method"] in ("GET", "HEAD"):
            return None
        code = refused_length(scope, LARGEST_BODY)
        return None if code is None else (code, TOLD[code])


def host_name(header: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    host = header.lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
