"""Signing in and out: what a cookie is, how long it lasts, and what somebody learns who tries names and secrets."""

import hashlib
import re
from pathlib import Path

import pytest
from support.consoles import HERE, START, Clock, Place, csrf_of, make_place, sign_in

from fedseal.errors import ConfigError
from fedseal.privacy.secret import Secret
from fedseal.server.console import tries
from fedseal.server.console.permissions import Role
from fedseal.server.console.sessions import SESSIONS_A_USER, Sessions
from fedseal.server.console.settings import Limits
from fedseal.server.console.tries import Tries
from fedseal.server.console.users import KEPT_EVENTS, User, UserFile, typed

SOMEBODY = User("anna", frozenset({Role.AUDITOR}), "c1", START, None)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def test_scrypt_is_that_of_its_standard() -> None:
    # RFC 7914, section 12, third vector.
    found = hashlib.scrypt(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1, maxmem=1 << 26, dklen=64)
    assert found.hex().startswith("7023bdcb3afd7348461c06cd81fd38eb")


def test_a_session_begins_with_the_right_secret_and_ends_with_signing_out(place: Place) -> None:
    client = place.client()
    answer = sign_in(client, " Auditor ", place.secrets["auditor"].upper().replace("-", " "))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"fedseal-console=[\w-]{43}; HttpOnly; Path=/; SameSite=strict", cookie)
    assert client.get("/").status_code == 200
    client.post("/account/sign-out", data={"csrf": csrf_of(client)}, headers={"origin": HERE})
    client.cookies.set("fedseal-console", cookie.partition("=")[2].partition(";")[0])
    assert client.get("/").status_code == 303


def test_whatever_is_wrong_the_answer_is_the_same(place: Place) -> None:
    secret = place.secrets["auditor"]
    place.clock.now += 100 * 86400.0
    pairs = [
        ("auditor", "wrong"),
        ("nobody", secret),
        ("regulator", place.secrets["regulator"]),
        ("a'--", "x"),
        ("", ""),
    ]
    answers = [sign_in(place.client(), name, tried) for name, tried in pairs]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert not any("set-cookie" in answer.headers for answer in answers)


def test_a_form_from_elsewhere_signs_nobody_in(place: Place) -> None:
    assert (
        sign_in(place.client(), "auditor", place.secrets["auditor"], origin="https://evil.example").status_code == 403
    )


def test_a_name_is_locked_after_wrong_tries_also_for_the_right_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "FIRST_LOCK", 3600.0)
    monkeypatch.setattr(tries, "LONGEST_LOCK", 3600.0)
    wrong = [sign_in(place.client(), "auditor", "wrong") for _ in range(tries.FREE)]
    locked = sign_in(place.client(), "auditor", place.secrets["auditor"])
    assert {answer.text for answer in [*wrong, locked]} == {locked.text}
    assert place.users.accesses(count=1)[0].outcome == "denied: locked"
    assert sign_in(place.client(), "approver", place.secrets["approver"]).status_code == 303


def test_an_address_may_try_so_often_a_minute(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "BY_ADDRESS", 2)
    codes = [sign_in(place.client(), f"name-{n}", "x").status_code for n in range(3)]
    assert codes == [401, 401, 429]


def test_who_signs_in_has_not_used_up_a_try(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "BY_ADDRESS", 1)
    codes = [sign_in(place.client(), "auditor", place.secrets["auditor"]).status_code for _ in range(3)]
    assert codes == [303] * 3


def test_locks_double_and_end() -> None:
    clock = Clock(0.0)
    found = Tries(clock)
    for _ in range(tries.FREE - 1):
        found.wrong("anna")
    assert not found.locked("anna")
    found.wrong("anna")
    assert found.locked("anna")
    clock.now += tries.FIRST_LOCK
    assert not found.locked("anna")
    found.wrong("anna")
    clock.now += tries.FIRST_LOCK
    assert found.locked("anna")
    clock.now += tries.FIRST_LOCK
    assert not found.locked("anna")
    for _ in range(50):
        found.wrong("anna")
    clock.now += tries.LONGEST_LOCK
    assert not found.locked("anna")
    found.right("anna", "")
    found.wrong("anna")
    assert not found.locked("anna")


