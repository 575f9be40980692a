"""What an audit of a whole log finds, and that each check finds it: without the check it is not seen."""

import json
from collections.abc import Callable

import pytest
from support.chains import TIME, Chain
from support.flower import Federation
from support.keys import SERVER, key

from fedseal.compliance.audit import verify as module
from fedseal.compliance.audit.parties import Parties
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import MOST_FINDINGS, AuditCode, Verdict, verify
from fedseal.compliance.events.bodies import Genesis, Joined, PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import Alias, Meaning, ReviewOutcome, Role
from fedseal.compliance.events.leaf import Place, sign_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.events.subjects import Reviewed, Signature
from fedseal.compliance.log.checkpoint import Checkpoint, Cosigner, cosign, log_key, sign_checkpoint, site_origin
from fedseal.compliance.log.note import Note
from fedseal.compliance.log.quorum import Policy, federation_policy
from fedseal.compliance.log.tree import root_of
from fedseal.errors import LocalError
from fedseal.privacy.secagg.keys import SigningKey

ORIGIN = "test/server"
COSIGNERS = [Cosigner(site_origin("test", f"site-{n}"), key(f"site-{n}")) for n in (1, 2, 3)]
POLICY: Policy = federation_policy(log_key(ORIGIN, SERVER.public), [c.vkey for c in COSIGNERS], 0)
GENESIS = Genesis(federation="test", roster="sha256:" + 64 * "a", simulated=True, faulty=0, quorum=2)
REVIEWED = Reviewed(first=0, end=1, outcome=ReviewOutcome.NOTHING)


def note(leaves: list[bytes], cosigners: int = 3, signer: SigningKey = SERVER) -> str:
    checkpoint = Checkpoint(ORIGIN, len(leaves), root_of(leaves))
    signed = sign_checkpoint(checkpoint, signer)
    lines = tuple(cosign(checkpoint, each, 1_800_000_000) for each in COSIGNERS[:cosigners])
    return str(Note(signed.text, (*signed.signatures, *lines)))


def joined(number: int, **changes: object) -> Joined:
    body = Joined(
        site=number, name=f"site-{number}", key=key(f"site-{number}").public.hex(), roster="sha256:" + 64 * "a"
    )
    return body.model_copy(update=changes)


def ordinary() -> Chain:
    book = Chain().add(GENESIS)
    for n in (1, 2, 3):
        book.add(joined(n), key(f"site-{n}"), f"site-{n}")
    return book.add(REVIEWED)


def judged(leaves: list[bytes], **options: object) -> Verdict:
    return verify(leaves, note(leaves), POLICY, **options)  # type: ignore[arg-type]


def test_an_honest_log_holds(honest: Federation) -> None:
    with open_log(honest.server) as copy:
        verdict = verify(copy.leaves(), copy.log.checkpoint(), copy.policy)
        assert verdict.findings == []
        assert verdict.size == copy.log.size == sum(verdict.types.values())
        assert verdict.types["round.aggregated/v1"] == 2
        assert verdict.types["party.joined/v1"] == 3
    assert judged(ordinary().leaves).code is AuditCode.OK


def test_every_changed_byte_of_a_log_is_found() -> None:
    leaves = ordinary().leaves
    kept = note(leaves)
    for index, leaf in enumerate(leaves):
        for place in range(0, len(leaf), 7):
            changed = [*leaves]
            changed[index] = leaf[:place] + bytes([leaf[place] ^ 1]) + leaf[place + 1 :]
            assert verify(changed, kept, POLICY, entries=False).code is AuditCode.TAMPERED
    assert verify(leaves[:-1], kept, POLICY).code is AuditCode.TAMPERED
    assert verify(leaves[::-1], kept, POLICY).code is AuditCode.TAMPERED


def test_a_quorum_is_counted() -> None:
    leaves = ordinary().leaves
    assert [verify(leaves, note(leaves, n), POLICY).code for n in range(4)] == [3, 3, 0, 0]
    assert verify(leaves, None, POLICY).code is AuditCode.TAMPERED
    assert verify(leaves, note(leaves, signer=key("stranger")), POLICY).code is AuditCode.TAMPERED
    assert verify(leaves, "nonsense", POLICY).code is AuditCode.TAMPERED


def test_entries_beyond_the_checkpoint_are_counted_and_no_tampering() -> None:
    leaves = ordinary().leaves
    verdict = verify(leaves, note(leaves[:3]), POLICY)
    assert (verdict.code, verdict.beyond, verdict.size) == (AuditCode.OK, 2, 3)


def test_kept_checkpoints_are_compared() -> None:
    leaves, other = ordinary().leaves, Chain().add(GENESIS.model_copy(update={"faulty": 1})).leaves
    longer = ordinary().add(REVIEWED).leaves
    assert judged(leaves, earlier=[note(leaves[:2]), note(leaves)]).code is AuditCode.OK
    assert judged(leaves, earlier=[note(longer)]).code is AuditCode.ROLLED_BACK
    assert judged(leaves, earlier=[note(other)]).code is AuditCode.TAMPERED
    assert judged(leaves, earlier=[note(leaves[:2], signer=key("stranger"))]).code is AuditCode.TAMPERED
    assert judged(leaves, seen=[Checkpoint(ORIGIN, 2, root_of(leaves[:2]))]).code is AuditCode.OK
    assert judged(leaves, seen=[Checkpoint(ORIGIN, 2, root_of(leaves[:3]))]).code is AuditCode.TAMPERED


def test_after_a_hundred_findings_only_their_number_is_kept() -> None:
    verdict = judged([b"{}"] * (MOST_FINDINGS + 7))
    assert (len(verdict.findings), verdict.more) == (MOST_FINDINGS, 7)


