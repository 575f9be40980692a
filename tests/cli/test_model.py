"""`fedseal model` and `fedseal person`: from a finished simulation into production and back, and what is refused."""

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from support.commands import told
from support.studies import TINY

from fedseal.cli.model import AliasName, MeaningName, ReasonName
from fedseal.cli.person import RoleName
from fedseal.cli.simulating import run_simulation
from fedseal.compliance.events.fields import Alias, Meaning, Role, RollbackReason
from fedseal.compliance.registry.approvals import load_key
from fedseal.compliance.registry.bundle import BundleStore, read_bundle
from fedseal.errors import ConfigError, ExitCode
from fedseal.privacy.secret import Secret
from fedseal.simulation.simulate import Options

Run = Callable[..., "subprocess.CompletedProcess[str]"]

RULES = """
version = 1
[production]
[[production.approvals]]
meaning = "authored"
roles = ["ml-engineer"]
[[production.approvals]]
meaning = "approved"
roles = ["approver"]
[[production.gates]]
kind = "metric"
measure = "auc"
at_least = 0.6
[[production.gates]]
kind = "worst-subgroup"
measure = "auc"
at_least = 0.3
[[production.gates]]
kind = "epsilon"
at_most = 8.0
"""
DESCRIPTION = """
version = 1
shape = [3]
output = { kind = "logit", classes = ["no", "yes"] }
thresholds = { label = THRESHOLD }
columns = [{ name = "a", low = -6, high = 8 }, { name = "b" }, { name = "c" }]
"""


