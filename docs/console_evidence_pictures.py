"""The pictures of docs/console-evidence.md: PYTHONPATH=src:tests python -P docs/console_evidence_pictures.py

Takes a log that is written for it, with invented values: every entry is signed, chained and cosigned as in a real one.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.browsers import browser, listening, sign_in_at
from support.consoles import Place, make_place
from support.evidence import FIRST, USED, write_chronicle
from support.histories import secret

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


def take(place: Place, address: str, chromium: "Browser") -> None:
    """Sign in and take all pictures."""
    for name, path, height, scheme in SHOTS:
        size = {"width": 1280, "height": height}
        # Another browser each: the look is asked for, not chosen.
        context = chromium.new_context(color_scheme=scheme, viewport=size)  # type: ignore[arg-type]
        context.set_default_timeout(120_000)
        page = context.new_page()
        sign_in_at(page, address, ROLE, place.secrets[ROLE])
        page.goto(address + path)
        page.screenshot(path=FOLDER / f"{name}.png")
        context.close()


def main() -> None:
    """Take the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        write_chronicle(Path(folder), names="Muster", study="tiny")
        place = make_place(Path(folder), log=Path(folder) / "server.sqlite")
        with listening(place.app) as address:
            take(place, address, chromium)


if __name__ == "__main__":
    main()
