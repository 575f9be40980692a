"""The console's process: one listener, over TLS or on the loopback address."""

import logging
import os
import socket
import ssl
import threading

import uvicorn

from fedseal.compliance.log.database import LOG_VARIABLE
from fedseal.errors import ConfigError
from fedseal.operation.events import ConsoleListening
from fedseal.operation.logs import say
from fedseal.server.console.app import console_app
from fedseal.server.console.pages.budgets import spending_of
from fedseal.server.console.settings import ConsoleSettings

log = logging.getLogger("fedseal.console")


def serve(settings: ConsoleSettings) -> None:
    """Serve the console until it is told to stop.

    Raises:
        ConfigError: it cannot listen there, or its certificate, users or store cannot be used.
    """
    app = console_app(settings)
    config = uvicorn.Config(
        app,
        ssl_certfile=settings.certificate,
        ssl_keyfile=None if settings.key is None else str(settings.key),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=64 << 10,
        limit_concurrency=200,
    )
    try:
        config.load()
    # What ssl and its files raise.
    except OSError as error:
        raise ConfigError(
            f"the console's certificate or its key cannot be used: {error}",
            next_step=f"Look at {settings.certificate} and {settings.key}.",
        ) from None
    if isinstance(config.ssl, ssl.SSLContext):
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    bound = _bound(settings)
    scheme = "https" if settings.secure else "http"
    name = settings.names[0] if settings.secure else settings.host
    # The first accounting loads libraries and takes seconds; it need not be the first visitor's.
    threading.Thread(
        target=spending_of, args=(os.environ.get(LOG_VARIABLE) or str(settings.store),), daemon=True
    ).start()
    say(log, ConsoleListening(f"{scheme}://{name}:{bound.getsockname()[1]}"))
    uvicorn.Server(config).run(sockets=[bound])


def _bound(settings: ConsoleSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {settings.host}:{settings.port}: {error.strerror or error}",
            next_step="Another program may be listening there, or this machine has no such address.",
        ) from None
