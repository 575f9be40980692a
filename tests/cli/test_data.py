"""`fedseal data` and `fedseal erase`: from an empty contract to the proof that somebody is gone."""

import json
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
from support.commands import Run, told
from support.datasets import people, sites, write
from support.flower import Federation

from fedseal.compliance.data.contract import read_contract
from fedseal.errors import ExitCode

FILLED = {
    'name = "FILL IN" ': 'name = "heart" ',
    'purpose = "FILL IN" ': 'purpose = "research" ',
    '["FILL IN"]': '["6-1-e"]',
    'retention_until = "FILL IN"': "retention_until = 2036-01-01",
    'system = "FILL IN"': 'system = "registry"',
    'extracted_at = "FILL IN"': "extracted_at = 2026-01-31",
}


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    (tmp_path / "stores").mkdir()
    return sites(tmp_path / "stores")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(people(), tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "task.py").write_text("x = 1\n")
    return tmp_path / "study"


@pytest.fixture
def contract(fedseal: Run, folder: Path, tmp_path: Path) -> Path:
    """A contract as `fedseal data init` writes it, filled in."""
    path = tmp_path / "data.toml"
    done = fedseal("data", "init", folder, "--subject", "person", "--contract", path)
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text(encoding="utf-8")
    for before, after in FILLED.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def register(fedseal: Run, federation: Federation, folder: Path, study: Path, contract: Path) -> Run:
    """Registers the folder at site 1."""

    def run(*options: str | Path) -> "subprocess.CompletedProcess[str]":
        store = ("--store", federation.sites[1])
        return fedseal("data", "register", folder, *store, "--study", study, "--contract", contract, *options)

    return run


def test_a_template_has_the_columns_and_no_value(contract: Path) -> None:
    text = contract.read_text(encoding="utf-8")
    types = {name: rules.type for name, rules in read_contract(text).columns.items()}
    assert types == {
        "person": "text",
        "age": "integer",
        "pressure": "real",
        "sex": "text",
        "ill": "boolean",
        "seen": "date",
        "at": "text",
    }
    for value in ("007", "Zoë", "2026-01-02", "120"):
        assert value not in text


