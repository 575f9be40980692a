"""The whole way: a federation trains, its model is registered and promoted, and a site's mirror permits its use."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from support.commands import told
from support.studies import TINY

from fedseal.cli.simulating import run_simulation
from fedseal.client.metrics import accuracy
from fedseal.client.task import Task, build_model
from fedseal.client.trainer import load
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.errors import ExitCode
from fedseal.privacy.store import SiteStore
from fedseal.simulation.simulate import Options
from fedseal.study_code import load_object, load_task

Run = Callable[..., "subprocess.CompletedProcess[str]"]
EVALUATED = "\n[tool.fedseal.evaluation]\nepsilon = 8.0\npersons = 60\nbins = 'auto'\ncoverage = 0.8\n"
RULES = 'version = 1\n[production]\n[[production.gates]]\nkind = "metric"\nmeasure = "auc"\nat_least = 0.1\n'
DESCRIPTION = """
version = 1
output = { kind = "logit", classes = ["no", "yes"] }
columns = [{ name = "a" }, { name = "b" }, { name = "c" }]
"""


def said(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_federations_model_predicts_at_a_site(fedseal: Run, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(TINY, study, ignore=shutil.ignore_patterns("__pycache__"))
    with (study / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(EVALUATED)
    run_simulation(study, Options(baselines=False), tmp_path / "runs", as_json=True)
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    (tmp_path / "describe.toml").write_text(DESCRIPTION, encoding="utf-8")
    (tmp_path / "registry.toml").write_text(RULES, encoding="utf-8")
    made = said(fedseal("model", "register", run, "--describe", tmp_path / "describe.toml", "--json"))["bundle"]
    promote = ("model", "promote", made, "--alias", "production", "--rules", tmp_path / "registry.toml", "--log", run)
    for command in (("model", "witness", "--log", run), promote, ("model", "witness", "--log", run)):
        assert fedseal(*command).returncode == 0
    index = said(fedseal("model", "list", "--log", run, "--json"))["aliases"]["production"]["index"]
    proof = tmp_path / "promoted.tlog-proof"
    assert fedseal("audit", "prove", str(index), "--log", run, "-o", proof).returncode == 0
    bundle = BundleStore(run / "federation" / "server" / "bundles").path(made)
    # Also the rule of abstention and the reference came with the evaluation.
    recipe = json.loads((bundle / "recipe.json").read_bytes())
    assert recipe["abstention"]["coverage"] == 0.8
    assert sum(recipe["scores"]["counts"]) > 20

    table = cast(pd.DataFrame, cast(Any, load_object("task:population", study))())
    table.to_csv(tmp_path / "in.csv", index=False)
    mirror = run / "federation" / "hospital-1.sqlite"
    config = site_file(tmp_path, mirror, study, recipe["code"])
    told(fedseal("predict", bundle, tmp_path / "in.csv", "--config", config), ExitCode.PEER, "no quorum")
    done = fedseal("predict", bundle, tmp_path / "in.csv", "--config", config, "--proof", proof, "--id", "person")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "in.predictions.csv", keep_default_na=False)
    task = cast(Task, load_task("task:Blobs", study))
    network = build_model(task).eval()
    load(network, safetensors.numpy.load((bundle / "model.safetensors").read_bytes()))
    with torch.no_grad():
        outputs = network(torch.tensor(table[["a", "b", "c"]].to_numpy(dtype=np.float32)))
    labels = torch.tensor(table["label"].to_numpy())
    classes = (found["score:yes"] >= 0.5).to_numpy()
    right = accuracy().statistic(outputs, labels).numpy()[:, 0]
    assert list((classes == table["label"].astype(bool)).astype(float)) == list(right)
    predicted = found["prediction"] != ""
    assert 50 < predicted.sum() < len(table)
    assert list(found["prediction"][predicted]) == ["yes" if one else "no" for one in classes[predicted]]

    assert SiteStore.open(mirror, reading=True).identity.name == "hospital-1"
    (study / "task.py").write_text((study / "task.py").read_text() + "\n# more\n", encoding="utf-8")
    again = ("--config", config, "--proof", proof, "--out", tmp_path / "o.csv")
    told(fedseal("predict", bundle, tmp_path / "in.csv", *again), ExitCode.CONFIG, "not what this site has approved")


def site_file(folder: Path, store: Path, study: Path, digest: str) -> Path:
    """A site's file, as a resident node has it."""
    path = folder / "site.toml"
    path.write_text(
        f'[server]\naddress = "127.0.0.1:9092"\nauthority = "ca.pem"\n'
        f'[site]\nstore = "{store}"\ndata = "{folder}"\nkey = "key"\n'
        f'[study]\nfolder = "{study}"\ndigest = "{digest}"\n',
        encoding="utf-8",
    )
    return path
