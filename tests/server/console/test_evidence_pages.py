"""The pages of evidence as they are served: for whom, what is in them, and that no text of anybody's becomes markup."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from support.consoles import HERE, HOSTILE, Place, csrf_of, make_place
from support.evidence import FIRST, USED, WAITING, signed_file
from support.histories import secret
from support.hostile import poisoned as everything_hostile
from support.keys import key
from support.registry import actor

from fedseal.compliance.registry.approvals import Request as Asked
from fedseal.server.console.permissions import APPROVALS, BUNDLE_FILES, DRIFT, LINEAGE, LOG, MODELS, Page, Role
from fedseal.server.console.view import show

PATHS: dict[str, Page] = {
    "/log": LOG,
    "/log?type=round.aggregated&org=server": LOG,
    "/log/0": LOG,
    "/log/checkpoint": LOG,
    "/log/checkpoint?size=3&root=zz": LOG,
    "/log/checkpoint.note": LOG,
    "/log/policy.txt": LOG,
    "/log/copy.zip": LOG,
    "/log/3/entry.json": LOG,
    "/log/3/proof": LOG,
    "/models": MODELS,
    f"/models/{USED.digest[7:]}": MODELS,
    "/lineage": LINEAGE,
    f"/lineage?thing={secret('data 1')}": LINEAGE,
    f"/lineage/model?model=production&run={FIRST}": LINEAGE,
    f"/lineage/model?model={WAITING.model_digest}&apart=yes": LINEAGE,
    f"/lineage/difference?first={USED.model_digest}&second={WAITING.model_digest}": LINEAGE,
    "/drift": DRIFT,
    "/approvals": APPROVALS,
    f"/approvals/request?bundle={WAITING.digest[7:]}&alias=production&meaning=approved&role=approver"
    f"&person={actor('ben')}": APPROVALS,
    f"/bundle-files/{USED.digest[7:]}": BUNDLE_FILES,
}


@pytest.fixture(scope="module")
def place(chronicle: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place") / "own"
    shutil.copytree(chronicle, folder)
    return make_place(folder, log=folder / "server.sqlite")


@pytest.fixture(scope="module")
def approver(place: Place) -> TestClient:
    return place.signed_in("approver")


# What is the same for the others is left to the slow tests: one dependency lets people in.
QUICK = (Role.APPROVER, Role.REGULATOR, Role.SITE_DPO)


@pytest.mark.parametrize("role", [pytest.param(r, marks=() if r in QUICK else pytest.mark.slow) for r in Role])
def test_every_address_for_every_role(place: Place, role: Role) -> None:
    client = place.signed_in(role.value)
    for path, page in PATHS.items():
        assert client.get(path).status_code == (200 if role in page.readers else 403), path
    answer = client.post("/approvals", headers={"origin": HERE}, files={"signed": b"x"}, data={"csrf": csrf_of(client)})
    assert answer.status_code == (422 if role in APPROVALS.writers else 403)


def test_nothing_is_shown_to_whoever_is_not_signed_in(place: Place) -> None:
    client = place.client()
    for path in PATHS:
        answer = client.get(path)
        assert (answer.status_code, "sha256" in answer.text) == (303, False), path


@pytest.mark.parametrize(
    "path",
    [
        "/log/98765",
        "/log/-1",
        "/log/x",
        "/log/98765/proof",
        "/log/98765/entry.json",
        "/log/checkpoint?at=98765",
        "/models/abcdefabcdef",
        "/models/..%2f..",
        "/lineage/model?model=nothing",
        "/lineage/model",
        "/approvals/request?bundle=x&alias=x&meaning=x&person=x&role=x",
        "/bundle-files/" + 64 * "0",
        "/log?before=-3",
        "/log?type=" + 300 * "x",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(approver: TestClient, path: str) -> None:
    answer = approver.get(path)
    assert answer.status_code in (400, 404)
    assert "Traceback" not in answer.text
    assert str(Path.cwd()) not in answer.text


def test_proofs_are_one_click_away_from_everything(approver: TestClient) -> None:
    for path in ("/log", f"/models/{USED.digest[7:]}", f"/lineage?thing={secret('data 1')}", "/drift", "/approvals"):
        found = re.search(r'href="(/log/\d+)"', approver.get(path).text)
        assert found is not None, path
        page = approver.get(found[1]).text
        assert f'href="{found[1]}/proof"' in page
        assert f'href="{found[1]}/entry.json"' in page
        assert "fedseal-verify proof" in page


def test_names_are_for_those_who_work_here(place: Place) -> None:
    path = f"/models/{USED.digest[7:]}"
    for role in (Role.APPROVER, Role.COORDINATOR, Role.AUDITOR, Role.SITE_ADMIN):
        text = place.signed_in(role.value).get(path).text
        assert ("Ana &lt;b&gt;Muster&lt;/b&gt;" in text) == (role in APPROVALS.readers - {Role.AUDITOR, Role.REGULATOR})
        assert "<b>Muster" not in text


def test_a_signature_travels_by_files(chronicle: Path, tmp_path: Path) -> None:
    shutil.copytree(chronicle, tmp_path / "own")
    place = make_place(tmp_path / "own", log=tmp_path / "own" / "server.sqlite")
    client = place.signed_in("approver")
    found = re.search(rf'href="(/approvals/request\?[^"]*{actor("ben")}[^"]*)"', client.get("/approvals").text)
    assert found is not None
    asked = client.get(found[1].replace("&amp;", "&"))
    assert asked.headers["content-disposition"].startswith('attachment; filename="request-production-approved-')
    signed = signed_file(Asked.model_validate(asked.json()), key("ben"))
    form = {"csrf": csrf_of(client)}
    refused = client.post("/approvals", headers={"origin": HERE}, files={"signed": signed[:-9]}, data=form)
    assert (refused.status_code, "nothing was written" in refused.text) == (422, True)
    assert client.post("/approvals", headers={"origin": HERE}, files={"signed": signed}).status_code == 403
    done = client.post("/approvals", headers={"origin": HERE}, files={"signed": signed}, data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/approvals?done=98")
    assert "#98" in client.get(done.headers["location"]).text
    again = client.post("/approvals", headers={"origin": HERE}, files={"signed": signed}, data=form)
    assert "signed that already" in again.text
    outcomes = [one.outcome for one in place.users.accesses() if one.where == "/approvals"]
    assert outcomes.count("sent") == 3
    assert outcomes.count("denied: not taken") == 2
    assert outcomes.count("denied: not one of our forms") == 1


def test_a_huge_upload_is_refused(approver: TestClient) -> None:
    form = {"csrf": csrf_of(approver)}
    for length, code in ((100_000, 422), (3 << 20, 413)):
        answer = approver.post("/approvals", headers={"origin": HERE}, files={"signed": b"A" * length}, data=form)
        assert answer.status_code == code
    text = approver.post("/approvals", headers={"origin": HERE}, data={**form, "signed": "no file"})
    assert text.status_code == 400


def test_before_the_log_has_begun(tmp_path: Path) -> None:
    client = make_place(tmp_path).signed_in("approver")
    for path in ("/log", "/log/checkpoint", "/models", "/lineage", "/drift", "/approvals"):
        answer = client.get(path)
        assert (answer.status_code, "has not begun" in answer.text) == (200, True), path
    for path in ("/log/copy.zip", "/log/policy.txt", "/log/0/proof", "/bundle-files/" + 64 * "0"):
        assert client.get(path).status_code == 404


class _Markup(HTMLParser):
    """What a page is made of: elements, and attributes by name."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def _markup(text: str) -> _Markup:
    found = _Markup()
    found.feed(text)
    return found


