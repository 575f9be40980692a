"""What a run leaves behind: a result in its published schema, tables and model that agree with it, and a report that
stands alone and says what is an oracle's word.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from support.studies import tiny

import fedseal
from fedseal.client.split import by_hash
from fedseal.privacy.secagg.parameters import threshold
from fedseal.simulation.folders import run_folder
from fedseal.simulation.result import Result
from fedseal.simulation.simulate import Finished, Options, Progress, simulate
from fedseal.study import Contract

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "result-1.json"
SITES = [f"hospital-{i}" for i in range(1, 5)]
BASELINES = ("majority", "local", "federated_plain", "pooled")
Json = dict[str, Any]


def raw(finished: Finished) -> Json:
    found: Json = json.loads((finished.folder / "result.json").read_text(encoding="utf-8"))
    return found


def result(finished: Finished) -> Result:
    return Result.model_validate(raw(finished))


def report(finished: Finished) -> str:
    return (finished.folder / "report.html").read_text(encoding="utf-8")


# The folder.


def test_a_run_folder_holds_its_files_and_nothing_else(private_run: Finished) -> None:
    found = {p.name for p in private_run.folder.iterdir()}
    files = {"result.json", "metrics.parquet", "model.safetensors", "config.json", "report.html"}
    assert found == files | {"federation", "plain", "epsilon-2", "log"}
    stores = {p.name for p in (private_run.folder / "federation").iterdir()}
    assert {"server", *[f"{name}.sqlite" for name in SITES]} <= stores
    assert (private_run.folder / "federation" / "server" / "server.sqlite").is_file()


def test_the_persons_are_not_left_behind(private_run: Finished) -> None:
    """The sites' tables are copies for the run only. The folder also has no name of one who is still writing."""
    assert not (private_run.folder / "data").exists()
    assert not list(private_run.folder.rglob("*.csv"))
    assert [p.name for p in private_run.folder.parent.iterdir()] == [private_run.folder.name]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half way"), run_folder(tmp_path, "tiny") as (folder, _):
        (folder / "result.json").write_text("half")
        raise ValueError("half way")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_under_its_name_when_all_is_written(tmp_path: Path) -> None:
    with run_folder(tmp_path, "tiny") as (folder, run):
        (folder / "result.json").write_text("whole")
        assert folder.name.startswith(".")
        assert not (tmp_path / run).exists()
    assert (tmp_path / run / "result.json").read_text() == "whole"
    assert re.fullmatch(r"tiny-\d{8}-\d{6}-[0-9a-f]{6}", run)


# result.json.


def test_the_result_validates_against_its_model_and_its_schema(private_run: Finished, plain_run: Finished) -> None:
    schema = Result.model_json_schema(by_alias=True)
    for finished in (private_run, plain_run):
        Result.model_validate(raw(finished))
        jsonschema.validate(raw(finished), schema)


def test_the_published_schema_is_the_models(private_run: Finished) -> None:
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(raw(private_run), published)
    for key in ("$schema", "$id"):
        published.pop(key, None)
    assert published == Result.model_json_schema(by_alias=True)


