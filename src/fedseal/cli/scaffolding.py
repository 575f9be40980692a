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
        ConfigError: the name is not usable, the folder exists and is not empty, or it cannot be made there.
    """
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a study's name",
            next_step="Use small letters, digits and hyphens, such as heart-attack.",
        )
    templates = resources.files("fedseal.cli") / "scaffold"
    texts = {file: (templates / f"{file}.txt").read_text(encoding="utf-8") for file in FILES}
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} exists and is not an empty folder", next_step="Choose another name.")
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text.replace("{{name}}", name), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot be made: {reason}", next_step="Choose another place.") from None
    return folder
