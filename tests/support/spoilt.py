"""Certificates that nobody can have meant."""

import base64

# X.509's version stands at the beginning of what is signed: [0] { INTEGER 2 } is version 3 (RFC 5280, section 4.1).
_VERSION = bytes.fromhex("a003020102")


def of_version(number: int, pem: bytes) -> bytes:
    """A certificate in PEM that says it is of another version, of which there are three."""
    raw = base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-")))
    changed = raw.replace(_VERSION, _VERSION[:-1] + bytes([number]), 1)
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(changed) + b"-----END CERTIFICATE-----\n"
