"""Fuzz targets: files that an operator is handed, and what stands before the server's calls."""

import asyncio
import atexit
import io
import json
import logging
import os
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from pydantic import BaseModel
from support.fuzz_wire import event_corpus, note, policy, proof
from support.fuzzing import ContractError, Target
from support.serving import COLUMNS, people, served

from fedseal.client.serving.features import Reader
from fedseal.client.serving.tables import open_table
from fedseal.client.site_config import NodeConfig
from fedseal.compliance.data.contract import read_contract
from fedseal.compliance.labels.formats import Format, Source, read_labels
from fedseal.compliance.labels.platforms import read_annotations
from fedseal.compliance.labels.scale import read_schema
from fedseal.compliance.policy import read_policy
from fedseal.compliance.registry import bundle as bundles
from fedseal.compliance.registry.bundle import json_bytes, tensors_of
from fedseal.compliance.registry.description import Description
from fedseal.compliance.registry.inputs import Input
from fedseal.compliance.registry.recipe import Feature, InputSchema, Recipe
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.config import read_toml, validate
from fedseal.errors import ConfigError, DataError
from fedseal.server.coordination import ORDER, read_order
from fedseal.server.gate import PATHS
from fedseal.server.link import SiteState, site_app
from fedseal.server.server_config import ServerConfig
from fedseal.server.store import read_model
from fedseal.simulation.scenario.language import Scenario
from fedseal.study import Contract, load_study
from fedseal_verify import events as verify_events
from fedseal_verify import note as verify_note
from fedseal_verify import policy as verify_policy
from fedseal_verify import tiles as verify_tiles
from fedseal_verify.errors import MalformedError
from fedseal_verify.evidence import parse_proof as verify_proof

ROOT = Path(__file__).resolve().parents[2]
FILE = (ConfigError, DataError)


@cache
def scratch() -> Path:
    """A folder for a file at a time, in memory where there is one."""
    memory = Path("/dev/shm")  # noqa: S108
    return folder_for_now("fuzz-", memory if os.access(memory, os.W_OK) else None)


def folder_for_now(prefix: str, where: Path | None = None) -> Path:
    """A folder that goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def in_file(name: str, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of files, as one of bytes."""

    def parsed(raw: bytes) -> object:
        path = scratch() / name
        path.write_bytes(raw)
        return parse(path)

    return parsed


def toml(model: type[BaseModel]) -> Callable[[bytes], object]:
    """A TOML file that becomes a model."""

    def parse(path: Path) -> object:
        table, text = read_toml(path)
        return validate(model, table, text=text, source=path.name)

    return in_file("file.toml", parse)


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """A TOML file that is handed on as text."""
    return in_file("file.toml", lambda path: parse(read_toml(path)[1]))


SITE = b"""[server]
address = "coordinator.example.org:8443"
authority = "authority.pem"
[site]
store = "site.sqlite"
data = "data"
key = "hospital-1"
threads = 1
preload = true
[study]
folder = "study"
digest = "sha256:DIGEST"
""".replace(b"DIGEST", 64 * b"a")
SERVER = b"""[listen]
host = "127.0.0.1"
port = 8443
certificate = "server.pem"
key = "server.key"
[server]
store = "server.sqlite"
runs = "runs"
[nodes]
hospital-1 = "hospital-1.pub"
"""
POLICY = b"""version = 1
[cohort]
minimum = 3
[releases]
update = ["local", "client"]
[limits]
clip_norm = 2.5
"""
REGISTRY = b"""version = 1
[production]
organisations = 2
[[production.approvals]]
meaning = "authored"
roles = ["ml-engineer"]
[[production.gates]]
kind = "metric"
measure = "auc"
at_least = 0.9
"""
DESCRIPTION = b"""version = 1
shape = [3]
output = { kind = "logit", classes = ["no", "yes"] }
columns = [{ name = "a", low = -6, high = 8 }]
features = [{ column = "a", clip = true }]
"""
LABELS = b"""version = 1
level = "ordinal"
labels = ["low", "mid", "high"]
"""
DATA = b"""[dataset]
name = "heart"
subject = "person"
purpose = "research"
legal_basis = ["6-1-e"]
retention_until = 2036-01-01
[dataset.source]
system = "registry"
extracted_at = 2026-01-31
[columns.person]
type = "integer"
[columns.a]
type = "real"
low = -1
high = 5
"""
ORDERED = json.dumps({"schema_version": 1, "run_config": {"fedseal-resume": 32 * "0", "fedseal-task": "t:T"}}).encode()
LONG = b"item,annotator,label,time\n1,ana,yes,2026-03-01T12:00:00Z\n2,ben,no,\n"
WIDE = b"item,ana,ben\n1,yes,no\n2,,no\n"
STUDIO = json.dumps(
    [
        {
            "id": 1,
            "data": {"item": "a"},
            "annotations": [
                {
                    "completed_by": {"id": 7, "email": "a@example.org"},
                    "created_at": "2026-03-01T12:00:00Z",
                    "result": [{"from_name": "c", "type": "choices", "value": {"choices": ["yes"]}}],
                }
            ],
        }
    ]
).encode()
DOCCANO = b'{"id": 1, "label": ["yes"]}\n{"id": 2, "annotations": [{"label": "no", "user": 3}]}\n'


