"""Keys and certificates of Flower's own transport, where stock programs run: one authority, one server, all nodes.

They protect the connection. What a site says is signed with fedseal's own keys besides, and sealed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fedseal.compliance.enrolment.files import write_secret
from fedseal.privacy.membership.tls import (
    EARLIER,
    Span,
    issue,
    make_authority,
    new_private_key,
    openssh_line,
    private_openssh,
    private_pem,
)

LOOPBACK = "127.0.0.1"
LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """PEM files: the authority that nodes trust, and what the SuperLink shows them."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The two OpenSSH files of one node's key; the public half is registered at the SuperLink."""

    private: Path
    public: Path


def make_server_certificate(folder: Path) -> ServerCertificate:
    """An authority of its own and a certificate for the loopback address. The authority's key is not kept.

    Args:
        folder: an existing folder for the files.
    """
    authority_key, key = new_private_key(), new_private_key()
    begin = datetime.now(UTC) - EARLIER
    holds = Span(begin, begin + LIFETIME)
    authority = make_authority("fedseal demo authority", authority_key, holds)
    hosts = ("localhost", LOOPBACK)
    certificate = issue("fedseal demo SuperLink", hosts, key.public_key(), authority, authority_key, holds)
    files = ServerCertificate(folder / "authority.pem", folder / "superlink.pem", folder / "superlink.key")
    files.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    write_secret(files.key, private_pem(key))
    return files


def make_node_key(folder: Path, name: str) -> NodeKey:
    """A key on P-384, in the form that `flower-supernode` reads.

    Args:
        folder: an existing folder for the files.
        name: the site's.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    files = NodeKey(folder / name, folder / f"{name}.pub")
    write_secret(files.private, private_openssh(key))
    files.public.write_text(openssh_line(key.public_key()) + "\n", encoding="ascii")
    return files
