"""`fedseal report` from the command line: exit codes, both forms, and logs that do not hold."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recorded import LAST, exported, whole

from fedseal.compliance.reports.report import document_keys
from fedseal.compliance.reports.template import ANNEX_IV, MODEL_CARD, read_template
from fedseal_verify.cli import main as verify_main

Run = Callable[..., "subprocess.CompletedProcess[str]"]
REPORTS = {"annex-iv": ANNEX_IV, "model-card": MODEL_CARD}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return exported(whole().leaves, tmp_path)


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_with_gaps_ends_with_10(name: str, log: Path, fedseal: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    done = fedseal("report", name, LAST, "--log", log, "-o", out)
    assert done.returncode == 10
    assert "NOT RECORDED" in done.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("name", REPORTS)
def test_with_its_documents_a_report_is_whole(name: str, log: Path, fedseal: Run, tmp_path: Path) -> None:
    documents, out = tmp_path / "docs.toml", tmp_path / "out.json"
    keys = document_keys(read_template(REPORTS[name]))
    tables = [f'[document.{key}]\ntitle = "{key}"\nsha256 = "{64 * "1"}"\n' for key in sorted(keys)]
    documents.write_text("".join(tables), encoding="utf-8")
    done = fedseal("report", name, LAST, "--log", log, "-o", out, "--documents", documents, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(done.stdout)["complete"] is True


def test_no_report_is_made_from_a_log_that_does_not_hold(fedseal: Run, tmp_path: Path) -> None:
    leaves = whole().leaves
    log = exported([*leaves[:9], *leaves[10:]], tmp_path)
    out = tmp_path / "out.html"
    done = fedseal("report", "model-card", LAST, "--log", log, "-o", out)
    assert (done.returncode, out.exists()) == (7, False)
    assert "audit verify" in done.stderr


def test_what_cannot_be_made_is_said(log: Path, fedseal: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert fedseal("report", "model-card", 64 * "0", "--log", log, "-o", out).returncode == 3
    assert fedseal("report", "model-card", LAST, "--log", tmp_path / "no", "-o", out).returncode == 3
    assert fedseal("report", "model-card", LAST, "--log", log, "-o", tmp_path / "no" / "x.html").returncode == 3
    assert fedseal("report", "model-card", tmp_path / "docs", "--log", log, "-o", out).returncode == 3


def test_a_log_with_persons_signatures_holds_for_the_other_verifier_too(
    log: Path, fedseal: Run, tmp_path: Path
) -> None:
    """Persons are added by entries, which `fedseal-verify` does not interpret: the policy of an export names them."""
    assert verify_main(["log", str(log)]) == 1
    out = tmp_path / "again"
    assert fedseal("audit", "export", "--log", log, out).returncode == 0
    assert verify_main(["log", str(out)]) == 0
    assert fedseal("audit", "verify", "--log", out).returncode == 0
    assert "3 of 3 witnesses" in fedseal("audit", "verify", "--log", out).stdout
    approval = next(i for i, leaf in enumerate(whole().leaves) if b"model.approved/v1" in leaf)
    proof, policy = tmp_path / "x.tlog-proof", out / "policy.txt"
    assert fedseal("audit", "prove", str(approval), "--log", out, "-o", proof).returncode == 0
    checked = ("--leaf", str(tmp_path / "x.json"), "--policy", str(policy))
    assert verify_main(["proof", str(proof), *checked]) == 0
    assert fedseal("audit", "check", proof, *checked).returncode == 0
    assert "site-1, whose signature holds" in fedseal("audit", "show", str(approval), "--log", out).stderr
