"""The commands: exit codes, what they print, and no traceback on anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import exported
from support.exported import SITES, STRANGER

from fedseal_verify import audit
from fedseal_verify.cli import main

ROOT = Path(__file__).resolve().parents[2]
LEAVES = exported.book(300).leaves
HASHES = exported.leaf_hashes(LEAVES)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.write_export(tmp_path_factory.mktemp("export"), LEAVES)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A policy, checkpoints at several sizes, one of another history, a proof and its leaf."""
    (tmp_path / "policy.txt").write_text(exported.policy(), encoding="utf-8")
    for size in (0, 100, 256, 300):
        (tmp_path / f"{size}.note").write_text(exported.note(size, exported.root(HASHES[:size])), encoding="utf-8")
    (tmp_path / "other100.note").write_text(exported.note(100, bytes(32), SITES[:1]), encoding="utf-8")
    (tmp_path / "newer.note").write_text(exported.note(301, bytes(32)), encoding="utf-8")
    stranger = exported.note(100, bytes(32), log=exported.Party(exported.LOG.name, 99))
    (tmp_path / "stranger.note").write_text(stranger, encoding="utf-8")
    elsewhere = exported.Party("elsewhere.example/log", 1)
    note = exported.note(100, bytes(32), log=elsewhere, origin=elsewhere.name)
    (tmp_path / "elsewhere.note").write_text(note, encoding="utf-8")
    (tmp_path / "x.tlog-proof").write_text(exported.proof(LEAVES, 7), encoding="utf-8")
    (tmp_path / "event.json").write_bytes(LEAVES[7])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_log(export: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "log", export)
    assert code == 0
    assert "the policy is the export's own" in text
    assert "NOT CHECKED  history" in text
    code, text = run(capsys, "log", export, "--policy", files / "policy.txt", "--against", files / "100.note")
    assert (code, text.splitlines()[-1]) == (0, "verdict      OK")
    assert "NOT CHECKED" not in text
    assert "export's own" not in text


def test_log_says_what_it_left_out(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "log", export, "--no-signatures")
    assert code == 0
    assert "NOT CHECKED  author signature" in text
    code, text = run(capsys, "log", export, "--no-events", "--json")
    report = json.loads(text)
    assert (code, report["exit"], report["verdict"]) == (0, 0, "OK")
    left_out = {each["check"] for each in report["not_checked"]}
    assert left_out == {"canonical form", "author signature", "seq and prev", "history"}


