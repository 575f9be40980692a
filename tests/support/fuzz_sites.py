"""Fuzz targets: what is handed over at enrolment, what comes from a study's process, and what browsers send."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from flwr.app import Message
from support.consoles import HERE, Place, csrf_of, make_place
from support.enrolled import NOW, Seats
from support.fuzz_files import FILE, asked, folder_for_now, in_file
from support.fuzz_wire import flower_message
from support.fuzzing import ContractError, Target
from support.keys import key

from fedseal.client.fleet import inflated
from fedseal.client.isolation.messages import Answered, Asked, Described, Failed, Hold
from fedseal.client.isolation.records import message_of, parts_of, values_of
from fedseal.client.isolation.supervision import failure
from fedseal.client.isolation.work import counts_in, reply_to, report_in
from fedseal.client.release import TaskError
from fedseal.compliance.enrolment.files import load_signing_key, read_bundle, read_request
from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import Bundle, Epoch, open_bundle
from fedseal.privacy.membership.documents import _message as membership_message
from fedseal.privacy.membership.requests import ServerRequest, SignedRequest, SiteRequest, _message, open_request
from fedseal.privacy.membership.tls import (
    check_server_certificate,
    make_csr,
    openssh_line,
    read_csr,
    read_openssh,
)
from fedseal.server.console.permissions import Role
from fedseal.wire import DecodeError, decode, encode

NODE = ec.derive_private_key(11, ec.SECP256R1())
CELLS = 4


@cache
def handed_over() -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Of a small federation: a site's request, the server's, two epochs' bundles, and the root's signing key."""
    with tempfile.TemporaryDirectory() as folder:
        seats = Seats(Path(folder))
        server, north = seats.begin(), seats.apply("north")
        paths = [north, server, seats.admit([server, north]), seats.admit([seats.apply("south")])]
        found = [path.read_bytes() for path in paths]
        return found[0], found[1], found[2], found[3], (seats.root.folder / "root.key").read_bytes()


@cache
def bundle() -> Bundle:
    """The second epoch's bundle."""
    return opened(handed_over()[3]).bundle


def opened(raw: bytes) -> Epoch:
    """The epoch in a bundle's file."""
    return cast(Epoch, in_file("bundle.txt", read_bundle)(raw))


def signed_request(raw: bytes) -> object:
    """A request of somebody who signs whatever it says, with the keys that `applicants` name."""
    by_node = NODE.sign(_message(raw), ec.ECDSA(SHA256()))
    signature, before = key("applicant").sign(_message(raw)), key("before").sign(_message(raw))
    refused: ConfigError | None = None
    for previous in (None, before):
        try:
            return open_request(SignedRequest(raw, signature, by_node, previous), "request.txt")
        except ConfigError as error:
            refused = error
    raise refused or ContractError("neither opened nor refused")


@cache
def applicants() -> Sequence[bytes]:
    """Requests of sites and a server, new ones and rotations, with keys that sign what is changed, too."""
    found: list[bytes] = []
    for raw in handed_over()[:2]:
        request = open_request(cast(SignedRequest, in_file("r.txt", read_request)(raw)), "r.txt")
        own: SiteRequest | ServerRequest = replace(request, signing_key=key("applicant").public)
        if isinstance(own, SiteRequest):
            own = replace(own, node_key=openssh_line(NODE.public_key()))
        found += [encode(own), encode(replace(own, previous=key("before").public))]
    return found


def signed_membership(raw: bytes) -> object:
    """A membership that the root has signed, whatever it says, beside the other parts of a bundle."""
    return open_bundle(_as_root(raw))


def _as_root(raw: bytes) -> Bundle:
    return replace(bundle(), membership=raw, membership_signature=root_key().sign(membership_message(raw)))


@cache
def root_key() -> Any:
    """The root's signing key."""
    return in_file("root.key", load_private)(handed_over()[4])


def load_private(path: Path) -> Any:
    """A signing key from a file with the rights that it has to have."""
    path.chmod(0o600)
    return load_signing_key(path)


def authority(raw: bytes) -> None:
    """A certificate of an authority, and the server's under it."""
    check_server_certificate(raw, bundle().certificate, "127.0.0.1", NOW)


def certificate(raw: bytes) -> None:
    """A server's certificate under the authority's."""
    check_server_certificate(bundle().authority, raw, "127.0.0.1", NOW)


def request_to_study() -> Message:
    """What the study's process was asked."""
    return inflated(*flower_message())


def answered(raw: bytes) -> object:
    """An answer of the study's process, read as counts, as a report and as a reply."""
    whole = decode(raw, Answered, Failed)
    if isinstance(whole, Failed):
        raise failure(whole)
    found = cast(Answered, whole)
    for read in (lambda: counts_in(found, CELLS), lambda: report_in(found, 3)):
        try:
            read()
        except TaskError:
            continue
    return reply_to(request_to_study(), found, None)


def answers() -> Sequence[bytes]:
    """Valid answers of several kinds, and failures."""
    arrays: dict[str, Any] = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.float64)}
    metrics = values_of({"loss": 0.5, "n": 3, "sizes": [1, 2, 3], "names": ["a", "b"], "raw": b"ab", "none": []})
    whole = Answered(parts_of(arrays), metrics, None, False, None, None)
    report = b'{"window": 3, "tables": [], "errors": null}'
    counts = parts_of({"counts": np.arange(CELLS)})
    return [
        encode(whole),
        encode(replace(whole, arrays=counts, metrics=None, report=report)),
        encode(Answered((), values_of({"auc": 0.75, "holds": True}), None, False, None, None)),
        *(encode(Failed(kind, "KeyError: x", "Look there.", "a trace")) for kind in (0, 1, 2)),
    ]


