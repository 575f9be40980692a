"""A witness cosigns what extends the last state that it cosigned, and nothing else."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import SERVER, key
from support.logs import LOG, ORIGIN, TIME, hashes, reader, signed, witness

from fedseal.compliance.log.checkpoint import Checkpoint, log_key, read_checkpoint, sign_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError, holds, to_base64
from fedseal.compliance.log.tree import EMPTY_ROOT, consistency_proof
from fedseal.compliance.log.witness import (
    Outcome,
    Response,
    WitnessState,
    answer,
    cosignatures,
    decode_request,
    encode_request,
    stale_size,
)
from fedseal.merkle import leaf_hash, root

ENTRIES = hashes(60)
READ = reader(ENTRIES)


def state(size: int) -> WitnessState:
    return WitnessState(ORIGIN, size, root(ENTRIES[:size]))


def ask(seen: WitnessState, raw: bytes) -> tuple[WitnessState, Response]:
    return answer(seen, raw, LOG, witness(1), TIME)


def request(old: int, new: int) -> bytes:
    return encode_request(old, consistency_proof(old, new, READ), signed(ENTRIES[:new]))


# Of c2sp.org/tlog-witness: its example of a request.
EXAMPLE = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

"""
EXAMPLE += "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+"
EXAMPLE += "ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"


def test_the_specification_s_example_is_read() -> None:
    found = decode_request(EXAMPLE.encode())
    assert (found.old, len(found.proof), found.checkpoint.size) == (20852014, 4, 20852163)
    assert encode_request(found.old, found.proof, str(found.note)).decode() == EXAMPLE


@pytest.mark.parametrize("old", [0, 1, 2, 7, 8, 33, 59, 60])
@pytest.mark.parametrize("new", [1, 2, 8, 59, 60])
def test_what_extends_the_last_state_is_cosigned(old: int, new: int) -> None:
    if old > new:
        return
    after, response = ask(state(old), request(old, new))
    assert (after, response.outcome, response.status) == (state(new), Outcome.COSIGNED, 200)
    (line,) = cosignatures(response, signed(ENTRIES[:new]), [witness(1).vkey, witness(2).vkey])
    assert line.time == TIME
    assert holds(line, read_checkpoint(signed(ENTRIES[:new]))[1].text, witness(1).vkey)
    assert cosignatures(response, signed(ENTRIES[:new]), [witness(2).vkey]) == ()


def test_the_empty_log_is_cosigned_too() -> None:
    assert ask(WitnessState(ORIGIN), request(0, 0))[1].outcome is Outcome.COSIGNED
    forged = str(sign_checkpoint(Checkpoint(ORIGIN, 0, root(ENTRIES)), SERVER))
    assert ask(WitnessState(ORIGIN), encode_request(0, (), forged))[1].outcome is Outcome.FORKED
    assert WitnessState(ORIGIN).root == EMPTY_ROOT


def refused(seen: WitnessState, raw: bytes) -> Outcome:
    after, response = ask(seen, raw)
    assert after == seen
    assert response.outcome is not Outcome.COSIGNED
    with pytest.raises((MalformedError, SignatureError)):
        cosignatures(response, signed(ENTRIES[:5]), [witness(1).vkey])
    return response.outcome


def test_refusals() -> None:
    honest = request(20, 40)
    assert ask(state(20), honest)[1].outcome is Outcome.COSIGNED
    assert refused(state(21), honest) is Outcome.STALE
    assert refused(state(0), honest) is Outcome.STALE
    assert refused(replace(state(20), root=bytes(32)), honest) is Outcome.INCONSISTENT
    assert refused(replace(state(20), origin="another/log"), honest) is Outcome.UNKNOWN
    assert refused(state(40), encode_request(40, (), signed(ENTRIES[:20]))) is Outcome.MALFORMED
    assert refused(state(20), encode_request(20, (), signed(ENTRIES[:40]))) is Outcome.INCONSISTENT
    assert refused(state(0), encode_request(0, (bytes(32),), signed(ENTRIES[:40]))) is Outcome.INCONSISTENT
    other = signed([*ENTRIES[:39], leaf_hash(b"another")])
    assert refused(state(40), encode_request(40, (), other)) is Outcome.FORKED
    assert refused(state(40), encode_request(40, (bytes(32),), signed(ENTRIES[:40]))) is Outcome.INCONSISTENT


