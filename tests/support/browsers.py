"""A real browser and a console that listens for it, on the loopback address."""

import importlib.util
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no chromium here (apt-get install chromium; pip install playwright)",
)
# What breaks the content policy is told by the browser as an event, and kept here.
LISTEN = "window.broken = []; document.addEventListener('securitypolicyviolation', e => broken.push(e.blockedURI))"
WIDE = {"width": 1280, "height": 900}


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """The application's address, while it listens."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield f"http://localhost:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)


@contextmanager
def browser() -> Iterator["Browser"]:
    """Debian's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox of its own: it visits nothing but ourselves, and tests may run as root.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield opened
        finally:
            opened.close()


def sign_in_at(page: "Page", address: str, name: str, secret: str) -> None:
    """Sign somebody in with the keyboard alone."""
    page.goto(f"{address}/sign-in")
    # Keys that are pressed before a page has the focus are lost.
    page.wait_for_function("document.activeElement.id === 'name'")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(secret)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")


@contextmanager
def visit(
    chromium: Any, address: str, name: str, secret: str, harmless: tuple[str, ...] = (), **looks: Any
) -> Iterator[Any]:
    """A page of somebody who has signed in; whatever went wrong in it fails the test at the end.

    Args:
        harmless: parts of what the browser may say of errors, besides that a page was refused with 403.
        looks: of the browser's context, in place of a wide window.
    """
    context = chromium.new_context(**{"viewport": WIDE, **looks})
    context.set_default_timeout(60_000)
    context.add_init_script(LISTEN)
    page, wrong = context.new_page(), list[str]()

    def note(text: str, *, bad: bool = True) -> None:
        if bad:
            wrong.append(text)

    def dismiss(dialog: Any) -> None:
        note(dialog.message)
        dialog.dismiss()

    page.on("pageerror", lambda error: note(str(error)))
    expected = ("403", *harmless)
    page.on(
        "console",
        lambda said: note(said.text, bad=said.type == "error" and not any(part in said.text for part in expected)),
    )
    page.on("dialog", dismiss)
    page.on("request", lambda asked: note(asked.url, bad=not asked.url.startswith(address)))
    sign_in_at(page, address, name, secret)
    yield page
    context.close()
    assert wrong == []
