"""Write docs/images/console: the console's pages as a browser shows them, over real federations of this machine.

    PYTHONPATH=src:tests python -P docs/console_pictures.py

The runs are those of a server and three resident nodes, once under plan none and once under plan local. Takes some
minutes, and Debian's chromium. Pages of evidence: console_evidence_pictures.py.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.browsers import browser, listening, sign_in_at
from support.residents import Residents, outcome, residents

from fedseal.server.console.app import console_app
from fedseal.server.console.pages.budgets import spending_of
from fedseal.server.console.permissions import Role
from fedseal.server.console.settings import LOOPBACK_NAMES, ConsoleSettings, Limits
from fedseal.server.console.users import UserFile
from fedseal.server.coordination import Order
from fedseal.server.recording import EVENTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path(__file__).parent / "images" / "console"
WIDE, NARROW = 1280, 380
LIGHT, DARK = "light", "dark"
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """One page: the file's name, its path, and how it is looked at."""

    name: str
    path: str
    scheme: str = LIGHT
    width: int = WIDE


def main() -> None:
    """Make all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, browser() as chromium:
        for plan in ("none", "local"):
            with residents(Path(work) / plan, plan, ROUNDS) as made:
                _follow(made, chromium, plan)


def _follow(made: Residents, chromium: "Browser", plan: str) -> None:
    """A run of a federation, and pictures of it while it runs and afterwards."""
    store = made.files.enrolled.server_store
    made.start_all()
    order = made.order()
    _wait_for_rounds(order, ROUNDS // 2)
    run = f"/runs/{order.folder.name}"
    if plan == "none":
        take(chromium, store, made.runs, (Picture("run-live", run),), Role.COORDINATOR)
    outcome(order)
    if plan == "none":
        ended = (Picture("run-dark", run, DARK), Picture("run-narrow", run, DARK, NARROW), Picture("runs", "/runs"))
        take(chromium, store, made.runs, ended, Role.ML_ENGINEER)
    else:
        ended = (
            Picture("sign-in", ""),
            Picture("overview", "/"),
            Picture("overview-dark", "/", DARK),
            Picture("overview-narrow", "/", LIGHT, NARROW),
            Picture("run-private", run),
            Picture("budgets", "/budgets"),
            Picture("budgets-dark", "/budgets", DARK),
            Picture("account", "/account"),
            Picture("access", "/access"),
        )
        take(chromium, store, made.runs, ended, Role.AUDITOR)
    made.stop()


def _wait_for_rounds(order: Order, rounds: int) -> None:
    path, end = order.folder / EVENTS, time.monotonic() + 400
    while time.monotonic() < end:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if sum(json.loads(line)["event"] == "round" for line in lines) >= rounds:
            return
        time.sleep(0.2)
    sys.exit("the run does not go on")


def take(chromium: "Browser", store: Path, runs: Path, pictures: Sequence[Picture], role: Role) -> None:
    """Pictures of a console over a server's store, as somebody with one role sees it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "console.sqlite"
        secret = UserFile.open(path, create=True).add("a.meier", [role])
        settings = ConsoleSettings("127.0.0.1", 0, None, None, LOOPBACK_NAMES, path, store, runs, Limits())
        spending_of(str(store))
        with listening(console_app(settings)) as address:
            for picture in pictures:
                size = {"width": picture.width, "height": 800}
                # Another browser each: the look is asked for, not chosen.
                context = chromium.new_context(color_scheme=picture.scheme, viewport=size)  # type: ignore[arg-type]
                context.set_default_timeout(120_000)
                page = context.new_page()
                if picture.path:
                    sign_in_at(page, address, "a.meier", secret)
                page.goto(address + (picture.path or "/sign-in"))
                page.screenshot(path=FOLDER / f"{picture.name}.png", full_page=True)
                context.close()
                print(picture.name, flush=True)


if __name__ == "__main__":
    if shutil.which("chromium") is None:
        sys.exit("needs Debian's chromium: apt-get install chromium")
    main()
