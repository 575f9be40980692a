"""What the console's tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browsers import browser, listening
from support.consoles import Place
from support.evidence import write_chronicle

from fedseal.server.console import users


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Secrets are hashed at the least cost: most tests sign somebody in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "COST", 16)
        yield


@pytest.fixture(scope="session")
def chronicle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder with a log that holds everything; not to be changed."""
    folder = tmp_path_factory.mktemp("chronicle")
    write_chronicle(folder)
    return folder


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    """Where a module's console listens."""
    with listening(place.app) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser, for all tests that look at pages."""
    with browser() as opened:
        yield opened
