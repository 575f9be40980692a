"""What the pages say of sites and runs, with names and files that are out to do harm."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.consoles import HOSTILE, START, Place, make_place, put_run
from support.enrolled import NOW, Seats

from fedseal.compliance.enrolment.files import read_bundle
from fedseal.server.console.guard import HEADERS, host_name
from fedseal.server.console.permissions import PAGES
from fedseal.server.console.runs import read_run
from fedseal.server.coordination import ORDER
from fedseal.server.enrolment import adopt
from fedseal.server.progress import PRESENCE, Progress, write_progress, write_whole
from fedseal.server.recording import EVENTS

STAGES = {name: {"seconds": 0.5, "up": 10} for name in ("advertise", "share", "mask", "consistency", "unmask")}


def event(kind: str, **facts: Any) -> dict[str, Any]:
    return {"event": kind, "time": START, **facts}


def a_round(number: int, **facts: Any) -> dict[str, Any]:
    shown = {"seconds": 3.0, "sites": 3, "asked": 4, "attempts": 1, "stages": STAGES, "metrics": {"auc": 0.8}}
    return event("round", number=number, **(shown | {"lost": {"mask": 1}} | facts))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A console where every name that can be chosen is an attack."""
    place = make_place(tmp_path_factory.mktemp("hostile"), names=(HOSTILE, "south", "west"))
    name = HOSTILE.replace("/", "")
    events = [
        event("started"),
        event("planned", run=HOSTILE, plan=HOSTILE, moments={}),
        a_round(1, metrics={HOSTILE: 0.5}, lost={HOSTILE: 1}, stages={HOSTILE: {"seconds": 1.0, "up": 1}}),
        event("evaluated", sites=3, estimates={HOSTILE: {"value": 1.0, "low": 0.5, "high": 1.5}}),
        event("personalised", means={HOSTILE: 1.0}),
        event("failed", error=HOSTILE, message=HOSTILE, next_step=HOSTILE),
    ]
    put_run(place.settings.runs, name, events, study=HOSTILE)
    running = put_run(place.settings.runs, "20261128-running", [event("started")], study=HOSTILE)
    write_progress(running, Progress(START, HOSTILE, 1, 0, HOSTILE, 3))
    place.users.record("auditor", HOSTILE, HOSTILE, HOSTILE)
    return place


def test_names_are_text_wherever_they_stand(hostile: Place) -> None:
    client = hostile.signed_in("auditor")
    addresses = [page.path for page in PAGES]
    addresses += ["/runs/20261128-running", "/runs/" + HOSTILE.replace("/", "").replace("?", "%3F")]
    seen = 0
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code in (200, 403), address
        for part in ("<script>alert", "<img src=x", "49'"):
            assert part not in answer.text, address
        seen += "&lt;img src=x onerror=alert(1)&gt;" in answer.text
    assert seen >= 4


def test_an_error_page_quotes_nothing(hostile: Place) -> None:
    client = hostile.signed_in("auditor")
    for address in ("/<script>alert(1)</script>", "/runs/<script>alert(1)</script>", "/access?before=<script>"):
        answer = client.get(address)
        assert answer.status_code in (400, 404)
        assert "<script>alert" not in answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_every_answer_has_the_headers(hostile: Place) -> None:
    client = hostile.signed_in("auditor")
    answers = [client.get(a) for a in ("/", "/none", "/static/console.css", "/runs/none")]
    answers += [hostile.client().get("/"), client.post("/account/look"), client.get("/", headers={"host": "evil"})]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "server" not in answer.headers
    assert [a.headers["cache-control"] for a in answers[:3]] == ["no-store", "no-store", "no-cache"]
    assert "strict-transport-security" not in answers[0].headers
    policy = answers[0].headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")


def test_pages_have_no_code_and_no_style_in_them(hostile: Place) -> None:
    client = hostile.signed_in("auditor")
    for page in PAGES:
        text = client.get(page.path).text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert text.count("<script") == text.count('<script src="/static/')


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "localhost@evil", "127.0.0.2"])
def test_another_host_is_not_answered(hostile: Place, host: str) -> None:
    assert hostile.client().get("/sign-in", headers={"host": host}).status_code == 421


def test_host_names() -> None:
    found = [host_name(h) for h in ("LocalHost:80", "[::1]:80", "[::1]", "a:b:c", "")]
    assert found == ["localhost", "[::1]", "[::1]", "a", ""]


