"""A server put back from a backup, in the place where its file says everything belongs.

Nothing is deleted: what stood there is moved aside. While it lasts a note stands beside the server's file, and no
server starts: a restore that was interrupted is seen, and made again from its beginning.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from fedseal.config import read_toml, validate
from fedseal.errors import ConfigError, FedsealError
from fedseal.server.archive import CONFIG, NAMED, RUNS, STORE, Archive, named_files, read_archive
from fedseal.server.backup import log_of
from fedseal.server.lock import NAME as LOCK
from fedseal.server.lock import alone, holder
from fedseal.server.server_config import ServerConfig, restore_note
from fedseal.server.store import SERVER_STORE, ServerIdentity, ServerStore
from fedseal.storage import on_disk


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and where everything went that stood there before."""

    archive: Archive
    aside: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the parts of a server belong."""

    config: Path
    store: Path
    runs: Path
    named: dict[str, Path]


def restore(source: Path, config: Path, *, replace_newer: bool) -> Restored:
    """Put a backup back.

    Args:
        source: the backup.
        config: where the server's file belongs; relative paths in it count from its folder.
        replace_newer: go back also where what stands there has more entries in its log, or others.

    Raises:
        ConfigError: the backup is not as it was made, a server is working there, or what stands there is newer or
            another server's. Nothing has changed.
    """
    archive = read_archive(source)
    _check_format(source / STORE)
    table, text = read_toml(source / CONFIG)
    parsed = validate(ServerConfig, table, text=text, source=str(source / CONFIG))
    home = config.resolve().parent
    places = _Places(
        config.resolve(),
        home / parsed.server.store,
        home / parsed.server.runs,
        {key: home / path for key, path in named_files(parsed).items()},
    )
    if (number := holder(places.runs)) is not None:
        raise ConfigError(f"a server works there (process {number})", next_step="Stop it first: fedseal server stop.")
    if not replace_newer:
        _check_older(archive, places.store)
    try:
        return Restored(archive, _put_back(source, archive, places))
    except OSError as error:
        raise ConfigError(
            f"the restore was begun and has not ended: {error}", next_step="Make room or rights, and restore again."
        ) from None


def _check_format(store: Path) -> None:
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        except sqlite3.DatabaseError:
            raise ConfigError(f"{store} is not a server's store") from None
    SERVER_STORE.check(store, None if row is None else row[0])


def _check_older(archive: Archive, store: Path) -> None:
    """ConfigError if what stands there is newer than the backup, or another server's."""
    if not store.exists():
        return
    try:
        identity = ServerStore.open(store).identity
        entries = log_of(store, identity)[0]
        same = entries < archive.entries or _root_at(store, identity, archive.entries) == bytes.fromhex(archive.root)
    except (FedsealError, SQLAlchemyError):
        # Damaged: there is nothing to compare with, and it is kept.
        return
    if identity.key.public.hex() != archive.server_key:
        raise ConfigError(
            f"{store} is another server's than this backup", next_step="Move it away, or name another --config."
        )
    if entries > archive.entries or not same:
        what = f"has {entries} entries in its log" if same else "has another log"
        raise ConfigError(
            f"{store} {what}, and the backup {archive.entries}: going back loses what came since",
            next_step="Sites that have seen more will refuse until the log is recovered. To go back all the same: "
            "--replace-newer",
        )


def _root_at(store: Path, identity: ServerIdentity, size: int) -> bytes:
    return log_of(store, identity, size)[1]


def _put_back(source: Path, archive: Archive, places: _Places) -> tuple[Path, ...]:
    stamp = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    modes = {kept.path: kept.mode for kept in archive.files}
    note = restore_note(places.config)
    places.config.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{source.resolve()}\n", encoding="utf-8")
    on_disk(note)
    on_disk(note.parent)
    aside: list[Path] = []
    with alone(places.runs):
        for path in (places.store, *(places.store.with_name(f"{places.store.name}{end}") for end in ("-wal", "-shm"))):
            aside += _move_aside(path, stamp)
        for key, place in places.named.items():
            if (source / NAMED / key).is_dir():
                aside += _move_aside(place, stamp)
            for kept in sorted(
                path for path in modes if path == f"{NAMED}/{key}" or path.startswith(f"{NAMED}/{key}/")
            ):
                aside += _install(source / kept, place / Path(kept).relative_to(f"{NAMED}/{key}"), modes[kept], stamp)
        aside += _install(source / CONFIG, places.config, modes[CONFIG], stamp)
        aside += _put_runs(source / RUNS, places.runs, stamp)
        _install(source / STORE, places.store, modes[STORE], stamp)
    note.unlink()
    on_disk(note.parent)
    return tuple(aside)


def _put_runs(source: Path, runs: Path, stamp: str) -> list[Path]:
    new = runs.with_name(f".{runs.name}.restored")
    shutil.rmtree(new, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, new)
    else:
        new.mkdir(mode=0o700)
    new.chmod(0o700)
    for path in (*new.rglob("*"), new):
        on_disk(path)
    if [path.name for path in runs.iterdir()] == [LOCK]:
        shutil.rmtree(runs)
    aside = _move_aside(runs, stamp)
    new.rename(runs)
    on_disk(runs.parent)
    return aside


def _install(source: Path, place: Path, mode: int, stamp: str) -> list[Path]:
    """A file of the backup in its place; one that is the same already stays."""
    content = source.read_bytes()
    if place.is_file() and place.read_bytes() == content:
        return []
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.restored")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside = _move_aside(place, stamp)
    new.replace(place)
    on_disk(place.parent)
    return aside


def _move_aside(path: Path, stamp: str) -> list[Path]:
    if not path.exists():
        return []
    target = path.with_name(f"{path.name}.{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{stamp}-{number}")
    path.rename(target)
    return [target]
