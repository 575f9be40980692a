"""The contract of logs, in a PostgreSQL server."""

import sys
import threading
from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import Engine, create_engine, text
from support.log_contract import LogContract
from support.logs import ORIGIN
from support.postgres import server

from fedseal.compliance.log import tree
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.store import Log
from fedseal.errors import ConfigError

NUMBERS = count()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A running server."""
    with server() as url:
        yield url


def make_database(cluster: str) -> str:
    """The URL of a new, empty database."""
    name = f"log{next(NUMBERS)}"
    engine = create_engine(cluster.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return cluster.format(database=name)


@pytest.fixture
def url(cluster: str) -> str:
    """An empty database."""
    return make_database(cluster)


class TestPostgres(LogContract):
    """Inherits every test."""

    @pytest.fixture
    def url(self, cluster: str) -> str:
        """An empty database."""
        return make_database(cluster)


def test_threads_append_one_after_the_other(url: str) -> None:
    """Six connections race to make the tables and the log, and to append to it."""

    def work(worker: int) -> None:
        own = open_database(url)
        for step in range(20):
            with transaction(own, ORIGIN) as log:
                log.append([f"{worker} {step} {i}".encode() for i in range(3)])
        own.dispose()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = open_database(url, reading=True)
    with engine.begin() as connection:
        log = Log(connection, ORIGIN)
        found = log.leaves(0, 999)
        assert (log.size, len(set(found))) == (360, 360)
        assert log.root() == tree.root_of(found)
    engine.dispose()


def test_a_server_that_does_not_wait_for_its_disk_is_refused(url: str) -> None:
    asynchronous = url + "&options=-csynchronous_commit%3Doff"
    engine: Engine = open_database(asynchronous)
    with engine.begin() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
    engine.dispose()


def test_an_unreachable_server_is_the_operator_s_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        open_database("postgresql://user:secret-password@127.0.0.1:9/none?connect_timeout=2")
    assert "secret-password" not in caught.value.explain()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match="psycopg"):
        open_database("postgresql://user@127.0.0.1/none")