def test_a_sites_own_log_needs_no_checkpoint() -> None:
    book = Chain().add(GENESIS, key("site-1"), "site-1").add(REVIEWED, key("site-1"), "site-1")
    policy = federation_policy(log_key(site_origin("test", "site-1"), key("site-1").public), [COSIGNERS[1].vkey], 0)
    verdict = verify(book.leaves, None, policy, book=Book.SITE)
    assert (verdict.code, verdict.size, verdict.root) == (AuditCode.OK, 2, root_of(book.leaves))


PERSON = PersonAdded(person="act_" + 32 * "1", key=key("ann").public.hex(), roles=(Role.APPROVER,))
APPROVED = Signature(model="sha256:" + 64 * "b", alias=Alias.PRODUCTION, meaning=Meaning.APPROVED, role=Role.APPROVER)
ANN = "act_" + 32 * "1"


def test_a_person_signs_between_being_added_and_removed() -> None:
    site = (key("site-1"), "site-1")
    book = ordinary().add(PERSON, *site).add(APPROVED, key("ann"), "site-1", actor=ANN)
    assert judged(book.leaves).code is AuditCode.OK
    book.add(PersonRemoved(person=ANN), *site).add(APPROVED, key("ann"), "site-1", actor=ANN)
    verdict = judged(book.leaves)
    assert [f.index for f in verdict.findings] == [len(book.leaves) - 1]


def test_a_known_person_who_is_removed_leaves_everybody_elses_keys() -> None:
    book = ordinary().add(PERSON, key("site-1"), "site-1").add(PersonRemoved(person=ANN), key("site-1"), "site-1")
    assert judged(book.add(REVIEWED).leaves).code is AuditCode.OK


def test_only_the_organisation_that_added_a_person_removes_it() -> None:
    book = ordinary().add(PERSON, key("site-1"), "site-1").add(PersonRemoved(person=ANN), key("site-2"), "site-2")
    assert judged(book.add(APPROVED, key("ann"), "site-1", actor=ANN).leaves).code is AuditCode.OK


# What is wrong with the last entry, and the log up to there.
WRONG: dict[str, Callable[[], Chain]] = {
    "nobody has named": lambda: ordinary().add(joined(9), key("site-9"), "site-9"),
    "in the name of another": lambda: ordinary().add(REVIEWED, key("site-1"), "site-2"),
    "may not make here": lambda: ordinary().add(GENESIS.model_copy(), key("site-1"), "site-1").add(APPROVED),
    "under another name": lambda: Chain().add(GENESIS).add(joined(2), key("site-1"), "site-1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_entry_that_its_author_may_not_make_is_found(what: str) -> None:
    book = WRONG[what]()
    (finding,) = judged(book.leaves).findings
    assert what in finding.what
    assert finding.index == len(book.leaves) - 1


def test_a_left_out_doubled_or_moved_entry_is_found() -> None:
    leaves = ordinary().add(REVIEWED).add(REVIEWED).leaves
    for changed in ([*leaves[:4], *leaves[5:]], [*leaves, leaves[-1]], [*leaves[:-2], leaves[-1], leaves[-2]]):
        assert "one is missing, moved or doubled" in judged(changed).findings[0].what
    # One gap is one finding, whatever its author says afterwards.
    assert len(judged([*leaves[:4], *leaves[5:]]).findings) == 1


def test_a_signature_that_does_not_hold_is_found() -> None:
    leaves = ordinary().leaves
    value = json.loads(leaves[-1])
    value["sig"]["s"] = json.loads(leaves[0])["sig"]["s"]
    leaves[-1] = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    (finding,) = judged(leaves).findings
    assert "does not hold" in finding.what


def test_an_entry_that_is_no_event_is_found() -> None:
    leaves = [*ordinary().leaves, b'{"v":1}']
    assert judged(leaves).code is AuditCode.TAMPERED


def test_a_log_that_cannot_be_read_to_the_end_is_found(honest: Federation) -> None:
    def torn() -> object:
        yield from ordinary().leaves
        raise LocalError("the log lacks leaves")

    verdict = verify(torn(), note(ordinary().leaves), POLICY)  # type: ignore[arg-type]
    assert "lacks leaves" in verdict.findings[0].what


def test_without_each_check_what_it_finds_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twins: take a check away, and the same log passes."""
    bad = ordinary().add(REVIEWED, key("site-1"), "site-2").leaves
    assert judged(bad).code is AuditCode.TAMPERED
    with monkeypatch.context() as patch:
        patch.setattr(Parties, "accept", lambda *_: None)
        assert judged(bad).code is AuditCode.OK
    leaves = ordinary().leaves
    kept = note(leaves)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_judge_tree", lambda *_: None)
        assert verify(leaves[:-1], kept, POLICY).code is AuditCode.OK


def test_sites_are_known_by_the_names_of_their_logs() -> None:
    """As `checkpoint.site_origin` makes them, also where a name needs encoding."""
    name = site_origin("test federation", "Klinik Süd")
    policy = federation_policy(
        log_key("test%20federation/server", SERVER.public), [Cosigner(name, key("site-1")).vkey], 0
    )
    body = Joined(site=1, name="Klinik%20S%C3%BCd", key=key("site-1").public.hex(), roster="sha256:" + 64 * "a")
    leaf = sign_event(body, key("site-1"), Place(), org="Klinik%20S%C3%BCd", time=TIME)
    verdict = verify([leaf], None, policy)
    assert [f.what for f in verdict.findings] == ["there is no checkpoint"]
