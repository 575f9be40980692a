"""`fedseal console`: the web pages for coordinators, auditors and those who answer for models, and who may see them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import click
import typer
from rich.console import Console
from rich.table import Table

from fedseal.errors import ConfigError
from fedseal.operation.logs import log_to_stderr

if TYPE_CHECKING:
    from fedseal.server.console.users import UserFile

console = typer.Typer(
    help="Web pages for a federation's coordinator, auditors and approvers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
user = typer.Typer(help="Who may sign in.", no_args_is_help=True, rich_markup_mode="rich")
console.add_typer(user, name="user")

RoleName = Literal[
    "coordinator-ops",
    "ml-engineer",
    "approver",
    "auditor",
    "regulator",
    "site-admin",
    "site-dpo",
    "data-steward",
]
Config = Annotated[Path, typer.Option("--config", help="The server's file; see docs/console.md.")]
Name = Annotated[str, typer.Argument(help="The user's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@console.command()
def serve(config: Config) -> None:
    """Serve the pages, until stopped."""
    from fedseal.server.console.serving import serve as serve_console
    from fedseal.server.console.settings import read_console
    from fedseal.server.server_config import parse_server

    settings = read_console(config)
    log_to_stderr(parse_server(config).operation.log)
    serve_console(settings)


@user.command()
def add(
    name: Name,
    config: Config,
    role: Annotated[
        list[str], typer.Option(help="A role; may be given several times.", click_type=click.Choice(get_args(RoleName)))
    ],
    until: Annotated[
        str | None, typer.Option(help="The last day of the account, as 2027-03-31, in UTC; a regulator needs one.")
    ] = None,
) -> None:
    """Add a user, and print the secret to sign in with, this once."""
    from fedseal.server.console.permissions import Role

    users = _users(config, create=True)
    _tell_secret(name, users.add(name, [Role(one) for one in role], None if until is None else _end_of(until)))


@user.command()
def reset(name: Name, config: Config) -> None:
    """Give a user another secret, print it this once, and end the user's sessions."""
    _tell_secret(name, _users(config).reset(name))


@user.command()
def remove(name: Name, config: Config) -> None:
    """Take a user away, and end the user's sessions."""
    _users(config).remove(name)
    Console(highlight=False).print(f"Removed {name}.")


@user.command(name="list")
def list_users(config: Config, as_json: AsJson = False) -> None:
    """Say who may sign in, with which roles, until when."""
    found = _users(config).all()
    if as_json:
        rows = [{"name": u.name, "roles": sorted(u.roles), "until": _moment(u.expires)} for u in found]
        print(json.dumps({"schema_version": 1, "users": rows}, indent=2))
        return
    table = Table("user", "roles", "until (UTC)")
    for one in found:
        table.add_row(one.name, ", ".join(sorted(one.roles)), _moment(one.expires) or "")
    Console(highlight=False, soft_wrap=True).print(table if found else "There are no users yet.")


def _users(config: Path, *, create: bool = False) -> "UserFile":
    from fedseal.server.console.settings import read_console
    from fedseal.server.console.users import UserFile

    return UserFile.open(read_console(config).users, create=create)


def _end_of(day: str) -> float:
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{day!r} is no day", next_step="For example: --until 2027-03-31") from None
    return (found + timedelta(days=1)).timestamp()


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tell_secret(name: str, secret: str) -> None:
    # The secret alone goes to standard output, so that it can be handed on without being shown.
    Console(stderr=True, highlight=False).print(f"The secret of {name}, shown this once:")
    print(secret)
