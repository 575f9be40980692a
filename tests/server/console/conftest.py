"""What the console's tests share."""

from collections.abc import Iterator

import pytest

from fedseal.server.console import users


@pytest.fixture(scope="session", autouse=True)
def _cheap_hashes() -> Iterator[None]:
    """Secrets are hashed at the least cost: most tests sign somebody in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "COST", 16)
        yield
