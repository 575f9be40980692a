"""Where an audit reads a log from: a server's store, a site's, a database by URL, exported files, a run's folder.

Each becomes a `LogCopy`: the log, whose it is, and whose signatures count. Nothing is written, and nobody is held up.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from fedseal.compliance.events.bodies import Contributed, Genesis, PolicyChanged
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log import checkpoint
from fedseal.compliance.log.checkpoint import Checkpoint
from fedseal.compliance.log.database import open_database, store_at
from fedseal.compliance.log.exported import CHECKPOINT, FOLDER, POLICY, ExportedLog
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.quorum import NONE, LogEntry, Policy, evaluate, parse_policy
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import HEADS
from fedseal.errors import ConfigError, PeerError
from fedseal.privacy.membership.documents import Bundle, FormerKey, open_bundle
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.store import BUNDLE
from fedseal.privacy.tables import META
from fedseal.wire import decode

CHUNK = 4096
_PLACES = (
    "Give a run's folder, a server's or a site's store, the URL of a PostgreSQL database, or the folder of an exported "
    "log."
)


@dataclass(frozen=True, slots=True)
class LogCopy:
    """A log as somebody holds it.

    Args:
        log: what is read.
        book: the federation's log, or a site's own.
        policy: whose signatures count.
        own_word: whether the policy is that of whoever keeps the log, and so proves nothing about them.
        seen: states that whoever holds this copy knows the log to have had, from elsewhere than the log itself.
    """

    log: ReadableLog
    book: Book
    policy: Policy
    own_word: bool
    seen: tuple[Checkpoint, ...] = ()

    def leaves(self) -> Iterator[bytes]:
        """All leaves, from the first; read in parts, so that a log need not fit in memory."""
        for start in range(0, self.log.size, CHUNK):
            yield from self.log.leaves(start, start + CHUNK)

    def covering(self, index: int) -> Checkpoint | None:
        """The checkpoint by which an entry is proven: the newest with a quorum, or where that does not cover it the
        newest at all; None where none covers it.
        """
        newest = self.log.checkpoint()
        size = 0 if newest is None else checkpoint.read_checkpoint(newest)[0].size
        try:
            final = self.log.latest_final(self.policy) or 0
        except (MalformedError, SignatureError):
            final = 0
        size = final if index < final else size
        note = self.log.checkpoint(size) if index < size else None
        return None if note is None else checkpoint.read_checkpoint(note)[0]

    def cosigned_by(self, witness: str) -> int:
        """The largest size whose checkpoint this copy holds with a cosignature of that witness; 0 if none."""
        for size, _ in reversed(self.log.checkpoints()):
            note = self.log.checkpoint(size)
            try:
                if note is not None and witness in evaluate(self.policy, note).cosigned:
                    return size
            except (MalformedError, SignatureError):
                continue
        return 0


def read_policy(path: Path) -> Policy:
    """The policy in a file; ConfigError if it holds none."""
    try:
        return parse_policy(path.read_bytes())
    except OSError:
        raise ConfigError(f"no policy at {path}", next_step="An exported log has one: policy.txt.") from None
    except MalformedError as error:
        raise ConfigError(f"{path}: {error.message}") from None


@contextmanager
def open_log(
    where: str | Path, *, policy: Policy | None = None, own: bool = False, offline: bool = False
) -> Iterator[LogCopy]:
    """A log, open for reading.

    Args:
        where: a run's folder, a store, a database's URL, or an exported log's folder.
        policy: whose signatures count; what the copy itself says if None.
        own: of a site's store the site's own log, in place of its mirror of the federation's.
        offline: refuse what would need the network.

    Raises:
        ConfigError: there is no log, or nobody says whose signatures count.
    """
    with ExitStack() as stack:
        if isinstance(where, str) and "://" in where:
            if offline:
                raise ConfigError("a database's URL needs the network", next_step="Leave --offline out, or export it.")
            copy = _from_database(stack.enter_context(_connected(where)), policy)
        else:
            path = _file_of(Path(where))
            if path.is_dir():
                copy = _from_files(path, policy)
            else:
                copy = _from_database(stack.enter_context(_connected(path)), policy, own=own)
        if own and copy.book is not Book.SITE:
            raise ConfigError("only a site's store holds a log of the site's own", next_step="Leave --own out.")
        yield copy


def _file_of(path: Path) -> Path:
    """The store, or the folder of an exported log, that is meant."""
    if (path / CHECKPOINT).is_file():
        return path
    found = store_at(path)
    if found is not None:
        return found
    if (path / FOLDER / CHECKPOINT).is_file():
        return path / FOLDER
    raise ConfigError(f"no log at {path}", next_step=_PLACES)


@contextmanager
def _connected(where: str | Path) -> Iterator[Connection]:
    engine = open_database(where, reading=True)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


def _from_files(folder: Path, policy: Policy | None) -> LogCopy:
    log = ExportedLog(folder)
    if policy is None and not (folder / POLICY).is_file():
        raise ConfigError(f"{folder} does not say whose signatures count", next_step="Name a policy: --policy FILE.")
    # A site's own log says so in its name.
    book = Book.SITE if log.origin.split("/")[1:2] == ["site"] else Book.FEDERATION
    return LogCopy(log, book, policy or read_policy(folder / POLICY), own_word=policy is None)


def _from_database(connection: Connection, policy: Policy | None, *, own: bool = False) -> LogCopy:
    """The log in a server's or site's store, or in a database that holds nothing but logs."""
    meta = {}
    if inspect(connection).has_table(META.name):
        meta = {row.key: row.value for row in connection.execute(select(META))}
    if "roster" not in meta:
        return _alone(connection, policy)
    roster = open_roster(decode(meta["roster"], SignedRoster), pinned=meta["pinned"])
    log = Log(connection, checkpoint.server_origin(roster.federation))
    epoch = open_bundle(decode(meta[BUNDLE], Bundle)) if BUNDLE in meta else None
    former = () if epoch is None else epoch.membership.former
    site = roster.entry(int(meta["number"])) if "number" in meta else None
    if own and site is not None:
        name = checkpoint.site_origin(roster.federation, site.name)
        anchors = tuple(_anchors(log, name, public_name(site.name)))
        before = epoch.membership.signing_keys(site.site) if epoch is not None else ()
        keys = [LogEntry(checkpoint.log_key(name, public)) for public in (site.signing_key, *before)]
        mine = Policy(tuple(keys), (), (), NONE)
        return LogCopy(Log(connection, name), Book.SITE, policy or mine, own_word=policy is None, seen=anchors)
    state = log.witness_state()
    seen = () if site is None or not state.size else (Checkpoint(state.origin, state.size, state.root),)
    if not log.size and not seen:
        raise ConfigError("this store has not seen an entry of its federation's log yet", next_step=_PLACES)
    return LogCopy(log, Book.FEDERATION, policy or _policy_of(log, roster, former), own_word=policy is None, seen=seen)


def _alone(connection: Connection, policy: Policy | None) -> LogCopy:
    origins = connection.execute(select(HEADS.c.origin).order_by(HEADS.c.origin)).scalars().all()
    servers = [origin for origin in origins if origin.split("/")[1:] == ["server"]]
    if len(servers) != 1:
        said = "that database holds the logs of several federations" if servers else "that database holds no log"
        raise ConfigError(said, next_step=_PLACES)
    if policy is None:
        raise ConfigError(
            "a database alone does not say whose signatures count", next_step="Name a policy: --policy FILE."
        )
    return LogCopy(Log(connection, servers[0]), Book.FEDERATION, policy, own_word=False)


def _policy_of(log: Log, roster: Roster, former: Sequence[FormerKey]) -> Policy:
    """What the roster and the log's newest word about the quorum make of it."""
    faulty = 0
    for start in range(0, log.size, CHUNK):
        for index, leaf in enumerate(log.leaves(start, start + CHUNK), start=start):
            if index == 0 or b'"type":"log.policy_changed/v1"' in leaf:
                faulty = _faulty(leaf, faulty)
    return policy_of(roster, min(faulty, len(roster.sites) - 1), former)


def _faulty(leaf: bytes, before: int) -> int:
    try:
        body = read_event(leaf).body
    except PeerError:
        # What is wrong with it is for the audit to say.
        return before
    return max(before, body.faulty) if isinstance(body, Genesis | PolicyChanged) else before


def _anchors(log: Log, origin: str, org: str) -> Iterator[Checkpoint]:
    """The states of a site's own log that the federation's log has on record."""
    for start in range(0, log.size, CHUNK):
        for leaf in log.leaves(start, start + CHUNK):
            if b'"type":"round.contributed/v1"' not in leaf:
                continue
            try:
                event = read_event(leaf)
            except PeerError:
                continue
            if event.org == org and isinstance(event.body, Contributed):
                anchor = event.body.anchor
                yield Checkpoint(origin, anchor.size, bytes.fromhex(anchor.root.removeprefix("sha256:")))
