"""The server's side of enrolment: its keys, its request, and the epochs that it adopts.

next/signing.key, next/tls.key   keys that were asked for and are not in an epoch yet; mode 0600
server.request                   what is handed to the federation's root
server.sqlite                    the server's store, with its signing key; mode 0600
superlink.key, superlink.pem     the key and certificate that sites are shown
server.toml                      what `fedseal server up` reads
runs/                            the runs
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedseal.compliance.enrolment.files import (
    load_signing_key,
    load_tls_key,
    new_signing_key,
    own_folder,
    replace_file,
    save_signing_key,
    write_request,
    write_secret,
)
from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import Epoch, moves
from fedseal.privacy.membership.requests import ServerKeys, ask_as_server, check_name
from fedseal.privacy.membership.standing import SERVER_MOVES, check_certificate, standing
from fedseal.privacy.membership.tls import (
    as_pem,
    certified_key,
    host_of,
    new_private_key,
    port_of,
    private_pem,
    same_key,
)
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.server.store import ServerStore

NEXT, SIGNING_KEY, TLS_KEY = "next", "signing.key", "tls.key"
REQUEST, STORE, CONFIG, RUNS = "server.request", "server.sqlite", "server.toml", "runs"
KEY, CERTIFICATE = "superlink.key", "superlink.pem"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came of a bundle: whether the epoch is a new one here, and the server's file."""

    changed: bool
    config: Path


def init_server(folder: Path, federation: str, now: datetime) -> Path:
    """Make a server's keys in a new or empty folder, and its request.

    Raises:
        ConfigError: the name cannot be one, or the folder holds something.
    """
    check_name("federation", federation)
    own_folder(folder, "the server")
    return _ask(folder, federation, now, None)


def rotate_server(folder: Path, now: datetime) -> Path:
    """Make new keys for a server that has adopted an epoch, and the request to go on with them.

    Raises:
        ConfigError: there is no such server, or it has asked already.
    """
    identity = ServerStore.open(folder / STORE).identity
    if (folder / NEXT).exists():
        raise ConfigError(
            f"{folder / NEXT} holds keys that were asked for and are not in an epoch yet",
            next_step=f"Hand {folder / REQUEST} to the federation's root, or delete {folder / NEXT} to ask anew.",
        )
    return _ask(folder, identity.roster.federation, now, identity.key)


def _ask(folder: Path, federation: str, now: datetime, before: SigningKey | None) -> Path:
    keys = ServerKeys(new_signing_key(), new_private_key())
    (folder / NEXT).mkdir(mode=0o700)
    save_signing_key(folder / NEXT / SIGNING_KEY, keys.signing)
    write_secret(folder / NEXT / TLS_KEY, private_pem(keys.tls))
    write_request(folder / REQUEST, ask_as_server(federation, keys, int(now.timestamp()), before))
    return folder / REQUEST


def adopt(folder: Path, epoch: Epoch, now: datetime, listen: str | None = None) -> Adopted:
    """Make the server's store from its first epoch, or move it to a later one.

    What was interrupted is completed by the same command once more.

    Args:
        folder: where `init_server` made the keys.
        epoch: whose fingerprint somebody has compared.
        now: in UTC.
        listen: host:port to listen at; where the address names no loopback address, on all addresses if None.

    Raises:
        ConfigError: the epoch does not hold now, is not this server's, is older, or of another federation. Nothing has
            changed.
    """
    waiting = _waiting(folder)
    store = ServerStore.open(folder / STORE) if (folder / STORE).exists() else None
    if store is not None and store.identity.epoch is not None:
        # First: that it is older, or of another federation, is what is wrong with it.
        moves(store.identity.epoch, epoch)
    check_certificate(epoch, now)
    standing(epoch, now, moves=SERVER_MOVES)
    tls = _tls_key(folder, epoch, waiting)
    if store is not None:
        asked = waiting is not None and waiting.signing.public == epoch.roster.server_key
        changed = store.adopt(epoch, waiting.signing if waiting is not None and asked else None)
    else:
        if waiting is None or waiting.signing.public != epoch.roster.server_key:
            raise ConfigError(
                f"epoch {epoch.number} names another server key than {folder / NEXT / SIGNING_KEY}",
                next_step=f"Hand {folder / REQUEST} to the federation's root, and adopt the bundle that comes of it.",
            )
        pinned = epoch.roster.digest()
        ServerStore.create(folder / STORE, key=waiting.signing, roster=epoch.signed, pinned=pinned, bundle=epoch.bundle)
        changed = True
    if tls is not None:
        replace_file(folder / KEY, private_pem(tls.tls), mode=0o600)
    replace_file(folder / CERTIFICATE, as_pem(epoch.bundle.certificate))
    if not (folder / CONFIG).exists():
        replace_file(folder / CONFIG, _config(epoch, listen).encode("utf-8"))
    if waiting is not None and waiting.signing.public == epoch.roster.server_key:
        shutil.rmtree(folder / NEXT)
    return Adopted(changed, folder / CONFIG)


def _waiting(folder: Path) -> ServerKeys | None:
    """The keys that were asked for and are not in an epoch yet."""
    if not (folder / NEXT).is_dir():
        if not (folder / STORE).exists():
            raise ConfigError(
                f"{folder} is no server's folder", next_step="Name it with --folder, or make one: fedseal server init"
            )
        return None
    return ServerKeys(load_signing_key(folder / NEXT / SIGNING_KEY), load_tls_key(folder / NEXT / TLS_KEY))


def _tls_key(folder: Path, epoch: Epoch, waiting: ServerKeys | None) -> ServerKeys | None:
    """The waiting keys if the epoch's certificate is for the TLS key among them, None if it is for the one in use."""
    wanted = certified_key(epoch.bundle.certificate)
    if waiting is not None and same_key(waiting.tls.public_key(), wanted):
        return waiting
    if (folder / KEY).exists() and same_key(load_tls_key(folder / KEY).public_key(), wanted):
        return None
    held = folder / KEY if (folder / KEY).exists() else folder / NEXT / TLS_KEY
    raise ConfigError(
        f"the certificate of epoch {epoch.number} is for another TLS key than {held}",
        next_step=f"Hand {folder / REQUEST} to the federation's root, and adopt the bundle that comes of it.",
    )


def _config(epoch: Epoch, listen: str | None) -> str:
    address = epoch.membership.address
    host = host_of(address) if listen is None else host_of(listen)
    port = port_of(address) if listen is None else port_of(listen)
    if listen is None and host not in ("127.0.0.1", "::1", "localhost"):
        host = "0.0.0.0"  # noqa: S104 - sites at other places have to reach it
    return (
        "# Made by `fedseal server adopt`, and left alone from then on. Who is let in is in the store.\n"
        f'[listen]\nhost = "{host}"\nport = {port}\ncertificate = "{CERTIFICATE}"\nkey = "{KEY}"\n\n'
        f'[server]\nstore = "{STORE}"\n# Whoever may write in this folder may start runs.\nruns = "{RUNS}"\n'
    )