def test_a_template_is_not_valid_and_not_overwritten(fedseal: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "fresh.toml"
    arguments = ("data", "init", folder, "--subject", "person", "--contract", path)
    assert fedseal(*arguments).returncode == 0
    told(fedseal(*arguments), ExitCode.CONFIG, "exists already")
    told(fedseal("data", "init", folder, "--subject", "who"), ExitCode.DATA, "lacks column 'who'")


def test_registering_listing_showing_and_comparing(
    fedseal: Run, register: Run, federation: Federation, folder: Path
) -> None:
    store = ("--store", federation.sites[1])
    assert "registered no data" in fedseal("data", "list", *store).stdout
    told(fedseal("data", "show", "1", *store), ExitCode.CONFIG, "registered no data")
    done = register()
    assert (done.returncode, done.stderr) == (0, "")
    assert "Version 1 of dataset 'heart': registered." in done.stdout
    assert json.loads(register("--json").stdout)["new"] is False
    write(people().iloc[[0, 1, 2, 3]], folder)
    told(fedseal("data", "check", folder, *store), ExitCode.DATA, "persons.csv has changed", "fedseal data register")
    assert json.loads(register("--json").stdout)["version"] == 2
    listed = json.loads(fedseal("data", "list", *store, "--json").stdout)
    assert [(v["version"], v["state"]) for v in listed] == [(1, "superseded"), (2, "current")]
    assert "superseded" in fedseal("data", "list", *store).stdout
    shown = json.loads(fedseal("data", "show", "2", *store, "--json").stdout)
    assert shown["shared"]["parents"] == [listed[0]["facts"]["dsv_id"]]
    assert shown["quality"]["failures"] == []
    assert "rows" not in shown["shared"]
    assert json.loads(fedseal("data", "show", "2", *store).stdout) == shown
    assert json.loads(fedseal("data", "diff", "1", "2", *store, "--json").stdout) == {
        "added": 0,
        "removed": 1,
        "changed": 0,
        "facts": [],
    }
    assert "0 added, 1 removed, 0 changed" in fedseal("data", "diff", "1", "2", *store).stdout
    told(fedseal("data", "diff", "1", "3", *store), ExitCode.CONFIG, "no version 3")


def test_a_check_against_a_contract_counts_what_breaks_it(
    fedseal: Run, register: Run, federation: Federation, folder: Path, contract: Path
) -> None:
    assert register().returncode == 0
    arguments = ("data", "check", folder, "--store", federation.sites[1], "--contract", contract)
    assert fedseal(*arguments).returncode == 0
    text = contract.read_text(encoding="utf-8").replace('[columns."age"]', '[columns."age"]\nlow = 40')
    contract.write_text(text, encoding="utf-8")
    done = fedseal(*arguments)
    told(done, ExitCode.DATA, "breaks this contract")
    assert "column 'age': range, 1 rows" in done.stdout


def test_what_is_wrong_is_said(fedseal: Run, register: Run, folder: Path, contract: Path, tmp_path: Path) -> None:
    told(fedseal("data", "list", "--store", tmp_path / "none"), ExitCode.CONFIG, "no site store")
    contract.write_text(contract.read_text(encoding="utf-8").replace("research", "fun"), encoding="utf-8")
    told(register(), ExitCode.CONFIG, "data.toml:", "dataset.purpose")


def test_a_request_for_erasure_from_beginning_to_end(
    fedseal: Run, register: Run, federation: Federation, folder: Path, tmp_path: Path
) -> None:
    store = ("--store", federation.sites[1])
    ids = tmp_path / "ids.txt"
    ids.write_text("b\nnobody\n", encoding="utf-8")
    whom = ("--subject-file", ids)
    told(fedseal("erase", "plan", *store, *whom), ExitCode.CONFIG, "registered no data")
    assert register().returncode == 0
    planned = json.loads(fedseal("erase", "plan", *store, *whom, "--json").stdout)
    assert (planned["subjects"], planned["unknown"], planned["versions"][0]["subjects"]) == (2, 1, 1)
    assert "Nothing has changed" in fedseal("erase", "plan", *store, *whom).stdout
    told(fedseal("erase", "execute", *store, *whom, "--reason", "because"), ExitCode.CONFIG, "17-1-a")
    done = fedseal("erase", "execute", *store, *whom, "--reason", "17-1-b")
    assert (done.returncode, done.stderr) == (0, "")
    assert "withdrawn" in done.stdout
    request = re.findall(r"hmac:[0-9a-f]{64}", done.stdout)[-1]
    told(fedseal("erase", "close", request, *store, "--outcome", "perhaps"), ExitCode.CONFIG, "retrain")
    told(fedseal("erase", "close", "hmac:" + 64 * "0", *store, "--outcome", "retrain"), ExitCode.CONFIG, "no such")
    assert fedseal("erase", "close", request, *store, "--outcome", "retrain").returncode == 0
    told(fedseal("erase", "close", request, *store, "--outcome", "retrain"), ExitCode.CONFIG, "is closed")
    told(fedseal("data", "check", folder, *store), ExitCode.POLICY, "withdrawn")
    told(register(), ExitCode.DATA, "has erased")
    write(people()[people()["person"] != "b"], folder)
    assert register().returncode == 0
    ids.write_text("b\n", encoding="utf-8")
    roots = [v["facts"]["content_root"] for v in json.loads(fedseal("data", "list", *store, "--json").stdout)]
    for number, said in ((1, "0 of 1 subjects are not in it"), (2, "1 of 1 subjects are not in it")):
        out = tmp_path / f"proof-{number}.json"
        assert said in fedseal("erase", "prove", str(number), *store, *whom, "--out", out).stdout
        assert '"b"' not in out.read_text(encoding="utf-8")
        verify = ("erase", "verify", out, *store, *whom, "--root")
        assert fedseal(*verify, roots[number - 1]).returncode == 0
        told(fedseal(*verify, roots[2 - number]), ExitCode.DATA, "do not hold")
        told(fedseal(*verify, "zz"), ExitCode.CONFIG, "hexadecimal")
    told(fedseal("erase", "verify", ids, *store, *whom, "--root", roots[0]), ExitCode.CONFIG, "no file of proofs")


def test_a_store_that_another_program_holds_is_said_to_be_held(
    fedseal: Run, register: Run, federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing is not said to be done while what was erased may still stand in a file."""
    assert register().returncode == 0
    monkeypatch.setattr("fedseal.compliance.data.erasure.PATIENCE", 50)
    ids = tmp_path / "ids.txt"
    ids.write_text("b\n", encoding="utf-8")
    reader = sqlite3.connect(federation.sites[1], isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM meta").fetchone()
    arguments = ("erase", "execute", "--store", federation.sites[1], "--subject-file", ids, "--reason", "17-1-b")
    told(fedseal(*arguments), ExitCode.CONFIG, "another program is using", "again")
    reader.close()
    assert fedseal(*arguments).returncode == 0
