"""systemd units: what systemd itself says of them, where it is there, and what they name."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
SERVICES = sorted(p.name for p in UNITS.glob("*.service"))
# systemd's own measure: 0 is nothing that can be reached, 10 everything. What each has, rounded up.
EXPOSED = {"fedseal-server.service": 15, "fedseal-site@.service": 27, "fedseal-server-backup.service": 8}


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a program that is there in the place of fedseal's, the site's with an instance."""
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8").replace("/opt/fedseal/bin/fedseal", shutil.which("true") or "")
        (tmp_path / path.name.replace("@.", "@hospital-1.")).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_in_the_units_and_something_in_a_twin(installed: Path) -> None:
    units = sorted(installed.iterdir())
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr
    twin = installed / "fedseal-server.service"
    twin.write_text(twin.read_text(encoding="utf-8").replace("NoNewPrivileges=", "NoNewPrivilege="), encoding="utf-8")
    assert "NoNewPrivilege" in analyze("verify", "--man=no", twin).stderr


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reaches_no_more_than_it_did(installed: Path, name: str) -> None:
    unit = installed / name.replace("@.", "@hospital-1.")
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSED[name]}", unit)
    assert done.returncode == 0, done.stdout[-200:]
    unit.write_text(re.sub(r"(?m)^(Protect|Restrict|Private|Capability|SystemCall).*$", "", unit.read_text("utf-8")))
    assert analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSED[name]}", unit).returncode != 0


def settings(name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    # Keys as they are written.
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return dict(parser["Service"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root_or_can_become_it(name: str) -> None:
    found = settings(name)
    assert found["User"].startswith("fedseal-")
    assert found["NoNewPrivileges"] == "yes"
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ""
    assert found["ProtectSystem"] == "strict"
    assert found["LimitCORE"] == "0"
    assert found["UMask"] == "0077"


def test_the_sites_node_may_make_what_its_child_process_needs_and_no_more() -> None:
    found = settings("fedseal-site@.service")
    assert set(found["RestrictNamespaces"].split()) == {"user", "mnt", "net", "pid", "ipc"}
    assert "unshare" in (UNITS / "fedseal-site@.service").read_text(encoding="utf-8")
    # A training that is cut off has been charged: it is let to its end.
    assert found["TimeoutStopSec"] == "30min"
    assert found["KillMode"] == "mixed"
