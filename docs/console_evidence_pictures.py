"""The pictures of docs/console-evidence.md: PYTHONPATH=src:tests python -P docs/console_evidence_pictures.py

Takes a log that is written for it, with invented values: every entry is signed, chained and cosigned as in a real one.
"""

import shutil
import socket
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, sync_playwright
from support.consoles import Place, make_place
from support.evidence import FIRST, USED, write_chronicle
from support.histories import secret

from fedseal.server.console import users

FOLDER = Path(__file__).parent / "images" / "console"
ROLE = "approver"
# Name, address, which part of the page from the top, light or dark.
SHOTS = (
    ("log", "/log", 900, "light"),
    ("entry", "/log/44", 1000, "light"),
    ("checkpoint", "/log/checkpoint?at=97", 1000, "light"),
    ("models", "/models", 800, "light"),
    ("bundle", f"/models/{USED.digest[7:]}", 1400, "light"),
    ("lineage", f"/lineage/model?model=production&run={FIRST}", 1000, "light"),
    ("lineage-dark", f"/lineage/model?model=production&run={FIRST}", 1000, "dark"),
    ("impact", f"/lineage?thing={secret('data 1')}", 1000, "light"),
    ("drift", "/drift", 1100, "light"),
    ("drift-dark", "/drift", 1100, "dark"),
    ("approvals", "/approvals", 1200, "light"),
)


def take(place: Place, address: str, browser: Browser) -> None:
    """Sign in and take all pictures."""
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{address}/sign-in")
        page.fill("[name=name]", ROLE)
        page.fill("[name=secret]", place.secrets[ROLE])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/")
        for name, path, height, wanted in SHOTS:
            if wanted == scheme:
                page.set_viewport_size({"width": 1200, "height": height})
                page.goto(address + path)
                page.screenshot(path=FOLDER / f"{name}.png")
        context.close()


def main() -> None:
    """Take the pictures."""
    users.COST = 16
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, closing(socket.create_server(("127.0.0.1", 0))) as listening:
        write_chronicle(Path(folder), names="Muster", study="tiny")
        place = make_place(Path(folder), log=Path(folder) / "server.sqlite")
        server = uvicorn.Server(uvicorn.Config(place.app, log_level="error", lifespan="off"))
        threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            take(place, f"http://localhost:{listening.getsockname()[1]}", browser)
            browser.close()
        server.should_exit = True


if __name__ == "__main__":
    main()
