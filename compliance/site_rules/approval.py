"""That a person has read a study's code: a signature over the code's digest, in a file beside the study's folder.

Beside, not in it: what lies in the folder is part of the digest. Whose signature counts is said by each site's policy.
"""

import json
from pathlib import Path

from pydantic import Field, ValidationError

from fedseal.compliance.events.fields import Digest, PublicKey
from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify

# More than reviewers anybody has, and little to read.
MOST_APPROVALS, LONGEST = 100, 1 << 16


class CodeApproval(Frozen):
    """One line of the file: who signed which digest."""

    code: Digest
    key: PublicKey
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    def holds(self) -> bool:
        """Whether the key's owner signed this."""
        return verify(bytes.fromhex(self.key), bytes.fromhex(self.signature), signed_message(self.code))


def signed_message(code: str) -> bytes:
    """What a reviewer signs.

    Args:
        code: ``sha256:`` and the digest.
    """
    return DOMAIN + b"approve-code\x00" + bytes.fromhex(code.removeprefix("sha256:"))


def approvals_file(folder: Path) -> Path:
    """Where the signatures of a study's code are kept."""
    place = folder.resolve()
    return place.with_name(f"{place.name}.approvals")


def approve(folder: Path, code: str, key: SigningKey) -> Path:
    """Sign a study's code; the file that has the signature now. Signing again changes nothing.

    Raises:
        ConfigError: the file cannot be written, or is full.
    """
    path, public = approvals_file(folder), key.public.hex()
    known = read_approvals(path)
    if any(a.code == code and a.key == public for a in known):
        return path
    if len(known) >= MOST_APPROVALS:
        raise ConfigError(f"{path} has {MOST_APPROVALS} signatures", next_step="Take out those of code that is gone.")
    made = CodeApproval(code=code, key=public, signature=key.sign(signed_message(code)).hex())
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("".join(json.dumps(a.model_dump()) + "\n" for a in (*known, made)), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def read_approvals(path: Path) -> tuple[CodeApproval, ...]:
    """The signatures in a file, whether or not they hold; none if there is no file.

    Raises:
        ConfigError: it holds something else.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read") from None
    try:
        if len(text) > LONGEST:
            raise ValueError
        return tuple(CodeApproval.model_validate_json(line) for line in text.splitlines() if line)
    except (ValidationError, ValueError):
        raise ConfigError(
            f"{path} holds something else than signatures of code",
            next_step="It is written by `fedseal site approve-code`; remove the line that is none.",
        ) from None


def signers_of(folder: Path, code: str) -> frozenset[str]:
    """The public keys, in hexadecimal, whose signature under this digest holds.

    Raises:
        ConfigError: the file beside the folder cannot be read.
    """
    return frozenset(a.key for a in read_approvals(approvals_file(folder)) if a.code == code and a.holds())
