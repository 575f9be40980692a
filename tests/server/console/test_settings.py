"""What the server's file may say of the console, and what the document says of its roles."""

import runpy
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from support.consoles import make_place

from fedseal.errors import ConfigError
from fedseal.server.console.app import console_app
from fedseal.server.console.guard import STRICT_TRANSPORT, Guard
from fedseal.server.console.settings import LOOPBACK_NAMES, Limits, read_console

DOCS = Path(__file__).resolve().parents[3] / "docs"
SERVER = """
[listen]
host = "0.0.0.0"
port = 8443
certificate = "no.pem"
key = "no.key"

[server]
store = "server.sqlite"
runs = "runs"

[nodes]
north = "north.pub"
"""


def settings_of(folder: Path, table: str = "") -> Path:
    for name in ("console.pem", "console.key", "open.key"):
        (folder / name).touch(mode=0o644 if name == "open.key" else 0o600)
    file = folder / "server.toml"
    file.write_text(SERVER + table, encoding="utf-8")
    return file


def test_without_a_table_it_speaks_in_clear_to_this_machine_only(tmp_path: Path) -> None:
    found = read_console(settings_of(tmp_path))
    assert (found.host, found.port, found.secure, found.names) == ("127.0.0.1", 8480, False, LOOPBACK_NAMES)
    assert (found.users, found.store) == (tmp_path / "console.sqlite", tmp_path / "server.sqlite")
    assert found.limits == Limits(1800.0, 36000.0)


def test_with_a_certificate_it_answers_to_its_names(tmp_path: Path) -> None:
    table = 'host = "0.0.0.0"\ncertificate = "console.pem"\nkey = "console.key"\nnames = ["Console.Example.org"]\n'
    found = read_console(settings_of(tmp_path, f"[console]\n{table}idle_minutes = 5\n"))
    assert (found.secure, found.names, found.limits.idle) == (True, ("console.example.org",), 300.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('host = "0.0.0.0"', "without TLS"),
        ('host = "console.example.org"', "without TLS"),
        ('certificate = "console.pem"', "not both"),
        ('certificate = "console.pem"\nkey = "console.key"', "by which name"),
        ('certificate = "console.pem"\nkey = "open.key"\nnames = ["a"]', "others may read"),
        ('certificate = "none.pem"\nkey = "console.key"\nnames = ["a"]', "does not exist"),
        ("idle_minutes = 0", "idle_minutes"),
        ("session_hours = 1000", "session_hours"),
        ("secret = 1", "unknown key"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_console(settings_of(tmp_path, f"[console]\n{table}\n"))


def test_a_console_without_a_store_or_users_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no server store"):
        console_app(read_console(settings_of(tmp_path)))
    place = make_place(tmp_path)
    place.settings.users.unlink()
    with pytest.raises(ConfigError, match="no users"):
        console_app(place.settings)


def test_over_tls_browsers_are_told_to_stay_there() -> None:
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    for secure in (True, False):
        answer = TestClient(Guard(app, ("a",), secure=secure), base_url="https://a").get("/")
        assert answer.headers.get("strict-transport-security") == (STRICT_TRANSPORT if secure else None)


def test_the_document_has_the_permissions_of_the_code() -> None:
    made = runpy.run_path(str(DOCS / "console_roles.py"))
    text = (DOCS / "console.md").read_text(encoding="utf-8")
    assert made["written"](text) == text, "run: python docs/console_roles.py"
