"""In the node: starts the study's process, asks it, and ends it.

It is started with an environment of a few names, three open files and nothing of the node's memory. What it prints
goes to a file of the site's own, so much of it and no more. What it answers is read piece by piece, up to what the call
can need.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from fedseal.client.isolation.child import OUT_OF_MEMORY, SIGNALLED
from fedseal.client.isolation.messages import Described, Hold, Launch
from fedseal.client.isolation.output import Output, StudyLog
from fedseal.client.isolation.pieces import OPTIONS, SERVICE, Call, cut, joined
from fedseal.client.isolation.settings import IsolationPart
from fedseal.errors import ConfigError
from fedseal.wire import DecodeError, decode, encode

# Seconds: until it listens, between two looks whether it does, and until what was ended is gone.
START, LOOK, END = 60.0, 0.01, 10.0
DESCRIPTION = 1 << 16
PROGRAM = "fedseal.client.isolation.child"
# Of the node's environment the study's process gets these, if they are set.
PASSED = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE")


class StoppedError(ConfigError):
    """The study's process was ended, or ended by itself: says why, and nothing of the study's.

    Args:
        why: in one sentence.
        killed: whether somebody else's SIGKILL ended it, as the system does when memory is short.
    """

    def __init__(self, why: str, *, killed: bool = False) -> None:
        super().__init__(
            f"the study's code was stopped: {why}",
            next_step="What it printed is beside the site's store; limits are in the site's file, table [isolation].",
        )
        self.killed = killed


class StudyProcess:
    """A running process of the study.

    Args:
        limits: of the site's file.
        readable: what it may read: see `places.readable`.
        training_threads: how many threads training may use.
        printed: where what it prints goes; None drops it.

    Raises:
        StoppedError: it does not start.
    """

    def __init__(
        self,
        limits: IsolationPart,
        readable: tuple[Path, ...],
        training_threads: int,
        printed: StudyLog | None = None,
    ) -> None:
        self._seconds = limits.seconds
        self._folder = Path(tempfile.mkdtemp(prefix="fedseal-"))
        told = Launch(
            socket=str(self._folder / "socket"),
            scratch=str(self._folder / "scratch"),
            readable=tuple(str(place) for place in readable),
            memory_mb=limits.memory_mb,
            scratch_mb=limits.scratch_mb,
            open_files=limits.open_files,
            threads=limits.threads,
            training_threads=training_threads,
        )
        Path(told.scratch).mkdir(mode=0o700)
        command = [sys.executable, "-P", "-m", PROGRAM]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(told),
            cwd=self._folder,
            start_new_session=True,
        )
        self.output = Output(self._process, printed)
        self._channel: grpc.Channel | None = None
        with ExitStack() as unless_it_works:
            unless_it_works.callback(self.end)
            self._connect(told)
            self.holds = self._describe()
            unless_it_works.pop_all()

    @property
    def number(self) -> int:
        """The process's number: of the first one, which watches."""
        return self._process.pid

    def _connect(self, told: Launch) -> None:
        raw, stdin = encode(told), self._process.stdin
        if stdin is None:
            raise StoppedError("it has no standard input")
        try:
            stdin.write(len(raw).to_bytes(4, "big") + raw)
            stdin.flush()
        except OSError:
            raise self._ended() from None
        end = time.monotonic() + START
        while not Path(told.socket).exists():
            if self._process.poll() is not None:
                raise self._ended()
            if time.monotonic() > end:
                raise StoppedError(f"it was not ready after {START:.0f} s")
            time.sleep(LOOK)
        self._channel = grpc.insecure_channel(f"unix:{told.socket}", options=OPTIONS)

    def _describe(self) -> tuple[Hold, ...]:
        raw = self.ask(Call.DESCRIBE, b"", DESCRIPTION, seconds=START)
        try:
            return decode(raw, Described).holds
        except DecodeError as error:
            raise StoppedError(f"it cannot be understood: {error.message}") from None

    def ask(self, call: Call, message: bytes, limit: int, *, seconds: float | None = None) -> bytes:
        """Make a call.

        Args:
            call: which.
            message: what is asked.
            limit: bytes that an answer can need.
            seconds: how long it may take; None for what the site's file says.

        Raises:
            StoppedError: it did not answer in time or in size, or ended. It is gone then.
        """
        if self._channel is None:
            raise StoppedError("it has ended")
        self.output.begin()
        made = self._channel.stream_stream(
            f"/{SERVICE}/{call.value}", BytesValue.SerializeToString, BytesValue.FromString
        )
        finished = False
        answer = made(cut(message), timeout=self._seconds if seconds is None else seconds)
        try:
            found = joined(self._pieces(answer), limit)
            finished = True
            return found
        except DecodeError as error:
            raise StoppedError(f"its answer has {error.message}") from None
        except grpc.RpcError as error:
            raise self._broken(error) from None
        finally:
            self.output.finish()
            if not finished:
                answer.cancel()
                self.end()

    def _pieces(self, answer: Iterator[BytesValue]) -> Iterator[BytesValue]:
        for piece in answer:
            yield piece
            if self.output.overrun:
                raise StoppedError("it printed without end")

    def _broken(self, error: grpc.RpcError) -> StoppedError:
        if self.output.overrun:
            return StoppedError("it printed without end")
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return StoppedError(f"it took longer than {self._seconds:g} s")
        return self._ended()

    def _ended(self) -> StoppedError:
        """Why a process ended that was not asked to."""
        try:
            code = self._process.wait(END)
        except subprocess.TimeoutExpired:
            return StoppedError("it does not answer any more")
        if code == OUT_OF_MEMORY:
            return StoppedError("it took more memory than it may")
        if code == SIGNALLED + 31:
            return StoppedError("it opened a socket")
        if code == SIGNALLED + 9 or code == -9:
            return StoppedError("it was killed from outside, or by the system for want of memory", killed=True)
        return StoppedError(f"it ended with signal {code - SIGNALLED}" if code > SIGNALLED else f"it ended ({code})")

    def end(self) -> None:
        """End it, at once: it holds nothing that is worth keeping."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process.stdin is not None and not self._process.stdin.closed:
            # The first process ends the second when its standard input ends, and says how.
            self._process.stdin.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END)
        self.output.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def environment(told: Launch) -> dict[str, str]:
    """What the study's process finds in its environment: nothing of the node's but where things are."""
    threads = str(told.training_threads)
    return {
        **{name: os.environ[name] for name in PASSED if name in os.environ},
        "HOME": told.scratch,
        "TMPDIR": told.scratch,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
