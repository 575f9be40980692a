"""In the study's process: listens on its socket, gives up the calls of the kernel, and answers the node, one call at a
time.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import TYPE_CHECKING

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from fedseal.client.isolation.messages import LARGEST, Asked, Compare, Described, Failed, Hold, Launch, Load, Loaded
from fedseal.client.isolation.pieces import OPTIONS, SERVICE, Call, cut, joined
from fedseal.errors import ConfigError, DataError, LocalError
from fedseal.wire import Message, decode, encode

if TYPE_CHECKING:
    from fedseal.client.isolation.loaded import LoadedStudy

TOLD, TRACE = 4096, 1 << 14


class FailureKind(IntEnum):
    """Whose fault a failure is, as far as its process says."""

    OTHER = 0
    CONFIG = 1
    DATA = 2


class Service:
    """Answers the calls of `isolation.proto`.

    Args:
        threads: how many training may use.
        holds: what the process has given up.
    """

    def __init__(self, threads: int, holds: tuple[Hold, ...]) -> None:
        self._threads = threads
        self._holds = holds
        self._study: LoadedStudy | None = None

    def handlers(self) -> grpc.GenericRpcHandler:
        """For gRPC, without generated code."""
        calls: dict[Call, Callable[[bytes], Message]] = {
            Call.DESCRIBE: lambda raw: Described(self._holds),
            Call.LOAD: self._load,
            Call.TRAIN: lambda raw: self._loaded().train(decode(raw, Asked)),
            Call.EVALUATE: lambda raw: self._loaded().evaluate(decode(raw, Asked)),
            Call.PAST: lambda raw: self._loaded().past(decode(raw, Asked)),
            Call.COMPARE: lambda raw: self._loaded().compare(decode(raw, Compare)),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name.value: grpc.stream_stream_rpc_method_handler(
                    _answering(call), BytesValue.FromString, BytesValue.SerializeToString
                )
                for name, call in calls.items()
            },
        )

    def _load(self, raw: bytes) -> Message:
        # Here, because it imports torch.
        from fedseal.client.isolation.loaded import LoadedStudy

        self._study = None
        self._study = LoadedStudy(decode(raw, Load), self._threads)
        return Loaded()

    def _loaded(self) -> "LoadedStudy":
        if self._study is None:
            raise LocalError("a call before the study was loaded")
        return self._study


def _answering(
    call: Callable[[bytes], Message],
) -> Callable[[Iterable[BytesValue], grpc.ServicerContext], Iterator[BytesValue]]:
    """A call as gRPC makes it. What the study's code raises is an answer, too."""

    def answer(pieces: Iterable[BytesValue], context: grpc.ServicerContext) -> Iterator[BytesValue]:
        try:
            raw = encode(call(joined(pieces, LARGEST)))
        # Whatever it is has to reach the node, which writes it down and answers with a fixed code.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            raw = encode(failed(error))
        yield from cut(raw)

    return answer


def failed(error: BaseException) -> Failed:
    """An error as it passes: its text, cut."""
    kind = FailureKind.OTHER
    if isinstance(error, ConfigError):
        kind = FailureKind.CONFIG
    elif isinstance(error, DataError):
        kind = FailureKind.DATA
    next_step = error.next_step if isinstance(error, ConfigError | DataError) else ""
    trace = "".join(traceback.format_exception(error))
    message = error.message if isinstance(error, ConfigError | DataError) else f"{type(error).__name__}: {error}"
    return Failed(int(kind), _text(message, TOLD), _text(next_step, TOLD), _text(trace, TRACE))


def _text(text: str, most: int) -> str:
    """So much of the end of a text as UTF-8 can write in four times as many bytes."""
    return text[-most:].encode("utf-8", "replace").decode("utf-8")


def serve(launch: Launch, holds: tuple[Hold, ...], close_calls: Callable[[], tuple[Hold, ...]]) -> None:
    """Answer until the process is ended.

    Args:
        launch: what it was told.
        holds: what it has given up so far.
        close_calls: gives up the rest, once nothing has to be opened any more.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=1, thread_name_prefix="study"), options=OPTIONS)
    if not server.add_insecure_port(f"unix:{launch.socket}"):
        raise LocalError("the study's process cannot listen on its socket")
    # It listens. What is made from here on opens no socket any more.
    service = Service(launch.training_threads, (*holds, *close_calls()))
    server.add_generic_rpc_handlers((service.handlers(),))
    server.start()
    server.wait_for_termination()
