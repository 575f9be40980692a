"""A federation as strangers type it, from nothing to an epoch that everybody has joined; and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Run, told
from support.studies import TINY

from fedseal.cli import handing
from fedseal.client.site_config import read_site
from fedseal.errors import ExitCode
from fedseal.privacy.store import SiteStore
from fedseal.server.server_config import read_server

DIGITS = re.compile(r"(?:\d{5} ){7}\d{5}")
Say = Callable[..., str]


@pytest.fixture
def say(fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Types a command in an empty folder, where it has to succeed; what it said."""
    monkeypatch.chdir(tmp_path)

    def typed(command: str, *more: str) -> str:
        done = fedseal(*command.split(), *more)
        assert done.returncode == 0, done
        return done.stdout

    return typed


def digits(said: str) -> str:
    """The fingerprint that somebody would read out."""
    (found,) = DIGITS.findall(said)
    return str(found)


def first_epoch(say: Say) -> tuple[str, str]:
    """Everybody's commands up to the bundle; its file and fingerprint."""
    say("federation init town --address 127.0.0.1:4711")
    requests, fingerprints = ["server/server.request"], [digits(say("server init --federation town"))]
    for name in ("north", "south", "east"):
        Path(f"{name}-data").mkdir()
        command = f"site init {name} --federation town --data {name}-data --study {TINY} --persons 113 --folder {name}"
        fingerprints.append(digits(say(command)))
        requests.append(f"{name}/{name}.request")
    options = [part for one in fingerprints for part in ("--fingerprint", one)]
    said = say("federation admit", *requests, *options)
    return "federation/epochs/0001.bundle", digits(said)


def test_strangers_enrol_by_what_they_are_told(say: Say, fedseal: Run) -> None:
    bundle, fingerprint = first_epoch(say)
    assert "fedseal server up --config server/server.toml" in say(
        f"server adopt {bundle}", "--fingerprint", fingerprint
    )
    for name in ("north", "south", "east"):
        said = say(f"site join {bundle} --folder {name}", "--fingerprint", fingerprint)
        assert f"fedseal site run --config {name}/site.toml" in said
    server, site = read_server(Path("server/server.toml")), read_site(Path("north/site.toml"))
    assert sorted(server.nodes) == ["east", "north", "south"]
    assert site.address == "127.0.0.1:4711"
    found = json.loads(say("federation status --json"))
    assert (found["epoch"], found["fingerprint"], found["days_left"]) == (1, fingerprint, 364)
    assert [row["name"] for row in found["sites"]] == ["north", "south", "east"]
    for where in (bundle, "north/site.sqlite", "server/server.sqlite"):
        assert json.loads(say(f"federation status {where} --json")) == found
    assert "364 days left" in say("federation status")
    # Once more changes nothing.
    assert "already" in say(f"site join {bundle} --folder north", "--fingerprint", fingerprint)


def test_nothing_happens_unless_the_digits_are_those_read_out(say: Say, fedseal: Run) -> None:
    bundle, fingerprint = first_epoch(say)
    wrong = fingerprint[:-1] + str((int(fingerprint[-1]) + 1) % 10)
    for command, left in (
        (f"site join {bundle} --folder north", "north/site.sqlite"),
        (f"server adopt {bundle}", "server/server.sqlite"),
    ):
        done = fedseal(*command.split(), "--fingerprint", wrong)
        told(done, ExitCode.CONFIG, "that was not read out; nothing has changed", "do not use the file")
        told(fedseal(*command.split()), ExitCode.CONFIG, "has to be compared; nothing has changed", "--fingerprint")
        assert not Path(left).exists()
    done = fedseal("federation", "admit", "north/north.request", "--fingerprint", fingerprint)
    told(done, ExitCode.CONFIG, "is in the federation already")
    assert not Path("federation/epochs/0002.bundle").exists()


def test_who_sits_at_a_terminal_types_the_last_digits(say: Say, fedseal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, fingerprint = first_epoch(say)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["12345 67890", " ".join(fingerprint.split(" ")[-handing.TYPED :])])
    monkeypatch.setattr("typer.prompt", lambda _: next(answers))
    told(fedseal("site", "join", bundle, "--folder", "north"), ExitCode.CONFIG, "that is not the fingerprint")
    assert not Path("north/site.sqlite").exists()
    done = fedseal("site", "join", bundle, "--folder", "north")
    assert done.returncode == 0, done
    # What has to be typed is not shown.
    assert fingerprint.split(" ")[-1] not in done.stderr


def test_files_and_names_that_are_wrong_are_named(say: Say, fedseal: Run) -> None:
    bundle, fingerprint = first_epoch(say)
    for command, texts in (
        ("federation init town --address 127.0.0.1:4711", ("federation is not empty",)),
        ("federation init a/b --address 127.0.0.1:4711 --folder x", ("'a/b' cannot be the name of a federation",)),
        ("federation init x --address https://there --folder x", ("'address'",)),
        ("server init --federation town", ("server is not empty",)),
        (f"site init server --federation town --data . --study {TINY} --persons 5 --folder x", ("'server' cannot be",)),
        (
            f"site init x --federation town --data nowhere --study {TINY} --persons 5 --folder x",
            ("nowhere is no folder",),
        ),
        ("site init x --federation town --data . --study nowhere --persons 5 --folder x", ("nowhere is not a folder",)),
        ("federation admit north/site.toml", ("north/site.toml holds no single request",)),
        ("site join north/north.request --folder north", ("holds a request and no bundle",)),
        (f"site join {bundle} --folder nowhere", ("has to be compared",)),
        ("site rotate --folder north", ("no site store at",)),
        ("federation remove west --reason left", ("no site 'west' is in the federation", "north, south, east")),
        ("federation status --folder nowhere", ("nowhere is no folder of a federation's root",)),
    ):
        told(fedseal(*command.split()), ExitCode.CONFIG, *texts)
    assert not Path("x").exists()
    done = fedseal("site", "join", bundle, "--folder", "elsewhere", "--fingerprint", fingerprint)
    told(done, ExitCode.CONFIG, "elsewhere is no site's folder")


def test_a_budget_of_the_sites_own_is_opened_at_the_first_join(say: Say, fedseal: Run) -> None:
    bundle, fingerprint = first_epoch(say)
    said = f"site join {bundle} --folder north --epsilon 7.5"
    say(said, "--fingerprint", fingerprint)
    with SiteStore.open(Path("north/site.sqlite")).transaction() as transaction:
        assert transaction.terms("train").epsilon == 7.5
    done = fedseal(*said.split(), "--fingerprint", fingerprint)
    told(done, ExitCode.CONFIG, "a ledger's promise is never changed")
