"""`fedseal new`: a study that runs at once."""

import re
from importlib import resources
from pathlib import Path

from fedseal.errors import ConfigError

FILES = ("pyproject.toml", "task.py", "README.md", "LICENSE")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def make_study(folder: Path) -> Path:
    """Write a new study's folder.

    Raises:
        ConfigError: the name is not usable, or the folder exists and is not empty.
    """
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a study's name",
            next_step="Use small letters, digits and hyphens, such as heart-attack.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder", next_step="Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files("fedseal.cli") / "scaffold"
    for file in FILES:
        text = (templates / f"{file}.txt").read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("{{name}}", name), encoding="utf-8")
    return folder
