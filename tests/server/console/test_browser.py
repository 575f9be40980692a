"""The console in a real browser: keyboard alone, every page for every role, both looks, narrow, hostile names, axe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.browsers import WIDE, needs_browser, sign_in_at, visit
from support.consoles import HOSTILE, START, Place, make_place, put_run

from fedseal.server.console.pages.budgets import spending_of
from fedseal.server.console.permissions import PAGES, Role
from fedseal.server.progress import PRESENCE, Progress, write_progress, write_whole
from fedseal.server.recording import EVENTS

pytestmark = needs_browser
RUN = "20261128-one"
STAGES = {name: {"seconds": 0.5, "up": 10} for name in ("advertise", "share", "mask", "consistency", "unmask")}
NARROW = {"width": 360, "height": 720}


def a_round(number: int) -> dict[str, Any]:
    facts = {"seconds": 3.0, "sites": 3, "asked": 3, "lost": {}, "attempts": 1, "stages": STAGES}
    return {"event": "round", "time": START + number, "number": number, "metrics": {"auc": 0.8, "loss": 0.4}, **facts}


@pytest.fixture(scope="module")
def place(chronicle: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A console with a log that holds everything, a run that goes on, and names that are attacks."""
    folder = tmp_path_factory.mktemp("browser") / "own"
    shutil.copytree(chronicle, folder)
    made = make_place(folder, log=folder / "server.sqlite")
    run = put_run(made.settings.runs, RUN, [{"event": "started", "time": START}, a_round(1), a_round(2)])
    write_progress(run, Progress(START, "update", 3, 0, "mask", 3))
    failed = {"event": "failed", "time": START, "error": HOSTILE, "message": HOSTILE, "next_step": HOSTILE}
    put_run(made.settings.runs, HOSTILE.replace("/", ""), [failed], study=HOSTILE)
    seen = {"time": START, "since": START, "online": ["site-1"], "seen": {"site-1": START}}
    write_whole(made.settings.runs / PRESENCE, seen)
    spending_of(str(folder / "server.sqlite"))
    return made


def look_at(page: Any, where: str) -> int:
    """Open an address; it keeps to the policy and to its width. The answer's status."""
    answer = page.goto(where)
    if page.evaluate("typeof broken") != "undefined":
        assert page.evaluate("broken") == [], where
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), where
    return int(answer.status)


def addresses() -> list[str]:
    return [*(page.path for page in PAGES), f"/runs/{RUN}"]


def test_everything_can_be_reached_with_the_keyboard(chromium: Any, place: Place, address: str) -> None:
    with visit(chromium, address, "auditor", place.secrets["auditor"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.goto(address)
        reached = []
        for _ in range(4 + len(PAGES)):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim()"))
            shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert shown != "none", reached[-1]
            if reached[-1] == "Runs":
                break
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/runs")
        page.focus("text=Sign out")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/sign-in")
        assert page.goto(f"{address}/runs").url.startswith(f"{address}/sign-in")


def test_a_run_goes_on_without_loading_the_page(chromium: Any, place: Place, address: str) -> None:
    with visit(chromium, address, "ml-engineer", place.secrets["ml-engineer"]) as page:
        page.goto(f"{address}/runs/{RUN}")
        page.evaluate("window.stayed = true")
        page.click("text=As a table >> nth=0")
        page.focus("summary >> nth=0")
        with (place.settings.runs / RUN / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(a_round(3)) + "\n")
        page.wait_for_selector("tbody th:text-is('3')")
        assert page.evaluate("window.stayed")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        assert page.evaluate("document.querySelector('details').open")
        assert page.evaluate("broken") == []
        page.click("text=Stop updating")
        assert page.get_attribute("#content", "data-refresh") is None


def test_an_auditors_pages_are_accessible_narrow_and_dark(chromium: Any, place: Place, address: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(chromium, address, "auditor", place.secrets["auditor"], viewport=NARROW, color_scheme="dark") as page:
        for where in ("/", f"/runs/{RUN}", "/budgets", "/access"):
            assert look_at(page, address + where) == 200
            assert_accessible(axe, page, where)


def test_what_is_hostile_is_text(chromium: Any, place: Place, address: str) -> None:
    with visit(chromium, address, "auditor", place.secrets["auditor"]) as page:
        look_at(page, f"{address}/runs")
        page.click("text=onerror")
        assert page.evaluate("broken") == []
        assert "<script>alert(1)</script>" in page.inner_text("main")
        assert page.query_selector("main script, main img") is None


@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_every_page_for_every_role(chromium: Any, place: Place, address: str, role: Role) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(chromium, address, role.value, place.secrets[role.value]) as page:
        for one in PAGES:
            opened = look_at(page, address + one.path)
            assert opened == (200 if role in one.readers else 403), one.path
            assert_accessible(axe, page, one.path)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_every_look(chromium: Any, place: Place, address: str, scheme: str, size: dict[str, int]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(chromium, address, "auditor", place.secrets["auditor"], viewport=size, color_scheme=scheme) as page:
        for where in addresses():
            assert look_at(page, address + where) == 200
            assert_accessible(axe, page, where)


@pytest.mark.slow
def test_it_works_without_scripts(chromium: Any, place: Place, address: str) -> None:
    context = chromium.new_context(java_script_enabled=False, color_scheme="light")
    page = context.new_page()
    sign_in_at(page, address, "ml-engineer", place.secrets["ml-engineer"])
    page.goto(f"{address}/runs/{RUN}")
    assert page.get_attribute("html", "data-look") == "auto"
    page.click("text=Dark")
    page.wait_for_url(f"{address}/runs/{RUN}")
    assert page.get_attribute("html", "data-look") == "dark"
    assert page.locator("noscript meta[http-equiv=refresh]").count() == 1 or "http-equiv" in page.content()
    page.click("text=Sign out")
    page.wait_for_url(f"{address}/sign-in")
    context.close()


def assert_accessible(axe: Any, page: Any, where: str) -> None:
    """Nothing that axe-core finds, of WCAG 2.2 A and AA and of its own good practice."""
    found = axe.run(page).response["violations"]
    said = [(one["id"], [node["html"][:160] for node in one["nodes"]][:3]) for one in found]
    assert said == [], where
