"""Who gets in: every page for every role, forms of ours only, and nothing without a page."""

from pathlib import Path

import pytest
from fastapi import APIRouter
from support.consoles import HERE, Place, csrf_of, make_place, put_run

from fedseal.errors import LocalError
from fedseal.server.console.admission import check_routers, local, page_router
from fedseal.server.console.app import ROUTERS
from fedseal.server.console.permissions import ACCESS, PAGES, RUNS, Page, Role

EVENTS = [{"event": "started", "time": 1.0}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = make_place(tmp_path_factory.mktemp("console"))
    put_run(made.settings.runs, "20261128-one", EVENTS)
    return made


@pytest.mark.parametrize("role", list(Role))
def test_a_role_opens_its_pages_and_no_others(place: Place, role: Role) -> None:
    client = place.signed_in(role.value)
    for page in PAGES:
        answer = client.get(page.path)
        assert answer.status_code == (200 if role in page.readers else 403), page.path
        navigation = client.get("/").text
        assert (f'<a href="{page.path}"' in navigation) == (role in page.readers)


def test_what_lies_below_a_page_is_that_pages(place: Place) -> None:
    assert place.signed_in("auditor").get("/runs/20261128-one").status_code == 200
    assert place.signed_in("site-dpo").get("/runs/20261128-one").status_code == 403


def test_nobody_else_gets_further_than_the_sign_in(place: Place) -> None:
    client = place.client()
    for page in PAGES:
        answer = client.get(page.path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")
    assert client.get("/?watch=1").status_code == 401
    assert client.post("/account/sign-out", headers={"origin": HERE}).status_code == 303
    assert client.get("/static/console.css").status_code == 200
    assert client.get("/static/../app.py").status_code in (303, 404)


@pytest.mark.parametrize(
    ("origin", "token", "code"),
    [
        (HERE, "right", 303),
        (HERE, "wrong", 403),
        (HERE, "", 403),
        ("http://localhost.evil.example", "right", 403),
        ("https://localhost", "right", 403),
        ("null", "right", 403),
        ("", "right", 403),
    ],
)
def test_a_form_is_taken_from_our_own_page_with_its_token_only(
    place: Place, origin: str, token: str, code: int
) -> None:
    client = place.signed_in("auditor")
    sent = csrf_of(client) if token == "right" else token
    headers = {"origin": origin} if origin else {}
    answer = client.post("/account/look", data={"csrf": sent, "look": "dark"}, headers=headers)
    assert answer.status_code == code
    assert ("fedseal-look=dark" in answer.headers.get("set-cookie", "")) == (code == 303)


def test_another_sessions_token_does_not_do(place: Place) -> None:
    other = csrf_of(place.signed_in("auditor"))
    client = place.signed_in("auditor")
    answer = client.post("/account/sign-out", data={"csrf": other}, headers={"origin": HERE})
    assert (answer.status_code, client.get("/").status_code) == (403, 200)


def test_denials_and_what_auditors_open_are_on_record(place: Place) -> None:
    auditor, dpo, engineer = (place.signed_in(name) for name in ("auditor", "site-dpo", "ml-engineer"))
    auditor.get("/runs")
    auditor.get("/runs?watch=1")
    engineer.get("/runs")
    dpo.get("/runs")
    newest = [(a.user, a.where, a.outcome) for a in place.users.accesses(count=2)]
    assert newest == [("site-dpo", "/runs", "denied"), ("auditor", "/runs", "opened")]


def test_every_router_has_a_page(place: Place) -> None:
    check_routers(ROUTERS)
    naked = APIRouter()
    naked.get("/naked")(lambda: None)
    with pytest.raises(LocalError, match="/naked"):
        check_routers([naked])
    astray = page_router(ACCESS)
    astray.get("/runs")(lambda: None)
    with pytest.raises(LocalError, match="/runs"):
        check_routers([astray])


def test_pages_do_not_lie_in_each_other() -> None:
    paths = [page.path for page in PAGES]
    assert len(set(paths)) == len(paths)
    assert all(page.writers <= page.readers for page in PAGES)
    assert all(isinstance(page, Page) and page.readers for page in PAGES)
    assert Role.SITE_DPO not in RUNS.readers


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/runs/a", "/runs/a"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_to_pages_of_ours(path: str, leads: str) -> None:
    assert local(path) == leads


def test_a_run_that_is_not_there_and_a_path_that_leads_out(place: Place, tmp_path: Path) -> None:
    client = place.signed_in("coordinator-ops")
    for name in ("none", "..%2f..%2fetc", ".hidden"):
        assert client.get(f"/runs/{name}").status_code == 404
    assert client.get("/runs/%00").status_code == 400