def studies() -> Sequence[bytes]:
    """The contracts of the examples."""
    return [path.read_bytes() for path in sorted((ROOT / "examples").glob("*/pyproject.toml"))]


def scenarios() -> Sequence[bytes]:
    """The scenarios of the library."""
    return [path.read_bytes() for path in sorted((ROOT / "simulation/scenario/library").glob("*.toml"))[:12]]


def study(path: Path) -> Contract:
    """A study's contract, from its pyproject.toml."""
    return load_study(path.parent).contract


def labels(form: Format) -> Callable[[bytes], object]:
    """An export of annotations."""
    return in_file("labels", lambda path: read_annotations(Source(path, form, annotator="ana", item_key="")))


def table(path: Path) -> object:
    """All of a table, as `fedseal predict` reads it."""
    found, reader = open_table(path), Reader(tuple(Input(Feature(column=c.name), c) for c in COLUMNS))
    reader.check(found)
    return [reader.read(piece) for piece in found.pieces(["a", "b", "c"])]


def csv_table() -> bytes:
    return people(5).to_csv(index=False).encode()


def parquet_table() -> bytes:
    out = io.BytesIO()
    people(5).to_parquet(out)
    return out.getvalue()


def weights() -> Sequence[bytes]:
    """Models of a few shapes."""
    more: dict[str, np.ndarray] = {
        "a": np.zeros((2, 3), np.float64),
        "b.c": np.zeros((), np.int32),
        "e": np.zeros((0, 4), np.float16),
    }
    return [served().model, safetensors.numpy.save(more), safetensors.numpy.save({})]


def as_file(form: type[Recipe] | type[InputSchema]) -> Callable[[bytes], object]:
    """A recipe or a schema."""
    return lambda raw: bundles._read(form, raw, Path("file.json"))


def stranger(raw: bytes) -> None:
    """A request of nobody: answered, and never let in."""
    found = asked(application(), raw, [])
    if not 400 <= found < 500:
        raise ContractError(f"a stranger's request was answered by {found}")


def node(raw: bytes) -> None:
    """A request of a node that is let in, whatever it asks: answered; by 500 for runs that there are not."""
    asked(application(), raw, signed())


def asked(app: Any, raw: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of what an application answers to a method, a path and headers as lines, and a body."""
    head, _, body = raw.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, path = first.decode("latin-1").partition(" ")
    named = [tuple(line.split(b": ", 1)) for line in lines if b": " in line]
    return asyncio.run(_status(app, method, path, [*((k.lower(), v) for k, v in named), *headers], body))


async def _status(app: Any, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path, _, query = path.partition("?")
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode("latin-1")}
    scope |= {
        "query_string": query.encode("latin-1"),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app({**scope, "scheme": "https", "root_path": "", "asgi": {"version": "3.0"}}, receive, send)
    return statuses[0]


@cache
def node_key() -> ec.EllipticCurvePrivateKey:
    """The key of the one node that is let in."""
    return ec.derive_private_key(7, ec.SECP256R1())


@cache
def application() -> Any:
    """What sites reach, with one node let in."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL + 1)
    state = SiteState()
    state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public(), 0)
    # A question for work that there is not would be held.
    state.close()
    return site_app(state, 1)


def signed() -> list[tuple[bytes, bytes]]:
    """The headers by which the node proves to be the one."""
    stamp = datetime.now(UTC).isoformat()
    signature = b64encode(sign_message(node_key(), stamp.encode("ascii")))
    fixed = RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()
    found = [(name.encode(), str(value).encode()) for name, value in dict(fixed).items()]
    return [
        *found,
        (FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), b64encode(public())),
        (TIMESTAMP_HEADER.encode(), stamp.encode()),
        (FLEET_HTTP_SIGNATURE_HEADER.encode(), signature),
    ]


def public() -> bytes:
    """The node's public key, as its server knows it."""
    return public_key_to_bytes(node_key().public_key())


