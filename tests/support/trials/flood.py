"""Peers that send what nobody asked for, as much as they can: forged, replayed, garbled, too large, or never whole."""

import asyncio
import os
import random
import ssl
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from support.trials.recorder import Request

from fedseal.client.site_config import node_key, trust_in
from fedseal.server.gate import LARGEST_BODY
from fedseal.simulation.deployed.certificates import LOOPBACK

PULL = "/v1/fleet/pull-messages"
PROTOBUF = {"content-type": "application/protobuf"}
LATE = 20.0


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of peer: its name, how many connections it holds, and what it sends next.

    ``slow``: it sends the first half of each request and then a byte a second.
    """

    name: str
    connections: int
    request: Callable[[], Request]
    slow: bool = False


@dataclass(slots=True)
class Flooded:
    """What came of it: how many requests of each kind got which status; ``-`` where the connection was ended or nothing
    came.
    """

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """How many were sent."""
        return sum(sum(found.values()) for found in self.statuses.values())


class Signer:
    """Signs requests in, as a node does."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, version: dict[str, str]) -> None:
        self._key = key
        self._version = version

    def headers(self) -> dict[str, str]:
        """Headers that are valid now."""
        stamp = datetime.now(UTC).isoformat()
        return {
            **PROTOBUF,
            **self._version,
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(self._key.public_key())).decode("ascii"),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(self._key, stamp.encode("ascii"))).decode("ascii"),
        }


def attacks(recorded: list[Request], insider: Path, seed: int) -> Iterator[Attack]:
    """All kinds.

    Args:
        recorded: what honest nodes have sent.
        insider: the private key of a registered node that has turned.
        seed: of what is drawn.
    """
    draw = random.Random(seed)
    version = {k: v for k, v in recorded[0].headers.items() if k.startswith(("flwr-package", "flwr-component"))}
    stranger = Signer(ec.generate_private_key(ec.SECP256R1()), version)
    own = Signer(node_key(insider), version)
    nodes = [body for body in {r.body for r in recorded if r.path == PULL} if body]
    pushed = [r for r in recorded if r.path.endswith(("push-messages", "push-object"))]
    yield Attack("no key", 4, lambda: Request(PULL, dict(PROTOBUF), b""))
    yield Attack("unknown key", 4, lambda: Request(PULL, stranger.headers(), draw.choice(nodes)))
    yield Attack("old signature", 2, lambda: draw.choice(recorded))
    yield Attack("recorded, signed anew by another node", 4, lambda: _signed(draw.choice(pushed), own))
    yield Attack("another node's number", 2, lambda: Request(PULL, own.headers(), draw.choice(nodes)))
    yield Attack("garbage", 4, lambda: Request(draw.choice(recorded).path, own.headers(), draw.randbytes(300)))
    yield Attack("numbers nobody has", 2, lambda: Request(PULL, own.headers(), _number(draw.getrandbits(63))))
    yield Attack("other calls", 2, lambda: Request("/v1/fleet/register-node", own.headers(), b""))
    yield Attack("16 MB without a key", 2, lambda: Request(PULL, dict(PROTOBUF), bytes(LARGEST_BODY)))
    yield Attack("17 MB", 1, lambda: Request(PULL, own.headers(), bytes(LARGEST_BODY + (1 << 20))))
    yield Attack("a byte a second", 100, lambda: Request(PULL, dict(PROTOBUF), bytes(400)), slow=True)


def _signed(request: Request, signer: Signer) -> Request:
    return Request(request.path, signer.headers(), request.body)


def _number(node: int) -> bytes:
    return bytes(PullMessagesRequest(node=Node(node_id=node)).SerializeToString())


def flood(kinds: list[Attack], port: int, authority: Path, seconds: float) -> Flooded:
    """Send for so many seconds, all kinds at once."""
    found = Flooded({kind.name: Counter() for kind in kinds})
    begun = time.monotonic()
    asyncio.run(_flood(kinds, port, trust_in(authority), begun + seconds, found))
    found.seconds = time.monotonic() - begun
    return found


async def _flood(kinds: list[Attack], port: int, trust: ssl.SSLContext, end: float, found: Flooded) -> None:
    peers = [
        _peer(kind, port, trust, end, found.statuses[kind.name]) for kind in kinds for _ in range(kind.connections)
    ]
    await asyncio.gather(*peers)


async def _peer(kind: Attack, port: int, trust: ssl.SSLContext, end: float, statuses: Counter[str]) -> None:
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port, ssl=trust), LATE)
        except (OSError, TimeoutError):
            statuses["-"] += 1
            await asyncio.sleep(0.5)
            continue
        try:
            while time.monotonic() < end:
                status = await asyncio.wait_for(_ask(reader, writer, kind, end), LATE)
                statuses[status] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            statuses["-"] += 1
        finally:
            writer.transport.abort()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Attack, end: float) -> str:
    request = kind.request()
    kept = {name: value for name, value in request.headers.items() if name not in {"host", "content-length"}}
    lines = [f"POST {request.path} HTTP/1.1", "host: server", f"content-length: {len(request.body)}"]
    head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in kept.items()), "", ""]).encode("latin-1")
    whole = head + request.body
    if kind.slow:
        writer.write(whole[: len(whole) // 2])
        for place in range(len(whole) // 2, len(whole)):
            if time.monotonic() > end - 1:
                break
            writer.write(whole[place : place + 1])
            await writer.drain()
            await asyncio.sleep(1 + os.getpid() % 3 / 10)
        raise TimeoutError
    writer.write(whole)
    await writer.drain()
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next((int(line[16:]) for line in answer.split("\r\n") if line.startswith("content-length: ")), 0)
    await reader.readexactly(length)
    return answer.split(" ")[1]