def test_log_against_checkpoints(export: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, expected in (("0", 0), ("256", 0), ("300", 0), ("other100", 1), ("newer", 4), ("stranger", 2)):
        assert run(capsys, "log", export, "--against", files / f"{name}.note")[0] == expected, name
    code, text = run(
        capsys, "log", export, "--against", files / "other100.note", "--against", files / "newer.note", "--json"
    )
    assert (code, [each["exit"] for each in json.loads(text)["findings"]]) == (1, [1, 4])


def test_log_since(export: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, "log", export, "--since", "2026-09-21T14:13:20Z")[0] == 0
    stale = ("log", export, "--since", "2026-09-21T16:13:21+02:00")
    code, text = run(capsys, *stale)
    assert code == 4
    assert "stale: no quorum since 2026-09-21T14:13:21Z; cosigned since then: none" in text
    for wrong in ("2026-09-21T14:13:20", "yesterday"):
        with pytest.raises(SystemExit):
            run(capsys, "log", export, "--since", wrong)
    monkeypatch.setattr(audit, "check_fresh", lambda *_: None)
    assert run(capsys, *stale)[0] == 0


def test_an_empty_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported.write_export(tmp_path, [])
    assert run(capsys, "log", tmp_path)[0] == 0
    exported.write_file(tmp_path, "tile/entries/000.p/1", b"\x00\x00")
    assert run(capsys, "log", tmp_path)[0] == 4


def test_quorum_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = exported.note(300, exported.root(HASHES), SITES[:1])
    exported.write_export(tmp_path, LEAVES, checkpoint)
    code, text = run(capsys, "log", tmp_path)
    assert code == 3
    assert "1 of 3 witnesses cosigned; without: site-b, site-c" in text


def test_proof(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--policy", files / "policy.txt")
    proof, leaf = files / "x.tlog-proof", files / "event.json"
    code, text = run(capsys, "proof", proof, "--leaf", leaf, *common)
    assert code == 0
    assert "signed by site-c" in text
    leaf.write_bytes(LEAVES[7] + b"\n")
    assert run(capsys, "proof", proof, "--leaf", leaf, *common)[0] == 0
    leaf.write_bytes(LEAVES[8])
    code, text = run(capsys, "proof", proof, "--leaf", leaf, *common)
    assert code == 1
    assert "entry 7: inclusion" in text
    leaf.write_bytes(LEAVES[7])
    proof.write_text(exported.proof(LEAVES, 7, exported.note(300, exported.root(HASHES), SITES[:1])), encoding="utf-8")
    assert run(capsys, "proof", proof, "--leaf", leaf, *common)[0] == 3
    proof.write_bytes(b"something else")
    assert run(capsys, "proof", proof, "--leaf", leaf, *common)[0] == 1


def test_a_proof_of_an_event_nobody_signed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = exported.jcs(exported.sign(STRANGER, exported.event(SITES[0], 0, "sha256:" + "0" * 64)))
    (files / "x.tlog-proof").write_text(exported.proof([*LEAVES, forged], 300), encoding="utf-8")
    (files / "event.json").write_bytes(forged)
    arguments = (files / "x.tlog-proof", "--leaf", files / "event.json", "--policy", files / "policy.txt")
    code, text = run(capsys, "proof", *arguments)
    assert code == 1
    assert "which the policy does not know" in text


def test_consistency(export: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def consistency(old: str, new: str) -> int:
        return run(capsys, "consistency", files / f"{old}.note", files / f"{new}.note", export)[0]

    for old, new in (("0", "300"), ("100", "256"), ("100", "300"), ("256", "300"), ("300", "300")):
        assert consistency(old, new) == 0
    assert consistency("other100", "300") == 1
    assert consistency("other100", "100") == 1
    assert consistency("300", "100") == 4
    assert consistency("100", "newer") == 1
    assert consistency("stranger", "300") == 2
    assert consistency("elsewhere", "300") == 2


def test_consistency_needs_no_entries(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries may be pruned; hashes are kept."""
    directory = exported.write_export(tmp_path / "pruned", LEAVES)
    (directory / "tile/entries/000").unlink()
    arguments = (files / "100.note", files / "300.note", directory)
    assert run(capsys, "consistency", *arguments)[0] == 0
    (directory / "tile/0/000").write_bytes(b"cut")
    code, text = run(capsys, "consistency", *arguments)
    assert code == 1
    assert "tile/0/000 has 3 bytes instead of 8192" in text


def test_fork(export: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fork(a: str, b: str, *more: object) -> tuple[int, str]:
        return run(capsys, "fork", files / f"{a}.note", files / f"{b}.note", "--policy", files / "policy.txt", *more)

    code, text = fork("100", "other100")
    assert (code, text.splitlines()[-1]) == (1, "verdict      FORK PROVEN")
    assert "witnesses that cosigned both: site-a" in text
    for name in ("100", "other100"):
        lines = (files / f"{name}.note").read_text(encoding="utf-8").splitlines()
        assert all(f"evidence     {line}" in text for line in lines)
    assert fork("100", "100")[0] == 0
    code, text = fork("other100", "300", "--dir", export)
    assert (code, "nodes that hash to both trees of 100 and 300" in text) == (1, True)
    code, text = fork("300", "100", "--dir", export)
    assert (code, "NO FORK: one continues the other" in text) == (0, True)
    for undecided in (("100", "300"), ("100", "stranger"), ("100", "elsewhere"), ("100", "newer", "--dir", export)):
        code, text = fork(*undecided)
        assert code == 2
        assert text.startswith("fedseal-verify: ")


def test_usage(export: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "log", files / "nowhere")[0] == 2
    assert run(capsys, "log", files, "--policy", files / "none.txt")[0] == 2
    assert run(capsys, "log", export, "--policy", files / "100.note")[0] == 2
    assert run(capsys, "log", export, "--against", files / "policy.txt")[0] == 2
    assert run(capsys, "consistency", files / "100.note", files / "none.note", export)[0] == 2
    for arguments in ([], ["unknown"], ["proof", "x"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2


def test_what_a_log_says_cannot_pass_for_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = exported.book(4)
    book.add(SITES[0], org="x\nverdict      OK\u001b[2J")
    code, text = run(capsys, "log", exported.write_export(tmp_path, book.leaves))
    assert code == 0
    assert "x\\nverdict      OK\\x1b[2J" in text
    assert sum(line.startswith("verdict") for line in text.splitlines()) == 1


def test_as_a_program(export: Path) -> None:
    command = [sys.executable, "-m", "fedseal_verify", "log", str(export)]
    environment = {"PYTHONPATH": str(ROOT / "compliance" / "verify"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("verdict      OK\n")
