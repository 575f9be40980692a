"""Certificates and node keys as Flower's programs want them, read back with other code than made them."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedseal.simulation.deployed.certificates import ServerCertificate, make_node_key, make_server_certificate


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def shake_hands(shown: ServerCertificate, trusted: ServerCertificate, name: str) -> None:
    """One TLS handshake over loopback: the server shows one certificate, the client trusts one authority."""
    server_side, client_side = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)

    def serve() -> None:
        try:
            context.wrap_socket(server_side, server_side=True).close()
        except (ssl.SSLError, OSError):
            server_side.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client = ssl.create_default_context(cafile=str(trusted.authority))
        with client.wrap_socket(client_side, server_hostname=name):
            pass
    finally:
        client_side.close()
        thread.join(10)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_client_that_trusts_the_authority_trusts_the_superlink(tmp_path: Path, name: str) -> None:
    made = make_server_certificate(tmp_path)
    shake_hands(made, made, name)


def test_neither_another_authority_nor_another_name_will_do(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made, other = make_server_certificate(tmp_path), make_server_certificate(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, other, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, made, "10.0.0.1")


def test_the_servers_certificate_signs_no_others(tmp_path: Path) -> None:
    made = make_server_certificate(tmp_path)
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made.authority.read_bytes()))


def test_a_nodes_key_is_on_p384_in_openssh_form_and_for_its_owner_only(tmp_path: Path) -> None:
    key = make_node_key(tmp_path, "hospital-1")
    private = load_ssh_private_key(key.private.read_bytes(), password=None)
    public = load_ssh_public_key(key.public.read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public
    assert key.private.read_text(encoding="ascii").startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert mode(key.private) == 0o600


def test_no_secret_is_written_over_another(tmp_path: Path) -> None:
    make_node_key(tmp_path, "hospital-1")
    with pytest.raises(FileExistsError):
        make_node_key(tmp_path, "hospital-1")


def test_the_servers_key_is_for_its_owner_only_and_the_authoritys_is_not_kept(tmp_path: Path) -> None:
    made = make_server_certificate(tmp_path)
    assert mode(made.key) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["authority.pem", "superlink.key", "superlink.pem"]