def test_no_text_of_anybodys_becomes_markup(
    place: Place, approver: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text of every page's facts is hostile at once: the page is made of what it was made of before."""
    honest = {path: _markup(approver.get(path).text) for path in PATHS if _is_page(path)}

    def poisoned(request: Request, visitor: Any, page: Page, template: str, facts: Any) -> Any:
        return show(request, visitor, page, template, everything_hostile(facts))

    monkeypatch.setattr("fedseal.server.console.asking.show", poisoned)
    known = {element for page in honest.values() for element in page.elements}
    for path in honest:
        text = approver.get(path).text
        after = _markup(text)
        assert HOSTILE not in text
        assert "alert(1)" in text, path
        assert after.elements <= known, path
        assert not {name for name in after.attributes if name.startswith("on")} | {"style"} & after.attributes, path
        assert "script" not in after.elements or text.count("<script") == 1
        assert all(link.startswith(("/", "?", "#")) and not link.startswith("//") for link in after.links), path


def _is_page(path: str) -> bool:
    files = (".note", ".txt", ".zip", ".json", "/proof")
    return not path.partition("?")[0].endswith((*files, "/request")) and not path.startswith("/bundle-files")


def test_pages_have_no_style_or_script_of_their_own(approver: TestClient) -> None:
    for path in filter(_is_page, PATHS):
        text = approver.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
        assert len(re.findall(r"<h1[ >]", text)) == 1, path
        levels = [int(n) for n in re.findall(r"<h([1-6])[ >]", text)]
        assert all(after <= before + 1 for before, after in pairwise(levels)), path
        ids = re.findall(r'\sid="([^"]+)"', text)
        assert len(set(ids)) == len(ids), path
        for target in re.findall(r'aria-labelledby="([^"]+)"', text):
            assert set(target.split()) <= set(ids), path


def test_what_is_kept_has_a_name_and_is_no_page(approver: TestClient) -> None:
    for path, name in (
        ("/log/3/entry.json", "3.json"),
        ("/log/3/proof", "3.tlog-proof"),
        ("/log/policy.txt", "policy.txt"),
    ):
        answer = approver.get(path)
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert not answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-store"
    assert json.loads(approver.get("/log/3/entry.json").content)["type"]
