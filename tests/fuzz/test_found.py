"""What fuzzing has found, each with the input that showed it."""

import io
import json
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord
from support.consoles import HERE
from support.fuzz_files import FILES, application, asked, signed, stranger
from support.fuzz_sites import place, user, visitor
from support.fuzzing import judge

from fedseal.client.records import arrays_of, views_of
from fedseal.client.serving.tables import open_table
from fedseal.compliance.labels.formats import Format, Source
from fedseal.compliance.labels.platforms import read_annotations
from fedseal.config import parse_toml
from fedseal.errors import ConfigError, DataError, PeerError
from fedseal.privacy.membership.tls import read_openssh
from fedseal.privacy.npy import bytes_npy, view_npy
from fedseal.server.coordination import ORDER, read_order
from fedseal.server.server_config import public_key


@pytest.mark.parametrize("text", ["a = " + 5000 * "9", "a = " + 5000 * "[", "a = " + 5000 * "{b="])
def test_a_toml_file_beyond_pythons_own_limits(text: str) -> None:
    """tomllib let ValueError and RecursionError through."""
    with pytest.raises(ConfigError, match="too long, or tables"):
        parse_toml(text, "site.toml")


def test_a_nodes_key_whose_point_is_compressed(tmp_path: Path) -> None:
    """`cryptography` raises NotImplementedError for it, at enrolment and at a server with a folder of keys."""
    name, point = b"ecdsa-sha2-nistp256", b"\x02" + bytes(32)
    parts = (name, b"nistp256", point)
    line = name + b" " + b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts))
    with pytest.raises(ConfigError, match="none in OpenSSH's form"):
        read_openssh(line.decode("ascii"))
    (tmp_path / "node.pub").write_bytes(line)
    with pytest.raises(ConfigError, match="no public key in OpenSSH's form"):
        public_key(tmp_path / "node.pub")


@pytest.mark.parametrize("kind", [{}, [], None, 3, "text"])
def test_a_label_studio_result_whose_type_is_no_word(tmp_path: Path, kind: object) -> None:
    """An object or a list was looked up as a word."""
    result = {"from_name": "grade", "type": kind, "value": {"choices": ["low"]}}
    task = {"id": 1, "annotations": [{"completed_by": 1, "result": [result]}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]), encoding="utf-8")
    with pytest.raises(DataError, match="an annotation with 0 results"):
        read_annotations(Source(tmp_path / "tasks.json", Format.LABEL_STUDIO))


def header(text: bytes) -> bytes:
    padded = text + b" " * (64 - (11 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


HEADS = {
    "a bracket that is not closed": b"{'descr': '<u4', 'fortran_order': False, 'shape': (9,), (",
    "a text that is not closed": b"{'descr': '|i1', 'fortran_order': False, 'shape': (2,), }" + 9 * b'"',
    "sizes below 0": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }",
    "numbers without bytes": b"{'descr': '|S0', 'fortran_order': False, 'shape': (6,), }",
    "nesting": b"{'descr': '<f4', 'fortran_order': False, 'shape': " + 900 * b"(" + b"}",
    "sizes without a comma": b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2 2), }",
    "an unknown type": b"{'descr': '<f3', 'fortran_order': False, 'shape': (6,), }",
}


@pytest.mark.parametrize("case", HEADS)
def test_an_arrays_header_that_is_none(case: str) -> None:
    """numpy's own reader let the tokenizer's errors through, and sizes that no array has."""
    raw = header(HEADS[case]) + bytes(24)
    assert view_npy(raw) is None
    if case == "numbers without bytes":
        return
    record = ArrayRecord({"x": Array("float32", (6,), "numpy.ndarray", raw)})
    for read in (views_of, arrays_of):
        with pytest.raises(PeerError, match="cannot be read"):
            read(record)


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(3.0), np.ones(5, np.bool_)])
def test_an_honest_array_is_viewed(array: np.ndarray) -> None:
    out = io.BytesIO()
    np.save(out, array)
    found = view_npy(out.getvalue())
    assert found is not None
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert bytes_npy(found) == out.getvalue()


def test_an_order_that_is_nested_deep(tmp_path: Path) -> None:
    (tmp_path / ORDER).write_text('{"a":' * 100_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="no order"):
        read_order(tmp_path)


def test_a_length_of_very_many_digits() -> None:
    """Python makes no number of more than 4,300 digits, and the server answered by an error of its own."""
    raw = b"POST /v1/fleet/push-object\ncontent-length: " + 5000 * b"9" + b"\n\n"
    stranger(raw)
    assert asked(application(), raw, signed()) == 413


def test_a_key_that_flowers_check_cannot_use() -> None:
    """Flower's check of a signature answered 500 to a key of another kind; such a stranger does not come so far now."""
    key = X25519PrivateKey.from_private_bytes(32 * b"k").public_key()
    named = b64encode(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    stamp = datetime.now(UTC).isoformat().encode()
    lines = (b"flwr-public-key: " + named, b"flwr-timestamp: " + stamp, b"flwr-signature: AAAA", b"content-length: 0")
    raw = b"POST /v1/fleet/pull-messages\n" + b"\n".join(lines) + b"\n\n"
    stranger(raw)
    assert asked(application(), raw, []) == 401


@pytest.mark.parametrize("path", [b"/log?org=\xff", b"/\xff\xfe?a=\xc3", b"/runs/a\x00b"])
def test_an_address_in_the_console_that_is_no_text(path: bytes) -> None:
    """Starlette decodes what a browser asked for as UTF-8, and raised where a visitor is shown the way to sign in."""
    raw = b"GET %s\n\n" % path
    visitor(raw)
    user(raw)


def test_a_length_with_noughts_before_it() -> None:
    """The console looked at its first twelve digits only, and would have read a body of any length."""
    for length, code in ((b"%030d" % (3 << 20), 413), (5000 * b"9", 413), (b"", 411), (b"%020d" % 4, 401)):
        raw = b"POST /sign-in\ncontent-type: application/x-www-form-urlencoded\ncontent-length: %s\n\na=bc" % length
        assert asked(place().app, raw, [(b"host", b"localhost"), (b"origin", HERE.encode())]) == code


def test_a_row_of_another_width_that_is_no_utf8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A callback of Arrow's wrote a traceback to standard error."""
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b,c\n1,2,3\n\xff\xfe,2\n")
    with pytest.raises(DataError, match="row 3, the header being 1, has 2 values and not 3"):
        list(open_table(path).pieces(["a"]))
    assert "Traceback" not in capfd.readouterr().err


def test_a_regression_is_judged_like_any_input() -> None:
    site = next(target for target in FILES if target.name == "site.toml")
    assert not judge(site, b"a = " + 5000 * b"9")
