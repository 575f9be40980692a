"""A line between nodes and their server that does what lines do: it is slow, it stops, it breaks in the middle."""

import asyncio
import contextlib
from dataclasses import dataclass

from support.trials.relay import LOOPBACK, Relay

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


class Line(Relay):
    """A TCP proxy on the loopback address, with a thread of its own; a context manager.

    Args:
        target: the port it leads to.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._weather = CALM
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        # How many connections were broken by the weather.
        self.broken = 0

    def set(self, weather: Weather) -> None:
        """Change what the line does, for connections that there are and those to come."""
        self._do(self._set(weather))

    async def _end(self) -> None:
        await super()._end()
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
