"""The commands of `fedseal server` that look after it: stop it, keep a copy of it, put a copy back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Config = Annotated[Path, typer.Option("--config", help="The server's file; see docs/deploy.md.")]


def stop(
    config: Config,
    patience: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait until it has ended.")] = 60.0,
) -> None:
    """Stop the server that works with this file, and say what was under way: it is gone on with at the next start."""
    from fedseal.server.lock import holder, stop_holder
    from fedseal.server.runs_folder import RunsFolder
    from fedseal.server.server_config import parse_server

    runs = config.resolve().parent / parse_server(config).server.runs
    number = holder(runs)
    folder = RunsFolder(runs)
    folder.new()
    if number is None:
        _say("No server works with this file.")
    else:
        stop_holder(runs, number, patience)
        _say(f"Stopped process {number}.")
        folder.new()
    for name, state, rounds in folder.under_way():
        done = f"{rounds} {'round' if rounds == 1 else 'rounds'} finished" if state == "running" else "not begun"
        _say(f"Under way: {name}, {done}; it is gone on with at the next start.")


def backup(
    config: Config,
    target: Annotated[Path, typer.Argument(help="A new folder. With --into, a folder that gets one by date.")],
    into: Annotated[bool, typer.Option("--into", help="Make TARGET/DATE-TIME, as a timer does.")] = False,
    keep: Annotated[int, typer.Option(min=0, help="With --into: how many backups to keep there; 0: all.")] = 0,
) -> None:
    """Keep a copy of the server, also while it works: store and log, runs, its file, its keys.

    The copy holds the server's keys, unencrypted, readable by its owner only: keep it where nobody else reads.
    """
    from fedseal.server.backup import back_up

    place = target
    if into:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = target / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    made = back_up(config, place)
    _say(f"Kept {len(made.archive.files)} files, {made.size} bytes, log of {made.archive.entries} entries: {place}")
    _say("It holds the server's keys: keep it where nobody else reads.")
    if into and keep:
        for old in _older(target, keep):
            _say(f"Removed an older one: {old}")


def restore(
    source: Annotated[Path, typer.Argument(help="A backup that `fedseal server backup` made.")],
    config: Config,
    replace_newer: Annotated[
        bool, typer.Option("--replace-newer", help="Go back also behind what stands there; that is moved aside.")
    ] = False,
) -> None:
    """Put a backup back where --config says, after comparing every file with its manifest. Stop the server first."""
    from fedseal.server.restore import restore as put_back

    restored = put_back(source, config, replace_newer=replace_newer)
    archive = restored.archive
    _say(f"Put back: federation {archive.federation} as of {archive.made}, log of {archive.entries} entries.")
    for path in restored.aside:
        _say(f"What stood there before: {path}")
    _say(
        "Sites that have cosigned more entries refuse until the log is whole again. Before `fedseal server up`, take "
        "what is missing from a site's copy: fedseal audit recover --log STORE --from EXPORT "
        "(docs/operate/backup-and-restore.md)."
    )


def _older(folder: Path, keep: int) -> list[Path]:
    """Remove backups beyond the newest ones; only what has a backup's manifest."""
    import shutil

    from fedseal.server.archive import MANIFEST

    made = sorted(p.parent for p in folder.glob(f"[0-9]*T[0-9]*Z/{MANIFEST}"))
    old = made[:-keep]
    for path in old:
        shutil.rmtree(path)
    return old


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
