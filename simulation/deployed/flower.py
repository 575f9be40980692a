"""Flower's own programs as they are started here: `flower-superlink`, `flower-supernode` and `flwr`.

Nothing of Flower is imported; what these programs need to be told, and how one sees that they are ready, stands here.
"""

import http.client
import json
import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from fedseal.client.mod import DATA_KEY, STORE_KEY
from fedseal.errors import ConfigError
from fedseal.simulation.deployed.certificates import LOOPBACK, NodeKey, ServerCertificate

CONNECTION = "fedseal"
BIN = Path(sys.executable).parent
# What a stock SuperNode logs once the SuperLink has let it in.
CONNECTED = "SuperNode ID:"


@dataclass(frozen=True, slots=True)
class SuperLink:
    """Where a running SuperLink is reached, and the authority that signed its certificate."""

    address: str
    authority: Path


@dataclass(frozen=True, slots=True)
class Node:
    """One site's SuperNode: where its own runtime listens, its key, its store and its data."""

    name: str
    port: int
    key: NodeKey
    store: Path
    data: Path


def environment(home: Path) -> dict[str, str]:
    """What a Flower program sees: this environment, a folder of its own for Flower's files, and no calls home.

    One thread for torch: the models are small, and the order of float sums is the simulation's.
    """
    home.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Seconds between two looks for work; 1 if not set.
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def superlink_command(certificate: ServerCertificate, port: int, database: Path) -> list[str]:
    """A SuperLink on the loopback address, with TLS, for registered nodes only."""
    return [
        program("flower-superlink"),
        *("--ssl-certfile", str(certificate.certificate)),
        *("--ssl-keyfile", str(certificate.key)),
        *("--ssl-ca-certfile", str(certificate.authority)),
        "--enable-supernode-auth",
        *("--host", LOOPBACK, "--port", str(port)),
        *("--database", str(database)),
        *("--isolation", "subprocess"),
        "--disable-runtime-dependency-installation",
    ]


def supernode_command(node: Node, superlink: SuperLink) -> list[str]:
    """A site's stock SuperNode. Store and data are the site's own settings; no server names them."""
    config = {STORE_KEY: str(node.store), DATA_KEY: str(node.data)}
    return [
        program("flower-supernode"),
        *("--root-certificates", str(superlink.authority)),
        *("--superlink", superlink.address),
        *("--auth-supernode-private-key", str(node.key.private)),
        *("--host", LOOPBACK, "--port", str(node.port)),
        *("--isolation", "subprocess"),
        *("--node-config", " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in config.items())),
    ]


def register_command(public_key: Path) -> list[str]:
    """Let a node's key in."""
    return [program("flwr"), "supernode", "register", str(public_key), CONNECTION]


def run_command(app: Path) -> list[str]:
    """Submit an app and stay until its run is over."""
    return [program("flwr"), "run", str(app), CONNECTION, "--stream"]


def stop_command(run: int) -> list[str]:
    """Stop a run."""
    return [program("flwr"), "stop", str(run), CONNECTION]


def write_connection(home: Path, superlink: SuperLink) -> None:
    """Tell the `flwr` program of a home folder where the SuperLink is."""
    home.mkdir(parents=True, exist_ok=True)
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f"address = {json.dumps(superlink.address)}\n"
        f"root-certificates = {json.dumps(str(superlink.authority.resolve()), ensure_ascii=False)}\n"
    )
    (home / "config.toml").write_text(text, encoding="utf-8")


def program(name: str) -> str:
    """The path of one of Flower's programs in this environment; ConfigError if it is not installed."""
    path = BIN / name
    if not path.is_file():
        raise ConfigError(f"{name} is not installed beside {sys.executable}", next_step="Install flwr there.")
    return str(path)


def answers(superlink: SuperLink) -> bool:
    """Whether the SuperLink answers over TLS, with a certificate of its authority.

    Raises:
        ConfigError: the authority's file holds no certificate, or the server's certificate is not one of that
            authority's for that address.
    """
    host, _, port = superlink.address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(superlink.authority))
    except ssl.SSLError:
        raise ConfigError(f"{superlink.authority} holds no certificate", next_step="It has to be a PEM file.") from None
    connection = http.client.HTTPSConnection(host, int(port), timeout=2, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"the server at {superlink.address} is not trusted: {error.verify_message}",
            next_step=f"If it is the right one: {superlink.authority} has to be the authority that signed its "
            "certificate, and the certificate has to name that address and be in date.",
        ) from None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_connected(log: Path) -> bool:
    """Whether a SuperNode's log says that the SuperLink has let it in."""
    return log.is_file() and CONNECTED in log.read_text(encoding="utf-8", errors="replace")
