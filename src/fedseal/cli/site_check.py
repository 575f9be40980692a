"""`fedseal site check`: everything that a round needs of a site, looked at one by one, each with its fix.

Nothing is changed, and nothing but an empty question to the server leaves the site. A check that needs what another
one found wrong says nothing; what is found first is to be mended first.
"""

import shutil
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from fedseal.client.site_config import NodeConfig, Server, check_code, check_node_key, node_key, server_of
from fedseal.config import read_toml, validate
from fedseal.errors import FedsealError
from fedseal.privacy.membership.standing import SITE_MOVES, check_certificate, said, standing
from fedseal.privacy.store import SiteStore

# Bytes: what a store's log of a long run takes, with room.
ENOUGH_SPACE = 1 << 28
# Seconds.
REACH_TIMEOUT = 5.0
CLOCK_TOLERANCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``fix`` is what to do where it is not ok."""

    what: str
    ok: bool
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """A site's file that has been read. ``store`` is None where it cannot be opened: checks of it then say nothing."""

    path: Path
    config: NodeConfig
    home: Path
    store: SiteStore | None
    online: bool

    def server(self) -> Server:
        """Where the server is and who it has to be; ConfigError if nothing says, or the authority is none."""
        return server_of(self.path, self.config, None if self.store is None else self.store.identity.epoch)

    @property
    def folder(self) -> Path:
        """The study's."""
        return self.home / self.config.study.folder


Check = Callable[[Looked], Iterator[Finding]]


def look(path: Path, *, online: bool) -> list[Finding]:
    """Check a site.

    Args:
        path: the site's file.
        online: whether to ask the server.
    """
    try:
        table, text = read_toml(path)
        config = validate(NodeConfig, table, text=text, source=str(path))
    except FedsealError as error:
        return [_red("file", error, "Mend the line; every key is in docs/site-policy.md and docs/deploy.md.")]
    home, found = path.resolve().parent, [Finding("file", True, str(path))]
    store: SiteStore | None = None
    place = home / config.site.store
    try:
        store = SiteStore.open(place, reading=True)
    except FedsealError as error:
        found.append(_red("store", error, "Give the store's path as site.store, or make one: fedseal site init."))
    looked = Looked(path, config, home, store, online)
    for check in checks():
        found += _guarded(check, looked)
    return found


def checks() -> tuple[Check, ...]:
    """All of them, in the order in which they are shown."""
    from fedseal.cli.site_check_study import data_in_use, policy_allows

    return (store_holds, keys, code, data_in_use, policy_allows, server, space)


def _guarded(check: Check, looked: Looked) -> list[Finding]:
    """What a check found; an error that it did not expect of a file is a finding too."""
    found: list[Finding] = []
    try:
        found += check(looked)
    except FedsealError as error:
        found.append(_red(check.__name__.replace("_", " "), error))
    return found


def _red(what: str, error: FedsealError, fix: str = "") -> Finding:
    return Finding(what, False, error.message, error.next_step or fix)


def store_holds(looked: Looked) -> Iterator[Finding]:
    """The store is the owner's alone, its ledgers hold, and it knows its roster."""
    if looked.store is None:
        return
    path = looked.store.path
    mode = stat.S_IMODE(path.stat().st_mode)
    yield Finding("store's mode", not mode & 0o077, f"{mode:04o}", f"chmod 600 {path}" if mode & 0o077 else "")
    try:
        looked.store.verify_ledgers()
        yield Finding("ledgers", True, "every entry is signed and follows from the one before")
    except FedsealError as error:
        yield _red("ledgers", error)
    identity = looked.store.identity
    who = f"site {identity.name} of {identity.roster.federation}, epoch {identity.roster.epoch}"
    if identity.epoch is None:
        yield Finding("member", True, f"{who}; nothing says until when")
        return
    held = standing(identity.epoch, datetime.now(UTC), moves=SITE_MOVES)
    yield Finding("member", True, f"{who}, until {said(held.until)}, {held.days} days left")


def keys(looked: Looked) -> Iterator[Finding]:
    """The node's key is one, and its owner's alone; the authority is a certificate."""
    epoch = None if looked.store is None else looked.store.identity.epoch
    path = looked.home / looked.config.site.key
    try:
        key = node_key(path)
        if looked.store is not None and epoch is not None:
            check_node_key(path, key, epoch, looked.store.identity.number)
        yield Finding("node's key", True, str(looked.config.site.key))
    except FedsealError as error:
        yield _red("node's key", error, "Give the OpenSSH file of the node's key as site.key.")
    try:
        found = looked.server()
        if epoch is not None:
            check_certificate(epoch, datetime.now(UTC))
        yield Finding("authority", True, str(found.authority))
    except FedsealError as error:
        yield _red("authority", error, "Ask the coordinator for the PEM file, and compare its digest.")


def code(looked: Looked) -> Iterator[Finding]:
    """The study's code is what was approved."""
    check_code(looked.folder, bytes.fromhex(looked.config.study.digest.removeprefix("sha256:")))
    yield Finding("code", True, looked.config.study.digest)


def server(looked: Looked) -> Iterator[Finding]:
    """The server answers at its address, by a certificate that the authority signed, and agrees on the time."""
    if not looked.online:
        return
    import httpx

    known = looked.server()
    address, trust = known.address, known.trust
    try:
        answer = httpx.get(f"https://{address}/", verify=trust, timeout=REACH_TIMEOUT, trust_env=False)
    except httpx.HTTPError as error:
        certificate = any(isinstance(e, ssl.SSLCertVerificationError) for e in _causes(error))
        fix = (
            "The certificate is not the authority's, is for another name, or has expired: ask the coordinator."
            if certificate
            else "Look at the address, the firewall, and whether the server runs (fedseal server status)."
        )
        yield Finding("server", False, f"{address}: {type(error).__name__}", fix)
        return
    yield Finding("server", True, f"{address} answers, by a certificate that this site trusts")
    yield from _clock(answer.headers.get("date"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _clock(date: str | None) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        return
    ahead = datetime.now(UTC) - there
    ok = abs(ahead) <= CLOCK_TOLERANCE
    found = f"{abs(ahead).total_seconds():.0f} s {'ahead of' if ahead > timedelta() else 'behind'} the server's"
    fix = "" if ok else "Set the clock (NTP): hours and periods of the policy, and dates in the log, are by it."
    yield Finding("clock", ok, found, fix)


def space(looked: Looked) -> Iterator[Finding]:
    """There is room where the store is."""
    place = (looked.home / looked.config.site.store).parent
    if not place.is_dir():
        return
    free = shutil.disk_usage(place).free
    ok = free >= ENOUGH_SPACE
    fix = "" if ok else f"Make room in {place}: a site whose disk is full answers nothing."
    yield Finding("disk", ok, f"{free / (1 << 30):.1f} GiB free", fix)