@cache
def requests() -> Sequence[bytes]:
    """A request for each call as the node would make it, but for its signature; and one for something else."""
    number = application().state.linkstate_factory.state().get_node_id_by_public_key(public())
    node = Node(node_id=number)
    message = ProtoMessage(metadata=ProtoMetadata(run_id=3, message_id="m", src_node_id=number, dst_node_id=1, ttl=3.0))
    tree = ObjectTree(object_id=64 * "a", children=[ObjectTree(object_id=64 * "b")])
    bodies: dict[str, Any] = {
        "activate-node": ActivateNodeRequest(public_key=public(), heartbeat_interval=30.0),
        "deactivate-node": DeactivateNodeRequest(node_id=number),
        "send-node-heartbeat": SendNodeHeartbeatRequest(node=node, heartbeat_interval=30.0),
        "pull-messages": PullMessagesRequest(node=node),
        "push-messages": PushMessagesRequest(node=node, messages_list=[message], message_object_trees=[tree]),
        "get-run": GetRunRequest(node=node, run_id=3),
        "pull-object": PullObjectRequest(node=node, run_id=3, object_id=64 * "a"),
        "push-object": PushObjectRequest(node=node, run_id=3, object_id=64 * "a", object_content=b"abc"),
        "confirm-message-received": ConfirmMessageReceivedRequest(node=node, run_id=3, message_object_id=64 * "a"),
    }
    found = [b"GET /\n\n"]
    for path in sorted(PATHS):
        body = bodies[path.rpartition("/")[2]].SerializeToString()
        length = b"content-length: %d" % len(body)
        found.append(b"POST %s\ncontent-type: application/protobuf\n%s\n\n%s" % (path.encode(), length, body))
    return found


FILES = (
    Target("site.toml", toml(NodeConfig), FILE, lambda: [SITE]),
    Target("server.toml", toml(ServerConfig), FILE, lambda: [SERVER]),
    Target("site-policy", text(read_policy), FILE, lambda: [POLICY]),
    Target("study", in_file("pyproject.toml", study), FILE, studies, total=False),
    Target("scenario", toml(Scenario), FILE, scenarios),
    Target("registry.toml", toml(RegistryRules), FILE, lambda: [REGISTRY]),
    Target("model-description", toml(Description), FILE, lambda: [DESCRIPTION]),
    Target("label-schema", text(lambda said: read_schema(said, "labels.toml")), FILE, lambda: [LABELS], total=False),
    Target("data.toml", text(read_contract), FILE, lambda: [DATA]),
    Target("order", in_file(ORDER, lambda path: read_order(path.parent)), FILE, lambda: [ORDERED]),
    Target("labels-csv-long", labels(Format.CSV_LONG), FILE, lambda: [LONG]),
    Target("labels-csv-wide", labels(Format.CSV_WIDE), FILE, lambda: [WIDE]),
    Target("labels-label-studio", labels(Format.LABEL_STUDIO), FILE, lambda: [STUDIO]),
    Target("labels-doccano", labels(Format.DOCCANO), FILE, lambda: [DOCCANO]),
    Target("gold-labels", in_file("gold.csv", read_labels), FILE, lambda: [b"item,label\n1,yes\n2,no\n"]),
    Target("table-csv", in_file("in.csv", table), FILE, lambda: [csv_table()]),
    Target("table-parquet", in_file("in.parquet", table), FILE, lambda: [parquet_table()]),
    Target("safetensors", tensors_of, FILE, weights),
    Target("model", in_file("m.safetensors", read_model), FILE, weights),
    Target(
        "bundle-manifest",
        lambda raw: bundles._manifest(raw, Path("bundle")),
        FILE,
        lambda: [served().manifest.encoded()],
        lambda value: value.encoded(),  # type: ignore[attr-defined]
    ),
    Target("bundle-recipe", as_file(Recipe), FILE, lambda: [json_bytes(served().recipe)], json_bytes),  # type: ignore[arg-type]
    Target("bundle-schema", as_file(InputSchema), FILE, lambda: [json_bytes(served().schema)], json_bytes),  # type: ignore[arg-type]
)
VERIFY = (
    Target("verify-event", verify_events.read_event, (MalformedError,), event_corpus),
    Target("verify-checkpoint", verify_note.parse_checkpoint, (MalformedError,), lambda: [note().encode()]),
    Target("verify-proof", verify_proof, (MalformedError,), lambda: [proof().encode()]),
    Target("verify-policy", verify_policy.parse_policy, (MalformedError,), lambda: [policy().encode()]),
    Target(
        "verify-key",
        lambda raw: verify_note.parse_vkey(raw.decode("utf-8", "surrogateescape")),
        (MalformedError,),
        lambda: [line.split()[-1].encode() for line in policy().splitlines()[:3]],
    ),
    Target(
        "verify-entries", lambda raw: verify_tiles.split_bundle(raw, 2), (MalformedError,), lambda: [b"\0\1a\0\2bc"]
    ),
)


def pretenders() -> Sequence[bytes]:
    """The same in the node's name, with a signature that is not the node's."""
    forged = b"".join(b"\n%s: %s" % pair for pair in signed() if pair[0] != FLEET_HTTP_SIGNATURE_HEADER.encode())
    forged += b"\n%s: %s" % (FLEET_HTTP_SIGNATURE_HEADER.encode(), b64encode(sign_message(node_key(), b"other")))
    return [*requests(), *(raw.replace(b"\n", forged + b"\n", 1) for raw in requests())]


HTTP = (
    Target("http-stranger", stranger, (), pretenders),
    Target("http-node", node, (), requests),
)
