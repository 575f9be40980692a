"""Imports go down only, and a planted import that goes up is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = Path(sys.executable).with_name("lint-imports")
FOLDERS = ("server", "client", "privacy", "simulation", "compliance")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [str(LINT), "--config", str(root / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_the_layers_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("privacy/secret.py", "import flwr"),
        ("compliance/policy.py", "import torch"),
        ("server/rounds.py", "import fedseal.client.task"),
        ("server/grid.py", "import opacus"),
        ("privacy/plan.py", "import fedseal.server.store"),
        ("simulation/oracle.py", "import flwr"),
        ("privacy/secagg/client.py", "import time"),
        ("src/fedseal/wire.py", "import fedseal.study"),
        ("compliance/log/witness.py", "import sqlalchemy"),
    ],
)
def test_a_planted_import_is_caught(tmp_path: Path, file: str, line: str) -> None:
    root = tmp_path / "copy"
    for folder in (*FOLDERS, "src"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    path = root / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    assert lint(root).returncode == 1
