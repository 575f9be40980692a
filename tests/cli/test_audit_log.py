"""`fedseal audit` on a log of a federation that really ran: verdicts, proofs, exit codes, and a verifier of its own."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.federated import copied, run, trained
from support.flower import Federation

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.log.tiles import bundles_of
from fedseal.errors import RoundAborted
from fedseal_verify.cli import main as verify_main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return trained(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def exported(honest: Federation, fedseal: Run, tmp_path: Path) -> Path:
    done = fedseal("audit", "export", "--log", honest.server, tmp_path / "log")
    assert done.returncode == 0
    return tmp_path / "log"


def note_of(federation: Federation, folder: Path, size: int) -> Path:
    with open_log(federation.server) as copy:
        note = copy.log.checkpoint(size)
    assert note is not None
    path = folder / f"{size}.note"
    path.write_text(note, encoding="utf-8")
    return path


def sizes(federation: Federation) -> list[int]:
    with open_log(federation.server) as copy:
        return [size for size, _ in copy.log.checkpoints()]


def test_verify_says_what_it_checked_and_what_not(honest: Federation, fedseal: Run) -> None:
    done = fedseal("audit", "verify", "--log", honest.server)
    assert done.returncode == 0
    assert "verdict    OK" in done.stdout
    assert "compare its keys" in done.stdout
    assert "no checkpoint from before" in done.stdout
    report = json.loads(fedseal("audit", "verify", "--log", honest.server, "--json").stdout)
    assert (report["verdict"], report["exit"], report["final"], report["findings"]) == ("OK", 0, True, [])
    assert report["types"]["round.aggregated/v1"] == 2


def test_the_exit_codes_are_those_of_fedseal_verify(honest: Federation, exported: Path, fedseal: Run) -> None:
    assert fedseal("audit", "verify", "--log", exported).returncode == verify_main(["log", str(exported)]) == 0
    # A mirror has not got the other sites' cosignatures.
    assert fedseal("audit", "verify", "--log", honest.sites[1]).returncode == 3
    assert fedseal("audit", "verify", "--log", honest.sites[1], "--own").returncode == 0
    assert fedseal("audit", "verify", "--log", exported / "nowhere").returncode == 2
    note = exported / "checkpoint"
    with open_log(exported) as copy:
        (bundle,) = bundles_of(copy.log.size)
    content = (exported / bundle.path).read_bytes()
    (exported / bundle.path).write_bytes(content.replace(b'"rounds":2', b'"rounds":9'))
    assert fedseal("audit", "verify", "--log", exported).returncode == verify_main(["log", str(exported)]) == 1
    (exported / bundle.path).write_bytes(content)
    lines = note.read_text(encoding="utf-8").split("\n")
    note.write_text("\n".join([*lines[:5], ""]), encoding="utf-8")
    assert fedseal("audit", "verify", "--log", exported).returncode == verify_main(["log", str(exported)]) == 3


def test_against_a_kept_checkpoint(honest: Federation, exported: Path, fedseal: Run, tmp_path: Path) -> None:
    before, newest = note_of(honest, tmp_path, sizes(honest)[1]), note_of(honest, tmp_path, sizes(honest)[-1])
    verify = ("audit", "verify", "--log")
    assert fedseal(*verify, exported, "--against", before, "--against", newest).returncode == 0
    later = copied(honest, tmp_path / "later")
    run(later)
    kept = note_of(later, tmp_path, sizes(later)[-1])
    assert fedseal(*verify, exported, "--against", kept).returncode == 4
    nonsense = tmp_path / "nonsense.note"
    nonsense.write_text("nonsense", encoding="utf-8")
    assert fedseal(*verify, exported, "--against", nonsense).returncode == 2
    consistency = ("audit", "consistency")
    assert fedseal(*consistency, before, newest, "--log", honest.server).returncode in (0, 3)
    assert fedseal(*consistency, newest, before, "--log", honest.server).returncode == 4
    assert fedseal(*consistency, before, kept, "--log", honest.server).returncode == 2
    assert fedseal(*consistency, nonsense, newest, "--log", honest.server).returncode == 2


def test_two_notes_of_two_histories_are_a_fork(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = trained(tmp_path / "other")
    mine, theirs = note_of(honest, tmp_path, sizes(honest)[-1]), tmp_path / "theirs.note"
    theirs.write_bytes(note_of(other, tmp_path / "other", sizes(other)[-1]).read_bytes())
    done = fedseal("audit", "consistency", theirs, mine, "--log", honest.server, "--json")
    assert done.returncode == 1
    assert "a fork" in json.loads(done.stdout)["findings"][0]["what"]


def test_a_proof_travels_alone(honest: Federation, exported: Path, fedseal: Run, tmp_path: Path) -> None:
    proof, leaf, policy = tmp_path / "x.tlog-proof", tmp_path / "x.json", exported / "policy.txt"
    assert fedseal("audit", "prove", "#7", "--log", honest.server, "-o", proof).returncode == 0
    check = ("audit", "check", proof, "--leaf", leaf, "--policy", policy)
    theirs = ["proof", str(proof), "--leaf", str(leaf), "--policy", str(policy)]
    assert fedseal(*check).returncode == verify_main(theirs) == 0
    leaf.write_bytes(leaf.read_bytes().replace(b'"v":1', b'"v":2'))
    assert fedseal(*check).returncode == verify_main(theirs) == 1
    proof.write_text("nonsense", encoding="utf-8")
    assert fedseal(*check).returncode == 2
    assert fedseal("audit", "prove", "999", "--log", exported, "-o", proof).returncode == 2
    assert fedseal("audit", "prove", "x", "--log", exported, "-o", proof).returncode == 2
    for place in (tmp_path / "no" / "x.tlog-proof", tmp_path / "x.json"):
        assert fedseal("audit", "prove", "7", "--log", exported, "-o", place).returncode == 2
    assert fedseal("audit", "export", "--log", exported, proof).returncode == 2


def test_an_entry_is_found_by_index_and_by_either_digest(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    shown = fedseal("audit", "show", "7", "--log", honest.server)
    assert json.loads(shown.stdout)["v"] == 1
    assert "signature holds" in shown.stderr
    (hashed,) = [line.split()[2] for line in shown.stderr.splitlines() if line.startswith("leaf hash")]
    assert fedseal("audit", "show", hashed, "--log", honest.server).stdout == shown.stdout
    later = json.loads(fedseal("audit", "show", "9", "--log", honest.server).stdout)
    assert fedseal("audit", "show", later["prev"], "--log", honest.server).returncode == 0
    assert fedseal("audit", "show", 64 * "0", "--log", honest.server).returncode == 2


def test_reconcile_agrees_and_finds_a_server_that_leaves_entries_out(
    honest: Federation, fedseal: Run, tmp_path: Path
) -> None:
    for path in honest.sites.values():
        done = fedseal("audit", "reconcile", "--log", honest.server, "--site", path)
        assert (done.returncode, "0 disagreements" in done.stdout) == (0, True)
    later = copied(honest, tmp_path / "later")
    run(later)
    done = fedseal("audit", "reconcile", "--log", honest.server, "--site", later.sites[1], "--json")
    assert done.returncode == 1
    disputes = {one["dispute"] for one in json.loads(done.stdout)["disagreements"]}
    assert {"UNLOGGED", "FEDERATION_HISTORY"} <= disputes


def test_a_sites_own_log_is_exported_and_verified_elsewhere(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    sites = copied(honest, tmp_path / "copy").sites
    out = tmp_path / "own"
    assert fedseal("audit", "export", "--log", sites[1], "--own", "--record", out).returncode == 0
    assert verify_main(["log", str(out)]) == 0
    assert fedseal("audit", "verify", "--log", out).returncode == 0
    with open_log(sites[1], own=True) as copy:
        assert b"audit.exported/v1" in copy.log.leaf(copy.log.size - 1)


def test_reviews_are_written_down(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    federation = copied(honest, tmp_path / "copy")
    review = ("audit", "review", "--first", 0, "--end", 5, "--outcome", "nothing")
    assert fedseal(*review, "--log", federation.server).returncode == 0
    assert fedseal(*review, "--site", federation.sites[1]).returncode == 0
    assert fedseal(*review, "--site", federation.sites[1], "--own").returncode == 0
    assert fedseal(*review).returncode == 3
    done = fedseal("audit", "review", "--first", 5, "--end", 5, "--outcome", "findings", "--log", federation.server)
    assert done.returncode == 3
    run(federation)
    report = json.loads(fedseal("audit", "verify", "--log", federation.server, "--json").stdout)
    assert (report["exit"], report["types"]["audit.reviewed/v1"]) == (0, 2)


def test_recover_from_the_command_line(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    federation = copied(honest, tmp_path / "copy")
    shutil.copy(federation.server, tmp_path / "backup")
    run(federation)
    shutil.copy(tmp_path / "backup", federation.server)
    done = fedseal(
        "audit", "recover", "--log", federation.server, "--from", federation.sites[1], "--from", federation.sites[2]
    )
    assert done.returncode == 0
    assert "site-1:" in done.stdout
    assert "site-2: 0 entries taken" in done.stdout
    run(federation)
    assert fedseal("audit", "verify", "--log", federation.server).returncode == 0
    assert fedseal("audit", "recover", "--log", tmp_path, "--from", federation.sites[1]).returncode == 3


def test_evidence_and_settling_of_a_site_that_has_not_stopped(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    federation = copied(honest, tmp_path / "copy")
    assert "kept no evidence" in fedseal("audit", "evidence", "--site", federation.sites[1], tmp_path / "e").stdout
    assert "has not stopped" in fedseal("audit", "settle", "--site", federation.sites[1]).stdout


def test_evidence_and_settling_of_a_site_that_has(honest: Federation, fedseal: Run, tmp_path: Path) -> None:
    federation = copied(honest, tmp_path / "copy")
    (tmp_path / "other").mkdir()
    other = trained(tmp_path / "other")
    # The server's store is another's with the same keys: the next run shows another history.
    shutil.copy(other.server, federation.server)
    with pytest.raises(RoundAborted):
        run(federation)
    site = federation.sites[1]
    done = fedseal("audit", "evidence", "--site", site, tmp_path / "evidence")
    assert "NOT settled" in done.stdout
    assert len(list((tmp_path / "evidence").glob("*.note"))) == 2
    command = next(line.split() for line in done.stdout.splitlines() if "fedseal-verify fork" in line)
    assert verify_main(command[1:]) == 1
    assert fedseal("audit", "settle", "--site", site).returncode == 3
    assert fedseal("audit", "settle", "--site", site, "--yes").returncode == 0
    assert "settled on" in fedseal("audit", "evidence", "--site", site, tmp_path / "again").stdout
