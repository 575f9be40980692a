"""What the console is told: the table ``[console]`` of the server's file, which may be missing altogether.

Paths are taken from the folder of the file. The server's private key and its listener's are not looked at.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from fedseal.config import read_toml, validate
from fedseal.errors import ConfigError
from fedseal.server.server_config import ConsolePart, ServerConfig, private, readable

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a session lasts, in seconds: without anything being done, and at most."""

    idle: float = 30 * 60.0
    whole: float = 10 * 3600.0


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """A console that is ready to run. ``certificate`` and ``key`` are both None where it speaks in clear, which it does
    on the loopback address only. ``names``: by which people reach it, in lower case, without the port.
    ``rules`` and ``bundles`` stand beside the store if None.
    """

    host: str
    port: int
    certificate: Path | None
    key: Path | None
    names: tuple[str, ...]
    users: Path
    store: Path
    runs: Path
    limits: Limits
    rules: Path | None = None
    bundles: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.certificate is not None


def read_console(path: Path) -> ConsoleSettings:
    """Read the server's file for the console.

    Raises:
        ConfigError: the file is wrong, or would have the console speak in clear to other machines.
    """
    table, text = read_toml(path)
    config = validate(ServerConfig, table, text=text, source=str(path))
    part = config.console or ConsolePart()
    home = path.resolve().parent
    if (part.certificate is None) != (part.key is None):
        raise ConfigError(f"{path}: [console] names a certificate or a key, not both", next_step="Name both, or none.")
    if part.certificate is None and not _is_loopback(part.host):
        raise ConfigError(
            f"{path}: [console] would listen at {part.host} without TLS",
            next_step="Name a certificate and a key, or listen at 127.0.0.1 and reach it through a tunnel.",
        )
    names = tuple(name.lower() for name in part.names)
    if part.certificate is not None and not names:
        raise ConfigError(
            f"{path}: [console] does not say by which name people reach it",
            next_step='For example: names = ["console.example.org"]',
        )
    return ConsoleSettings(
        part.host,
        part.port,
        None if part.certificate is None else readable(home / part.certificate),
        None if part.key is None else private(home / part.key),
        names + (LOOPBACK_NAMES if _is_loopback(part.host) else ()),
        home / part.users,
        home / config.server.store,
        home / config.server.runs,
        Limits(part.idle_minutes * 60.0, part.session_hours * 3600.0),
        home / part.rules,
        None if part.bundles is None else home / part.bundles,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
