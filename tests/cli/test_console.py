"""`fedseal console`: users, and what is refused before anything is served."""

import json
from pathlib import Path

import pytest
from support.commands import Run, told
from support.consoles import make_place

from fedseal.errors import ExitCode
from fedseal.privacy.secret import Secret
from fedseal.server.console import users
from fedseal.server.console.users import UserFile, typed

FILE = """
[listen]
host = "127.0.0.1"
port = 8443
certificate = "no.pem"
key = "no.key"
[server]
store = "server.sqlite"
runs = "runs"
[nodes]
north = "north.pub"
[console]
users = "people.sqlite"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(users, "COST", 16)
    make_place(tmp_path)
    file = tmp_path / "server.toml"
    file.write_text(FILE, encoding="utf-8")
    return file


def test_a_user_is_added_listed_reset_and_removed(fedseal: Run, config: Path) -> None:
    added = fedseal("console", "user", "add", "anna", "--role", "auditor", "--role", "approver", "--config", config)
    assert added.returncode == ExitCode.OK
    secret = added.stdout.strip()
    assert secret not in added.stderr
    file = UserFile.open(config.parent / "people.sqlite")
    assert file.check("anna", typed(secret)) is not None
    assert file.check("anna", Secret(b"wrong")) is None
    listed = json.loads(fedseal("console", "user", "list", "--json", "--config", config).stdout)
    assert listed["users"] == [{"name": "anna", "roles": ["approver", "auditor"], "until": None}]
    another = fedseal("console", "user", "reset", "anna", "--config", config).stdout.strip()
    assert file.check("anna", typed(secret)) is None
    assert file.check("anna", typed(another)) is not None
    assert fedseal("console", "user", "remove", "anna", "--config", config).returncode == ExitCode.OK
    assert file.all() == []
    assert [one.what for one in file.accesses()] == ["user removed", "secret reset", "user added"]


def test_a_regulator_has_a_last_day(fedseal: Run, config: Path) -> None:
    common = ("console", "user", "add", "ext", "--role", "regulator", "--config", config)
    told(fedseal(*common), ExitCode.CONFIG, "needs a last day", "--until")
    told(fedseal(*common, "--until", "31.3.2027"), ExitCode.CONFIG, "is no day")
    told(fedseal(*common, "--until", "2020-01-01"), ExitCode.CONFIG, "ended already")
    assert fedseal(*common, "--until", "2127-03-31").returncode == ExitCode.OK
    listed = json.loads(fedseal("console", "user", "list", "--json", "--config", config).stdout)
    assert listed["users"][0]["until"] == "2127-04-01T00:00:00Z"


def test_what_is_refused(fedseal: Run, config: Path) -> None:
    told(fedseal("console", "user", "list", "--config", config), ExitCode.CONFIG, "no users at", "user add")
    told(fedseal("console", "serve", "--config", config), ExitCode.CONFIG, "no users at")
    bad = fedseal("console", "user", "add", "anna", "--role", "king", "--config", config)
    assert bad.returncode == ExitCode.USAGE
