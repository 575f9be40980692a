"""A backup of a coordination server, made while it works."""

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from fedseal import __version__
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tree import EMPTY_ROOT
from fedseal.database import connect
from fedseal.errors import ConfigError
from fedseal.server.archive import (
    CONFIG,
    MANIFEST,
    NAMED,
    RUNS,
    SCHEMA_VERSION,
    STORE,
    Archive,
    Kept,
    digest_of,
    is_needed,
    named_files,
)
from fedseal.server.log_facts import has_log
from fedseal.server.recording import EVENTS
from fedseal.server.server_config import ServerConfig, parse_server
from fedseal.server.store import ServerIdentity, ServerStore
from fedseal.storage import on_disk

SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made: its manifest, and how many bytes it takes."""

    archive: Archive
    size: int


def back_up(config: Path, target: Path) -> Made:
    """Copy everything that a server needs to go on into a new folder, which is there whole or not at all.

    The runs are copied before the store: a run that ended in between is then ended again from the store, not lost.

    Args:
        config: the server's file.
        target: a folder that is not there yet.

    Raises:
        ConfigError: the server's file is wrong, its store damaged, or the folder cannot be made.
    """
    parsed = parse_server(config)
    if target.exists():
        raise ConfigError(f"{target} exists", next_step="Name a new folder.")
    home = config.resolve().parent
    ServerStore.open(home / parsed.server.store)
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        # Of one that was interrupted: it holds keys.
        shutil.rmtree(leftover, ignore_errors=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(mode=0o700)
        _fill(partial, config, parsed, home)
        archive = _manifest(partial, home / parsed.server.store)
        partial.rename(target)
        on_disk(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"no backup could be made at {target}: {error}", next_step="Nothing is left there. Make room or rights."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Made(archive, sum(kept.size for kept in archive.files))


def _fill(partial: Path, config: Path, parsed: ServerConfig, home: Path) -> None:
    _copy(config, partial / CONFIG)
    for key, path in named_files(parsed).items():
        if is_needed(key) or (home / path).exists():
            _copy_any(home / path, partial / NAMED / key)
    _copy_runs(home / parsed.server.runs, partial / RUNS)
    _copy_database(home / parsed.server.store, partial / STORE)


def _copy_runs(runs: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for run in sorted(p for p in runs.glob("*") if p.is_dir() and not p.name.startswith(".")):
        place = target / run.name
        place.mkdir(mode=0o700)
        # First, so that what they say is there is among the files that are copied after them; whole lines only.
        events = run / EVENTS
        if events.is_file():
            whole = events.read_bytes().rpartition(b"\n")
            _write(place / EVENTS, whole[0] + whole[1])
        for path in sorted(run.rglob("*")):
            if path.is_file() and not path.is_symlink() and path != events:
                _copy(path, place / path.relative_to(run))


def _copy_any(source: Path, target: Path) -> None:
    """A file, a database or a folder that a server's file names."""
    if source.is_dir():
        for path in sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink()):
            _copy_any(path, target / path.relative_to(source))
        return
    with source.open("rb") as file:
        database = file.read(len(SQLITE)) == SQLITE
    if database:
        _copy_database(source, target)
    else:
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    _write(target, source.read_bytes(), source.stat().st_mode & 0o700)


def _write(target: Path, content: bytes, mode: int = 0o600) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _copy_database(source: Path, target: Path) -> None:
    """As it stands at the end of its last transaction; whoever writes meanwhile is not held up."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.touch(mode=0o600, exist_ok=False)
    with closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reading:
        with closing(sqlite3.connect(target)) as copy:
            reading.backup(copy)
            # One file, without a log of its own beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise ConfigError(f"{source} is damaged: {found}", next_step="Keep it, and restore the last good backup.")
    on_disk(target)


def _manifest(partial: Path, source: Path) -> Archive:
    identity = ServerStore.open(source).identity
    entries, root = log_of(partial / STORE, identity)
    archive = Archive(
        schema_version=SCHEMA_VERSION,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        fedseal=__version__,
        federation=identity.roster.federation,
        server_key=identity.key.public.hex(),
        entries=entries,
        root=root.hex(),
        files=tuple(_kept(partial)),
    )
    _write(partial / MANIFEST, (archive.model_dump_json(indent=2) + "\n").encode())
    for folder in {path.parent for path in partial.rglob("*")}:
        on_disk(folder)
    return archive


def _kept(folder: Path) -> Iterator[Kept]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        name = str(PurePosixPath(path.relative_to(folder)))
        yield Kept(path=name, size=stat.st_size, sha256=digest_of(path), mode=stat.st_mode & 0o777)


def log_of(store: Path, identity: ServerIdentity, size: int | None = None) -> tuple[int, bytes]:
    """How many entries the log in a server's store has, and its root, or that of its first ``size`` entries."""
    engine = connect(store, reading=True)
    with engine.begin() as connection:
        if not has_log(connection):
            return 0, EMPTY_ROOT
        log = Log(connection, server_origin(identity.roster.federation))
        return log.size, log.root(size)
