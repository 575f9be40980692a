"""What a coordination server is told in its own file: where it listens, which nodes are let in, where its runs are.

Paths are taken from the folder of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from pydantic import Field

from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import ConfigError
from fedseal.operation.config import OperationPart
from fedseal.privacy.membership.documents import Epoch
from fedseal.privacy.membership.standing import SERVER_MOVES, warning_at_start
from fedseal.privacy.membership.tls import UNREADABLE_KEY, as_pem, read_openssh
from fedseal.server.listening import Listener
from fedseal.server.store import ServerStore


class ListenPart(Frozen):
    """Where sites connect, and the PEM files of the certificate that they are shown and of its key."""

    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    certificate: Path
    key: Path


class CoordinationPart(Frozen):
    """The server's store, and the folder in which runs are ordered and kept: whoever may write there may start runs."""

    store: Path
    runs: Path


class ConsolePart(Frozen):
    """Where the console listens, for `fedseal console serve`. Without a certificate it listens on the loopback address
    only. ``names``: by which people reach it. ``users``: the file of its users and of its access log. ``rules``: what
    aliases ask for, without which it takes no signatures; ``bundles``: where models are, beside the store if None.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8480, ge=0, le=65535)
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    users: Path = Path("console.sqlite")
    rules: Path = Path("registry.toml")
    bundles: Path | None = None
    idle_minutes: float = Field(default=30, ge=1, le=1440)
    session_hours: float = Field(default=10, gt=0, le=24)


class ServerConfig(Frozen):
    """The file of a coordination server. A server that has adopted an epoch of its federation knows its nodes. Another
    one is told by ``nodes``, which has for every site of the roster the file of its node's public key, in OpenSSH's
    form.
    """

    listen: ListenPart
    server: CoordinationPart
    nodes: dict[str, Path] = Field(default={})
    console: ConsolePart | None = None
    operation: OperationPart = OperationPart()


@dataclass(frozen=True, slots=True)
class Coordination:
    """A server that is ready to run: everything its file names has been looked at. Keys are PEM, by site.

    ``epoch`` is what its store has adopted of its federation; None where the file alone says who is let in.
    """

    listener: Listener
    store: Path
    runs: Path
    nodes: Mapping[str, bytes]
    operation: OperationPart
    epoch: Epoch | None = None

    def check_now(self, now: datetime) -> str | None:
        """What to warn of at a start, if of anything; ConfigError if the epoch does not hold now."""
        return warning_at_start(self.epoch, now, moves=SERVER_MOVES)


def parse_server(path: Path) -> ServerConfig:
    """A server's file as it is written; what it names is not looked at.

    Raises:
        ConfigError: it cannot be read, or a restore was begun here and has not ended.
    """
    if (note := restore_note(path)).exists():
        raise ConfigError(
            "a restore was begun here and has not ended",
            next_step=f"Make it again: fedseal server restore {note.read_text(encoding='utf-8').strip()} "
            f"--config {path}",
        )
    table, text = read_toml(path)
    return validate(ServerConfig, table, text=text, source=str(path))


def read_server(path: Path) -> Coordination:
    """Read a server's file and look at everything that it names.

    Raises:
        ConfigError: the file is wrong, names something that is not there, or its nodes are not the roster's sites.
    """
    config, home = parse_server(path), path.resolve().parent
    store = home / config.server.store
    identity = ServerStore.open(store).identity
    roster, listen = identity.roster, config.listen
    if roster.simulated:
        raise ConfigError(f"{store} is a store of a simulated federation", next_step="Enrol a real one.")
    listener = Listener(listen.host, listen.port, readable(home / listen.certificate), private(home / listen.key))
    if identity.epoch is not None:
        if config.nodes:
            raise ConfigError(
                f"{path}: nodes: the store says who is let in, by epoch {identity.epoch.number} of the federation",
                next_step="Take the table [nodes] out.",
            )
        check_shown(listener, identity.epoch)
        return Coordination(
            listener, store, home / config.server.runs, node_keys(identity.epoch), config.operation, identity.epoch
        )
    if not config.nodes:
        raise ConfigError(
            f"{path}: 'nodes' is missing",
            next_step="A server that adopts a bundle needs none: fedseal server adopt BUNDLE",
        )
    sites = {entry.name for entry in roster.sites}
    for name in sorted(set(config.nodes) ^ sites):
        known = name in sites
        raise ConfigError(
            f"{path}: nodes: {name!r} has no key" if known else f"{path}: nodes: {name!r} is no site of the roster",
            next_step=f"The roster's sites are: {', '.join(sorted(sites))}.",
        )
    return Coordination(
        listener,
        store,
        home / config.server.runs,
        {name: public_key(home / file) for name, file in config.nodes.items()},
        config.operation,
    )


def node_keys(epoch: Epoch) -> dict[str, bytes]:
    """The public keys of an epoch's nodes as PEM, by the names of their sites."""
    names = {entry.site: entry.name for entry in epoch.roster.sites}
    return {names[node.site]: _pem(read_openssh(node.key)) for node in epoch.membership.nodes}


def check_shown(listener: Listener, epoch: Epoch) -> None:
    """Whether a listener shows the certificate that an epoch names; ConfigError if it shows another one."""
    if listener.certificate.read_bytes() != as_pem(epoch.bundle.certificate):
        raise ConfigError(
            f"{listener.certificate} is not the server's certificate of epoch {epoch.number}",
            next_step="Adopt the epoch's bundle once more: fedseal server adopt BUNDLE",
        )


def restore_note(path: Path) -> Path:
    """What stands beside a server's file while a backup is put back."""
    return path.with_name(f".{path.name}.restoring")


def public_key(path: Path) -> bytes:
    """A node's public key as PEM; ConfigError if the file holds none on P-256 or P-384."""
    try:
        key = load_ssh_public_key(readable(path).read_bytes())
    except UNREADABLE_KEY:
        raise ConfigError(f"{path} holds no public key in OpenSSH's form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} is no key on P-256 or P-384", next_step="ssh-keygen -t ecdsa -b 256 -N '' -f FILE")
    return _pem(key)


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def readable(path: Path) -> Path:
    """A file that is there; ConfigError if it is not."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    return path


def private(path: Path) -> Path:
    """A file that only its owner reads; ConfigError if it is not there, or others may read it."""
    if readable(path).stat().st_mode & 0o077:
        raise ConfigError(f"others may read {path}", next_step=f"chmod 600 {path}")
    return path
