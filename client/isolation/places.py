"""What the study's process may read, and a look that nothing secret is there."""

import site
import sys
from collections.abc import Iterable
from pathlib import Path

import fedseal
from fedseal.client.isolation.confinement import SYSTEM
from fedseal.errors import ConfigError


def python_places() -> tuple[Path, ...]:
    """Where Python, its libraries and fedseal are: what `sys.path` names, and fedseal's folders behind links."""
    found = {
        Path(entry).resolve() for entry in (*sys.path, sys.prefix, sys.base_prefix) if entry and Path(entry).exists()
    }
    if site.ENABLE_USER_SITE and Path(site.getusersitepackages()).exists():
        found.add(Path(site.getusersitepackages()).resolve())
    for package in fedseal.__path__:
        found |= {part.resolve() for part in Path(package).iterdir() if part.is_symlink()}
    return tuple(sorted(_outermost(found)))


def _outermost(places: Iterable[Path]) -> set[Path]:
    all_of_them = set(places)
    return {place for place in all_of_them if not any(parent in all_of_them for parent in place.parents)}


def readable(study: Path, data: Path, windows: Path | None = None) -> tuple[Path, ...]:
    """What a study's process may read: Python's own places, the study's folder, and the data of the site."""
    own = [folder.resolve() for folder in (study, data, windows) if folder is not None]
    return (*python_places(), *own)


def check_secrets(readable_places: Iterable[Path], secrets: Iterable[Path]) -> None:
    """See that no secret file lies where the study's code may read.

    Raises:
        ConfigError: one does.
    """
    places = [place.resolve() for place in (*readable_places, *map(Path, SYSTEM))]
    for secret in secrets:
        found = secret.resolve()
        for place in places:
            if place == found or place in found.parents:
                raise ConfigError(
                    f"{secret} lies in {place}, which the study's code may read",
                    next_step="Put the site's store and its key into a folder of their own.",
                )