def test_a_body_says_how_long_it_is_and_is_not_too_long(hostile: Place) -> None:
    client = hostile.client()
    assert client.post("/sign-in", content=iter([b"name=a"])).status_code == 411
    assert client.post("/sign-in", content=b"x" * (3 << 20)).status_code == 413
    assert client.post("/sign-in", content=b"", headers={"content-length": "-1"}).status_code == 411


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def test_a_run_is_shown_as_it_goes(place: Place) -> None:
    events = [event("started"), event("planned", run="ab", plan="none", moments={}), a_round(1), a_round(2)]
    folder = put_run(place.settings.runs, "20261128-one", events, rounds=5)
    write_progress(folder, Progress(START, "update", 3, 1, "mask", 4))
    place.clock.now = START + 7
    text = place.signed_in("ml-engineer").get("/runs/20261128-one").text
    for said in ("Round 3 of 5 is under way.", "attempt 2", "4 sites asked, for 7 s", "3 of 4", "1 at mask", ">auc<"):
        assert said in text
    assert 'data-refresh="2"' in text
    assert "data-refresh" not in place.signed_in("ml-engineer").get("/runs/20261128-one?live=off").text


def test_a_run_that_is_over_does_not_go_on_asking(place: Place) -> None:
    events = [event("started"), event("started"), a_round(1), event("finished", model_sha256="ab" * 32)]
    put_run(place.settings.runs, "20261128-one", events)
    text = place.signed_in("ml-engineer").get("/runs/20261128-one").text
    assert "Finished after 1 round." in text
    assert "1 time, after the server had stopped" in text
    assert "data-refresh" not in text


def test_who_is_connected(place: Place) -> None:
    client = place.signed_in("coordinator-ops")
    assert "No server is running here" in client.get("/").text
    seen = {"north": START - 1, "south": START - 90}
    write_whole(
        place.settings.runs / PRESENCE, {"time": START, "since": START - 100, "online": ["north"], "seen": seen}
    )
    assert "1 of 3 sites are connected." in client.get("/").text
    place.clock.now += 3600
    assert "has not said anything since" in client.get("/").text


def test_until_when_the_membership_holds(tmp_path: Path) -> None:
    seats = Seats(tmp_path / "seats")
    bundle = seats.admit([seats.begin(), seats.apply("north"), seats.apply("south"), seats.apply("west")])
    adopt(seats.server_folder, read_bundle(bundle), NOW)
    (tmp_path / "console").mkdir()
    place = make_place(tmp_path / "console", log=seats.server_folder / "server.sqlite")
    client = place.signed_in("coordinator-ops")
    place.clock.now = NOW.timestamp() + 86400
    assert "epoch 1, which holds until" in client.get("/").text
    place.clock.now += 3 * 365 * 86400
    ended = place.signed_in("coordinator-ops").get("/").text
    assert "ended on" in ended
    assert "which holds until" not in ended


def test_an_empty_console_says_what_would_fill_it(place: Place) -> None:
    client = place.signed_in("auditor")
    assert "fedseal server run STUDY" in client.get("/runs").text
    assert "log has not begun" in client.get("/budgets").text
    assert "The log has not begun." in client.get("/").text


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"3",
        b'{"event": "round"}',
        b'{"event": "round", "number": "x"}',
        b'{"event": "round", "number": 1, "stages": [], "metrics": 3, "lost": {"mask": "x"}, "seconds": 1e999}',
        b'{"event": "round", "number": 1, "sites": NaN, "stages": {"mask": {"seconds": "x"}}}',
        b'{"event": "planned", "plan": 3}',
        b'{"event": "evaluated", "estimates": {"auc": 3}}',
        b'{"event": ["started"]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_lines_that_are_no_events_are_left_out(place: Place, line: bytes) -> None:
    folder = put_run(place.settings.runs, "20261128-one", [event("started")])
    with (folder / EVENTS).open("ab") as file:
        file.write(line + b"\n" + json.dumps(a_round(2)).encode() + b"\n")
    assert place.signed_in("auditor").get("/runs/20261128-one").status_code == 200
    found = read_run(place.settings.runs, "20261128-one")
    assert found is not None
    assert found.rounds[-1].metrics == {"auc": 0.8}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"accuracy": 0.18, "validation-ratio": 0.2}, {"accuracy": 0.9}),
        ({"accuracy": 0.0, "validation-ratio": 0.0}, {}),
        ({"accuracy": 0.9}, {"accuracy": 0.9}),
    ],
)
def test_metrics_are_means_over_validation_persons(
    place: Place, sent: dict[str, float], shown: dict[str, float]
) -> None:
    put_run(place.settings.runs, "20261128-one", [event("started"), a_round(1, metrics=sent)])
    found = read_run(place.settings.runs, "20261128-one")
    assert found is not None
    assert found.rounds[0].metrics == pytest.approx(shown)


def test_an_order_that_is_none_is_a_run_without_a_study(place: Place) -> None:
    folder = put_run(place.settings.runs, "20261128-one", [event("started")])
    for content in ("", "[]", '{"run_config": 3}', '{"run_config": {"fedseal-contract": "[]"}}'):
        (folder / ORDER).write_text(content, encoding="utf-8")
        found = read_run(place.settings.runs, "20261128-one")
        assert found is not None
        assert (found.study, found.planned_rounds) == ("", 0)
