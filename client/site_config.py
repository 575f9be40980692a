"""What a site's resident node is told in its own file: where the server is, which code may run, where the data is.

Nothing in it comes from a server. Paths are taken from the folder of the file.
"""

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import Field, StringConstraints

from fedseal.client.isolation.settings import IsolationPart
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.policy import SitePolicy
from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import ConfigError
from fedseal.operation.config import OperationPart
from fedseal.privacy.membership.documents import Epoch
from fedseal.privacy.membership.standing import SITE_MOVES, warning_at_start
from fedseal.privacy.membership.tls import as_pem, openssh_line
from fedseal.privacy.store import SiteStore
from fedseal.study import Study, load_study

# Beside the store of a site that has joined an epoch: the authority as a file, for people and for metrics.
AUTHORITY = "authority.pem"
Address = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class ServerPart(Frozen):
    """Where the coordination server listens, and the PEM file of the authority that signed its certificate."""

    address: Address
    authority: Path


class SitePart(Frozen):
    """This site's own: its store, the folder of its data, and the key by which its node signs itself in.

    ``key`` is an OpenSSH file with a private key on P-256 or P-384, without a passphrase, that only its owner reads.
    ``threads`` is how many threads training may use. With ``preload`` the study's code and the libraries it trains
    with are loaded at the start; without, when the first message needs them, which saves their memory until then.
    """

    store: Path
    data: Path
    key: Path
    threads: int = Field(default=1, ge=1, le=1024)
    preload: bool = True


class StudyPart(Frozen):
    """The only code that runs: a folder, and the digest of what was read and approved there."""

    folder: Path
    digest: Digest


class NodeConfig(Frozen):
    """The file of a resident node. ``server`` is for a site that has joined no epoch of its federation: the bundle that
    others have joined says where the server is and who it has to be. A ``policy`` in it becomes the site's when the
    node starts.
    """

    server: ServerPart | None = None
    site: SitePart
    study: StudyPart
    isolation: IsolationPart = IsolationPart()
    operation: OperationPart = OperationPart()
    policy: SitePolicy | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """The server as a site knows it. ``authority`` is a PEM file."""

    address: str
    trust: ssl.SSLContext
    authority: Path


@dataclass(frozen=True, slots=True)
class Site:
    """A site that is ready to run: everything its file names has been looked at."""

    address: str
    trust: ssl.SSLContext
    key: ec.EllipticCurvePrivateKey
    store: Path
    data: Path
    study: Study
    digest: bytes
    threads: int
    preload: bool
    key_file: Path
    isolation: IsolationPart
    authority: Path
    operation: OperationPart
    policy: SitePolicy | None
    epoch: Epoch | None = None

    def check_now(self, now: datetime) -> str | None:
        """What to warn of at a start, if of anything; ConfigError if the epoch does not hold now."""
        return warning_at_start(self.epoch, now, moves=SITE_MOVES)

    def check_code(self) -> None:
        """Look whether the study's code is still what was approved; ConfigError if not."""
        check_code(self.study.folder, self.digest)


def read_site(path: Path) -> Site:
    """Read a node's file and look at everything that it names.

    Raises:
        ConfigError: the file is wrong, names something that is not there, or the code is not what was approved.
    """
    table, text = read_toml(path)
    config = validate(NodeConfig, table, text=text, source=str(path))
    home = path.resolve().parent
    folder, digest = home / config.study.folder, bytes.fromhex(config.study.digest.removeprefix("sha256:"))
    check_code(folder, digest)
    site = config.site
    for what, place in (("store", home / site.store), ("data", home / site.data)):
        if not place.exists():
            raise ConfigError(f"{path}: site.{what}: {place} does not exist")
    key = node_key(home / site.key)
    identity = SiteStore.open(home / site.store).identity
    server = server_of(path, config, identity.epoch)
    if identity.epoch is not None:
        check_node_key(home / site.key, key, identity.epoch, identity.number)
    return Site(
        server.address,
        server.trust,
        key,
        home / site.store,
        home / site.data,
        load_study(folder),
        digest,
        site.threads,
        site.preload,
        home / site.key,
        config.isolation,
        server.authority,
        config.operation,
        config.policy,
        identity.epoch,
    )


def server_of(path: Path, config: NodeConfig, epoch: Epoch | None) -> Server:
    """Where the server is and who is believed to be it: by the site's file where that says so, or by its epoch.

    Raises:
        ConfigError: neither says, or the authority's file holds no certificate.
    """
    home, part = path.resolve().parent, config.server
    if part is not None:
        return Server(part.address, trust_in(home / part.authority), home / part.authority)
    if epoch is None:
        raise ConfigError(
            f"{path}: 'server' is missing, and this site has joined no epoch of its federation",
            next_step="Join: fedseal site join BUNDLE",
        )
    context = ssl.create_default_context(cadata=as_pem(epoch.bundle.authority).decode("ascii"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return Server(epoch.membership.address, context, (home / config.site.store).with_name(AUTHORITY))


def check_node_key(path: Path, key: ec.EllipticCurvePrivateKey, epoch: Epoch, site: int) -> None:
    """Whether a node's key is the one that an epoch has for a site; ConfigError if not."""
    if openssh_line(key.public_key()) != epoch.membership.node_key(site):
        raise ConfigError(
            f"{path} is not this site's node key in epoch {epoch.number} of the federation",
            next_step="Put the right key back, or join the bundle that has this one: fedseal site join BUNDLE",
        )


def check_code(folder: Path, approved: bytes) -> None:
    """Compare a folder of code with the digest that was approved; ConfigError if it is not that code."""
    found = code_digest(folder)
    if found != approved:
        raise ConfigError(
            f"the code in {folder} is not what was approved: sha256:{approved.hex()}",
            next_step=f"Put the approved code back, or read what is there and then approve it: sha256:{found.hex()}",
        )


def trust_in(authority: Path) -> ssl.SSLContext:
    """Who is believed to be the server: whoever has a certificate of this authority for the address."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except FileNotFoundError:
        raise ConfigError(f"{authority} does not exist", next_step="It is the PEM file of the authority.") from None
    except (ssl.SSLError, OSError):
        raise ConfigError(f"{authority} holds no certificate", next_step="It has to be a PEM file.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file that only its owner reads; ConfigError if it is none, or others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}", next_step=f"chmod 600 {path}")
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{path} holds no private key in OpenSSH's form without a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is no key on P-256 or P-384", next_step="ssh-keygen -t ecdsa -b 256 -N '' -f FILE")
    return key
