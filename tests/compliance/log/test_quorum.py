"""Two quorums share an honest witness; a policy is read as C2SP says, and counts nobody twice."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import SERVER, key
from support.logs import LOG, ORIGIN, TIME, hashes, signed, witness

from fedseal.compliance.log.checkpoint import cosign, log_key, read_checkpoint, witness_key
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Note, Signature, SignatureError
from fedseal.compliance.log.quorum import (
    Group,
    evaluate,
    federation_policy,
    format_policy,
    parse_policy,
    quorum_size,
)
from fedseal.errors import LocalError

VKEYS = [witness(i).vkey for i in range(6)]


@pytest.mark.parametrize(("n", "f", "q"), [(1, 0, 1), (2, 0, 2), (3, 0, 2), (5, 1, 4), (10, 2, 7), (20, 3, 12)])
def test_known_sizes(n: int, f: int, q: int) -> None:
    assert quorum_size(n, f) == q


@pytest.mark.parametrize(("n", "f"), [(n, f) for n in range(1, 8) for f in range(n)])
def test_two_quorums_share_an_honest_witness_and_one_fewer_would_not(n: int, f: int) -> None:
    def always_meet(size: int) -> bool:
        every = [set(c) for c in combinations(range(n), size)]
        return all(len(a & b) > f for a in every for b in every)

    q = quorum_size(n, f)
    assert q <= n
    assert always_meet(q)
    assert q == 1 or not always_meet(q - 1)


def test_a_quorum_needs_an_honest_witness() -> None:
    for n, f in ((0, 0), (3, 3), (3, -1)):
        with pytest.raises(LocalError):
            quorum_size(n, f)


def cosigned(numbers: list[int]) -> str:
    checkpoint, note = read_checkpoint(signed(hashes(9)))
    return str(Note(note.text, (*note.signatures, *(cosign(checkpoint, witness(i), TIME) for i in numbers))))


def test_a_federation_s_policy() -> None:
    policy = federation_policy(LOG, VKEYS[:5], 1)
    assert parse_policy(format_policy(policy)) == policy
    assert policy.groups == (Group("sites", 4, tuple(v.name for v in VKEYS[:5])),)
    for count in range(6):
        verdict = evaluate(policy, cosigned(list(range(count))))
        assert (verdict.final, len(verdict.cosigned), verdict.log) == (count >= 4, count, LOG)
    # A stranger's cosignature, and one witness' twice, count for nothing.
    assert not evaluate(policy, cosigned([0, 1, 2, 5])).final
    assert not evaluate(policy, cosigned([0, 1, 2, 2])).final


def test_a_bad_signature_of_a_known_key_refuses_the_note() -> None:
    policy = federation_policy(LOG, VKEYS[:3], 0)
    good = read_checkpoint(cosigned([0, 1, 2]))[1]
    for place in range(4):
        bad = list(good.signatures)
        bad[place] = Signature(bad[place].name, bad[place].identifier, bytes(len(bad[place].value)))
        with pytest.raises(SignatureError):
            evaluate(policy, str(Note(good.text, tuple(bad))))
    for note in (Note(good.text, good.signatures[1:]), Note(good.text.replace("9", "8"), good.signatures)):
        with pytest.raises(SignatureError):
            evaluate(policy, str(note))


def test_a_log_signs_under_its_own_name_only() -> None:
    other = log_key("another/log", SERVER.public)
    policy = federation_policy(other, VKEYS[:3], 0)
    with pytest.raises(SignatureError):
        evaluate(policy, cosigned([0, 1, 2]))


def example(threshold: str = "2") -> str:
    """The example of c2sp.org/tlog-policy, with keys."""
    lines = [f"log {LOG}", ""]
    lines += [f"witness X{i} {VKEYS[i - 1]}" for i in (1, 2, 3)]
    lines += [f"group X-witnesses {threshold} X1 X2 X3", "", "# others"]
    lines += [f"witness\tY{i}  {VKEYS[i + 2]} https://y{i}.example/ " for i in (1, 2, 3)]
    lines += ["group Y-witnesses any Y1 Y2 Y3", "group X-and-Y all X-witnesses Y-witnesses", "  quorum X-and-Y", ""]
    return "\n".join(lines)


@given(st.sets(st.sampled_from(["X1", "X2", "X3", "Y1", "Y2", "Y3", "Z"])))
def test_the_specification_s_example(names: set[str]) -> None:
    policy = parse_policy(example())
    expected = len(names & {"X1", "X2", "X3"}) >= 2 and bool(names & {"Y1", "Y2", "Y3"})
    assert policy.satisfied(frozenset(names)) == expected
    assert parse_policy(format_policy(policy)) == policy


def test_quorum_none_and_of_one_witness() -> None:
    assert evaluate(parse_policy(f"log {LOG}\nquorum none\n"), cosigned([])).final
    single = parse_policy(f"log {LOG}\nwitness A {VKEYS[0]}\nquorum A\n")
    assert evaluate(single, cosigned([0])).final
    assert not evaluate(single, cosigned([1])).final
    # A name that is no witness' does not fill its place.
    assert not single.satisfied(frozenset({"none"}))


def test_names_are_opaque_bytes() -> None:
    raw = (
        f"log {LOG}\nwitness ".encode() + b"\xff\xe2\x84\xaa" + f" {VKEYS[0]}\nquorum ".encode() + b"\xff\xe2\x84\xaa\n"
    )
    policy = parse_policy(raw)
    assert format_policy(policy).encode("utf-8", "surrogateescape") == raw
    assert evaluate(policy, cosigned([0])).final


WITNESSED = f"witness A {VKEYS[0]}\n"
BAD = [
    "",
    WITNESSED,
    "quorum A\n" + WITNESSED,
    WITNESSED + "quorum A\nquorum A\n",
    WITNESSED + "quorum B\n",
    WITNESSED + f"witness A {VKEYS[1]}\nquorum A\n",
    WITNESSED + f"witness B {VKEYS[0]}\nquorum A\n",
    WITNESSED + f"witness B {witness_key('other', key('site-0').public)}\nquorum A\n",
    f"witness none {VKEYS[0]}\nquorum none\n",
    f"witness A {LOG}\nquorum none\n",
    f"log {VKEYS[0]}\nquorum none\n",
    f"log {LOG}\nlog {log_key('x', SERVER.public)}\nquorum none\n",
    f"log {LOG} a b\nquorum none\n",
    WITNESSED + "group G 0 A\nquorum G\n",
    WITNESSED + "group G 2 A\nquorum G\n",
    WITNESSED + "group G 01 A\nquorum G\n",
    WITNESSED + "group G some A\nquorum G\n",
    WITNESSED + "group G 1\nquorum A\n",
    WITNESSED + "group G any B\nquorum G\n",
    WITNESSED + "group G any none\nquorum G\n",
    WITNESSED + "group G any A A\nquorum G\n",
    WITNESSED + "group A any A\nquorum A\n",
    WITNESSED + "group G any G\nquorum G\n",
    WITNESSED + "group G any A\ngroup H any A\nquorum G\n",
    WITNESSED + "quorum A B\n",
    "quorum none\r\n",
    "quorum\u00a0none\n",
    "quorum none\x7f\n",
    "log x\nquorum none\n",
    "something\nquorum none\n",
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_other_policies_are_refused(text: str) -> None:
    assert parse_policy(WITNESSED + "quorum A\n").quorum == "A"
    with pytest.raises(MalformedError):
        parse_policy(text)


def test_the_origin_is_the_log_s_name() -> None:
    assert LOG.name == ORIGIN
