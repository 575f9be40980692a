"""Opening a federation's registry for a command, and printing what came of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from fedseal.compliance.log.database import store_at
from fedseal.errors import ConfigError
from fedseal.server.registry import Opened, registry_at


@contextmanager
def opened(log: Path, bundles: Path | None = None, database: str | None = None) -> Iterator[Opened]:
    """The registry of a server's store.

    Args:
        log: the store, or a run's folder.
        bundles: where bundles are kept; beside the store if None.
        database: the URL of the log's database, where that is not the store.

    Raises:
        ConfigError: there is no store, or it cannot be used.
    """
    with registry_at(store_of(log), bundles, database) as found:
        yield found


def store_of(log: Path) -> Path:
    """The server's store that is meant; ConfigError if there is none."""
    found = store_at(log)
    if found is None:
        raise ConfigError(
            f"no server's store at {log}", next_step="Give the server's store, or the folder of a simulated run."
        )
    return found


def say(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print an outcome: as JSON and nothing else, or in words."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print(text, markup=False)
