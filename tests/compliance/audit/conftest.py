"""One federation that ran, for everything that only reads it; and a copy for whatever changes it."""

import shutil
from pathlib import Path

import pytest
from support.federated import copied, run, trained
from support.flower import Federation


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three sites, two rounds, nothing lost."""
    return trained(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def federation(honest: Federation, tmp_path: Path) -> Federation:
    """Its stores, to be changed."""
    return copied(honest, tmp_path / "federation")


@pytest.fixture(scope="session")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Another one of the same keys and of another history, which has run twice. ``backup`` in its folder is the
    server's store as it was in between.
    """
    federation = trained(tmp_path_factory.mktemp("twice"))
    shutil.copy(federation.server, federation.folder / "backup")
    run(federation)
    return federation
