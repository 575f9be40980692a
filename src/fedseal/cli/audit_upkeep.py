"""The commands of `fedseal audit` that write: a stopped site's evidence, settling, recovering, reviews."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedseal.compliance.events.fields import ReviewOutcome
from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from fedseal.compliance.journal.federation import FederationJournal
    from fedseal.compliance.journal.site import SiteJournal
    from fedseal.server.store import ServerStore

Site = Annotated[Path, typer.Option("--site", help="The site's store.")]


def evidence(
    site: Site, folder: Annotated[Path, typer.Argument(help="Gets both notes, the mirror and the policy.")]
) -> None:
    """Write out what made a site stop: two signed checkpoints that cannot both be true."""
    from fedseal.cli.site import opened
    from fedseal.compliance.audit.contradictions import write_evidence

    with opened(site, reading=True) as (store, transaction):
        try:
            written = write_evidence(transaction.connection, store.identity, folder)
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from None
    if not written:
        _say("This site has kept no evidence: no log has contradicted itself here.")
        return
    for one in written:
        said = f"settled on {one.settled}" if one.settled else "NOT settled: this site has stopped"
        _say(f"{one.number}: {one.kind}, {one.time}; {said}")
        tree = "" if one.tree is None else f" --dir {folder / one.tree if one.tree else 'EXPORT'}"
        _say(
            f"   fedseal-verify fork {folder / one.known} {folder / one.offered} --policy {folder / 'policy.txt'}{tree}"
        )
        if one.tree == "":
            _say("   EXPORT: the server's log as far as the larger note; let the server show that it continues.")


def settle(
    site: Site,
    yes: Annotated[
        bool, typer.Option("--yes", help="The federation knows what happened; this site may go on.")
    ] = False,
) -> None:
    """Decide that a site that has stopped may go on. Written into the site's own log and into the federation's."""
    from fedseal.compliance.audit.contradictions import settle_all

    with site_journal(site) as journal:
        if journal.halted is None:
            _say("This site has not stopped; nothing has changed.")
            return
        if not yes:
            raise ConfigError(
                "a log that contradicted itself is settled only on purpose",
                next_step="Look at `fedseal audit evidence`, talk with the federation, then say --yes.",
            )
        count = settle_all(journal)
    _say(f"{count} contradiction(s) settled, and written down as incidents. The evidence stays in the store.")


def recover(
    log: Annotated[Path, typer.Option("--log", help="The server's store, or its run's folder.")],
    mirrors: Annotated[
        list[Path],
        typer.Option("--from", help="A site's store, or the folder of an exported log. May be given several times."),
    ],
    database: Annotated[
        str | None, typer.Option(help="The log's PostgreSQL URL, where it is not in the store.")
    ] = None,
) -> None:
    """Give a server back the entries that its database lost, from the mirrors of sites. Stop the server first."""
    from fedseal.cli.site import opened
    from fedseal.compliance.audit.recover import recover as mend
    from fedseal.compliance.log.checkpoint import server_origin
    from fedseal.compliance.log.exported import ExportedLog
    from fedseal.compliance.log.store import Log
    from fedseal.server.store import ServerStore

    store = ServerStore.open(server_store(log))
    roster = store.identity.roster
    for path in mirrors:
        if path.is_dir():
            exported = ExportedLog(path)
            if exported.origin != server_origin(roster.federation):
                raise ConfigError(f"{path} is the log of another federation, or a site's own")
            with _engine(store, database).begin() as connection:
                found = mend(connection, store.identity.key, roster, exported, None)
            _say(f"{path}: {found.after - found.before} entries taken; the log has {found.after}.")
            continue
        with opened(path, reading=True) as (site_store, transaction), _engine(store, database).begin() as connection:
            theirs = site_store.identity
            if theirs.roster.federation != roster.federation:
                raise ConfigError(f"{path} is a site of another federation")
            mirror = Log(transaction.connection, server_origin(roster.federation))
            identity = store.identity
            found = mend(connection, identity.key, roster, mirror, theirs.number, identity.former)
        _say(f"{theirs.name}: {found.after - found.before} entries taken; the log has {found.after}.")


def review(
    first: Annotated[int, typer.Option(min=0, help="The first entry that was read.")],
    end: Annotated[int, typer.Option(min=1, help="The entry after the last that was read.")],
    outcome: Annotated[ReviewOutcome, typer.Option(help="What was found.")],
    log: Annotated[Path | None, typer.Option("--log", help="The server's store: signed by the server.")] = None,
    site: Annotated[Path | None, typer.Option("--site", help="A site's store: signed by the site.")] = None,
    own: Annotated[bool, typer.Option("--own", help="With --site: it was the site's own log that was read.")] = False,
) -> None:
    """Write down that entries of a log were reviewed (45 CFR 164.308(a)(1)(ii)(D) asks for such reviews)."""
    from fedseal.compliance.events.subjects import Reviewed

    if (log is None) == (site is None):
        raise ConfigError("say who has reviewed", next_step="Give --log SERVER-STORE or --site SITE-STORE.")
    body = Reviewed(first=first, end=end, outcome=outcome)
    if site is not None:
        with site_journal(site) as journal:
            _within(body.first, body.end, (journal.own if own else journal.mirror).size)
            if own:
                journal.record(body)
            else:
                journal.share(body)
        where = "the site's own log" if own else "the federation's log, with the site's next answer"
    elif log is not None:
        from fedseal.compliance.journal.federation import Fact

        journal_of_server = federation_journal(server_store(log))
        _within(body.first, body.end, journal_of_server.size)
        journal_of_server.commit([Fact(body)])
        where = "the federation's log"
    _say(f"The review of entries {first} to {end - 1} ({outcome.value}) is written into {where}.")


def record_export(log: str, size: int, root: bytes, *, own: bool) -> None:
    """Note in a log that a copy of it was handed out: a site's own log, or the server's."""
    from fedseal.compliance.events.subjects import Exported
    from fedseal.compliance.journal.federation import Fact

    body = Exported(size=size, root="sha256:" + root.hex())
    if own:
        with site_journal(Path(log)) as journal:
            journal.record(body)
        return
    federation_journal(server_store(Path(log))).commit([Fact(body)])


def sign_own_checkpoint(path: Path) -> None:
    """Sign a checkpoint of a site's own log, which has none of itself."""
    from fedseal.cli.site import opened

    with opened(path) as (store, transaction):
        from fedseal.compliance.journal.site import SiteJournal

        journal = SiteJournal(transaction.connection, store.identity, datetime.now(UTC))
        journal.own.sign_checkpoint(store.identity.key)