def questions() -> Sequence[bytes]:
    """What the node asks the study's process, as that reads it."""
    arrays = parts_of({"w": np.arange(6, dtype=np.float32)})
    facts, settings = values_of({"run": b"r", "round": 3}), values_of({"steps": 3, "rate": 0.1})
    asked = Asked("3", facts, "arrays", arrays, "config", settings, b"kept")
    return [encode(asked), encode(replace(asked, arrays_name=None, arrays=(), settings_name=None, memory=None))]


@cache
def place() -> Place:
    """A console."""
    return make_place(folder_for_now("fuzz-console-"))


@cache
def session() -> tuple[tuple[tuple[bytes, bytes], ...], str]:
    """The cookie of somebody who has signed in, and the token of the forms."""
    client = place().signed_in(Role.COORDINATOR.value)
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = ((b"cookie", cookies.encode()), (b"origin", HERE.encode()), (b"host", b"localhost"))
    return headers, csrf_of(client)


def visitor(raw: bytes) -> None:
    """A request of somebody who has not signed in: never answered by an error of ours."""
    _no_fault(asked(place().app, raw, [(b"host", b"localhost"), (b"origin", HERE.encode())]))


def user(raw: bytes) -> None:
    """A request of the coordinator's browser: never answered by an error of ours."""
    _no_fault(asked(place().app, raw, list(session()[0])))


def _no_fault(found: int) -> None:
    if found >= 500 and found != 503:
        raise ContractError(f"the console answered {found}")


def pages() -> Sequence[bytes]:
    """Requests for pages, of which some ask for something, and forms."""
    paths = ["/", "/runs", "/log?type=round.aggregated&org=server&page=2", "/entry/3", "/models", "/budgets"]
    paths += ["/drift?run=a&window=2", "/approvals", "/account", "/lineage?of=sha256:00", "/runs/20261128"]
    paths.append("/static/console.css")
    gets = [b"GET %s\naccept: text/html\n\n" % path.encode() for path in paths]
    return [*gets, form("/sign-in", name="auditor", secret="no", next="/runs")]


def form(path: str, **fields: str) -> bytes:
    """A form as a browser sends it."""
    body = urlencode(fields).encode()
    head = b"POST %s\ncontent-type: application/x-www-form-urlencoded\ncontent-length: %d" % (path.encode(), len(body))
    return head + b"\n\n" + body


def own_pages() -> Sequence[bytes]:
    """The same, and the forms of those who have signed in; an uploaded signature among them."""
    token, line = session()[1], b"----x"
    parts = {b"csrf": token.encode(), b"bundle": b"sha256:" + 64 * b"0", b"signature": b"AAAA"}
    content = b"".join(
        b"--%s\r\ncontent-disposition: form-data; name=%s\r\n\r\n%s\r\n" % (line, b'"%s"' % k, v)
        for k, v in parts.items()
    )
    content += b"--%s--\r\n" % line
    head = b"POST /approvals\ncontent-type: multipart/form-data; boundary=%s\ncontent-length: %d\n\n"
    forms = [form("/account/look", csrf=token, look="dark"), form("/approvals", csrf=token, signature="AAAA")]
    return [*pages(), *forms, head % (line, len(content)) + content]


ENROLMENT = (
    Target("enrolment-bundle", opened, FILE, lambda: list(handed_over()[2:4])),
    Target(
        "enrolment-request",
        in_file("request.txt", lambda path: open_request(read_request(path), path.name)),
        FILE,
        lambda: list(handed_over()[:2]),
    ),
    Target("enrolment-signed-request", signed_request, FILE, applicants),
    Target("enrolment-membership", signed_membership, FILE, lambda: [bundle().membership]),
    Target("enrolment-signing-key", in_file("signing.key", load_private), FILE, lambda: [handed_over()[4]]),
    Target("enrolment-authority", authority, FILE, lambda: [bundle().authority]),
    Target("enrolment-certificate", certificate, FILE, lambda: [bundle().certificate]),
    Target("enrolment-csr", read_csr, FILE, lambda: [make_csr("town server", NODE)]),
    Target(
        "enrolment-node-key",
        lambda raw: read_openssh(raw.decode("utf-8", "replace")),
        FILE,
        lambda: [openssh_line(NODE.public_key()).encode()],
        lambda value: openssh_line(value).encode(),  # type: ignore[arg-type]
    ),
)
ISOLATION = (
    Target("study-answer", answered, (DecodeError, TaskError, *FILE), answers, total=False),
    Target(
        "study-description",
        lambda raw: decode(raw, Described),
        (DecodeError,),
        lambda: [encode(Described((Hold("files", "landlock", ""), Hold("network", "", "no namespaces"))))],
        lambda value: encode(cast(Described, value)),
    ),
    Target("study-question", lambda raw: message_of(decode(raw, Asked)), (DecodeError,), questions),
)
CONSOLE = (
    Target("console-visitor", visitor, (), pages),
    Target("console-user", user, (), own_pages),
)