def test_the_schema_refuses_what_is_not_a_result(private_run: Finished) -> None:
    schema = Result.model_json_schema(by_alias=True)
    for change in ({"simulated": False}, {"schema_version": 2}, {"final": None}, {"further": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(raw(private_run) | change, schema)


def test_a_judgement_has_scores_for_everyone_and_for_each_site(private_run: Finished) -> None:
    found = raw(private_run)
    for judgement in (found["final"], *[found["baselines"][name] for name in BASELINES]):
        assert list(judgement["sites"]) == SITES
        for scores in (judgement["global"], *judgement["sites"].values()):
            assert {"loss", "accuracy", "auc"} <= set(scores)
            assert all(0 <= scores[k] <= 20 for k in ("loss", "accuracy", "auc"))


def test_the_result_says_what_ran(private_run: Finished) -> None:
    found = raw(private_run)
    assert (found["study"], found["title"], found["seed"], found["strategy"]) == ("tiny", "Two blobs", 5, "fedavg")
    assert found["simulated"] is True
    assert (found["threshold"], found["colluders"]) == (threshold(4, 1), 1)
    assert [r["number"] for r in found["rounds"]] == [1, 2, 3]
    assert [(e["epsilon"], e["epsilon_spent"] <= 2.0) for e in found["other_epsilons"]] == [(2.0, True)]
    for entry in found["rounds"]:
        assert (entry["sites"], entry["attempts"]) == (4, 1)
        assert list(entry["stages"]) == ["advertise", "share", "mask", "consistency", "unmask"]
        assert all(stage["bytes_down"] > 0 and stage["bytes_up"] > 0 for stage in entry["stages"].values())


def test_privacy_stands_there_for_each_site(private_run: Finished) -> None:
    found = raw(private_run)
    assert list(found["privacy"]["sites"]) == SITES
    for facts in found["privacy"]["sites"].values():
        assert 0 < facts["epsilon"] <= facts["epsilon_enforced"] <= facts["epsilon_budget"] == 8.0
        assert facts["delta"] == 1e-5
        plan = facts["plan"]
        assert (plan["kind"], plan["clip_norm"], plan["sample_rate"]) == ("local", 1.0, 0.5)
        assert (plan["steps_per_release"], plan["releases"], facts["releases"]) == (2, 3, 3)
        assert facts["epsilon"] == found["rounds"][-1]["epsilon"]


def test_without_a_plan_epsilon_is_null_and_not_a_number(plain_run: Finished) -> None:
    found = raw(plain_run)
    for facts in found["privacy"]["sites"].values():
        assert (facts["epsilon"], facts["epsilon_enforced"]) == (None, None)
        assert facts["plan"]["kind"] == "none"
        assert facts["plan"]["noise_multiplier"] is None
    assert [r["epsilon"] for r in found["rounds"]] == [None] * 3
    assert all(r["sealed"] is not None for r in found["rounds"])
    assert found["baselines"] is None


def test_sites_add_up_to_the_population(private_run: Finished) -> None:
    sites = raw(private_run)["sites"]
    assert sum(s["train"] + s["validation"] + s["test"] for s in sites.values()) == 240
    for site in sites.values():
        assert sum(site["classes"].values()) == site["train"] + site["validation"] + site["test"]
        assert list(site["classes"]) == ["label: 0", "label: 1"]
        assert site["public_persons"] % 10 == 0


# The other files.


def expected_rows(found: Json) -> dict[tuple[str, int, str, str, str], float]:
    """All scores of result.json by (model, round, scope, metric, source)."""
    rows: dict[tuple[str, int, str, str, str], float] = {}

    def add(model: str, at: int, scope: str, scores: Json, source: str = "oracle") -> None:
        for metric in ("loss", "accuracy", "auc"):
            rows[model, at, scope, metric, source] = scores[metric]

    last = len(found["rounds"])
    judgements = {"federated": found["final"]} | (found["baselines"] or {})
    judgements |= {f"epsilon-{e['epsilon']:g}": e["judgement"] for e in found["other_epsilons"]}
    for model, judgement in judgements.items():
        add(model, last, "global", judgement["global"])
        for site, scores in judgement["sites"].items():
            add(model, last, site, scores)
    for entry in found["rounds"]:
        add("federated", entry["number"], "global", entry["oracle"])
        if entry["sealed"] is not None:
            add("federated", entry["number"] - 1, "global", entry["sealed"], "sealed")
    return rows


@pytest.mark.parametrize("kind", ["private_run", "plain_run"])
def test_the_table_of_metrics_holds_the_results_scores_and_no_others(kind: str, request: pytest.FixtureRequest) -> None:
    finished: Finished = request.getfixturevalue(kind)
    table = pd.read_parquet(finished.folder / "metrics.parquet")
    assert list(table.columns) == ["run", "seed", "model", "round", "scope", "metric", "value", "source"]
    assert set(table["run"]) == {finished.folder.name}
    assert set(table["seed"]) == {5}
    key = ["model", "round", "scope", "metric", "source"]
    found = {tuple(row): value for row, value in zip(table[key].to_numpy(), table["value"], strict=True)}
    assert len(found) == len(table)
    assert found == expected_rows(raw(finished))


def test_the_model_is_the_one_whose_hash_stands_in_the_result(private_run: Finished) -> None:
    content = (private_run.folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == raw(private_run)["model_sha256"]
    arrays = safetensors.numpy.load(content)
    assert {name: a.shape for name, a in arrays.items()} == {"weight": (1, 3), "bias": (1,)}
    for name, array in private_run.findings.main.model.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_the_configuration_has_what_a_rerun_needs(private_run: Finished) -> None:
    found = json.loads((private_run.folder / "config.json").read_text(encoding="utf-8"))
    assert found["schema_version"] == 1
    assert found["fedseal"] == fedseal.__version__
    assert Contract.model_validate(found["contract"]) == private_run.findings.contract
    assert {"python", "flwr", "torch", "opacus", "numpy", "dp-accounting", "cryptography"} <= set(found["versions"])
    assert all(re.match(r"\d+\.\d+", version) for version in found["versions"].values())
    assert found["simulated"] is True
    assert set(found["options"]) == {"sites", "rounds", "epsilon", "seed", "data", "strategy"}


@pytest.mark.slow
def test_options_are_in_the_configuration_resolved(tmp_path: Path, progress: Progress) -> None:
    options = Options(rounds=1, epsilon=4.0, seed=9, strategy="fedadam", sites=3, baselines=False)
    finished = simulate(tiny(privacy={"plan": "none"}), options, tmp_path, progress)
    found = json.loads((finished.folder / "config.json").read_text(encoding="utf-8"))["contract"]
    assert (found["training"]["rounds"], found["training"]["strategy"]) == (1, "fedadam")
    assert (found["privacy"]["plan"], found["privacy"]["epsilon"]) == ("local", 4.0)
    assert (found["simulation"]["seed"], found["simulation"]["sites"]) == (9, 3)
    assert len(raw(finished)["sites"]) == 3


# Numbers that do not exist.


def one_class_folder(folder: Path) -> Path:
    """Four sites: as usual, one test class only, no test person at all, and as usual."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(("north", "ones", "untested", "west")):
        table = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
        table["label"], table["person"] = np.arange(60) % 2, np.arange(60) + 1000 * i
        tested = by_hash(table["person"], study="tiny")[2]
        if name == "ones":
            table.loc[tested, "label"] = 1
        if name == "untested":
            table = table.drop(index=tested.tolist())
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def site_row(page: str, name: str) -> list[str]:
    """The cells of a site's line."""
    row = re.search(rf"<tr><td>{name}</td>(.*?)</tr>", page, flags=re.DOTALL)
    assert row is not None
    return re.findall(r"<td>(.*?)</td>", row.group(1))


@pytest.mark.slow
def test_what_is_undefined_is_null_in_the_result_and_a_dash_in_the_report(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "data").mkdir()
    options = Options(data=one_class_folder(tmp_path / "data"), rounds=1, baselines=False)
    finished = simulate(tiny(), options, tmp_path / "out", progress)
    sites = raw(finished)["final"]["sites"]
    assert sites["ones"]["auc"] is None
    assert sites["ones"]["accuracy"] is not None
    assert sites["untested"] == {"loss": None, "accuracy": None, "auc": None, "further": {}}
    assert sites["north"]["auc"] is not None
    page = report(finished)
    assert [site_row(page, name)[5] == "-" for name in ("north", "ones", "untested")] == [False, False, True]
    table = pd.read_parquet(finished.folder / "metrics.parquet")
    gone = table[(table["scope"] == "ones") & (table["metric"] == "auc")]
    assert gone["value"].isna().all()
    assert len(gone) == 1
