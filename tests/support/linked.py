"""A link that listens on the loopback address, and nodes that are let in, for tests that make real exchanges."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedseal.client.fleet import Fleet
from fedseal.server.link import Link
from fedseal.server.listening import Listener
from fedseal.simulation.deployed.certificates import LOOPBACK, ServerCertificate, make_server_certificate

Answer = Callable[[Message], Message]


@dataclass(frozen=True, slots=True)
class Keys:
    """The certificate of a link, and a key for each of its nodes."""

    certificate: ServerCertificate
    nodes: dict[str, ec.EllipticCurvePrivateKey]

    @classmethod
    def make(cls, folder: Path, *names: str) -> "Keys":
        return cls(make_server_certificate(folder), {name: ec.generate_private_key(ec.SECP256R1()) for name in names})

    def link(self, port: int = 0) -> Link:
        public = {name: self.public(name) for name in self.nodes}
        return Link(Listener(LOOPBACK, port, self.certificate.certificate, self.certificate.key), public)

    def public(self, name: str) -> bytes:
        """A node's public key as the server knows it."""
        return self.nodes[name].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate.authority))

    def fleet(self, name: str, link: Link, *, port: int = 0) -> Fleet:
        return Fleet(f"{LOOPBACK}:{port or link.port}", self.trust(), self.nodes[name])


class Cable:
    """Passes connections on to a port until it is cut: then it ends them all and every new one.

    Args:
        port: where it leads to.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._left: int | None = None
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._end_all()

    def cut_after(self, count: int) -> None:
        """Cut it once so many more bytes have gone towards the port."""
        with self._lock:
            self._left = count

    def mend(self) -> None:
        with self._lock:
            self._left = None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((LOOPBACK, self._target))
                self._sockets += [near, far]
                for source, sink, counted in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._carry, args=(source, sink, counted), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    if self._left is not None and counted:
                        self._left = max(self._left - len(data), 0)
                    cut = self._left == 0
                if cut:
                    break
                sink.sendall(data)
        if self._left == 0:
            self._end_all()
        for end in (source, sink):
            end.close()

    def _end_all(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(fleets: list[Fleet], answer: Answer) -> Iterator[None]:
    """Nodes that have joined and answer every message, each in a thread of its own."""
    stop = threading.Event()

    def serve(fleet: Fleet) -> None:
        while not stop.is_set():
            message = fleet.next()
            if message is not None:
                fleet.answer(message, answer(message))

    threads = [threading.Thread(target=serve, args=(fleet,)) for fleet in fleets]
    for fleet, thread in zip(fleets, threads, strict=True):
        fleet.join()
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def echo(message: Message) -> Message:
    """A reply with what was sent."""
    return Message(message.content, reply_to=message)


def words(number: int, array: ArrayRecord | None = None) -> RecordDict:
    """Some content."""
    content = RecordDict({"words": ConfigRecord({"number": number})})
    if array is not None:
        content["array"] = array
    return content


def ask(grid: Grid, node: int, number: int = 0, kind: str = "train") -> list[str]:
    """Send one message."""
    return list(grid.push_messages([Message(words(number), dst_node_id=node, message_type=kind)]))


def number_in(message: Message) -> object:
    """What `words` put there."""
    return message.content.config_records["words"]["number"]
