"""`fedseal server init|adopt|rotate` and `fedseal site init|join|rotate`: keys, requests, and what comes of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedseal.cli.handing import confirm, say
from fedseal.errors import ConfigError

if TYPE_CHECKING:
    from fedseal.privacy.membership.documents import Epoch

ServerFolder = Annotated[Path, typer.Option("--folder", help="The server's folder.")]
SiteFolder = Annotated[Path, typer.Option("--folder", help="The site's folder.")]
BundleFile = Annotated[Path, typer.Argument(help="The bundle that the federation's root has handed out.")]
Fingerprint = Annotated[
    str | None, typer.Option("--fingerprint", help="The bundle's, as it was read out. Asked for if not given.")
]
FederationName = Annotated[str, typer.Option("--federation", help="What the federation is called.")]
SERVER, SITE = Path("server"), Path("site")


def init_server(federation: FederationName, folder: ServerFolder = SERVER) -> None:
    """Make the server's keys, and its request to the federation's root."""
    from fedseal.server.enrolment import init_server as make

    _tell_request(make(folder, federation, _now()))


def adopt(
    bundle: BundleFile,
    folder: ServerFolder = SERVER,
    fingerprint: Fingerprint = None,
    listen: Annotated[str | None, typer.Option(help="Where to listen, as host:port, if not at the address.")] = None,
) -> None:
    """Take a bundle: make the server's store from it, or move to its epoch.

    A server that is running follows within a second. Its current run keeps the roster that it began with.
    """
    from fedseal.server.enrolment import adopt as take

    epoch = _confirmed(bundle, fingerprint)
    done = take(folder, epoch, _now(), listen)
    say(f"The server is at epoch {epoch.number}." if done.changed else f"It was at epoch {epoch.number} already.")
    say(f"Start it:   fedseal server up --config {done.config}")


def rotate_server(folder: ServerFolder = SERVER) -> None:
    """Make new keys for a server, and the request to go on with them. The old ones stay in use until then."""
    from fedseal.server.enrolment import rotate_server as make

    _tell_request(make(folder, _now()))


def init_site(
    name: Annotated[str, typer.Argument(help="What the site is called in the federation, for ever.")],
    federation: FederationName,
    data: Annotated[Path, typer.Option(help="The folder of this site's data.")],
    study: Annotated[Path, typer.Option(help="The folder of the study's code, once somebody has read it.")],
    persons: Annotated[int, typer.Option(min=1, help="How many persons it trains on. Rounded to tens, and public.")],
    organisation: Annotated[str | None, typer.Option(help="Whose site it is; its name if not given.")] = None,
    contract: Annotated[Path | None, typer.Option(help="A data contract, by which the data is registered.")] = None,
    folder: SiteFolder = SITE,
) -> None:
    """Make a site's keys, its file, and its request to the federation's root."""
    from fedseal.client.enrolment import SiteDraft
    from fedseal.client.enrolment import init_site as make
    from fedseal.compliance.data.code import code_digest

    draft = SiteDraft(name, federation, organisation or name, persons, data, study, contract)
    path = make(folder, draft, _now())
    say(f"Made {folder / 'site.toml'}. The only code that will run here is sha256:{code_digest(study).hex()}")
    _tell_request(path)


def join(
    bundle: BundleFile,
    folder: SiteFolder = SITE,
    fingerprint: Fingerprint = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="At the first join: all that may ever be spent on training persons; the study's if not given."
        ),
    ] = None,
) -> None:
    """Take a bundle: make the site's store from it, or move to its epoch. An older epoch never comes back."""
    from fedseal.client.enrolment import STORE, first_terms
    from fedseal.client.enrolment import join as take

    if epsilon is not None and (folder / STORE).exists():
        raise ConfigError("--epsilon is for the first join: a ledger's promise is never changed")
    epoch = _confirmed(bundle, fingerprint)
    done = take(folder, epoch, _now(), None if epsilon is None else first_terms(folder, epoch, epsilon))
    say(f"This site is at epoch {epoch.number}." if done.changed else f"It was at epoch {epoch.number} already.")
    if done.first:
        _register(folder)
    if done.restart:
        say("The node's key, or where the server is, has changed: if the node is running, start it anew.")
    say(f"Start it:   fedseal site run --config {done.config}")


def rotate_site(folder: SiteFolder = SITE) -> None:
    """Make new keys for a site, and the request to go on with them. The old ones stay in use until then."""
    from fedseal.client.enrolment import rotate_site as make

    _tell_request(make(folder, _now()))


def _confirmed(path: Path, given: str | None) -> "Epoch":
    """The epoch in a bundle, once somebody has compared its fingerprint."""
    from fedseal.compliance.enrolment.files import read_bundle
    from fedseal.privacy.membership.armour import Form
    from fedseal.privacy.membership.armour import fingerprint as digits_of
    from fedseal.wire import encode

    epoch = read_bundle(path)
    names = ", ".join(entry.name for entry in epoch.roster.sites)
    say(f"Epoch {epoch.number} of federation {epoch.roster.federation}, server at {epoch.membership.address}: {names}")
    confirm(str(path), digits_of(Form.BUNDLE, encode(epoch.bundle)), [] if given is None else [given])
    return epoch


def _register(folder: Path) -> None:
    """Register the data where there is a contract for it."""
    from fedseal.client.enrolment import CONFIG, CONTRACT, STORE

    if not (folder / CONTRACT).is_file():
        return
    from fedseal.cli.data import register
    from fedseal.client.site_config import read_site

    site = read_site(folder / CONFIG)
    register(site.data, folder / STORE, site.study.folder, folder / CONTRACT)


def _tell_request(path: Path) -> None:
    from fedseal.compliance.enrolment.files import read_request
    from fedseal.privacy.membership.armour import Form
    from fedseal.privacy.membership.armour import fingerprint as digits_of
    from fedseal.wire import encode

    say(f"Request: {path}")
    say("Hand it to the federation's root; it holds no secret. When they ask, read its fingerprint out:")
    say(f"  {digits_of(Form.REQUEST, encode(read_request(path)))}")


def _now() -> datetime:
    return datetime.now(UTC)