def server_store(path: Path) -> Path:
    """The server's store that is meant: it, or that of a run's folder."""
    from fedseal.compliance.log.database import store_at

    found = store_at(path)
    if found is None:
        raise ConfigError(f"no server's store at {path}", next_step="Give the server's store, or a run's folder.")
    return found


@contextmanager
def site_journal(path: Path) -> "Iterator[SiteJournal]":
    """A site's journal, in one transaction of its store."""
    from fedseal.cli.site import opened
    from fedseal.compliance.journal.site import SiteJournal

    with opened(path) as (store, transaction):
        yield SiteJournal(transaction.connection, store.identity, datetime.now(UTC))


def federation_journal(path: Path) -> "FederationJournal":
    """The federation's log of a server's store, to write to."""
    from fedseal.compliance.journal.federation import FederationJournal
    from fedseal.server.store import ServerStore

    store = ServerStore.open(path)
    identity = store.identity
    return FederationJournal(
        store.engine,
        identity.key,
        identity.roster,
        faulty=0,
        now=lambda: datetime.now(UTC),
        former=identity.former,
    )


def _engine(store: "ServerStore", database: str | None) -> "Engine":
    from fedseal.compliance.log.database import open_database

    return store.engine if database is None else open_database(database)


def _within(first: int, end: int, size: int) -> None:
    if not first < end <= size:
        raise ConfigError(f"no entries from {first} to before {end}: the log has {size}")


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
