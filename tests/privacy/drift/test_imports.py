"""A server that only watches needs numpy and scipy, and little of scipy."""

import subprocess
import sys
from pathlib import Path

from fedseal.privacy.inference import drift

MODULES = sorted(p.stem for p in Path(drift.__path__[0]).glob("*.py") if p.stem != "__init__")
SCRIPT = """
import sys
import numpy, numpy.polynomial, scipy.special
before = {{m.split(".")[0] for m in sys.modules}}
{imports}
new = {{m.split(".")[0] for m in sys.modules}} - before - {{"fedseal"}} - set(sys.stdlib_module_names)
heavy = [m for m in ("scipy.stats", "scipy.optimize", "fedseal.study", "fedseal.config") if m in sys.modules]
print(",".join(sorted(new)), ",".join(heavy), sep=";")
"""


def loaded(imports: str) -> tuple[list[str], list[str]]:
    """What is loaded beside numpy, scipy.special and all that these load; and which of the heavy parts are."""
    script = SCRIPT.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    others, heavy = done.stdout.strip().split(";")
    return [m for m in others.split(",") if m], [m for m in heavy.split(",") if m]


def test_only_numpy_and_scipy_are_loaded() -> None:
    assert loaded("\n".join(f"import fedseal.privacy.inference.drift.{name}" for name in MODULES)) == ([], [])


def test_a_heavier_import_would_be_noticed() -> None:
    others, heavy = loaded("import fedseal.study, scipy.stats")
    assert "pydantic" in others
    assert "scipy.stats" in heavy
