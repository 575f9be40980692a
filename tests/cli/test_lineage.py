"""`fedseal lineage` in this process: every command on one log, as text and JSON, with proofs, and what it refuses."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, told
from support.histories import NOISY, Story, digest, secret
from support.keys import SERVER, make_roster

from fedseal.compliance.events import subjects
from fedseal.compliance.events.fields import Alias
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.database import open_database
from fedseal.compliance.log.export import export
from fedseal.compliance.log.proof import check_proof, parse_proof
from fedseal.compliance.log.store import Log
from fedseal.errors import ExitCode

Ask = Callable[..., Any]


def tell(folder: Path) -> Path:
    """A log with one run from m0 to a2, of which ``candidate`` is an alias, and an export of it."""
    path = folder / "server.sqlite"
    engine = open_database(path)
    with engine.begin() as connection:
        story = Story(connection, 2)
        story.register("m0")
        story.begin("a", "m0", plan=NOISY, rounds=2)
        for site in (1, 2):
            story.accept("a", site, f"data {site}")
        for number, start in ((1, "m0"), (2, "a1")):
            story.charge("a", 1, number)
            story.round("a", start, {1: "data 1", 2: "data 2"})
        story.finish("a", hashlib.sha256(b"x").hexdigest(), rounds=2)
        story.server(
            subjects.Promoted(
                model=digest("a1"), alias=Alias.CANDIDATE, replaces=None, approvals=(), gates=(), final_size=0
            )
        )
        story.log.sign_checkpoint(SERVER)
        export(story.log, folder / "export")
    engine.dispose()
    return path


@pytest.fixture(scope="module")
def told_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tell(tmp_path_factory.mktemp("log"))


@pytest.fixture
def log(told_log: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(told_log.parent, tmp_path / "log")
    return tmp_path / "log" / told_log.name


FINAL = digest(hashlib.sha256(b"x").hexdigest())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", FINAL), "study-a"),
        (("impact", "site-1"), "rounds of its run"),
        (("impact", secret("data 2")[5:13], "--all"), "unbounded"),
        (("epsilon", "site-1"), "Renyi"),
        (("approvals", "candidate"), "promoted"),
        (("diff", FINAL, digest("a1")), "In both"),
        (("graph", FINAL), "<svg"),
        (("graph", "candidate", "--format", "prov-json"), "wasGeneratedBy"),
        (("rebuild",), "sha256:"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_question_is_answered(fedseal: Run, log: Path, arguments: tuple[str, ...], says: str) -> None:
    done = fedseal("lineage", *arguments, "--log", log)
    assert done.returncode == ExitCode.OK, done
    assert says in done.stdout


def test_answers_are_json_too(fedseal: Run, log: Path) -> None:
    done = fedseal("lineage", "impact", secret("data 2"), "--log", log, "--json")
    found = json.loads(done.stdout)
    assert [one["direct_rounds"] for one in found["models"]] == [1, 2]
    # Nothing bounds what site 2 was not charged for; JSON has no infinity.
    assert found["models"][1]["bounds"][0]["epsilon"] is None
    assert found["models"][1]["clean"]["digest"] == digest("m0")


def test_a_folder_a_run_and_an_export_are_logs_too(fedseal: Run, log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "federation" / "server"
    run.mkdir(parents=True)
    shutil.copy(log, run / "server.sqlite")
    answers = {
        fedseal("lineage", "rebuild", "--log", where).stdout
        for where in (log, log.parent / "export", tmp_path / "run", f"sqlite:///{log}")
    }
    assert len(answers) == 1


def test_a_file_names_a_model_by_its_content(fedseal: Run, log: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(hashlib.sha256(b"x").hexdigest().encode())
    assert FINAL in fedseal("lineage", "show", model, "--log", log).stdout


def test_every_entry_of_an_answer_can_be_proven(fedseal: Run, log: Path, tmp_path: Path) -> None:
    done = fedseal("lineage", "impact", "site-1", "--log", log.parent / "export", "--json", "--prove", tmp_path / "p")
    named = {model["model"]["idx"] for model in json.loads(done.stdout)["models"]}
    proofs = {int(path.stem): path for path in (tmp_path / "p").glob("*.tlog-proof")}
    assert named <= set(proofs)
    policy = policy_of(make_roster(2), 0)
    for index, path in proofs.items():
        proof = parse_proof(path.read_bytes())
        assert proof.index == index
        check_proof(proof, (tmp_path / "p" / f"{index}.json").read_bytes(), policy)


def test_tables_are_kept_and_follow_the_log(fedseal: Run, log: Path) -> None:
    fedseal("lineage", "show", FINAL, "--log", log)
    kept = log.with_name("server.sqlite.lineage")
    assert kept.stat().st_mode & 0o077 == 0
    first = fedseal("lineage", "rebuild", "--log", log, "--json").stdout
    # Somebody changes the tables: a rebuild brings back what the log says.
    with sqlite3.connect(kept) as connection:
        connection.execute("DELETE FROM lineage_edge")
    assert "no model" in fedseal("lineage", "impact", "site-1", "--log", log).stdout
    assert fedseal("lineage", "rebuild", "--log", log, "--json").stdout == first
    assert "no model" not in fedseal("lineage", "impact", "site-1", "--log", log).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nobody", "--log", "LOG"), "nothing in this log has that name"),
        (("impact", "model:none", "--log", "LOG"), "nothing in this log"),
        (("epsilon", "site-9", "--log", "LOG"), "Expected: site."),
        (("show", FINAL, "--log", "nowhere.sqlite"), "no log at nowhere.sqlite"),
        (("show", FINAL, "--log", "."), "no log in the folder"),
        (("show", FINAL, "--log", "LOG/x"), "no log at"),
        (("show", FINAL, "--log", "mysql://x/y"), "SQLite or PostgreSQL"),
        (("show", FINAL, "--log", "EMPTY"), "holds no log"),
        (("show", FINAL, "--log", "TEXT"), "holds no log"),
        (("show", FINAL, "--log", "LOG", "--tables", "no/such/folder/t"), "cannot be opened"),
        (("show", FINAL, "--log", "LOG", "--tables", "TEXT"), "cannot be"),
        (("show", FINAL, "--log", "LOG", "--prove", "TEXT"), "cannot be written"),
        (("graph", FINAL, "--log", "LOG", "--out", "no/such/folder/x.svg"), "cannot be written"),
    ],
)
def test_what_cannot_be_answered_is_said(
    fedseal: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite3.connect(tmp_path / "EMPTY").close()
    (tmp_path / "EMPTY").touch()
    (tmp_path / "TEXT").write_text("no database " * 100)
    told(fedseal("lineage", *(text.replace("LOG", str(log)) for text in arguments)), ExitCode.CONFIG, says)


def test_a_log_with_an_entry_that_cannot_be_read_is_refused(fedseal: Run, log: Path) -> None:
    engine = open_database(log)
    with engine.begin() as connection:
        Log(connection, server_origin("test")).append([b"{}"])
    engine.dispose()
    told(fedseal("lineage", "show", FINAL, "--log", log), ExitCode.PEER, "an entry")