def test_what_is_remembered_of_tries_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "REMEMBERED", 3)
    found = Tries(Clock(0.0))
    for number in range(10):
        for _ in range(tries.FREE):
            found.wrong(f"name-{number}")
    assert [found.locked(f"name-{number}") for number in range(10)] == [False] * 7 + [True] * 3


def test_sessions_end_when_idle_and_at_last() -> None:
    clock = Clock(0.0)
    sessions = Sessions(Limits(idle=10.0, whole=100.0), clock)
    token = sessions.begin(SOMEBODY)
    for _ in range(11):
        clock.now += 9.0
        assert sessions.find(token, touch=True) is not None
    clock.now += 1.0
    assert sessions.find(token, touch=True) is None
    token = sessions.begin(SOMEBODY)
    clock.now += 9.0
    assert sessions.find(token, touch=False) is not None
    clock.now += 1.0
    assert sessions.find(token, touch=False) is None


def test_a_user_has_so_many_sessions_and_ends_them_all() -> None:
    clock = Clock(0.0)
    sessions = Sessions(Limits(), clock)
    tokens = []
    for _ in range(SESSIONS_A_USER + 2):
        clock.now += 1.0
        tokens.append(sessions.begin(SOMEBODY))
    assert [sessions.find(t, touch=False) is not None for t in tokens] == [False] * 2 + [True] * SESSIONS_A_USER
    sessions.end_all("anna")
    assert sessions.count("anna") == 0
    assert sessions.find(Secret(b""), touch=True) is None


def test_who_is_removed_reset_or_over_is_signed_out(place: Place) -> None:
    removed, reset, over = (place.signed_in(name) for name in ("approver", "auditor", "regulator"))
    place.users.remove("approver")
    place.users.reset("auditor")
    place.clock.now += 91 * 86400.0
    assert [client.get("/account").status_code for client in (removed, reset, over)] == [303] * 3
    assert sign_in(place.client(), "auditor", place.secrets["auditor"]).status_code == 401


def test_signing_in_again_ends_the_session_that_was_there(place: Place) -> None:
    client = place.signed_in("auditor")
    before = client.cookies["fedseal-console"]
    assert sign_in(client, "auditor", place.secrets["auditor"]).status_code == 303
    assert client.cookies["fedseal-console"] != before
    old = place.client()
    old.cookies.set("fedseal-console", before)
    assert old.get("/").status_code == 303


def test_the_file_holds_no_secret_and_is_its_owners(place: Place) -> None:
    content = place.settings.users.read_bytes()
    for secret in place.secrets.values():
        assert len(typed(secret)) == 32
        assert typed(secret).reveal() not in content
        assert secret.encode() not in content
    assert place.settings.users.stat().st_mode & 0o777 == 0o600
    place.settings.users.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        UserFile.open(place.settings.users)


@pytest.mark.parametrize(
    ("name", "roles", "expires", "said"),
    [
        ("Anna", [Role.AUDITOR], None, "no name"),
        ("../anna", [Role.AUDITOR], None, "no name"),
        ("anna", [], None, "needs a role"),
        ("anna", [Role.REGULATOR], None, "needs a last day"),
        ("anna", [Role.AUDITOR], START - 1, "ended already"),
        ("auditor", [Role.AUDITOR], None, "already"),
    ],
)
def test_users_that_are_none(place: Place, name: str, roles: list[Role], expires: float | None, said: str) -> None:
    before = place.users.all()
    with pytest.raises(ConfigError, match=said):
        place.users.add(name, roles, expires)
    assert place.users.all() == before


def test_unknown_users_and_files_that_are_none(place: Place, tmp_path: Path) -> None:
    for change in (place.users.reset, place.users.remove):
        with pytest.raises(ConfigError, match="no user"):
            change("nobody")
    with pytest.raises(ConfigError, match="no users at"):
        UserFile.open(tmp_path / "missing.sqlite")
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    other.chmod(0o600)
    with pytest.raises(ConfigError, match="no file of a console's users"):
        UserFile.open(other)


def test_the_access_log_is_read_in_parts_and_has_an_end(place: Place) -> None:
    for number in range(5):
        place.users.record("anna", "test", f"/{number}", "done")
    first = place.users.accesses(count=3)
    assert [one.where for one in first] == ["/4", "/3", "/2"]
    assert [one.where for one in place.users.accesses(first[-1].id, 2)] == ["/1", "/0"]
    assert KEPT_EVENTS > 1000
