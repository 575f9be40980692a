"""What `fedseal` said, and what it left."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedseal.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Changed = Callable[..., Path]


def told(done: "subprocess.CompletedProcess[str]", code: ExitCode, *texts: str) -> None:
    """It ended with this code and one message that says all of this."""
    assert done.returncode == code, done
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert len(re.findall(r"\berror:", said, flags=re.IGNORECASE)) == 1, said
    for text in texts:
        assert text in said


def left_behind(out: Path) -> list[Path]:
    return list(out.rglob("*")) if out.is_dir() else []


def refused(fedseal: Run, tmp_path: Path, code: ExitCode, *arguments: Any, says: tuple[str, ...]) -> None:
    """`fedseal simulate` with these arguments says this and leaves nothing."""
    out = tmp_path / "out"
    told(fedseal("simulate", *arguments, "--out", out), code, *says)
    assert left_behind(out) == []