def said(done: "subprocess.CompletedProcess[str]") -> Any:
    """What it printed as JSON, and nothing else."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Desk:
    """Where somebody sits with a run, rules, and two people's keys."""

    def __init__(self, fedseal: Run, folder: Path, run: Path) -> None:
        self.fedseal, self.folder = fedseal, folder
        self.run = folder / "run"
        shutil.copytree(run, self.run)
        self.rules = folder / "registry.toml"
        self.rules.write_text(RULES, encoding="utf-8")

    def model(self, command: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return self.fedseal("model", command, *arguments, "--log", self.run)

    def register(self, threshold: float) -> str:
        """Register the run with a threshold; the bundle's digest."""
        file = self.folder / f"{threshold}.toml"
        file.write_text(DESCRIPTION.replace("THRESHOLD", str(threshold)), encoding="utf-8")
        bundle = said(self.fedseal("model", "register", self.run, "--describe", file, "--json"))["bundle"]
        assert isinstance(bundle, str)
        return bundle

    def person(self, name: str, role: str) -> str:
        """Make a key, and add its person; the pseudonym."""
        file = self.folder / f"{name}.pem"
        public = said(self.fedseal("person", "key", file, "--no-passphrase", "--json"))["public"]
        added = self.fedseal("person", "add", public, "--name", name, "--role", role, "--log", self.run, "--json")
        actor = said(added)["person"]
        assert isinstance(actor, str)
        return actor

    def approve(self, bundle: str, name: str, meaning: str) -> "subprocess.CompletedProcess[str]":
        key = self.folder / f"{name}.pem"
        return self.model("approve", bundle, "--alias", "production", "--meaning", meaning, "--key", key)

    def promote(self, bundle: str) -> "subprocess.CompletedProcess[str]":
        return self.model("promote", bundle, "--alias", "production", "--rules", self.rules)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished simulation, to be copied."""
    out = tmp_path_factory.mktemp("runs")
    run_simulation(TINY, Options(baselines=False), out, as_json=True)
    (run,) = (path for path in out.iterdir() if path.is_dir())
    return run


@pytest.fixture
def desk(fedseal: Run, tmp_path: Path, finished: Path) -> Desk:
    return Desk(fedseal, tmp_path, finished)


def test_a_simulated_models_way_into_production_and_back(desk: Desk, tmp_path: Path) -> None:
    first = desk.register(0.5)
    told(desk.fedseal("model", "register", desk.run, "--describe", tmp_path / "0.5.toml"), ExitCode.CONFIG, "already")
    told(desk.promote(first), ExitCode.POLICY, "1 as authored", "1 as approved", "a quorum of the sites has cosigned")
    ana, ben = desk.person("ana", "ml-engineer"), desk.person("ben", "approver")
    second = desk.register(0.7)
    for bundle in (first, second):
        assert desk.approve(bundle, "ana", "authored").returncode == 0
        assert "ben, approver, has signed" in desk.approve(bundle, "ben", "approved").stdout
    told(desk.promote(first), ExitCode.POLICY, "a quorum of the sites has cosigned")
    assert said(desk.model("witness", "--json"))["final_size"] > 40
    for bundle in (first, second):
        assert desk.promote(bundle).returncode == 0
    listed = said(desk.model("list", "--json"))
    assert listed["aliases"]["production"]["bundle"] == second
    assert listed["refused"] == []
    rolled = desk.model("rollback", "--alias", "production", "--reason", "drift", "--json")
    assert said(rolled)["bundle"] == first
    shown = said(desk.model("show", "production", "--json"))
    assert shown["recipe"]["thresholds"] == {"label": 0.5}
    assert [a["name"] for a in shown["approvals"]] == ["ana", "ben"]
    assert {m["name"] for m in shown["measures"]} >= {"auc", "auc~hospital-1", "accuracy"}
    assert "All files hold" in desk.model("show", "production").stdout
    again = desk.model("recheck", "--rules", desk.rules, "--json")
    assert [p["problems"] for p in said(again)["promotions"]] == [[], []]
    exported = desk.model("export", "production", "--to", "mlflow", tmp_path / "mlflow", "--json")
    assert said(exported)["tags"]["fedseal.log.index"] == str(shown["index"])
    assert read_bundle(tmp_path / "mlflow" / "bundle").digest == first
    # A person's name is in the store, and in no entry of the log.
    persons = {
        p["person"]: p["name"] for p in said(desk.fedseal("person", "list", "--log", desk.run, "--json"))["persons"]
    }
    assert persons == {ana: "ana", ben: "ben"}
    assert desk.fedseal("person", "remove", ben, "--log", desk.run).returncode == 0
    told(desk.approve(second, "ben", "approved"), ExitCode.POLICY, "removed")
    assert "suspended" in desk.model("suspend", first, "--reason", "incident").stdout
    told(
        desk.model("rollback", "--alias", "production", "--reason", "drift", "--to", second),
        ExitCode.POLICY,
        "suspended",
    )


def test_a_signature_that_is_made_where_the_log_is_not(desk: Desk, tmp_path: Path) -> None:
    bundle, other = desk.register(0.5), desk.register(0.7)
    ben, ana = desk.person("ben", "approver"), desk.person("ana", "ml-engineer")
    bundles = BundleStore(desk.run / "federation" / "server" / "bundles")
    ask = ("ask", bundle, "--alias", "production", "--meaning", "approved", "--person")
    assert desk.model(*ask, ben, "--out", tmp_path / "request").returncode == 0
    told(desk.model(*ask, "act_" + 32 * "0", "--out", tmp_path / "r2"), ExitCode.CONFIG, "no such person")

    def sign(folder: Path, key: str, out: str) -> "subprocess.CompletedProcess[str]":
        files = ("--bundle", folder, "--key", tmp_path / f"{key}.pem", "--out", tmp_path / out)
        return desk.fedseal("model", "sign", tmp_path / "request", *files)

    told(sign(bundles.path(other), "ben", "s0"), ExitCode.CONFIG, "another bundle")
    assert sign(bundles.path(bundle), "ana", "forged").returncode == 0
    told(desk.model("submit", tmp_path / "forged"), ExitCode.POLICY, "not made with the key")
    assert sign(bundles.path(bundle), "ben", "signature").returncode == 0
    assert said(desk.model("submit", tmp_path / "signature", "--json"))["index"] > 40
    told(desk.model("submit", tmp_path / "signature"), ExitCode.PEER, "not the next")
    (tmp_path / "nonsense").write_text("bm9uc2Vuc2U=", encoding="utf-8")
    told(desk.model("submit", tmp_path / "nonsense"), ExitCode.PEER, "not canonical")
    assert [a["person"] for a in said(desk.model("show", bundle, "--json"))["approvals"]] == [ben]
    assert desk.fedseal("person", "remove", ana, "--log", desk.run).returncode == 0
    told(desk.model(*ask, ana, "--out", tmp_path / "r3"), ExitCode.POLICY, "removed")


def test_a_bundle_with_a_changed_byte_is_refused_by_every_command(desk: Desk) -> None:
    bundle = desk.register(0.5)
    assert desk.model("show", bundle).returncode == 0
    kept = BundleStore(desk.run / "federation" / "server" / "bundles").path(bundle) / "model.safetensors"
    raw = kept.read_bytes()
    kept.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    desk.person("ana", "ml-engineer")
    for done in (desk.model("show", bundle), desk.approve(bundle, "ana", "authored"), desk.promote(bundle)):
        told(done, ExitCode.CONFIG, "is not the file that its manifest names")
    kept.write_bytes(raw)
    assert desk.approve(bundle, "ana", "authored").returncode == 0


def test_what_is_no_run_or_no_log_is_refused(fedseal: Run, tmp_path: Path) -> None:
    told(fedseal("model", "register", tmp_path), ExitCode.CONFIG, "is no finished run")
    told(fedseal("model", "list", "--log", tmp_path), ExitCode.CONFIG, "no server's store")
    told(fedseal("person", "add", "xyz", "--name", "a", "--role", "approver"), ExitCode.CONFIG, "64 hexadecimal digits")
    told(fedseal("person", "add", 64 * "a", "--name", "a", "--role", "approver"), ExitCode.CONFIG, "whose person")
    told(fedseal("person", "add", 64 * "a", "--name", "a", "--role", "king", "--log", tmp_path), ExitCode.USAGE, "king")


def test_a_key_is_its_owners_alone(fedseal: Run, tmp_path: Path) -> None:
    file, phrase = tmp_path / "key.pem", tmp_path / "phrase"
    phrase.write_text("correct horse\n", encoding="utf-8")
    public = said(fedseal("person", "key", file, "--passphrase-file", phrase, "--json"))["public"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(file, Secret(b"correct horse")).public.hex() == public
    for wrong in (None, Secret(b"another")):
        with pytest.raises(ConfigError, match="passphrase"):
            load_key(file, wrong)
    told(fedseal("person", "key", file, "--no-passphrase"), ExitCode.CONFIG, "exists")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="by others"):
        load_key(file, Secret(b"correct horse"))


def test_the_options_are_the_logs_own_words() -> None:
    """Written out in the command line, so that it starts without what the log needs."""
    for words, form in ((AliasName, Alias), (MeaningName, Meaning), (ReasonName, RollbackReason), (RoleName, Role)):
        assert set(get_args(words)) == {one.value for one in form}
