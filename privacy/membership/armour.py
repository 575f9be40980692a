"""Requests and bundles as files that can be mailed, and the digits by which people compare them."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from enum import Enum
from textwrap import wrap

from fedseal.errors import ConfigError

LONGEST = 8 << 20
GROUPS, DIGITS = 8, 5
_LINE = 76


class Form(Enum):
    """What a file holds."""

    REQUEST = "REQUEST"
    BUNDLE = "BUNDLE"

    @property
    def label(self) -> str:
        """In words."""
        return self.value.lower()


def armoured(form: Form, content: bytes) -> str:
    """Bytes as text between two lines that say what they are."""
    lines = wrap(b64encode(content).decode("ascii"), _LINE)
    return "\n".join([f"-----BEGIN FEDSEAL {form.value}-----", *lines, f"-----END FEDSEAL {form.value}-----", ""])


def unarmoured(form: Form, text: str, source: str) -> bytes:
    """The bytes in such a text; what stands around them, such as a mail's greeting, is left alone.

    Raises:
        ConfigError: there are none of this form, or more than one.
    """
    found = re.findall(
        rf"^-----BEGIN FEDSEAL {form.value}-----$(.*?)^-----END FEDSEAL {form.value}-----$", text, _FLAGS
    )
    other = next((f for f in Form if f is not form and f"BEGIN FEDSEAL {f.value}-" in text), None)
    if len(found) != 1:
        said = f"holds a {other.label} and no {form.label}" if other and not found else f"holds no single {form.label}"
        raise ConfigError(f"{source} {said}", next_step=f"Give the file with the {form.label}.")
    try:
        return b64decode("".join(found[0].split()), validate=True)
    except ValueError:
        raise ConfigError(f"the {form.label} in {source} is damaged", next_step="Ask for it once more.") from None


_FLAGS = re.MULTILINE | re.DOTALL


def fingerprint(form: Form, content: bytes) -> str:
    """Forty digits in eight groups, for reading out: 132 bits of SHA-256."""
    hashed = hashlib.sha256(b"fedseal/fingerprint/1\x00" + form.value.encode("ascii") + b"\x00" + content).digest()
    number = int.from_bytes(hashed, "big") % 10 ** (GROUPS * DIGITS)
    return " ".join(wrap(f"{number:0{GROUPS * DIGITS}}", DIGITS))


def same_fingerprint(read_out: str, found: str) -> bool:
    """Whether what somebody typed is a fingerprint, however it was spaced. Takes as long wherever they differ."""
    digits = re.sub(r"[\s.\-]", "", read_out)
    return hmac.compare_digest(digits.encode("utf-8"), found.replace(" ", "").encode("ascii"))
