"""`fedseal health`: what a server's or a node's own listener says of it, with an exit code for supervisors."""

import http.client
import json
from contextlib import closing
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from fedseal.errors import ConfigError, ExitCode

# More than any answer of ours has.
LARGEST = 1 << 16
ALIVE, READY = "/healthz", "/readyz"


def health(
    address: Annotated[str, typer.Argument(help="Where it answers, as in its file: host:port.")] = "127.0.0.1:9464",
    alive: Annotated[bool, typer.Option("--alive", help="Ask only whether its process answers.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds.")] = 5.0,
) -> int:
    """Ask a running server or node whether it is ready; ends with 1 if it is not, or does not answer."""
    status, body = _ask(address, ALIVE if alive else READY, timeout)
    console = Console(highlight=False, soft_wrap=True)
    if status is None:
        console.print(f"no answer at {address}: {body}", markup=False)
        return ExitCode.GATE
    good = status == http.client.OK
    console.print("ready" if good and not alive else "alive" if good else "not ready")
    if not alive:
        for name, found in _checks(body):
            console.print(f"  {name}: {found}", markup=False)
    return ExitCode.OK if good else ExitCode.GATE


def _ask(address: str, path: str, timeout: float) -> tuple[int | None, str]:
    try:
        place = urlsplit(f"//{address.removeprefix('http://').rstrip('/')}")
        host, port = place.hostname, place.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise ConfigError(f"{address!r} is no address", next_step="Give host:port, as operation.metrics says it.")
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=timeout)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(LARGEST).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return None, str(error) or type(error).__name__


def _checks(body: str) -> list[tuple[str, str]]:
    try:
        found = json.loads(body)["checks"]
        return [(str(name), str(wrong)) for name, wrong in found.items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return [("answer", "is not that of a program of fedseal")]
