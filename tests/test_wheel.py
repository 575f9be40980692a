"""The wheel holds everything, needs no links, and installs one new top-level name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def test_an_empty_environment_gets_one_new_name(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    before = {p.name for p in packages.iterdir()}
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", str(wheel)]
    subprocess.run(command, check=True)
    new = {p.name for p in packages.iterdir()} - before
    assert {name for name in new if not name.endswith(".dist-info")} == {"fedseal"}
    found = subprocess.run(
        [str(python), "-c", "import fedseal; print(fedseal.__version__)"], capture_output=True, check=True
    )
    assert found.stdout.strip()


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("server", "client", "privacy", "simulation", "compliance"):
        for path in (ROOT / folder).rglob("*.py"):
            # The verifier is a distribution of its own.
            apart = path.is_relative_to(ROOT / "compliance" / "verify")
            assert (f"fedseal/{path.relative_to(ROOT)}" in names) is not apart
    for path in (ROOT / "src" / "fedseal").glob("*.py"):
        assert f"fedseal/{path.name}" in names


def test_data_files_are_in_the_wheel_and_tests_are_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "fedseal/py.typed",
        "fedseal/simulation/templates/report.html.j2",
        "fedseal/cli/scaffold/task.py.txt",
        "fedseal/examples/breast-cancer/pyproject.toml",
        "fedseal/examples/breast-cancer/task.py",
    ):
        assert wanted in names
    assert not [
        name for name in names if "test" in name.split("/")[0] or name.startswith(("server/", "client/", "bench/"))
    ]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".sqlite")]
    assert not [name for name in names if "verify" in name.split("/")]
