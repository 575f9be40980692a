"""A disk that is full is told from a store that is none."""

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError
from support.flower import make_federation
from support.trials.disk import FILLER, fill, own_disk

from fedseal.errors import ConfigError
from fedseal.privacy.store import SiteStore
from fedseal.server.store import ServerStore
from fedseal.storage import StorageError, storage_fault, unusable

Open = Callable[[Path], object]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (OSError(errno.EIO, "x"), "the disk fails"),
        (StorageError("no room"), "the store cannot be opened for lack of room"),
        (FileNotFoundError(errno.ENOENT, "x"), None),
        (ConnectionResetError(errno.ECONNRESET, "x"), None),
        (DatabaseError("x", {}, Exception("file is not a database")), None),
        (KeyError("x"), None),
    ],
)
def test_what_is_the_disks_fault(error: Exception, said: str | None) -> None:
    assert storage_fault(error) == said
    assert (unusable(Path("x"), error) is None) == (said is None)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder with a server's and a site's store on a small file system."""
    (tmp_path / "made").mkdir()
    federation = make_federation(tmp_path / "made", 3)
    folder = tmp_path / "small"
    folder.mkdir()
    shutil.copy(federation.server, folder / "server.sqlite")
    shutil.copy(next(iter(federation.sites.values())), folder / "site.sqlite")
    with own_disk(folder) as mounted:
        if not mounted:
            pytest.skip("needs root and Linux")
        yield folder


@pytest.mark.parametrize(("name", "opened"), [("server.sqlite", ServerStore.open), ("site.sqlite", SiteStore.open)])
def test_a_store_on_a_full_disk_is_not_taken_for_none(small: Path, name: str, opened: Open) -> None:
    fill(small)
    with pytest.raises(StorageError, match="cannot be used now"):
        opened(small / name)
    (small / FILLER).unlink()
    opened(small / name)
    (small / name).write_bytes(b"no store" * 1000)
    with pytest.raises(ConfigError, match=r"is not a (server|site) store") as other:
        opened(small / name)
    assert not isinstance(other.value, StorageError)
