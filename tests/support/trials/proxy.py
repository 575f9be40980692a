"""A line between nodes and their server that does what lines do: it is slow, it stops, it breaks in the middle."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from fedseal.simulation.deployed.certificates import LOOPBACK

PIECE = 1 << 14


@dataclass(frozen=True, slots=True)
class Weather:
    """What the line does now.

    ``delay``: seconds that every piece takes longer, each way; ``rate``: bytes a second at most, each way and
    connection; ``silent``: nothing passes, and nobody is told; ``cut``: all connections are reset, and so is every new
    one; ``drop_after``: a connection is reset once so many bytes have gone towards the server on it; ``half_after``:
    likewise, but only its way there is closed.
    """

    delay: float = 0.0
    rate: float | None = None
    silent: bool = False
    cut: bool = False
    drop_after: int | None = None
    half_after: int | None = None


CALM = Weather()
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """A TCP proxy on the loopback address, with a thread of its own; a context manager.

    Args:
        target: the port it leads to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._weather = CALM
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        # How many connections were broken by the weather.
        self.broken = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, weather: Weather) -> None:
        """Change what the line does, for connections that there are and those to come."""
        self._do(self._set(weather))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        self._break_all()
        await self._set(CALM)

    async def _set(self, weather: Weather) -> None:
        self._weather = weather
        if weather.cut:
            self.broken += self._break_all()
        self._changed.set()
        self._changed = asyncio.Event()

    def _break_all(self) -> int:
        found = list(self._open)
        for writer in found:
            writer.transport.abort()
        # Each connection has two ends.
        return len(found) // 2

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self._weather.cut:
            near.transport.abort()
            return
        try:
            far_reader, far = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            near.transport.abort()
            return
        ends = {near, far}
        self._open |= ends
        try:
            await asyncio.gather(
                self._carry(near_reader, far, near, towards=True), self._carry(far_reader, near, far, towards=False)
            )
        finally:
            self._open -= ends
            for writer in ends:
                writer.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, other: asyncio.StreamWriter, *, towards: bool
    ) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                while self._weather.silent:
                    await self._changed.wait()
                weather = self._weather
                await asyncio.sleep(weather.delay + (len(data) / weather.rate if weather.rate else 0.0))
                carried += len(data) if towards else 0
                if towards and weather.drop_after is not None and carried > weather.drop_after:
                    sink.write(data[: len(data) // 2])
                    await sink.drain()
                    self.broken += 1
                    sink.transport.abort()
                    other.transport.abort()
                    return
                sink.write(data)
                await sink.drain()
                if towards and weather.half_after is not None and carried > weather.half_after:
                    self.broken += 1
                    break
            # The other side has nothing more to say; or is made to.
            if sink.can_write_eof():
                sink.write_eof()
