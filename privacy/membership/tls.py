"""Keys and certificates of the connection between nodes and server, in memory: X.509 on P-256.

They protect the connection. What a site says is signed with fedseal's own keys besides, and sealed.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedseal.errors import ConfigError

# A clock that is a little behind must not find a certificate to be of the future.
EARLIER = timedelta(hours=1)
AUTHORITY_HOLDS = timedelta(days=20 * 365)
# What reading a certificate or a request for one raises, by kinds that are no ValueError too.
UNREADABLE = (
    *(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
# The same for a key in OpenSSH's form, of which there are some that nobody has written code for.
UNREADABLE_KEY = (ValueError, UnsupportedAlgorithm, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Span:
    """From when until when something holds, in UTC."""

    begin: datetime
    end: datetime


def new_private_key() -> ec.EllipticCurvePrivateKey:
    """A key on P-256 of the operating system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, for servers."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    """OpenSSH's form, for nodes."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def openssh_line(key: ec.EllipticCurvePublicKey) -> str:
    """The public half in OpenSSH's form: one line without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def read_openssh(line: str) -> ec.EllipticCurvePublicKey:
    """A node's public key; ConfigError unless it is one on P-256, written as `openssh_line` does."""
    try:
        key = load_ssh_public_key(line.encode("utf-8"))
    except UNREADABLE_KEY:
        raise ConfigError("a node's key that is none in OpenSSH's form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("a node's key that is not on P-256")
    if openssh_line(key) != line:
        raise ConfigError("a node's key with something beside it")
    return key


def make_authority(name: str, key: ec.EllipticCurvePrivateKey, holds: Span) -> x509.Certificate:
    """The certificate of an authority, signed by itself."""
    own = _name(name)
    builder = _builder(own, own, key.public_key(), holds)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(signs_certificates=True), critical=True).sign(key, hashes.SHA256())


def issue(
    name: str,
    hosts: tuple[str, ...],
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    holds: Span,
) -> x509.Certificate:
    """A server's certificate for some hosts, names or addresses."""
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    builder = _builder(_name(name), authority.subject, key, holds)
    builder = builder.add_extension(names, critical=False).add_extension(issuer, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def make_csr(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate, DER, signed by the key that it is for."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def read_csr(raw: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a request for a certificate; ConfigError unless it is on P-256 and has signed the request."""
    try:
        request = x509.load_der_x509_csr(raw)
        key, holds = request.public_key(), request.is_signature_valid
    except UNREADABLE:
        raise ConfigError("a request for a certificate that cannot be read") from None
    if not holds or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("a request for a certificate that its own key, on P-256, has not signed")
    return key


def read_certificate(raw: bytes, what: str) -> x509.Certificate:
    """A certificate from DER; ConfigError if it is none."""
    try:
        return x509.load_der_x509_certificate(raw)
    except UNREADABLE:
        raise ConfigError(f"{what} cannot be read") from None


def as_pem(der: bytes) -> bytes:
    """A certificate as files have it."""
    return read_certificate(der, "a certificate").public_bytes(Encoding.PEM)


def not_after(der: bytes) -> datetime:
    """Until when a certificate holds."""
    return read_certificate(der, "a certificate").not_valid_after_utc


def certified_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a server's certificate is for; ConfigError if it is none on an elliptic curve."""
    try:
        key = read_certificate(der, "the server's certificate").public_key()
    except UNREADABLE:
        raise ConfigError("the server's certificate is for a key that cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError("the server's certificate is for no key on P-256")
    return key


def same_key(one: ec.EllipticCurvePublicKey, other: ec.EllipticCurvePublicKey) -> bool:
    """Whether two public keys are one."""
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return one.public_bytes(*form) == other.public_bytes(*form)


def check_server_certificate(authority: bytes, certificate: bytes, host: str, now: datetime) -> None:
    """Whether nodes that trust an authority will believe a server at a host. Both are DER.

    Raises:
        ConfigError: not now, or not ever; says which of the two it is about.
    """
    trusted, shown = read_certificate(authority, "the TLS authority"), read_certificate(certificate, "the certificate")
    for what, one in (("the federation's TLS authority", trusted), ("the server's certificate", shown)):
        if now < one.not_valid_before_utc:
            raise ConfigError(
                f"{what} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                next_step=f"This machine's clock says {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC: set it if it is wrong.",
            )
        if now >= one.not_valid_after_utc:
            raise ConfigError(
                f"{what} expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                next_step="Ask the federation's root for the next bundle: fedseal federation admit",
            )
    try:
        shown.verify_directly_issued_by(trusted)
    except UNREADABLE:
        raise ConfigError(
            "the server's certificate is not of the federation's TLS authority",
            next_step="Ask the federation's root for the bundle once more.",
        ) from None
    if not names_host(shown, host):
        raise ConfigError(
            f"the server's certificate is not for {host}, where the server is said to listen",
            next_step="Ask the federation's root for a bundle with the right address.",
        )


def names_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    return _general_name(host) in list(names)


def host_of(address: str) -> str:
    """The host in host:port, without the brackets of IPv6."""
    return address.rpartition(":")[0].strip("[]")


def port_of(address: str) -> int:
    """The port in host:port."""
    return int(address.rpartition(":")[2])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, holds: Span
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(holds.begin)
        .not_valid_after(holds.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    # X.509 has room for 64 characters.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])
