"""The whole study of bench/drift_power.py, with its goals."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_every_goal_of_the_study_is_met(tmp_path: Path) -> None:
    script = ROOT / "bench" / "drift_power.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
