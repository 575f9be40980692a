"""A site's store as an earlier fedseal left it, and what becomes of it.

`tests/vectors/stores-format-1.zip` was written by the last fedseal that made format 1: the stores of
`support.flower.make_federation` with three sites and the keys of `support.keys`, after two rounds under the plan
`PRIVATE` of `support.flower` (release_seq 1 and 2), with a third one begun and one message to site 1 refused.
"""

import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)
from support.keys import make_roster

from fedseal.errors import ConfigError
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.privacy.secagg.server_states import Finished
from fedseal.privacy.store import FORMAT, SiteStore

STORES = Path(__file__).parents[1] / "vectors" / "stores-format-1.zip"
KINDS = [EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE, EntryKind.CHARGE]


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return old_stores(tmp_path / "federation").sites[1]


@pytest.fixture
def untouched(tmp_path: Path) -> Path:
    return old_stores(tmp_path / "untouched").sites[1]


def old_stores(folder: Path) -> Federation:
    """The federation as it was left."""
    with zipfile.ZipFile(STORES) as archive:
        archive.extractall(folder)
    return Federation(
        folder, make_roster(3), {i: folder / f"site-{i}.sqlite" for i in (1, 2, 3)}, folder / "server.sqlite"
    )


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table but the format's."""
    connection = sqlite3.connect(path)
    names = [n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608
    connection.close()
    found["meta"] = [row for row in found["meta"] if row[0] != "format"]
    return found


def test_an_old_store_keeps_all_that_it_had(old: Path, untouched: Path) -> None:
    before = contents(untouched)
    began = int(time.time())
    store = SiteStore.open(old)
    store.verify_ledgers()
    after = contents(old)
    assert {name: rows for name, rows in after.items() if name in before and name != "incidents"} == {
        name: rows for name, rows in before.items() if name != "incidents"
    }
    assert after["incidents"] == [(*row, None) for row in before["incidents"]]
    assert set(after) - set(before) == {"dates", "held", "standing"}
    # Nobody knows when it was charged: as if it were now.
    assert [(p, c) for p, c, _ in after["dates"]] == [("train", 3), ("train", 4)]
    assert all(isinstance(at, int) and began <= at <= time.time() for _, _, at in after["dates"])
    with store.transaction() as transaction:
        assert [EntryKind(e.kind) for e in transaction.entries("train")] == KINDS
        assert transaction.incidents() == [("PROTOCOL", "A message that cannot be read.")]
        assert transaction.last_incident() == (None, "PROTOCOL", "A message that cannot be read.")


def test_the_old_file_is_kept_beside_it(old: Path, untouched: Path) -> None:
    SiteStore.open(old)
    kept = old.with_name("site-1.sqlite.format-1")
    assert contents(kept) == contents(untouched)
    assert kept.stat().st_mode & 0o077 == 0
    modified = kept.stat().st_mtime_ns
    SiteStore.open(old)
    assert kept.stat().st_mtime_ns == modified


def test_a_new_store_has_the_tables_of_one_that_was_upgraded(old: Path, tmp_path: Path) -> None:
    def form(path: Path) -> dict[str, list[tuple[object, ...]]]:
        connection = sqlite3.connect(path)
        names = ("meta", "incidents", "dates", "held", "standing")
        found = {
            name: connection.execute(f"PRAGMA table_info({name})").fetchall()
            + connection.execute(f"PRAGMA index_list({name})").fetchall()
            for name in names
        }
        connection.close()
        return found

    SiteStore.open(old)
    assert form(old) == form(make_federation(tmp_path, 3).sites[1])


def test_it_is_not_changed_by_whoever_only_reads(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(ConfigError, match="of an earlier fedseal") as caught:
        SiteStore.open(old, reading=True)
    assert "fedseal site upgrade" in caught.value.next_step
    assert old.read_bytes() == before
    SiteStore.open(old)
    SiteStore.open(old, reading=True).verify_ledgers()


def test_an_old_site_answers_a_round_and_charges_it(tmp_path: Path) -> None:
    federation = old_stores(tmp_path)
    running = Nodes(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)))
    # The twin: a release that it has answered for stays answered.
    again = running.opening(header_for(federation, PRIVATE, release_seq=2, attempt=1))
    assert running.refusal(1, again) is RefusalCode.PROTOCOL
    state, _ = running.run(header_for(federation, PRIVATE, release_seq=4))
    assert isinstance(state, Finished)
    assert federation.kinds(1) == [*KINDS, EntryKind.CHARGE]
    assert FORMAT == 2
