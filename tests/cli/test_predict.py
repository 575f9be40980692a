"""`fedseal predict`: what a permitted model says of a file; and nothing else than a permitted model says anything."""

import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import told
from support.serving import RULES, Permitted, directly, people, served
from support.studies import TINY

from fedseal.compliance.events.fields import RollbackReason
from fedseal.compliance.registry.bundle import MANIFEST, MODEL, RECIPE, SCHEMA, BundleStore
from fedseal.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MADE = served()


class Ward:
    """Where somebody has a bundle, a log that permits it, and files."""

    def __init__(self, fedseal: Run, folder: Path) -> None:
        self.fedseal, self.folder = fedseal, folder
        (folder / "log").mkdir()
        self.world = Permitted(folder / "log")
        self.world.permit(MADE)
        self.policy = self.world.policy()
        self.bundle = BundleStore(folder / "bundles").add(MADE)

    def file(self, table: pd.DataFrame, name: str = "in.csv") -> Path:
        path = self.folder / name
        if path.suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, row_group_size=1000)
        return path

    def predict(self, file: Path, *arguments: str | Path, study: Path = TINY) -> "subprocess.CompletedProcess[str]":
        log = ("--log", self.world.store, "--policy", self.policy)
        return self.fedseal("predict", self.bundle, file, *log, "--study", study, *arguments)


@pytest.fixture
def ward(fedseal: Run, tmp_path: Path) -> Ward:
    return Ward(fedseal, tmp_path)


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, keep_default_na=False, na_values={"score:yes": [""], "score:no": [""]})


def test_predictions_are_the_models_own(ward: Ward) -> None:
    """In CSV and in parquet, in several pieces, with the rows named by a column: every score, class and abstention."""
    table = people(9000)
    scores = directly(table)
    for name in ("in.csv", "in.parquet"):
        done = ward.predict(ward.file(table, name), "--id", "person", "--json")
        assert done.returncode == 0, done.stderr
        receipt = json.loads(done.stdout)
        out = ward.folder / name.replace("in.", "in.predictions.")
        found = read(out)
        assert list(found["person"]) == list(table["person"])
        np.testing.assert_allclose(found["score:yes"], scores, rtol=0, atol=1e-6)
        sure = (1 - scores <= 0.6) != (scores <= 0.6)
        wanted = np.where(sure, np.where(scores >= 0.5, "yes", "no"), "")
        assert list(found["prediction"].fillna("")) == list(wanted)
        assert receipt["counts"]["predicted"] == sure.sum()
        assert receipt["counts"]["abstained"] == {"uncertain": int((~sure).sum())}
        assert receipt["permitted"]["alias"] == "production"
        assert receipt["bundle"] == MADE.digest
        assert receipt["drift"]["rows"] == 9000
        # What it says of persons is its owner's alone.
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert json.loads(out.with_name(out.name + ".receipt.json").read_text()) == receipt
    assert not list(ward.folder.glob(".*"))


def test_rows_that_are_not_as_the_schema_says(ward: Ward) -> None:
    table = people(6).astype({"a": object, "b": object})
    table.loc[1, "a"], table.loc[2, "b"], table.loc[3, "a"] = 99.5, "unknown", None
    file = ward.file(table)
    done = ward.predict(file, "--out", ward.folder / "out.csv")
    assert done.returncode == 0, done.stderr
    for said in ("1 left out: missing:a", "1 left out: out-of-range:a", "1 left out: wrong-type:b"):
        assert said in done.stdout
    found = read(ward.folder / "out.csv")
    assert list(found["row"]) == [1, 2, 3, 4, 5, 6]
    assert list(found["reason"][1:4]) == ["out-of-range:a", "wrong-type:b", "missing:a"]
    assert found["score:yes"][1:4].isna().all()
    assert "99.5" not in done.stdout
    narrow = table.drop(columns="person")
    told(
        ward.predict(ward.file(narrow, "n.csv"), "--strict"),
        ExitCode.DATA,
        "1 rows missing in 'a'; 1 rows out-of-range in 'a'; 1 rows wrong-type in 'b'",
    )
    told(ward.predict(file, "--strict"), ExitCode.DATA, "columns that the model does not read")
    told(ward.predict(ward.file(table[["a", "c"]], "two.csv")), ExitCode.DATA, "lacks 1 of 3 columns", "'b'")
    told(ward.predict(file, "--id", "nobody"), ExitCode.DATA, "has no column 'nobody'")
    assert not list(ward.folder.glob("*.predictions.*")) and not list(ward.folder.glob(".*"))
    assert ward.predict(ward.file(people(3).drop(columns="person"), "good.csv"), "--strict").returncode == 0


def test_nothing_is_written_over(ward: Ward) -> None:
    file = ward.file(people(3))
    out = ward.folder / "in.predictions.csv"
    out.write_text("mine", encoding="utf-8")
    told(ward.predict(file), ExitCode.CONFIG, "in.predictions.csv exists")
    assert out.read_text(encoding="utf-8") == "mine"
    out.unlink()
    out.symlink_to(ward.folder / "elsewhere")
    told(ward.predict(file), ExitCode.CONFIG, "exists")
    told(ward.predict(file, "--out", ward.folder / "no" / "out.csv"), ExitCode.CONFIG, "cannot be written")
    told(ward.predict(file, "--out", ward.folder / "out.xlsx"), ExitCode.CONFIG, "neither CSV nor parquet")
    told(ward.predict(ward.folder / "in.xlsx"), ExitCode.CONFIG, "neither CSV nor parquet")
    told(ward.predict(ward.folder / "none.csv"), ExitCode.CONFIG, "does not exist")


def flip(path: Path, place: int = -1) -> bytes:
    raw = path.read_bytes()
    changed = bytearray(raw)
    changed[place] ^= 1
    path.write_bytes(bytes(changed))
    return raw


