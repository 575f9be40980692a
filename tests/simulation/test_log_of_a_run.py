"""A simulated run's log, as another program sees it: `fedseal-verify` shares no line of code with fedseal."""

import json
from pathlib import Path

import pytest

from fedseal.compliance.audit.reconcile import reconcile
from fedseal.compliance.audit.site_side import site_side
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.log.checkpoint import site_origin
from fedseal.compliance.log.export import export
from fedseal.compliance.reports.documents import Documents
from fedseal.compliance.reports.history import read_history
from fedseal.compliance.reports.report import State, make_report
from fedseal.compliance.reports.template import ANNEX_IV, read_template
from fedseal.privacy.store import SiteStore
from fedseal.simulation.result import Result
from fedseal.simulation.simulate import Finished
from fedseal_verify.cli import main as verify_main


def test_the_log_in_a_runs_folder_holds(private_run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_main(["log", str(private_run.folder / "log"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["verdict"], report["findings"]) == ("OK", [])


def test_every_copy_of_it_holds_and_every_site_agrees(
    private_run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_log(private_run.folder) as copy:
        assert verify_copy(copy).code is AuditCode.OK
        export(copy.log, tmp_path / "log", copy.policy)
        assert verify_main(["log", str(tmp_path / "log")]) == 0
        capsys.readouterr()
        stores = sorted((private_run.folder / "federation").glob("*.sqlite"))
        assert len(stores) > 2
        for path in stores:
            store = SiteStore.open(path, reading=True)
            with store.transaction() as transaction:
                origin = site_origin(store.identity.roster.federation, store.identity.name)
                side = site_side(transaction, store.identity)
                result = reconcile(copy.leaves(), side, answered=copy.cosigned_by(origin))
            assert (result.found, result.waiting) == ([], 0)
            with open_log(path, own=True) as own:
                assert verify_copy(own).code is AuditCode.OK


def test_its_report_says_what_the_run_says(private_run: Finished) -> None:
    result = Result.model_validate_json((private_run.folder / "result.json").read_text(encoding="utf-8"))
    with open_log(private_run.folder) as copy:
        history = read_history(copy.leaves(), result.model_sha256)
    report = make_report(read_template(ANNEX_IV), history, Documents())
    (spent,) = [a for a in report.answers if a.label == "Privacy spent, by population"]
    assert spent.state is State.RECORDED
    for value in spent.values:
        site, said = value.text.split(": epsilon ")
        epsilon = result.privacy.sites[site].epsilon
        assert epsilon is not None
        # The log charges what the ledger charges.
        assert said.startswith(f"{epsilon:.3f} ")
