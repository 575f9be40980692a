"""`fedseal person`: keys of people who sign, and their roles in the federation's log."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import click
import typer
from rich.console import Console
from rich.table import Table

from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.compliance.events.bodies import PersonAdded, PersonRemoved
    from fedseal.privacy.secagg.keys import SigningKey
    from fedseal.privacy.secret import Secret

person = typer.Typer(
    help="Who may sign: make a key, add a person with roles, remove one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RoleName = Literal["site-admin", "site-dpo", "data-steward", "ml-engineer", "approver", "coordinator-ops", "auditor"]
Log = Annotated[Path, typer.Option("--log", help="The server's store, or the folder of a simulated run.")]
SiteStorePath = Annotated[
    Path | None, typer.Option("--site", help="A site's store: the person is the site's, and the log hears of it later.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome, and nothing else, as JSON.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="A file whose first line is the passphrase; asked if not given."),
]


@person.command()
def key(
    file: Annotated[Path, typer.Argument(help="The new key's file; only its owner may read it.")],
    passphrase: Annotated[bool, typer.Option(help="Encrypt the file with a passphrase.")] = True,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a person's key, and print the public half that their organisation adds."""
    from fedseal.cli.registry import say
    from fedseal.compliance.registry.approvals import new_key, save_key

    made = new_key()
    save_key(made, file, _passphrase(passphrase_file, new=True) if passphrase else None)
    public = made.public.hex()
    say({"key": str(file), "public": public}, f"Made {file}. Its public key:\n{public}", as_json=as_json)


@person.command()
def add(
    public: Annotated[str, typer.Argument(help="The person's public key, 64 hexadecimal digits.")],
    name: Annotated[str, typer.Option(help="Who it is; stays in this store, the log has a pseudonym.")],
    role: Annotated[
        list[str], typer.Option(help="A role; may be given several times.", click_type=click.Choice(get_args(RoleName)))
    ],
    log: Annotated[Path | None, typer.Option("--log", help="The server's store, or a simulated run's folder.")] = None,
    site: SiteStorePath = None,
    actor: Annotated[
        str | None, typer.Option(help="A pseudonym that exists: other roles or another key for it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a person to the organisation whose store this is, or change a person's key and roles."""
    from pydantic import ValidationError

    from fedseal.cli.registry import say
    from fedseal.compliance.events.bodies import PersonAdded
    from fedseal.compliance.events.fields import Role

    pseudonym = actor or "act_" + secrets.token_hex(16)
    try:
        body = PersonAdded(person=pseudonym, key=public, roles=tuple(Role(r) for r in sorted(set(role))))
    except ValidationError:
        raise ConfigError(
            "a public key is 64 hexadecimal digits, a pseudonym act_ and 32 of them",
            next_step="Copy what `fedseal person key` printed.",
        ) from None
    _write(body, log, site, name)
    text = f"{name} is {pseudonym}, with the roles {', '.join(sorted(set(role)))}."
    say({"person": pseudonym, "roles": sorted(set(role))}, text, as_json=as_json)


@person.command()
def remove(
    actor: Annotated[str, typer.Argument(help="The person's pseudonym.")],
    log: Annotated[Path | None, typer.Option("--log", help="The server's store, or a simulated run's folder.")] = None,
    site: SiteStorePath = None,
    as_json: AsJson = False,
) -> None:
    """Let a person sign no more. What they have signed and is not acted on yet counts no longer."""
    from pydantic import ValidationError

    from fedseal.cli.registry import say
    from fedseal.compliance.events.bodies import PersonRemoved

    try:
        body = PersonRemoved(person=actor)
    except ValidationError:
        raise ConfigError("a pseudonym is act_ and 32 hexadecimal digits") from None
    _write(body, log, site, None)
    say({"person": actor}, f"{actor} signs no more. The name stays in the store, for what was signed.", as_json=as_json)


@person.command("list")
def list_persons(log: Log, as_json: AsJson = False) -> None:
    """List the persons that the federation's log knows, with names where this store has them."""
    from fedseal.cli.registry import opened, say

    with opened(log) as found:
        persons, names = found.registry.state().persons, found.names()
    rows = [
        {
            "person": p.actor,
            "name": names.get(p.actor),
            "organisation": p.org,
            "roles": sorted(role.value for role in p.roles),
            "active": p.active,
        }
        for p in persons.values()
    ]
    if as_json:
        say({"persons": rows}, "", as_json=True)
        return
    table = Table("person", "name", "organisation", "roles", "may sign")
    for p in persons.values():
        roles = ", ".join(sorted(role.value for role in p.roles))
        table.add_row(p.actor, names.get(p.actor, ""), p.org, roles, "yes" if p.active else "no")
    Console(highlight=False).print(table)


def _write(body: "PersonAdded | PersonRemoved", log: Path | None, site: Path | None, name: str | None) -> None:
    """Say it in the organisation's name, and keep the person's."""
    if (log is None) == (site is None):
        raise ConfigError("whose person is it?", next_step="Give either --log (the server's) or --site (a site's).")
    if site is not None:
        _write_at_site(body, site, name)
    elif log is not None:
        _write_at_server(body, log, name)


def _write_at_server(body: "PersonAdded | PersonRemoved", log: Path, name: str | None) -> None:
    from fedseal.cli.registry import opened
    from fedseal.compliance.journal.federation import Fact
    from fedseal.compliance.registry.directory import Directory
    from fedseal.compliance.registry.people import check_person

    with opened(log) as found:
        state = found.registry.state()
        check_person(state.persons, state.owners, found.registry.parties, body, "server")
        found.journal.commit([Fact(body)])
        if name is not None:
            with found.store.engine.begin() as connection:
                Directory(connection).put(body.person, name)


def _write_at_site(body: "PersonAdded | PersonRemoved", site: Path, name: str | None) -> None:
    from datetime import UTC, datetime

    from fedseal.cli.site import opened
    from fedseal.compliance.journal.site import SiteJournal
    from fedseal.compliance.registry.directory import Directory

    with opened(site) as (store, transaction):
        SiteJournal(transaction.connection, store.identity, datetime.now(UTC)).share(body)
        if name is not None:
            Directory(transaction.connection).put(body.person, name)


def key_in(file: Path, passphrase_file: Path | None) -> "SigningKey":
    """A person's key, with its passphrase where it has one."""
    from fedseal.compliance.registry.approvals import is_encrypted, load_key

    return load_key(file, _passphrase(passphrase_file, new=False) if is_encrypted(file) else None)


def _passphrase(file: Path | None, *, new: bool) -> "Secret":
    from fedseal.privacy.secret import Secret

    if file is None:
        return Secret(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new).encode("utf-8"))
    try:
        first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"no passphrase in {file}") from None
    if not first:
        raise ConfigError(f"no passphrase in {file}")
    return Secret(first.encode("utf-8"))
