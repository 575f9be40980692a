"""A console over a small server's store, with users of every role, and a client that signs in as a browser would."""

import json
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from fastapi.testclient import TestClient
from httpx import Response
from starlette.types import ASGIApp
from support import keys
from support.keys import SERVER, signed
from support.stores import backup_of

from fedseal.privacy.roster import Roster, RosterEntry
from fedseal.server.app import CONTRACT_KEY, RESUME_KEY
from fedseal.server.console.app import console_app
from fedseal.server.console.permissions import TIME_BOXED, Role
from fedseal.server.console.settings import LOOPBACK_NAMES, ConsoleSettings, Limits
from fedseal.server.console.users import UserFile
from fedseal.server.coordination import ORDER
from fedseal.server.recording import EVENTS
from fedseal.server.store import ServerStore

HERE = "http://localhost"
START = 1_795_000_000.0
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(1)</script>{{7*7}}'"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A console's folder and application, and the secrets of its users, by name: each is called like its role."""

    settings: ConsoleSettings
    users: UserFile
    secrets: dict[str, str]
    app: ASGIApp
    clock: Clock

    def client(self) -> TestClient:
        """A browser without cookies."""
        return TestClient(self.app, base_url=HERE, follow_redirects=False)

    def signed_in(self, name: str) -> TestClient:
        """A browser in which somebody has signed in."""
        client = self.client()
        assert sign_in(client, name, self.secrets[name]).status_code == 303
        return client


def sign_in(client: TestClient, name: str, secret: str, **headers: str) -> Response:
    """Send the form of the first page."""
    form = {"name": name, "secret": secret, "next": "/"}
    return cast(Response, client.post("/sign-in", data=form, headers={"origin": HERE, **headers}))


def csrf_of(client: TestClient) -> str:
    """The token in the forms that somebody is shown."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/account").text)
    assert found is not None
    return found[1]


def small_roster(names: tuple[str, ...]) -> Roster:
    """A roster of sites with these names."""
    entries = tuple(
        RosterEntry(number, name, f"{name} trust", keys.key(f"site-{number}").public, 100 * number)
        for number, name in enumerate(names, start=1)
    )
    return Roster("test", 1, False, keys.ROOT.public, SERVER.public, entries)


def make_place(folder: Path, *, names: tuple[str, ...] = ("north", "south", "west"), log: Path | None = None) -> Place:
    """A console with a user of every role.

    Args:
        folder: an empty one.
        names: of the sites.
        log: the server's store, where there is one already.
    """
    store = folder / "server.sqlite"
    if log is None:
        roster = small_roster(names)
        ServerStore.create(store, key=SERVER, roster=signed(roster), pinned=roster.digest())
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    settings = ConsoleSettings(
        "127.0.0.1", 0, None, None, LOOPBACK_NAMES, folder / "console.sqlite", log or store, runs, Limits()
    )
    clock = Clock()
    content, secrets = _a_user_of_every_role()
    settings.users.touch(mode=0o600)
    settings.users.write_bytes(content)
    users = UserFile.open(settings.users, clock=clock)
    return Place(settings, users, dict(secrets), console_app(settings, clock), clock)


@cache
def _a_user_of_every_role() -> tuple[bytes, dict[str, str]]:
    """The file, made once: every user costs some waits for the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.sqlite"
        users, ends = UserFile.open(path, create=True, clock=Clock()), START + 90 * 86400.0
        secrets = {r.value: users.add(r.value, [r], ends if r in TIME_BOXED else None) for r in Role}
        return backup_of(path), secrets


def put_run(runs: Path, name: str, events: list[dict[str, Any]], *, study: str = "tiny", rounds: int = 3) -> Path:
    """A run's folder as a server leaves it."""
    folder = runs / name
    folder.mkdir()
    contract = json.dumps({"name": study, "training": {"rounds": rounds}})
    order = {"schema_version": 1, "run_config": {CONTRACT_KEY: contract, RESUME_KEY: 32 * "a"}}
    (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")
    (folder / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return folder
