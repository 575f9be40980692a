"""An epoch of a federation as people and programs read it."""

import hashlib
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.privacy.membership.documents import Epoch

SCHEMA_VERSION = 1


def epoch_at(where: Path | None, folder: Path) -> "Epoch":
    """The epoch of a bundle, of a store, or the newest of a root.

    Raises:
        ConfigError: there is none.
    """
    from fedseal.compliance.enrolment.files import read_bundle
    from fedseal.compliance.enrolment.root import Root
    from fedseal.privacy.store import SiteStore
    from fedseal.server.store import ServerStore

    if where is None or where.is_dir():
        found = Root.open(where or folder).newest()
        missing = "the federation has no epoch yet"
    elif where.suffix == ".sqlite":
        missing = f"{where} has adopted no epoch of its federation"
        try:
            found = SiteStore.open(where, reading=True).identity.epoch
        except ConfigError:
            found = ServerStore.open(where).identity.epoch
    else:
        return read_bundle(where)
    if found is None:
        raise ConfigError(missing, next_step="The first one is made by `fedseal federation admit`.")
    return found


def described(epoch: "Epoch", now: datetime) -> dict[str, Any]:
    """All that an epoch says, with the days that are left of it."""
    from fedseal.privacy.membership.armour import Form, fingerprint
    from fedseal.privacy.membership.documents import KeyKind, Reason
    from fedseal.privacy.membership.tls import not_after
    from fedseal.wire import encode

    member, roster = epoch.membership, epoch.roster
    until, shown = datetime.fromtimestamp(member.valid_until, UTC), not_after(epoch.bundle.certificate)
    sites = [
        {
            "number": entry.site,
            "name": entry.name,
            "organisation": entry.organisation,
            "persons": entry.persons,
            "signing_key": entry.signing_key.hex(),
            "node_key": _short(member.node_key(entry.site) or ""),
        }
        for entry in roster.sites
    ]
    former = [
        {
            "kind": KeyKind(key.kind).name.lower(),
            "site": key.site,
            "name": key.name,
            "epoch": key.epoch,
            "reason": Reason(key.reason).label,
            "retired": datetime.fromtimestamp(key.retired, UTC).isoformat(),
        }
        for key in member.former
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "federation": roster.federation,
        "epoch": epoch.number,
        "fingerprint": fingerprint(Form.BUNDLE, encode(epoch.bundle)),
        "roster": roster.digest().hex(),
        "address": member.address,
        "valid_from": datetime.fromtimestamp(member.valid_from, UTC).isoformat(),
        "valid_until": until.isoformat(),
        "certificate_until": shown.isoformat(),
        "days_left": (min(until, shown) - now).days,
        "sites": sites,
        "former": former,
    }


def told(found: dict[str, Any]) -> str:
    """The same in a few lines, without the sites."""
    left = found["days_left"]
    state = f"{left} days left" if left >= 0 else "OVER"
    return (
        f"Federation {found['federation']}, epoch {found['epoch']}, until {found['valid_until'][:10]} ({state})\n"
        f"Server: {found['address']}\nFingerprint of its bundle: {found['fingerprint']}"
    )


def _short(line: str) -> str:
    """A node's key as `ssh-keygen -l` shows it."""
    body = line.split(" ")[1] if " " in line else ""
    return "SHA256:" + b64encode(hashlib.sha256(b64decode(body)).digest()).decode("ascii").rstrip("=")
