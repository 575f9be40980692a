"""Sits between nodes and their server with the server's own key, and keeps all that sites send: as whoever broke TLS.

And by what one would know a site's data again in it.
"""

import asyncio
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.trials.relay import LOOPBACK, Relay
from support.trials.study import Federation, first_model
from support.trials.task import person_of, read_rows, stepped

PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the path, the headers in lower case, and the body."""

    path: str
    headers: dict[str, str]
    body: bytes


class Recorder(Relay):
    """A proxy that ends TLS and begins it anew; a context manager with a thread of its own.

    Args:
        target: the server's port on the loopback address.
        tls: the folder with the server's certificate, its key and its authority, as `settle` makes it.
    """

    def __init__(self, target: int, tls: Path) -> None:
        near = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        near.load_cert_chain(tls / "superlink.pem", tls / "superlink.key")
        super().__init__(target, near)
        self._far = ssl.create_default_context(cafile=str(tls / "authority.pem"))
        self._streams: list[bytearray] = []

    def requests(self) -> list[Request]:
        """All whole requests so far."""
        return [request for stream in list(self._streams) for request in requests_in(bytes(stream))]

    async def _end(self) -> None:
        await super()._end()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._target, ssl=self._far)
        except OSError:
            near.transport.abort()
            return
        stream = bytearray()
        self._streams.append(stream)
        pumps = [
            asyncio.create_task(_pump(near_reader, far, stream)),
            asyncio.create_task(_pump(far_reader, near, None)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        near.transport.abort()
        far.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None) -> None:
    try:
        while data := await source.read(PIECE):
            if kept is not None:
                kept += data
            sink.write(data)
            await sink.drain()
    except OSError:
        return


def requests_in(stream: bytes) -> Iterator[Request]:
    """The whole requests in what went over one connection: HTTP/1.1, each body of a stated length."""
    rest = stream
    while b"\r\n\r\n" in rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        yield Request(first.split(" ")[1], headers, rest[:length])
        rest = rest[length:]


def canaries(federation: Federation) -> dict[str, bytes]:
    """Patterns of at least eight bytes that are in what a site must not send: names, values, its first update.

    Values as text, as doubles of either order and as pairs of neighbours in single precision; of the update, which a
    site computes from the public first model, pairs in single precision and its doubles.
    """
    found: dict[str, bytes] = {}
    model = first_model(federation.shape.width)
    for name, folder in federation.data.items():
        rows = read_rows(folder)
        for index, row in enumerate(rows[:10]):
            found[f"{name}, name {index}"] = person_of(name, index).encode()
            for place, value in enumerate(row[:3]):
                found[f"{name}, text {index}.{place}"] = repr(float(value)).encode()[:12]
                found[f"{name}, double {index}.{place}"] = struct.pack("<d", value)
                found[f"{name}, reversed {index}.{place}"] = struct.pack(">d", value)
            found[f"{name}, singles {index}"] = struct.pack("<2f", *row[:2])
        update = stepped(model, rows)["weight"]
        for place in range(0, len(update), 2):
            found[f"{name}, update {place}"] = update[place : place + 2].astype("<f4").tobytes()
            found[f"{name}, update in doubles {place}"] = struct.pack("<d", float(update[place]))
    return found
