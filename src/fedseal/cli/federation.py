"""`fedseal federation`: the root of a federation, which says who is in it. Run it on a machine of its own."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from fedseal.cli.handing import confirm, say
from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.compliance.enrolment.draft import Draft
    from fedseal.compliance.enrolment.root import Root

federation = typer.Typer(
    help="Say who is in a federation: its root key, its epochs, who is let in and who leaves.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Folder = Annotated[Path, typer.Option("--folder", help="The folder of the federation's root.")]
Fingerprints = Annotated[
    list[str] | None,
    typer.Option("--fingerprint", help="What was read out; once for each request. Asked for if not given."),
]
ROOT = Path("federation")


@federation.command()
def init(
    name: Annotated[str, typer.Argument(help="What the federation is called, for ever.")],
    address: Annotated[str, typer.Option(help="Where sites will reach the server, as host:port.")],
    folder: Folder = ROOT,
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long an epoch holds.")] = 365,
) -> None:
    """Make a federation's root: the key that signs who is in it, and the authority of the server's certificate.

    Keep the folder off the server and off the network. It is needed only to let somebody in or out, and once a year.
    """
    from fedseal.compliance.enrolment.root import FederationPart, Root
    from fedseal.config import validate

    table = {"name": name, "address": address, "days": days}
    part = validate(FederationPart, table, text="", source="fedseal federation init")
    made = Root.create(folder, part, _now())
    say(f"Made the root of federation {name} in {made.folder}. Keep it offline, and a copy of it somewhere else.")
    say(f"Coordinator:  fedseal server init --federation {name}")
    say(f"Each site:    fedseal site init SITE --federation {name} --data DIR --study DIR --persons N")
    say("Then let them in with their requests: fedseal federation admit REQUEST...")


@federation.command()
def admit(
    requests: Annotated[list[Path] | None, typer.Argument(help="Requests of sites and of the server.")] = None,
    folder: Folder = ROOT,
    fingerprint: Fingerprints = None,
) -> None:
    """Let in who asks, or let them go on with new keys: makes the next epoch. Without a request: for another year."""
    from fedseal.compliance.enrolment.files import read_request
    from fedseal.compliance.enrolment.root import Asked, Root
    from fedseal.privacy.membership.armour import Form
    from fedseal.privacy.membership.armour import fingerprint as digits_of
    from fedseal.privacy.membership.requests import SiteRequest, open_request
    from fedseal.wire import encode

    root, asked = Root.open(folder), []
    for path in requests or []:
        signed = read_request(path)
        asked.append((Asked(str(path), open_request(signed, str(path))), digits_of(Form.REQUEST, encode(signed))))
    if not asked and root.newest() is None:
        raise ConfigError(
            "the first epoch needs requests", next_step="fedseal federation admit server.request SITE.request ..."
        )
    # Before anybody telephones: a request that cannot be let in is refused at once.
    draft = root.drafted([each for each, _ in asked], _now())
    for each, digits in asked:
        found = each.request
        who = f"site {found.name}, about {found.persons:,} persons" if isinstance(found, SiteRequest) else "the server"
        what = "new keys for" if found.previous is not None else "letting in"
        confirm(f"{each.source} ({what} {who})", digits, fingerprint or [])
    _sealed(root, draft)


@federation.command()
def remove(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    reason: Annotated[Literal["left", "revoked"], typer.Option(help="revoked: its keys may be in other hands.")],
    folder: Folder = ROOT,
) -> None:
    """Make the next epoch without a site. Its keys never count again; what it has signed stays in the log."""
    from fedseal.compliance.enrolment.root import Root
    from fedseal.privacy.membership.documents import Reason

    root = Root.open(folder)
    why = Reason.LEFT if reason == "left" else Reason.REVOKED
    _sealed(root, root.without(site, why, _now()))


@federation.command()
def status(
    where: Annotated[
        Path | None, typer.Argument(help="A bundle, or a site's or the server's store; the root if not given.")
    ] = None,
    folder: Folder = ROOT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say who is in the federation, until when, and which keys no longer count."""
    from fedseal.cli.epochs import described, epoch_at, told

    found = described(epoch_at(where, folder), _now())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    say(told(found))
    table = Table()
    for title in ("number", "site", "organisation", "persons", "node key"):
        table.add_column(title)
    for row in found["sites"]:
        table.add_row(*(str(row[key]) for key in ("number", "name", "organisation", "persons", "node_key")))
    Console(highlight=False, soft_wrap=True).print(table)
    for former in found["former"]:
        if former["kind"] != "certificate":
            say(
                f"no longer: {former['kind']} key of {former['name']}, {former['reason']} after epoch {former['epoch']}"
            )


def _sealed(root: "Root", draft: "Draft") -> None:
    from fedseal.privacy.membership.armour import Form
    from fedseal.privacy.membership.armour import fingerprint as digits_of
    from fedseal.wire import encode

    epoch = root.seal(draft, _now())
    until = datetime.fromtimestamp(epoch.membership.valid_until, UTC)
    names = ", ".join(entry.name for entry in epoch.roster.sites)
    say(f"Epoch {epoch.number} of federation {epoch.roster.federation}, until {until:%Y-%m-%d}: {names}")
    say(f"Bundle: {root.bundle(epoch.number)}")
    say("Hand it to the server and to every site; it holds no secret. Read its fingerprint out to each of them:")
    say(f"  {digits_of(Form.BUNDLE, encode(epoch.bundle))}")
    say("Coordinator:  fedseal server adopt BUNDLE")
    say("Each site:    fedseal site join BUNDLE")


def _now() -> datetime:
    return datetime.now(UTC)
