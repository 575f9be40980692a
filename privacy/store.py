"""A site's memory: one SQLite file with its identity, policy, ledgers, run counters, and the answers it has given.

The only I/O of this layer. Every change that lets something leave the site is one transaction, on disk (WAL,
synchronous FULL) before the answer is returned: the charge, the new state and the answer itself. So after a crash at
any point either nothing had left and nothing was charged, or the very same bytes are sent again. Transactions are
exclusive across processes (BEGIN IMMEDIATE).

The file holds secrets: it is made with mode 0600 and SQLite's secure_delete. A store marked as simulated carries a
seed; no other store does.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError

from fedseal.database import connect, engine_for, free_to_use
from fedseal.errors import ConfigError
from fedseal.migration import upgrade
from fedseal.privacy.formats import SITE_STORE
from fedseal.privacy.key_history import ONE_KEY, KeyHistory
from fedseal.privacy.ledger import Terms, open_ledger
from fedseal.privacy.membership.documents import Bundle, Epoch, moves, open_bundle
from fedseal.privacy.randomness import KeyedRandomness, Randomness, SystemRandomness
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret
from fedseal.privacy.tables import META, METADATA, TERMS
from fedseal.privacy.transaction import Transaction, insert_entry
from fedseal.storage import unusable
from fedseal.wire import decode, encode

FORMAT = SITE_STORE.newest
# Rows that a store has once it knows an epoch of its federation, or has had another key.
BUNDLE, HISTORY, FIRST = "bundle", "history", "first_key"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the site is, and what it has pinned. ``seed`` is set in a simulation and nowhere else.

    ``epoch`` is what it has adopted of its federation, ``history`` says which keys it had before. ``first`` is the key
    that it began with, where it has another one by now: commitments in logs stay the same under it.
    """

    number: int
    name: str
    key: SigningKey
    roster: Roster
    policy: str
    seed: int | None
    epoch: Epoch | None = None
    history: KeyHistory = ONE_KEY
    first: SigningKey | None = None

    @property
    def simulated(self) -> bool:
        """Whether this site is part of a simulation."""
        return self.roster.simulated

    def randomness(self) -> Randomness:
        """The operating system's, or in a simulation that of the seed."""
        return SystemRandomness() if self.seed is None else KeyedRandomness(self.seed, "site", self.number)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new store is made from.

    ``policy`` is the text of the site's policy file, ``terms`` one ledger per population. ``bundle`` is the
    federation's as it stands; without one nothing says how long the roster holds.
    """

    number: int
    key: SigningKey
    roster: SignedRoster
    pinned: bytes
    policy: str
    terms: tuple[Terms, ...]
    seed: int | None = None
    bundle: Bundle | None = None


class SiteStore:
    """An open store. Cheap to open; every Flower message opens it anew."""

    def __init__(self, path: Path, engine: Engine, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._engine = engine

    @classmethod
    def create(cls, path: Path, enrolment: Enrolment) -> "SiteStore":
        """Make a store for a newly enrolled site.

        Raises:
            ConfigError: the file exists, the roster is not the pinned one or lacks the site, or a seed is given
                outside a simulation.
        """
        roster = open_roster(enrolment.roster, pinned=enrolment.pinned)
        entry = roster.entry(enrolment.number)
        if entry is None or entry.signing_key != enrolment.key.public:
            raise ConfigError("the roster does not list this site with this key")
        if roster.simulated != (enrolment.seed is not None):
            raise ConfigError(
                "a seed belongs to a simulated federation, and to no other",
                next_step="Outside a simulation, randomness comes from the operating system only.",
            )
        # Under another name until it is whole: a store that was begun and not finished must not stand in the way.
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            partial.touch(mode=0o600, exist_ok=False)
            cls._fill(partial, enrolment)
            path.hardlink_to(partial)
        except FileExistsError:
            raise ConfigError(f"{path} exists already", next_step="A site's store is made once.") from None
        finally:
            for leftover in (partial, Path(f"{partial}-wal"), Path(f"{partial}-shm")):
                leftover.unlink(missing_ok=True)
        return cls.open(path)

    @staticmethod
    def _fill(path: Path, enrolment: Enrolment) -> None:
        engine = connect(path)
        with engine.begin() as connection:
            METADATA.create_all(connection)
            connection.execute(
                insert(META),
                [
                    {"key": "format", "value": str(FORMAT).encode()},
                    {"key": "number", "value": str(enrolment.number).encode()},
                    {"key": "key", "value": enrolment.key.seed.reveal()},
                    {"key": "roster", "value": encode(enrolment.roster)},
                    {"key": "pinned", "value": enrolment.pinned},
                    {"key": "policy", "value": enrolment.policy.encode("utf-8")},
                    {"key": "seed", "value": None if enrolment.seed is None else str(enrolment.seed).encode()},
                ],
            )
            if enrolment.bundle is not None:
                connection.execute(insert(META).values(key=BUNDLE, value=encode(enrolment.bundle)))
            for terms in enrolment.terms:
                connection.execute(insert(TERMS).values(population=terms.population, terms=encode(terms)))
                insert_entry(connection, terms.population, open_ledger(terms)[1], enrolment.key)

    @classmethod
    def open(cls, path: Path, *, reading: bool = False) -> "SiteStore":
        """Open a store; with ``reading`` its transactions write nothing and hold up nobody.

        One of an earlier format is brought to today's, after a copy of it is kept beside it.

        Raises:
            ConfigError: there is none at ``path``, it has a later format, or an earlier one and nothing may be written.
        """
        if not path.is_file():
            raise ConfigError(
                f"no site store at {path}",
                next_step="Give the path of this site's store as `fedseal-store` in node_config.",
            )
        engine = connect(path, reading=True) if reading else engine_for(path.absolute())
        try:
            with free_to_use(path), engine.begin() as connection:
                meta = {row.key: row.value for row in connection.execute(select(META))}
        except DatabaseError as error:
            raise unusable(path, error) or ConfigError(f"{path} is not a site store") from None
        current = SITE_STORE.check(path, meta.get("format"))
        if "number" not in meta:
            # A server's store has the same form.
            raise ConfigError(f"{path} is not a site store")
        if not current and reading:
            raise ConfigError(
                f"{path} is of an earlier fedseal, and is only read here",
                next_step=f"Bring it to today's format first, keeping a copy: fedseal site upgrade {path}",
            )
        if not current:
            upgrade(path, engine, SITE_STORE)
        number = int(meta["number"])
        roster = open_roster(decode(meta["roster"], SignedRoster), pinned=meta["pinned"])
        entry = roster.entry(number)
        key = SigningKey(Secret(meta["key"]))
        seeded = meta["seed"] is not None
        if entry is None or entry.signing_key != key.public or roster.simulated != seeded:
            raise ConfigError(f"{path} contradicts its own roster")
        identity = Identity(
            number=number,
            name=entry.name,
            key=key,
            roster=roster,
            policy=meta["policy"].decode("utf-8"),
            seed=None if meta["seed"] is None else int(meta["seed"]),
            epoch=adopted(meta.get(BUNDLE), roster, path),
            history=decode(meta[HISTORY], KeyHistory) if HISTORY in meta else ONE_KEY,
            first=SigningKey(Secret(meta[FIRST])) if FIRST in meta else None,
        )
        return cls(path, engine, identity)

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """All or nothing, exclusive, on disk at the end of the block. An exception inside undoes everything."""
        with self._engine.begin() as connection:
            yield Transaction(connection, self.identity.key, self.identity.history)

    def adopt(self, epoch: Epoch, key: SigningKey | None = None) -> bool:
        """Move to a later epoch of the federation; whoever holds the store sees it once it is opened again.

        Args:
            epoch: the one to move to.
            key: the site's signing key from then on, where it is another one; None if it stays.

        Returns:
            Whether anything has changed; the epoch that the store is at changes nothing.

        Raises:
            ConfigError: it is older, of another federation or root, or lacks this site with this key.
        """
        identity = self.identity
        own, entry = key or identity.key, epoch.roster.entry(identity.number)
        if identity.epoch is None and identity.roster.root_key != epoch.roster.root_key:
            raise ConfigError("the bundle is signed by another root key than this site's roster")
        if identity.epoch is not None and not moves(identity.epoch, epoch):
            return False
        if entry is None or entry.name != identity.name or entry.signing_key != own.public:
            raise ConfigError(
                f"epoch {epoch.number} does not list site {identity.name!r} with this store's signing key",
                next_step="See who is in it: fedseal federation status BUNDLE",
            )
        changed = {"roster": encode(epoch.signed), "pinned": epoch.roster.digest(), BUNDLE: encode(epoch.bundle)}
        with self._engine.begin() as connection:
            if own.public != identity.key.public:
                transaction = Transaction(connection, identity.key, identity.history)
                transaction.verify_ledgers()
                history = identity.history.after(identity.key.public, transaction.counters())
                changed |= {"key": own.seed.reveal(), HISTORY: encode(history)}
                changed |= {FIRST: (identity.first or identity.key).seed.reveal()}
            for name, value in changed.items():
                put = upsert(META).values(key=name, value=value)
                connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
        return True

    def reseed(self, seed: int) -> None:
        """Draw anew in the next run of a simulation: with one seed two runs of a federation would have the same noise.

        Whoever holds the store sees it once it is opened again.

        Raises:
            ConfigError: it is a real site's, which draws from the operating system.
        """
        if self.identity.seed is None:
            raise ConfigError("a site that is not simulated has no seed")
        with self._engine.begin() as connection:
            connection.execute(update(META).where(META.c.key == "seed").values(value=str(seed).encode()))

    def verify_ledgers(self) -> None:
        """Check every entry of every ledger: signatures, hashes and totals.

        Raises:
            LocalError: a ledger was changed from outside.
        """
        with self.transaction() as transaction:
            transaction.verify_ledgers()


def adopted(raw: bytes | None, roster: Roster, path: Path) -> Epoch | None:
    """The epoch that a store has adopted; None where it knows a roster alone.

    Raises:
        ConfigError: it is not the roster's.
    """
    if raw is None:
        return None
    epoch = open_bundle(decode(raw, Bundle))
    if epoch.roster != roster:
        raise ConfigError(f"{path} contradicts its own roster")
    return epoch
