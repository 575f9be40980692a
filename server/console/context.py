"""What every page of a running console shares, and who is looking at one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from fedseal.privacy.roster import Roster
from fedseal.privacy.secret import Secret
from fedseal.server.console.permissions import PAGES, Page
from fedseal.server.console.sessions import Sessions
from fedseal.server.console.settings import ConsoleSettings
from fedseal.server.console.tries import Tries
from fedseal.server.console.users import User, UserFile


@dataclass(frozen=True, slots=True)
class Console:
    """A running console. ``clock`` gives seconds since 1970; ``log`` is where the federation's log is kept: a path or a
    URL.
    """

    settings: ConsoleSettings
    users: UserFile
    sessions: Sessions
    tries: Tries
    roster: Callable[[], Roster]
    log: str
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    user: User
    token: Secret
    csrf: Secret

    def reads(self, page: Page) -> bool:
        """Whether they may open a page."""
        return bool(self.user.roles & page.readers)

    def writes(self, page: Page) -> bool:
        """Whether they may send a page's forms."""
        return bool(self.user.roles & page.writers)

    @property
    def pages(self) -> tuple[Page, ...]:
        """What they may open, in the order of the navigation."""
        return tuple(page for page in PAGES if self.reads(page))


def console_of(request: Request) -> Console:
    """The console that a request has reached."""
    return cast(Console, request.app.state.console)
