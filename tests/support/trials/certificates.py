"""The server's certificate: expired, of the future, for another name, replaced while sites are connected."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.kills import Follower, spread
from support.trials.oracle import Invariant, Oracle
from support.trials.results import Chunk, row_of
from support.trials.steps import BOUND, finish, judge_runs, pass_time, until_round
from support.trials.study import Federation, Shape, make_federation

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate that the server shows: valid from and until so long from now, for an address; and what nodes have
    to say about it, nothing of a good one.
    """

    name: str
    begin: timedelta
    end: timedelta
    address: str = "127.0.0.1"
    words: str = ""


GOOD = Shown("good", -HOUR, 24 * HOUR)
BAD = (
    Shown("expired", -2 * HOUR, -HOUR, words="certificate has expired"),
    Shown("of the future", HOUR, 24 * HOUR, words="certificate is not yet valid"),
    Shown("for another address", -HOUR, 24 * HOUR, "192.0.2.1", words="IP address mismatch"),
)


class Authority:
    """A certificate authority that goes on: it can sign a server's certificate again."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trial authority")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        builder = _valid(self._name, self._name, self._key.public_key(), -24 * HOUR, 720 * HOUR)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        for extension, critical in ((basic, True), (usage, True), (identifier, False)):
            builder = builder.add_extension(extension, critical)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    def write(self, path: Path) -> None:
        """Write what nodes trust."""
        path.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(self, shown: Shown, certificate: Path, key: Path) -> None:
        """Write a certificate and a new key for it over those that are there."""
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trial server")])
        builder = _valid(subject, self._name, own.public_key(), shown.begin, shown.end)
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(shown.address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(names, critical=False).add_extension(issuer, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _valid(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: timedelta, end: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now + begin).not_valid_after(now + end)


def certificate_chunks() -> Iterator[Chunk]:
    """One chunk."""
    yield Chunk("bad, then good again", 200, replaced)


def replaced(folder: Path, left: float) -> list[dict[str, Any]]:
    """Restart the server with bad certificates and good ones, in turn, while a run goes on."""
    shape = Shape(sites=3, rounds=6)
    federation = make_federation(folder / "federation", shape)
    tls, authority = federation.files.server.parent / "tls", Authority()
    authority.write(tls / "authority.pem")
    authority.issue(GOOD, tls / "superlink.pem", tls / "superlink.key")
    with Keeper(folder / "logs") as keeper:
        serve(keeper, federation)
        notes = join(keeper, federation, folder / "notes")
        oracle = Oracle(federation, None, notes)
        follower = Follower(federation, notes[shape.names[-1]])
        until_round(follower, BOUND)
        waits = []
        for shown in BAD:
            _restart_with(keeper, authority, tls, shown)
            named = _named(keeper, follower, federation, shown)
            oracle.findings.check(Invariant.RECOVERY, named, f"nodes do not say that a certificate is {shown.name}")
            _restart_with(keeper, authority, tls, GOOD)
            begun = time.monotonic()
            oracle.findings.check(Invariant.RECOVERY, until_round(follower, BOUND), "no round within the bound")
            waits.append(time.monotonic() - begun)
        finish(follower)
    judge_runs(folder, federation, follower, oracle)
    oracle.everything([])
    states = {how.partition(":")[0] for how in follower.runs.values()}
    figures = {"next_round": spread(waits), "rounds": follower.rounds, "attempts": follower.attempts}
    happened = "each node named it; all runs finished" if states == {"finished"} else ", ".join(sorted(states))
    kinds = ", ".join(shown.name for shown in BAD)
    return [row_of(f"server's certificate {kinds}; then a good one", len(BAD), happened, oracle.findings, figures)]


def _restart_with(keeper: Keeper, authority: Authority, tls: Path, shown: Shown) -> None:
    """A certificate is read at the server's start: whoever replaces it restarts the server."""
    authority.issue(shown, tls / "superlink.pem", tls / "superlink.key")
    keeper.kill(SERVER, down=0.1)


def _named(keeper: Keeper, follower: Follower, federation: Federation, shown: Shown) -> bool:
    """Whether every node says in its log what is wrong."""
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        if all(keeper.said(name, shown.words) for name in federation.shape.names):
            return True
        pass_time(follower, 0.2)
    return False
