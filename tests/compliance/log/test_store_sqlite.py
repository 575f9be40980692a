"""The contract of logs, in an SQLite file; and a log in a site's own store."""

from pathlib import Path

import pytest
from sqlalchemy import insert, select
from support.log_contract import LogContract
from support.logs import ORIGIN, hashes, leaves

from fedseal import merkle
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import METADATA as LOGS
from fedseal.errors import ConfigError
from fedseal.privacy.tables import METADATA, RUNS


class TestSqlite(LogContract):
    """Inherits every test."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Path:
        """A path."""
        return tmp_path / "log.sqlite"


def test_a_url_is_a_path_too(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    for url in (f"sqlite:///{path}", str(path), path):
        engine = open_database(url)
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(log.size, log.size + 1))
        engine.dispose()
    engine = open_database(path, reading=True)
    with engine.begin() as connection:
        assert Log(connection, ORIGIN).root() == merkle.root(hashes(3))
    engine.dispose()


def test_each_commit_is_on_disk(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "log.sqlite")
    with engine.begin() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    engine.dispose()
    # https://sqlite.org/pragma.html#pragma_synchronous: 2 is FULL.
    assert found == ["wal", 2]


def test_it_lives_in_any_store_s_transaction(tmp_path: Path) -> None:
    """A site appends where it charges: both are on disk, or neither is."""
    engine = open_database(tmp_path / "store.sqlite")
    with engine.begin() as connection:
        METADATA.create_all(connection)
    row = {"run": b"r", "release_seq": 1, "attempt": 0, "closed": False}
    with engine.begin() as connection:
        connection.execute(insert(RUNS).values(row))
        Log(connection, ORIGIN).append([b"charged"])
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        connection.execute(insert(RUNS).values(row | {"run": b"s"}))
        Log(connection, ORIGIN).append([b"charged too"])
        raise ZeroDivisionError
    with engine.begin() as connection:
        assert connection.execute(select(RUNS.c.run)).scalars().all() == [b"r"]
        assert Log(connection, ORIGIN).leaves(0, 9) == [b"charged"]
    engine.dispose()
    assert all(name.startswith("log_") for name in LOGS.tables)
    assert not set(LOGS.tables) & set(METADATA.tables)


@pytest.mark.parametrize("url", ["mysql://x/y", "postgresql://[", "sqlite://", "http://a/b"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_database(url)


def test_a_file_that_is_not_there_is_refused_for_reading(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        open_database(tmp_path / "none" / "log.sqlite", reading=True)
    with pytest.raises(ConfigError):
        open_database(tmp_path / "log.sqlite", reading=True)
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(ConfigError):
        open_database(tmp_path / "text")
    with pytest.raises(ConfigError):
        open_database(tmp_path / "text", reading=True)
