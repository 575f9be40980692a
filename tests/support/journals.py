"""A federation's log and its sites' journals without Flower: what an honest server does, and hands for another one."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import delete, select, update
from support.flower import Federation, make_federation
from support.keys import SERVER, key

from fedseal.compliance.events.bodies import Aggregated, Anchor, Contributed, Joined, RunFinished
from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.journal.attachment import CONFLICT, LogReply, LogRequest
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.journal.tables import AUTHORS, TYPES
from fedseal.compliance.log import tables
from fedseal.compliance.log.store import Log
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.server.store import ServerStore

RUN = bytes(16)
T = TypeVar("T")
START = datetime(2026, 11, 28, 9, tzinfo=UTC)


@dataclass
class Clock:
    """A second later at each look."""

    time: datetime = START

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass
class Town:
    """A server's journal, sites, and messages between them."""

    federation: Federation
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, folder: Path, sites: int) -> "Town":
        """A federation of so many sites."""
        return cls(make_federation(folder, sites))

    def server(self, *, signer: SigningKey = SERVER, faulty: int = 0) -> FederationJournal:
        """The server's journal, opened anew: after a start, or a crash."""
        store = ServerStore.open(self.federation.server)
        return FederationJournal(store.engine, signer, store.identity.roster, faulty=faulty, now=self.clock)

    def at_site(self, number: int, act: Callable[[SiteJournal], T]) -> T:
        """Do something in one transaction of a site."""
        store = self.federation.site(number)
        with store.transaction() as transaction:
            return act(SiteJournal(transaction.connection, store.identity, self.clock()))

    def show(self, number: int, request: LogRequest) -> LogReply:
        """A site's answer to a request."""

        def answer(journal: SiteJournal) -> LogReply:
            return journal.reply(journal.hear(request))

        return self.at_site(number, answer)

    def exchange(self, server: FederationJournal, sites: Iterable[int]) -> None:
        """Show these sites the log and take what they answer; a site that the server had forgotten, twice."""
        for number in sites:
            reply = self.show(number, server.request_for(number))
            server.take(number, reply)
            if reply.status == CONFLICT:
                server.take(number, self.show(number, server.request_for(number)))

    def join(self, server: FederationJournal, sites: Iterable[int]) -> None:
        """Sites sign that they take part; the log gets it."""
        for number in sites:
            entry = self.federation.roster.entry(number)
            assert entry is not None
            body = Joined(
                site=number,
                name=entry.name,
                key=key(entry.name).public.hex(),
                roster="sha256:" + self.federation.roster.digest().hex(),
            )
            self.at_site(number, partial(SiteJournal.share, body=body))
        self.exchange(server, sites)
        server.commit()

    def round(self, server: FederationJournal, number: int, sites: Sequence[int]) -> None:
        """A round of these sites: shown the log, each signs its part, the server writes the sum."""
        self.exchange(server, sites)
        for site in sites:
            self.at_site(site, lambda journal: journal.share(contributed(journal, number), run=RUN))
            server.take(site, self.at_site(site, lambda journal: journal.reply(None)))
        server.commit([Fact(aggregated(number, sites), RUN)])


def digest(*parts: object) -> str:
    """Some digest of these."""
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


def contributed(journal: SiteJournal, number: int) -> Contributed:
    """What a site says of a round."""
    return Contributed(
        release=ReleaseName.UPDATE,
        round=number,
        sequence=number,
        attempt=0,
        header=digest("header", number),
        update=digest("update", number, journal.origin),
        dataset=None,
        label_set=None,
        code=None,
        anchor=Anchor(size=journal.own.size, root="sha256:" + journal.own.root().hex()),
    )


def aggregated(number: int, sites: Sequence[int]) -> Aggregated:
    """What a server says of a round."""
    return Aggregated(
        release=ReleaseName.UPDATE,
        round=number,
        sequence=number,
        attempt=0,
        header=digest("header", number),
        sites=tuple(sites),
        threshold=2,
        colluders=0,
        aggregate=digest("aggregate", number),
        model_in=digest("model", number),
    )


# What a server's operator can do to the database, with the server's key at hand.


def leaves_of(town: Town) -> list[bytes]:
    """All leaves as the server has them."""
    server = town.server()
    with server._transaction() as (_, log):
        return log.leaves(0, log.size)


def rewrite(town: Town, leaves: Sequence[bytes], *, signer: SigningKey = SERVER) -> None:
    """Put another log in the place of the server's, whole and consistent in itself, with a fresh checkpoint.

    Where witnesses stand stays: this server knows what it has to show them.
    """
    store = ServerStore.open(town.federation.server)
    origin = town.server().origin
    with store.engine.begin() as connection:
        head = connection.execute(select(tables.HEADS).where(tables.HEADS.c.origin == origin)).one()
        place = tables.LEAVES.c.position
        span = (head.log * tables.SPAN, (head.log + 1) * tables.SPAN)
        connection.execute(delete(tables.LEAVES).where(place >= span[0], place < span[1]))
        for table in (tables.TILES, tables.CHECKPOINTS, tables.COSIGNATURES):
            connection.execute(delete(table).where(table.c.log == head.log))
        connection.execute(update(tables.HEADS).where(tables.HEADS.c.log == head.log).values(size=0, frontier=b""))
        connection.execute(delete(TYPES))
        connection.execute(delete(AUTHORS))
        log = Log(connection, origin)
        log.append(leaves)
        log.sign_checkpoint(signer)


def finish(town: Town, server: FederationJournal) -> None:
    """One more entry, so that there is something new to show."""
    server.commit([Fact(RunFinished(rounds=1, model=None), RUN)])
