"""A proof file says that a leaf stands in a log, to someone with the policy alone; and nothing else."""

import pytest
from support.logs import LOG, TIME, hashes, leaves, signed, witness

from fedseal.compliance.log.checkpoint import cosign, read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Note, SignatureError, to_base64
from fedseal.compliance.log.proof import HEADER, Proof, check_proof, parse_proof
from fedseal.compliance.log.quorum import federation_policy
from fedseal.merkle import inclusion_path

SIZE, INDEX = 23, 7
LEAVES = leaves(0, SIZE)
POLICY = federation_policy(LOG, [witness(i).vkey for i in range(3)], 0)


def proof(cosigners: int = 2, extra: bytes = b"") -> Proof:
    checkpoint, note = read_checkpoint(signed(hashes(SIZE)))
    lines = tuple(cosign(checkpoint, witness(i), TIME) for i in range(cosigners))
    return Proof(INDEX, inclusion_path(hashes(SIZE), INDEX), str(Note(note.text, (*note.signatures, *lines))), extra)


def test_the_file_is_as_specified() -> None:
    lines = str(proof(extra=b"more")).split("\n")
    assert lines[:3] == [HEADER, "extra bW9yZQ==", "index 7"]
    assert lines[3:8] == [to_base64(step) for step in proof().path]
    assert (lines[8], lines[9]) == ("", LOG.name)
    assert "\nextra" not in str(proof())


@pytest.mark.parametrize("extra", [b"", b"\0more"])
def test_it_goes_there_and_back(extra: bytes) -> None:
    assert parse_proof(str(proof(extra=extra))) == proof(extra=extra)
    assert parse_proof(str(proof(extra=extra)).encode()) == proof(extra=extra)


def test_it_proves_one_leaf_at_one_place() -> None:
    assert check_proof(proof(), LEAVES[INDEX], POLICY).final
    assert not check_proof(proof(1), LEAVES[INDEX], POLICY).final
    for index, leaf in enumerate(LEAVES):
        for place in range(SIZE + 2):
            if (index, place) != (INDEX, INDEX):
                moved = Proof(place, proof().path, proof().note)
                with pytest.raises(SignatureError):
                    check_proof(moved, leaf, POLICY)
    for step in range(5):
        path = list(proof().path)
        path[step] = bytes(32)
        with pytest.raises(SignatureError):
            check_proof(Proof(INDEX, tuple(path), proof().note), LEAVES[INDEX], POLICY)


def test_a_checkpoint_of_a_stranger_proves_nothing() -> None:
    forged = proof().note.replace("\n23\n", "\n24\n")
    with pytest.raises(SignatureError):
        check_proof(Proof(INDEX, proof().path, forged), LEAVES[INDEX], POLICY)


GOOD = str(proof())
HEAD, _, NOTE = GOOD.partition("\n\n")
BAD = [
    "",
    GOOD.replace("v1", "v2"),
    GOOD.replace("index 7\n", ""),
    GOOD.replace("index 7", "index 07"),
    GOOD.replace("index 7", "index -7"),
    GOOD.replace("index 7", "index  7"),
    GOOD.replace("index 7", "extra !\nindex 7"),
    GOOD.replace("index 7", "extra AA==\nextra AA==\nindex 7"),
    HEAD + "\nAAAA\n\n" + NOTE,
    HEAD + "\n\n\n" + NOTE,
    HEAD + ("\n" + to_base64(bytes(32))) * 64 + "\n\n" + NOTE,
    HEAD + "\n",
    HEAD + "\n\n" + NOTE.partition("\n\n")[0] + "\n",
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_proof(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(MalformedError):
        parse_proof(GOOD.encode() + b"\xff")
