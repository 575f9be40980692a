"""Files of enrolment: keys that only their owner reads, and requests and bundles that are handed over.

A key's file is whole or not there: it is written under another name first.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from fedseal.errors import ConfigError
from fedseal.privacy.membership.armour import LONGEST, Form, armoured, unarmoured
from fedseal.privacy.membership.documents import Bundle, Epoch, open_bundle
from fedseal.privacy.membership.requests import SignedRequest
from fedseal.privacy.secagg.keys import KEY_LENGTH, SigningKey
from fedseal.privacy.secret import Secret
from fedseal.wire import DecodeError, decode, encode

T = TypeVar("T")


def new_signing_key() -> SigningKey:
    """A signing key of the operating system's randomness."""
    return SigningKey(Secret(os.urandom(KEY_LENGTH)))


def own_folder(path: Path, what: str) -> Path:
    """Make a folder that only its owner enters; ConfigError if it is there and holds anything."""
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"{path} is not empty", next_step=f"Choose another folder for {what}.")
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror or type(error).__name__}") from None
    return path


def write_secret(path: Path, content: bytes) -> None:
    """A new file that only its owner reads; FileExistsError if there is one."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write(partial, content, 0o600)
        path.hardlink_to(partial)
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put a file in the place of whatever was there, in one step."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write(partial, content, mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)


def save_signing_key(path: Path, key: SigningKey) -> None:
    """Write a signing key's 32 bytes as hexadecimal digits."""
    write_secret(path, key.seed.reveal().hex().encode("ascii") + b"\n")


def load_signing_key(path: Path) -> SigningKey:
    """The signing key in a file; ConfigError if it holds none, or others may read it."""
    try:
        seed = bytes.fromhex(_private(path).decode("ascii").strip())
    except (ValueError, UnicodeDecodeError):
        seed = b""
    if len(seed) != KEY_LENGTH:
        raise ConfigError(f"{path} holds no signing key")
    return SigningKey(Secret(seed))


def load_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key on P-256 in a PEM file; ConfigError if it holds none, or others may read it."""
    return _elliptic(path, lambda raw: load_pem_private_key(raw, None))


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file in OpenSSH's form; ConfigError if it holds none, or others may read it."""
    return _elliptic(path, lambda raw: load_ssh_private_key(raw, None))


def _elliptic(path: Path, load: Callable[[bytes], object]) -> ec.EllipticCurvePrivateKey:
    try:
        key = load(_private(path))
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} holds no private key on P-256 without a passphrase")
    return key


def _private(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}", next_step=f"chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None


def write_request(path: Path, request: SignedRequest) -> None:
    """Write a request as it is handed over."""
    replace_file(path, armoured(Form.REQUEST, encode(request)).encode("ascii"))


def read_request(path: Path) -> SignedRequest:
    """A request, not opened yet; ConfigError if the file holds none."""
    return _read(path, Form.REQUEST, lambda raw: decode(raw, SignedRequest))


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle as it is handed out."""
    replace_file(path, armoured(Form.BUNDLE, encode(bundle)).encode("ascii"))


def read_bundle(path: Path) -> Epoch:
    """The epoch in a bundle's file; ConfigError if there is none, or it does not hold."""
    return open_bundle(_read(path, Form.BUNDLE, lambda raw: decode(raw, Bundle)))


def _read(path: Path, form: Form, read: Callable[[bytes], T]) -> T:
    try:
        if path.stat().st_size > LONGEST:
            raise ConfigError(f"{path} is too long for a {form.label}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} holds no {form.label}") from None
    try:
        return read(unarmoured(form, text, str(path)))
    except DecodeError as error:
        raise ConfigError(
            f"the {form.label} in {path} cannot be read: {error.message}", next_step="Ask for it once more."
        ) from None
