"""The verifier is a distribution of its own that knows nothing of fedseal, and fedseal nothing of it."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "compliance" / "verify" / "fedseal_verify"
FOLDERS = ("server", "client", "privacy", "simulation", "compliance", "src", "tests/support")
# Throws damaged bytes at the parsers of both; what the two are compared by does not go through it.
BOTH = ROOT / "tests" / "support" / "fuzz_files.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(PACKAGE.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def imports(source: str) -> Iterator[str]:
    """The top-level names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or ".").split(".")[0] if node.level == 0 else "."
        elif isinstance(node, ast.Name) and node.id in {"__import__", "importlib", "exec", "eval"}:
            yield node.id


def test_it_imports_the_standard_library_and_cryptography() -> None:
    allowed = {*sys.stdlib_module_names, "cryptography", "fedseal_verify"}
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 8
    for path in modules:
        assert set(imports(path.read_text(encoding="utf-8"))) <= allowed, path.name


@pytest.mark.parametrize(
    "line", ["import fedseal", "from fedseal.merkle import root", "from . import x", "__import__('x')", "import numpy"]
)
def test_a_planted_import_would_be_seen(line: str) -> None:
    assert set(imports(f"def f():\n    {line}\n")) - {*sys.stdlib_module_names, "cryptography", "fedseal_verify"}


def test_fedseal_does_not_import_it() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            if not path.is_relative_to(PACKAGE.parent) and path != BOTH:
                assert "fedseal_verify" not in set(imports(path.read_text(encoding="utf-8"))), path


def test_the_wheel_holds_one_package_and_one_dependency(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"fedseal_verify", "fedseal_verify-0.1.0.dist-info"}
    for path in PACKAGE.glob("*.py"):
        assert f"fedseal_verify/{path.name}" in names
    assert "fedseal_verify-0.1.0.dist-info/licenses/LICENSE" in names
    metadata = archive.read("fedseal_verify-0.1.0.dist-info/METADATA").decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert required == ["Requires-Dist: cryptography>=42"]


def test_it_runs_from_its_wheel_without_fedseal(wheel: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "import fedseal_verify.cli as cli\n"
        f"assert cli.__file__.startswith({str(wheel)!r})\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'fedseal', 'flwr', 'torch', 'numpy', 'pydantic'}, loaded\n"
        "cli.main(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.1.0\n", "")
