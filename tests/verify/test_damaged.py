"""Damaged and hostile input: an answer, never a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import exported
from support.exported import LOG, SITES

from fedseal_verify import events, tiles
from fedseal_verify.cli import main
from fedseal_verify.errors import MalformedError
from fedseal_verify.evidence import parse_proof
from fedseal_verify.note import parse_checkpoint, parse_vkey
from fedseal_verify.policy import parse_policy

LEAVES = exported.book(9).leaves
NOTE = exported.note(9, exported.root(exported.leaf_hashes(LEAVES)))
FILES = ["checkpoint", "policy.txt", "tile/entries/000.p/9", "tile/0/000.p/9"]
ONCE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with a few bytes changed, cut, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        put = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\n", b"\n\n", b"\xe2\x80\x94 ", b"{", b'"', b"+"]))
        )
        data = data[:start] + put + data[end:]
    return data


@given(data=st.data(), name=st.sampled_from(FILES))
@ONCE
def test_a_damaged_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject, name: str) -> None:
    exported.write_export(tmp_path, LEAVES, NOTE)
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(data.draw(damage(whole)))
    code = main(["log", str(tmp_path)])
    capsys.readouterr()
    assert code in range(5)
    if name.startswith("tile") and path.read_bytes() != whole:
        assert code == 1


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000.p/9", "tile/entries/000.p/9"])
def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (exported.write_export(tmp_path, LEAVES, NOTE) / name).unlink()
    assert main(["log", str(tmp_path)]) == 1
    assert "is missing" in capsys.readouterr().out


PARSERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (parse_checkpoint, NOTE.encode()),
    (parse_policy, exported.policy().encode()),
    (parse_proof, exported.proof(LEAVES, 4).encode()),
    (events.read_event, LEAVES[0]),
    (lambda data: parse_vkey(data.decode("latin-1")), LOG.vkey(1).encode()),
    (lambda data: tiles.split_bundle(data, 2), b"\x00\x01a\x00\x02bc"),
    (lambda data: tiles.split_tile(data, 2), bytes(64)),
]


@pytest.mark.parametrize(("parse", "good"), PARSERS, ids=["note", "policy", "proof", "event", "vkey", "bundle", "tile"])
@given(data=st.data())
@ONCE
def test_parsers_refuse_or_read(parse: Callable[[bytes], object], good: bytes, data: st.DataObject) -> None:
    parse(good)
    for each in (data.draw(damage(good)), data.draw(st.binary(max_size=80))):
        try:
            parse(each)
        except MalformedError as error:
            assert str(error)


BAD_LEAVES = {
    "nested": b"[" * 8000 + b"]" * 8000,
    "nested object": b'{"a":' * 2500 + b"1" + b"}" * 2500,
    "too long": b'{"a":"' + b"a" * 16384 + b'"}',
    "no object": b"[1]",
    "nothing": b"",
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "exponent": b'{"a":1e3}',
    "minus zero": b'{"a":-0}',
    "many digits": b'{"a":' + b"9" * 5000 + b"}",
    "lone surrogate": b'{"a":"\\ud800"}',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "bad utf-8": b'{"a":"\xff"}',
    "mark": b'\xef\xbb\xbf{"a":1}',
    "twice": b'{"a":1,"a":1}',
    "order": b'{"b":1,"a":1}',
    "escaped": b'{"a":"\\u0041"}',
    "newline": b'{"a":1}\n',
    "no event": b'{"a":1}',
}


@pytest.mark.parametrize("name", BAD_LEAVES)
def test_leaves_that_are_none(name: str) -> None:
    with pytest.raises(MalformedError):
        events.read_event(BAD_LEAVES[name])


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 2},
        {"v": True},
        {"seq": -1},
        {"seq": "0"},
        {"seq": True},
        {"time": "2026-11-20T22:04:05Z"},
        {"time": "2026-13-20T22:04:05.123456Z"},
        {"type": "round"},
        {"actor": "Dr. Who"},
        {"org": ""},
        {"prev": "sha256:0"},
        {"subject": {}},
        {"subject": [{"k": "x"}]},
        {"body": []},
        {"sealed": "hmac:0"},
        {"run": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_fields_that_are_none(fields: dict[str, object]) -> None:
    good = exported.event(SITES[0], 0, "sha256:" + "0" * 64)
    events.read_event(exported.jcs(exported.sign(SITES[0], good)))
    with pytest.raises(MalformedError):
        events.read_event(exported.jcs(exported.sign(SITES[0], {**good, **fields})))


A, B = (each.vkey(4) for each in SITES[:2])
BAD_POLICIES = {
    "no quorum": f"log {LOG.vkey(1)}\n",
    "no log": f"witness a {A}\nquorum a\n",
    "two quorums": f"log {LOG.vkey(1)}\nquorum none\nquorum none\n",
    "unknown name": f"log {LOG.vkey(1)}\nquorum a\n",
    "defined below": f"log {LOG.vkey(1)}\ngroup g 1 a\nwitness a {A}\nquorum g\n",
    "one key, two names": f"log {LOG.vkey(1)}\nwitness a {A}\nwitness b {A}\nquorum a\n",
    "the log as its witness": f"log {LOG.vkey(1)}\nwitness a {LOG.vkey(4)}\nquorum a\n",
    "a member twice": f"log {LOG.vkey(1)}\nwitness a {A}\ngroup g 2 a a\nquorum g\n",
    "a member of two groups": f"log {LOG.vkey(1)}\nwitness a {A}\ngroup g 1 a\ngroup h 1 a\nquorum g\n",
    "more than there are": f"log {LOG.vkey(1)}\nwitness a {A}\ngroup g 2 a\nquorum g\n",
    "none of them": f"log {LOG.vkey(1)}\nwitness a {A}\ngroup g 0 a\nquorum g\n",
    "a name twice": f"log {LOG.vkey(1)}\nwitness a {A}\nwitness a {B}\nquorum a\n",
    "log key as witness": f"log {LOG.vkey(1)}\nwitness a {SITES[0].vkey(1)}\nquorum a\n",
    "witness key as log": f"log {LOG.vkey(4)}\nquorum none\n",
    "wrong key id": f"log {LOG.vkey(1).replace('f1d969a3', 'f1d969a4')}\nquorum none\n",
    "control characters": f"log {LOG.vkey(1)}\r\nquorum none\n",
    "another word": f"log {LOG.vkey(1)}\nquorum none\ntrust me\n",
}


@pytest.mark.parametrize("name", BAD_POLICIES)
def test_policies_that_are_none(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_policy(BAD_POLICIES[name].encode())


def test_groups_of_groups() -> None:
    """The example of tlog-policy: 2 of three X, any of Y, and both."""
    x = "".join(f"witness {each.name} {each.vkey(4)}\n" for each in SITES)
    y = exported.Party("y", 21)
    text = f"log {LOG.vkey(1)} https://log.example\n{x}group X 2 site-a site-b site-c\n# Y\n\twitness y  {y.vkey(4)}\n"
    policy = parse_policy((text + "group Y any y\ngroup both all X Y\nquorum both\n").encode())
    assert policy.satisfied({"site-a", "site-c", "y"})
    assert not policy.satisfied({"site-a", "site-b", "site-c"})
    assert not policy.satisfied({"site-a", "y"})
    assert "group X" not in " ".join(policy.remarks())


def test_a_log_with_two_keys_while_one_succeeds_the_other() -> None:
    policy = parse_policy(f"log {LOG.vkey(1)}\nlog {exported.Party(LOG.name, 2).vkey(1)}\nquorum none\n".encode())
    assert len(policy.keys_of(LOG.name)) == 2
    assert policy.remarks()


def test_a_checkpoint_s_text_is_three_lines() -> None:
    for text in (NOTE.replace("\n9\n", "\n9\n\n"), NOTE.replace("\n9\n", "\n09\n"), "\n" + NOTE, NOTE[:-1]):
        with pytest.raises(MalformedError):
            parse_checkpoint(text.encode())


def test_a_size_that_no_disk_holds_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = exported.note((1 << 63) - 1, bytes(32))
    exported.write_export(tmp_path, LEAVES, huge)
    assert main(["log", str(tmp_path)]) == 1
    assert main(["consistency", str(tmp_path / "checkpoint"), str(tmp_path / "checkpoint"), str(tmp_path)]) == 0
    (tmp_path / "old").write_text(exported.note(5, bytes(32)), encoding="utf-8")
    assert main(["consistency", str(tmp_path / "old"), str(tmp_path / "checkpoint"), str(tmp_path)]) == 1
    capsys.readouterr()