def test_a_changed_bundle_is_refused_before_anything_of_it_is_used(ward: Ward) -> None:
    file = ward.file(people(3))
    for name in (MODEL, RECIPE, SCHEMA):
        for place in (0, 40, -1):
            whole = flip(ward.bundle / name, place)
            told(ward.predict(file), ExitCode.CONFIG, "is not the file that its manifest names")
            (ward.bundle / name).write_bytes(whole)
    whole = flip(ward.bundle / MANIFEST, 60)
    # Another manifest is another bundle, of which the log says nothing: its files are not even read.
    (ward.bundle / MODEL).write_bytes(b"")
    told(ward.predict(file), ExitCode.POLICY, "is not registered in the federation's log")
    (ward.bundle / MANIFEST).write_bytes(whole)
    told(ward.predict(file), ExitCode.CONFIG, "model.safetensors is not the file")


def test_the_log_has_to_permit_it(ward: Ward, tmp_path: Path) -> None:
    file = ward.file(people(3))
    told(ward.predict(file, "--alias", "canary"), ExitCode.POLICY, "canary points to no bundle")
    nothing = ward.fedseal("predict", ward.bundle, file, "--study", TINY)
    told(nothing, ExitCode.CONFIG, "nothing says that this bundle may be used")
    itself = ward.fedseal("audit", "export", tmp_path / "copy", "--log", ward.world.store, "--policy", ward.policy)
    assert itself.returncode == 0, itself.stderr
    own_word = ward.fedseal("predict", ward.bundle, file, "--log", tmp_path / "copy", "--study", TINY)
    told(own_word, ExitCode.CONFIG, "says itself whose signatures count")
    registration = ward.world.registry.find(MADE.digest, ward.world.registry.state())
    ward.world.registry.suspend(registration, RollbackReason.INCIDENT)
    told(ward.predict(file), ExitCode.POLICY, "is suspended")


def test_a_proof_that_travels_alone(ward: Ward) -> None:
    file, proof = ward.file(people(3)), ward.folder / "x.tlog-proof"
    (binding,) = ward.world.registry.state().aliases.values()
    log = ("--log", ward.world.store, "--policy", ward.policy)
    assert ward.fedseal("audit", "prove", str(binding.index), "-o", proof, *log).returncode == 0
    alone = ("--proof", proof, "--entry", ward.folder / "x.json", "--policy", ward.policy, "--study", TINY)
    done = ward.fedseal("predict", ward.bundle, file, *alone)
    assert done.returncode == 0, done.stderr
    assert "not whether it was suspended or replaced since" in done.stdout
    flip(proof, 60)
    told(ward.fedseal("predict", ward.bundle, file, *alone, "--out", ward.folder / "o.csv"), ExitCode.PEER, "the proof")


def test_only_approved_code_runs(ward: Ward, changed: Callable[..., Path]) -> None:
    file = ward.file(people(3))
    other = changed("task.py", "nn.Linear(3, 1)", "print('ran') or nn.Linear(3, 1)")
    done = ward.predict(file, study=other)
    told(done, ExitCode.CONFIG, "is not what the bundle's model was made with")
    assert "ran" not in done.stdout
    told(ward.predict(file, "--runtime", "onnxruntime"), ExitCode.CONFIG, "has no model.onnx")


def test_scores_that_are_spread_otherwise(ward: Ward) -> None:
    file = ward.file(people(400, shift=2.0))
    told(ward.predict(file, "--refuse-drift"), ExitCode.POLICY, "are not spread as the evaluation's")
    assert not list(ward.folder.glob("in.predictions*"))
    done = ward.predict(file)
    assert done.returncode == 0, done.stderr
    assert "another mix of patients, or drift" in " ".join(done.stdout.split())
    few = ward.predict(ward.file(people(20, shift=2.0), "few.csv"), "--refuse-drift")
    assert few.returncode == 0 and "Too few rows" in few.stdout


def test_a_bundle_that_does_not_say_how_it_is_applied(ward: Ward) -> None:
    old = served(columns=(), output={"kind": "unstated"})
    ward.world.register(old)
    ward.world.witness()
    ward.world.promote(old, text=RULES)
    ward.world.witness()
    ward.bundle = BundleStore(ward.folder / "bundles").add(old)
    told(ward.predict(ward.file(people(3))), ExitCode.CONFIG, "does not say which columns", "docs/predict.md")


@pytest.mark.slow
def test_the_bundles_graph_needs_no_code_of_the_study(ward: Ward, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from fedseal.cli.exporting import with_graph

    graphed = with_graph(MADE, TINY)
    ward.world.permit(graphed)
    ward.bundle = BundleStore(ward.folder / "bundles").add(graphed)
    table = people(500)
    file, log = ward.file(table), ("--log", ward.world.store, "--policy", ward.policy)
    done = ward.fedseal("predict", ward.bundle, file, *log, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["versions"]["runtime"] == "onnxruntime"
    assert ward.predict(file, "--runtime", "torch", "--out", ward.folder / "torch.csv").returncode == 0
    graph, torch = read(ward.folder / "in.predictions.csv"), read(ward.folder / "torch.csv")
    np.testing.assert_allclose(graph["score:yes"], torch["score:yes"], rtol=0, atol=1e-6)
    assert list(graph["prediction"]) == list(torch["prediction"])
    flip(ward.bundle / "model.onnx", 50)
    told(ward.predict(file, "--out", ward.folder / "o.csv"), ExitCode.CONFIG, "model.onnx is not the file")
    (ward.bundle / "model.onnx").unlink()
    told(ward.predict(file, "--out", ward.folder / "o.csv"), ExitCode.CONFIG, "has no model.onnx")
