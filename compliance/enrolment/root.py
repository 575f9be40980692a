"""The federation's root: a folder with the key that says who is in the federation, and with the TLS authority's.

It belongs on a machine that runs neither the server nor a site, and is needed only to let somebody in or out, or to
go on for another year. Whoever holds it can invent sites; nobody else can.

    root.key            signs every roster and membership; mode 0600
    authority.key       signs the server's certificate; mode 0600
    authority.pem       what nodes trust
    federation.toml     name, address and how long an epoch holds; may be changed for the next epoch
    epochs/0001.bundle  what was handed out
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field, StringConstraints

from fedseal.compliance.enrolment.draft import Draft
from fedseal.compliance.enrolment.files import (
    load_signing_key,
    load_tls_key,
    new_signing_key,
    own_folder,
    read_bundle,
    save_signing_key,
    write_bundle,
    write_secret,
)
from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.membership.documents import (
    Bundle,
    Epoch,
    Membership,
    Reason,
    moves,
    open_bundle,
    sign_membership,
)
from fedseal.privacy.membership.requests import ServerRequest, SiteRequest, check_name
from fedseal.privacy.membership.tls import (
    AUTHORITY_HOLDS,
    EARLIER,
    UNREADABLE,
    Span,
    host_of,
    issue,
    make_authority,
    new_private_key,
    private_pem,
    read_openssh,
)
from fedseal.privacy.roster import Roster, sign_roster
from fedseal.wire import encode

ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"
DAYS = 365

ROOT_KEY, AUTHORITY_KEY, AUTHORITY = "root.key", "authority.key", "authority.pem"
FILE, EPOCHS = "federation.toml", "epochs"


class FederationPart(Frozen):
    """What the federation is called, where its server listens as sites reach it, and for how many days an epoch and
    the server's certificate hold.
    """

    name: str = Field(min_length=1, max_length=63)
    address: Annotated[str, StringConstraints(pattern=ADDRESS)]
    days: int = Field(default=DAYS, ge=1, le=3650)


class FederationFile(Frozen):
    """The file of a federation's root."""

    federation: FederationPart


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the file that it came in."""

    source: str
    request: SiteRequest | ServerRequest


@dataclass(frozen=True, slots=True)
class Root:
    """An open folder of a federation's root."""

    folder: Path
    part: FederationPart

    @classmethod
    def create(cls, folder: Path, part: FederationPart, now: datetime) -> "Root":
        """Make a federation's root in a new or empty folder.

        Raises:
            ConfigError: the name cannot be used, or the folder holds something.
        """
        check_name("federation", part.name)
        own_folder(folder, "the federation's root")
        key = new_private_key()
        authority = make_authority(f"{part.name} authority", key, Span(now - EARLIER, now + AUTHORITY_HOLDS))
        save_signing_key(folder / ROOT_KEY, new_signing_key())
        write_secret(folder / AUTHORITY_KEY, private_pem(key))
        (folder / AUTHORITY).write_bytes(authority.public_bytes(Encoding.PEM))
        (folder / EPOCHS).mkdir(mode=0o700)
        text = (
            f'[federation]\nname = "{part.name}"\n'
            f"# Where sites reach the server. The next epoch's certificate is for this host.\n"
            f'address = "{part.address}"\n'
            f"# How long an epoch holds, and the server's certificate.\ndays = {part.days}\n"
        )
        (folder / FILE).write_text(text, encoding="utf-8")
        return cls(folder, part)

    @classmethod
    def open(cls, folder: Path) -> "Root":
        """Open a root's folder; ConfigError if it is none."""
        path = folder / FILE
        if not path.is_file():
            raise ConfigError(
                f"{folder} is no folder of a federation's root",
                next_step="Name it with --folder, or make one: fedseal federation init NAME --address HOST:PORT",
            )
        table, text = read_toml(path)
        found = cls(folder, validate(FederationFile, table, text=text, source=str(path)).federation)
        newest = found.newest()
        if newest is not None and newest.roster.federation != found.part.name:
            raise ConfigError(
                f"{path} says {found.part.name!r}, and its epochs are of {newest.roster.federation!r}",
                next_step="A federation keeps its name: put it back.",
            )
        return found

    def newest(self) -> Epoch | None:
        """The newest epoch; None before the first."""
        found = sorted((self.folder / EPOCHS).glob("*.bundle"))
        return read_bundle(found[-1]) if found else None

    def bundle(self, number: int) -> Path:
        """Where the bundle of an epoch lies."""
        return self.folder / EPOCHS / f"{number:04}.bundle"

    def drafted(self, asked: Sequence[Asked], now: datetime) -> Draft:
        """The next epoch with what is asked for.

        Raises:
            ConfigError: it cannot be made: one of the requests is not possible, or a server or site is missing.
        """
        draft = Draft.after(self.part.name, self.newest(), int(now.timestamp()))
        draft = draft.admit_all([(each.source, each.request) for each in asked])
        if draft.server is None or draft.tls is None:
            raise ConfigError(
                "the first epoch needs the server's request",
                next_step="The coordinator makes it: fedseal server init --federation " + self.part.name,
            )
        if not draft.sites:
            raise ConfigError(
                "the first epoch needs the request of a site",
                next_step="Each site makes one: fedseal site init NAME --federation " + self.part.name,
            )
        return draft

    def without(self, name: str, reason: Reason, now: datetime) -> Draft:
        """The next epoch without a site; ConfigError if it has none of the name, or no other."""
        draft = Draft.after(self.part.name, self.newest(), int(now.timestamp())).remove(name, reason)
        if not draft.sites:
            raise ConfigError(f"{name!r} is the only site left", next_step="Let others in first.")
        return draft

    def seal(self, draft: Draft, now: datetime) -> Epoch:
        """Sign an epoch and keep its bundle. Nothing is written unless it follows from the one before.

        Raises:
            ConfigError: a key is missing or is not the one that signed before.
        """
        before, root = self.newest(), load_signing_key(self.folder / ROOT_KEY)
        authority, key = self._authority(), load_tls_key(self.folder / AUTHORITY_KEY)
        server, tls = draft.server, draft.tls
        if server is None or tls is None:
            raise LocalError("an epoch without a server")
        holds = Span(now - EARLIER, now + timedelta(days=self.part.days))
        hosts = (host_of(self.part.address),)
        shown = issue(f"{self.part.name} server", hosts, read_openssh(tls), authority, key, holds)
        raw_authority, raw_shown = authority.public_bytes(Encoding.DER), shown.public_bytes(Encoding.DER)
        if before is not None:
            draft = draft.retire_certificate(before.membership.certificate)
        roster = Roster(self.part.name, draft.number, False, root.public, server, draft.sites)
        signed = sign_roster(roster, root)
        membership = Membership(
            federation=self.part.name,
            epoch=draft.number,
            roster=roster.digest(),
            previous=() if before is None else (*before.membership.previous, before.membership.digest()),
            valid_from=int(holds.begin.timestamp()),
            valid_until=int(holds.end.timestamp()),
            address=self.part.address,
            authority=hashlib.sha256(raw_authority).digest(),
            certificate=hashlib.sha256(raw_shown).digest(),
            nodes=draft.nodes,
            former=draft.former,
        )
        bundle = Bundle(
            signed.roster,
            signed.signature,
            encode(membership),
            sign_membership(membership, root),
            raw_authority,
            raw_shown,
        )
        epoch = open_bundle(bundle)
        if before is not None:
            # As everybody will check it: with another root key this ends here.
            moves(before, epoch)
        write_bundle(self.bundle(epoch.number), bundle)
        return epoch

    def _authority(self) -> x509.Certificate:
        path = self.folder / AUTHORITY
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, *UNREADABLE):
            raise ConfigError(
                f"{path} holds no certificate", next_step="Put it back from a copy of the folder."
            ) from None
