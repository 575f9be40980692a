"""The seats of a federation, each in a folder of its own: the root, the server and sites, and what they hand over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.studies import TINY

from fedseal.client.enrolment import SiteDraft, init_site, join, rotate_site
from fedseal.compliance.enrolment.files import read_bundle, read_request
from fedseal.compliance.enrolment.root import Asked, FederationPart, Root
from fedseal.privacy.membership.documents import Epoch, Reason
from fedseal.privacy.membership.requests import open_request
from fedseal.privacy.store import SiteStore
from fedseal.server.enrolment import adopt, init_server, rotate_server
from fedseal.server.store import ServerStore

NOW = datetime.now(UTC)


@dataclass
class Seats:
    """Everybody's folders. Times are given, so that a test need not wait for a year."""

    folder: Path
    name: str = "town"
    address: str = "127.0.0.1:4711"
    now: datetime = NOW
    names: list[str] = field(default_factory=list)

    @property
    def root(self) -> Root:
        return Root.open(self.folder / "root")

    @property
    def server_folder(self) -> Path:
        return self.folder / "server"

    def site_folder(self, name: str) -> Path:
        return self.folder / "sites" / name

    @property
    def server(self) -> ServerStore:
        return ServerStore.open(self.server_folder / "server.sqlite")

    def site(self, name: str) -> SiteStore:
        return SiteStore.open(self.site_folder(name) / "site.sqlite")

    def begin(self) -> Path:
        """A root, and the server's request."""
        Root.create(self.folder / "root", FederationPart(name=self.name, address=self.address), self.now)
        return init_server(self.server_folder, self.name, self.now)

    def apply(self, name: str, federation: str | None = None) -> Path:
        """A site's request."""
        data = self.folder / "data" / name
        data.mkdir(parents=True)
        draft = SiteDraft(name, federation or self.name, f"{name} e.V.", 113, data, TINY)
        return init_site(self.site_folder(name), draft, self.now)

    def admit(self, requests: Sequence[Path] = (), *, later: timedelta = timedelta()) -> Path:
        """The next epoch's bundle."""
        asked = [Asked(str(path), open_request(read_request(path), str(path))) for path in requests]
        root = self.root
        return root.bundle(root.seal(root.drafted(asked, self.now + later), self.now + later).number)

    def remove(self, name: str, reason: Reason = Reason.LEFT) -> Path:
        root = self.root
        return root.bundle(root.seal(root.without(name, reason, self.now), self.now).number)

    def take(self, bundle: Path, *names: str, server: bool = True, later: timedelta = timedelta()) -> Epoch:
        """The server and these sites move to a bundle's epoch."""
        epoch = read_bundle(bundle)
        if server:
            adopt(self.server_folder, epoch, self.now + later)
        for name in names:
            join(self.site_folder(name), epoch, self.now + later)
        return epoch

    def rotate(self, name: str | None = None) -> Path:
        """The request of a site, or of the server, for new keys."""
        if name is None:
            return rotate_server(self.server_folder, self.now)
        return rotate_site(self.site_folder(name), self.now)


def settled(folder: Path, *names: str) -> Seats:
    """A federation at its first epoch."""
    seats = Seats(folder)
    requests = [seats.begin(), *(seats.apply(name) for name in names)]
    seats.take(seats.admit(requests), *names)
    return seats