def test_who_signed_matters() -> None:
    checkpoint = Checkpoint(ORIGIN, 5, root(ENTRIES[:5]))
    stranger = str(sign_checkpoint(checkpoint, key("stranger")))
    assert refused(state(0), encode_request(0, (), stranger)) is Outcome.UNSIGNED
    bad = signed(ENTRIES[:5]).replace("\n5\n", "\n6\n")
    assert refused(state(0), encode_request(0, (), bad)) is Outcome.UNSIGNED
    elsewhere = str(sign_checkpoint(Checkpoint("another/log", 5, root(ENTRIES[:5])), SERVER))
    assert refused(state(0), encode_request(0, (), elsewhere)) is Outcome.UNKNOWN
    renamed = answer(state(0), request(0, 5), log_key("another/log", LOG.public), witness(1), TIME)[1]
    assert renamed.outcome is Outcome.UNKNOWN


def test_a_stale_request_learns_the_size() -> None:
    response = ask(state(33), request(20, 40))[1]
    assert (response.status, response.content_type, response.body) == (409, "text/x.tlog.size", b"33\n")
    assert stale_size(response) == 33
    for other in (ask(state(20), request(20, 40))[1], Response(Outcome.STALE, b"x\n"), Response(Outcome.STALE, b"3")):
        with pytest.raises(MalformedError):
            stale_size(other)


def test_each_status_is_as_specified() -> None:
    assert {outcome.name: outcome.status for outcome in Outcome} == {
        "COSIGNED": 200,
        "MALFORMED": 400,
        "UNSIGNED": 403,
        "UNKNOWN": 404,
        "STALE": 409,
        "FORKED": 409,
        "INCONSISTENT": 422,
    }


NOTE = signed(ENTRIES[:5])
STEP = to_base64(bytes(32))
BAD = [
    b"",
    NOTE.encode(),
    f"old 0\n{NOTE}".encode(),
    f"old 00\n\n{NOTE}".encode(),
    f"old -1\n\n{NOTE}".encode(),
    f"old  0\n\n{NOTE}".encode(),
    f"Old 0\n\n{NOTE}".encode(),
    f"old 0\nAAAA\n\n{NOTE}".encode(),
    f"old 0\n{STEP}\r\n\n{NOTE}".encode(),
    ("old 0\n" + f"{STEP}\n" * 64 + f"\n{NOTE}").encode(),
    f"old 0\n\n{NOTE.partition(chr(10) * 2)[0]}\n".encode(),
    f"old 0\n\n{NOTE}".encode() + b"\xff",
    b"old 0\xff\n\n" + NOTE.encode(),
]


@pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
def test_other_requests_are_refused(raw: bytes) -> None:
    assert refused(state(0), raw) is Outcome.MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(raw: bytes) -> None:
    assert ask(state(0), raw)[1].outcome is Outcome.MALFORMED


def test_a_forged_cosignature_is_refused() -> None:
    note = signed(ENTRIES[:5])
    response = ask(state(0), request(0, 5))[1]
    other = ask(state(0), request(0, 6))[1]
    assert len(cosignatures(response, note, [witness(1).vkey])) == 1
    with pytest.raises(SignatureError):
        cosignatures(other, note, [witness(1).vkey])
    with pytest.raises(MalformedError):
        cosignatures(Response(Outcome.COSIGNED, b"\xff"), note, [witness(1).vkey])
    assert cosignatures(Response(Outcome.COSIGNED, b""), note, [witness(1).vkey]) == ()


def test_every_mutation_below_a_witnessed_size_is_refused_and_honest_growth_never() -> None:
    """Edit, delete, insert, swap, cut: the forger signs as the log and proves as well as it can."""
    rng = random.Random(11)
    entries = hashes(300)
    for _ in range(300):
        new = rng.randrange(2, 300)
        old = rng.randrange(1, new + 1)
        seen = WitnessState(ORIGIN, old, root(entries[:old]))
        place, forged = rng.randrange(old), entries[:new]
        match rng.randrange(5):
            case 0:
                forged[place] = leaf_hash(b"another")
            case 1:
                del forged[place]
            case 2:
                forged.insert(place, leaf_hash(b"another"))
            case 3:
                other = (place + 1 + rng.randrange(new - 1)) % new
                forged[place], forged[other] = forged[other], forged[place]
            case _:
                del forged[place:]
        claimed = min(old, len(forged))
        proof = consistency_proof(claimed, len(forged), reader(forged))
        for stated in {claimed, old}:
            refused(seen, encode_request(stated, proof, signed(forged)))
        honest = encode_request(old, consistency_proof(old, new, reader(entries)), signed(entries[:new]))
        assert ask(seen, honest)[1].outcome is Outcome.COSIGNED
