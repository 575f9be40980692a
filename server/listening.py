"""An application that listens over TLS, in a thread of this process, and can be shown with another certificate."""

import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from fedseal.errors import ConfigError, LocalError

STARTED_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Where sites connect, and the PEM files of the certificate that is shown there. Port 0 is any that is free."""

    host: str
    port: int
    certificate: Path
    key: Path


class Listening:
    """An application that listens.

    Args:
        listener: where, and what it shows.
        app: what it serves.

    Raises:
        ConfigError: the certificate, its key or the address cannot be used.
    """

    def __init__(self, listener: Listener, app: ASGIApp) -> None:
        self._listener = listener
        config = uvicorn.Config(
            app,
            ssl_certfile=listener.certificate,
            ssl_keyfile=str(listener.key),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ws="none",
        )
        try:
            config.load()
        # What ssl and its files raise.
        except OSError as error:
            raise self._unusable(error) from None
        bound = self._bound()
        self.port = int(bound.getsockname()[1])
        self._context: ssl.SSLContext | None = config.ssl
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="link", daemon=True)
        self._thread.start()
        end = time.monotonic() + STARTED_WITHIN
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise LocalError("the listener did not start")
            time.sleep(0.01)

    def end(self) -> None:
        """Listen no more."""
        self._server.should_exit = True
        self._thread.join(15)

    def alive(self) -> bool:
        """Whether it still listens."""
        return self._thread.is_alive()

    def show_anew(self) -> None:
        """Read the certificate and its key again; connections from now on are shown them.

        Raises:
            ConfigError: they cannot be used; the old ones stay in use.
        """
        if self._context is not None:
            try:
                self._context.load_cert_chain(self._listener.certificate, self._listener.key)
            except OSError as error:
                raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"the certificate or its key cannot be used: {error}",
            next_step=f"Look at {self._listener.certificate} and {self._listener.key}.",
        )

    def _bound(self) -> socket.socket:
        listener = self._listener
        try:
            family = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((listener.host, listener.port), family=family, backlog=2048)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {listener.host}:{listener.port}: {error.strerror or error}",
                next_step="Another program may be listening there, or this machine has no such address.",
            ) from None
