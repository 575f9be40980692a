"""The pages of evidence in a real browser: within the content policy, by keyboard alone, narrow, with hostile texts."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from support.browsers import needs_browser, visit
from support.consoles import Place, make_place
from support.evidence import FIRST, USED, WAITING, evidence_at, signed_file
from support.histories import secret
from support.hostile import poisoned
from support.keys import key
from support.registry import actor

from fedseal.server.console.evidence.approving import request_for
from fedseal.server.console.permissions import Page as ConsolePage
from fedseal.server.console.view import show
from fedseal_verify.cli import main as verify

pytestmark = needs_browser

PAGES = (
    "/log",
    "/log/40",
    "/log/checkpoint?size=3&root=zz",
    "/models",
    f"/models/{USED.digest[7:]}",
    f"/lineage?thing={secret('data 1')}",
    f"/lineage/model?model=production&run={FIRST}",
    f"/lineage/difference?first={USED.model_digest}&second={WAITING.model_digest}",
    "/drift",
    "/approvals",
)
# What breaks the policy is told by the browser as an event, and kept here.


@pytest.fixture(scope="module")
def place(chronicle: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("browser") / "own"
    shutil.copytree(chronicle, folder)
    return make_place(folder, log=folder / "server.sqlite")


@pytest.mark.parametrize(
    "looks",
    [
        {"color_scheme": "light", "viewport": {"width": 360, "height": 800}},
        {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    ],
    ids=["light-narrow", "dark-wide"],
)
@pytest.mark.slow
def test_pages_keep_to_the_policy_and_to_their_width_and_are_accessible(
    chromium: Any, place: Place, address: str, looks: dict[str, Any]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(chromium, address, "approver", place.secrets["approver"], **looks) as page:
        for path in PAGES:
            page.goto(address + path)
            assert page.evaluate("broken") == [], path
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
            assert page.evaluate("[...document.styleSheets].every((one) => one.cssRules.length > 0)"), path
            found = axe.run(page).response["violations"]
            assert [(one["id"], [n["html"][:160] for n in one["nodes"]][:3]) for one in found] == [], path


@pytest.mark.slow
def test_no_text_runs(chromium: Any, place: Place, address: str, monkeypatch: pytest.MonkeyPatch) -> None:

    def hostile(request: Request, visitor: Any, page: ConsolePage, template: str, facts: Any) -> Any:
        return show(request, visitor, page, template, poisoned(facts))

    monkeypatch.setattr("fedseal.server.console.asking.show", hostile)
    # A curve whose numbers are texts is no curve, and the browser says so.
    drawn = (" attribute ",)
    with visit(chromium, address, "approver", place.secrets["approver"], drawn) as page:
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url.removeprefix(address)))
        for path in PAGES:
            page.goto(address + path)
            assert "alert(1)" in page.content()
            assert page.evaluate("broken") == [], path
            assert page.locator("main img, main script, main iframe").count() == 0
        assert not [url for url in asked if url.endswith("/x") or "alert" in url]


@pytest.mark.slow
def test_a_proof_is_taken_by_keyboard_alone_and_holds(
    chromium: Any, place: Place, address: str, tmp_path: Path
) -> None:
    with visit(chromium, address, "auditor", place.secrets["auditor"]) as page:
        page.goto(f"{address}/log")
        _tab_to(page, "#97")
        page.keyboard.press("Enter")
        page.wait_for_url("**/log/97")
        page.go_back()
        page.goto(f"{address}/log/40")
        for link, name in (("Take the proof", "40.tlog-proof"), ("Take the entry", "40.json")):
            _tab_to(page, link)
            with page.expect_download() as taken:
                page.keyboard.press("Enter")
            assert taken.value.suggested_filename == name
            taken.value.save_as(tmp_path / name)
        _tab_to(page, "Policy, by this server's word")
        with page.expect_download() as taken:
            page.keyboard.press("Enter")
        taken.value.save_as(tmp_path / "policy.txt")
    files = ("40.tlog-proof", "--leaf", "40.json", "--policy", "policy.txt")
    assert verify(["proof", *(name if name.startswith("--") else str(tmp_path / name) for name in files)]) == 0


@pytest.mark.slow
def test_a_signed_file_is_handed_in(chromium: Any, place: Place, address: str, tmp_path: Path) -> None:
    with evidence_at(place.settings.store.parent).opened() as view:
        asked = request_for(view, WAITING.digest, "production", "approved", actor("eva"), "approver")
    (tmp_path / "signed.txt").write_bytes(signed_file(asked, key("eva")))
    (tmp_path / "wrong.txt").write_bytes(signed_file(asked, key("mallory")))
    with visit(chromium, address, "approver", place.secrets["approver"], ("422",)) as page:
        page.goto(f"{address}/approvals")
        page.set_input_files("#signed", tmp_path / "wrong.txt")
        page.click("text=Hand in >> nth=-1")
        page.wait_for_selector("text=Not taken, and nothing was written.")
        page.set_input_files("#signed", tmp_path / "signed.txt")
        page.click("text=Hand in >> nth=-1")
        page.wait_for_selector("text=The signature is entry")
        assert page.evaluate("broken") == []


def _tab_to(page: Any, text: str) -> None:
    """Press Tab until the link with this text has the focus, and it can be seen that it has."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"{text} cannot be reached")
