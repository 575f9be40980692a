"""What somebody tries who wants a model in use that should not be: each is refused, and its honest twin is not."""

from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from support.keys import SERVER, key
from support.registry import TIME, World, actor, bundle, rules

from fedseal.compliance.events.bodies import PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import Alias, Role, RollbackReason
from fedseal.compliance.events.leaf import Place, read_event, sign_event
from fedseal.compliance.events.subjects import GateChecked, Promoted, RolledBack, Signature
from fedseal.compliance.log.tables import LEAVES
from fedseal.compliance.registry.recheck import recheck
from fedseal.errors import PeerError, PolicyRefused
from fedseal.privacy.secagg.keys import SigningKey

GOOD, BAD = bundle(1), bundle(2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A bundle that lacks one signature, and one that nobody has looked at."""
    made = World(tmp_path)
    made.people()
    made.register(GOOD)
    made.register(BAD, auc="0.1")
    made.sign_all(GOOD, ["ben"])
    return made


def refused(world: World, text: str = "have to sign") -> None:
    """The bundle cannot be promoted; its twin, with eva's own signature, can."""
    world.witness()
    with pytest.raises(PolicyRefused, match=text):
        world.promote(GOOD)
    assert world.current() is None


def twin(world: World) -> None:
    world.sign(GOOD, "eva")
    world.witness()
    world.promote(GOOD)
    assert world.current() == GOOD.digest


def signature(**changes: object) -> Signature:
    """Approval of the good bundle for production."""
    given = {
        "model": GOOD.model_digest,
        "alias": "production",
        "meaning": "approved",
        "role": "approver",
        "bundle": GOOD.digest,
    }
    return Signature.model_validate({**given, **changes})


def leaf(world: World, body: Signature, signing: SigningKey, who: str, org: str = "server") -> bytes:
    place = world.journal.place_of(signing.public)
    return sign_event(body, signing, place, org=org, time=TIME, actor=actor(who))


def test_a_removed_person_cannot_sign(world: World) -> None:
    world.remove("eva")
    with pytest.raises(PolicyRefused, match="removed"):
        world.sign(GOOD, "eva")
    # Nor past the registry, straight into the log.
    world.journal.append_signed(leaf(world, signature(), key("eva"), "eva"), key("eva").public)
    refused(world)
    assert "removed" in world.registry.state().refused[0].reason
    world.person("eva", Role.APPROVER)
    twin(world)


def test_what_a_removed_person_has_signed_counts_no_longer(world: World) -> None:
    world.sign(GOOD, "eva")
    world.remove("eva")
    refused(world)
    # Also when they come back: what made them go may be that signature.
    world.person("eva", Role.APPROVER)
    refused(world)
    twin(world)


def test_a_removal_after_a_promotion_leaves_it(world: World) -> None:
    twin(world)
    world.remove("eva")
    assert world.current() == GOOD.digest


@pytest.mark.parametrize(
    "change",
    [
        {"alias": "canary"},
        {"meaning": "reviewed"},
        {"bundle": bundle(1, threshold=0.9).digest},
        {"bundle": None},
        {"model": BAD.model_digest},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_signature_for_something_else_does_not_count(world: World, change: dict[str, object]) -> None:
    world.journal.append_signed(leaf(world, signature(**change), key("eva"), "eva"), key("eva").public)
    refused(world)
    twin(world)


def test_a_signature_in_a_role_that_the_person_lacks_does_not_count(world: World) -> None:
    with pytest.raises(PolicyRefused, match="role auditor"):
        world.sign(GOOD, "eva", role=Role.AUDITOR)
    world.journal.append_signed(leaf(world, signature(role="auditor"), key("eva"), "eva"), key("eva").public)
    refused(world)
    twin(world)


def test_nobody_takes_a_role_that_their_organisation_did_not_give(world: World) -> None:
    world.person("kim", Role.AUDITOR)
    world.journal.append_signed(leaf(world, signature(), key("kim"), "kim"), key("kim").public)
    refused(world)
    assert "role that the person does not have" in world.registry.state().refused[0].reason
    twin(world)


def test_a_role_that_the_rules_do_not_ask_for_does_not_count(world: World) -> None:
    world.person("kim", Role.AUDITOR)
    world.sign(GOOD, "kim", role=Role.AUDITOR)
    refused(world)
    twin(world)


def test_an_approval_for_another_alias_cannot_be_rewritten(world: World) -> None:
    """Whoever has seen a signature for the canary changes the alias: it is no signature then, and no next one."""
    index = world.sign(GOOD, "eva", alias=Alias.CANARY)
    seen = next(e for e in world.registry.entries.of(["model.approved/v1"]) if e.index == index).event.leaf
    with pytest.raises(PeerError, match="does not hold"):
        world.journal.append_signed(seen.replace(b'"canary"', b'"production"'), key("eva").public)
    with pytest.raises(PeerError, match="not the next"):
        world.journal.append_signed(seen, key("eva").public)
    refused(world)
    twin(world)


def test_one_person_with_two_keys_is_one_person(world: World) -> None:
    world.person("ben", Role.APPROVER, signing="ben-2")
    world.journal.append_signed(leaf(world, signature(), key("ben-2"), "ben"), key("ben-2").public)
    assert sum(a.actor == actor("ben") for a in world.registry.state().approvals) == 2
    refused(world, "2 as approved .*; 1 did")
    twin(world)


def test_two_pseudonyms_with_one_key_are_one_person(world: World) -> None:
    world.person("double", Role.APPROVER, signing="ben")
    assert actor("double") not in world.registry.state().persons
    world.journal.append_signed(leaf(world, signature(), key("ben"), "double"), key("ben").public)
    refused(world)
    twin(world)


def test_a_key_that_a_person_had_before_is_nobody_elses_either(world: World) -> None:
    world.person("ben", Role.APPROVER, signing="ben-2")
    world.person("double", Role.APPROVER, signing="ben")
    assert actor("double") not in world.registry.state().persons


@pytest.mark.parametrize("party", ["server", "site-1"])
def test_a_party_is_no_person(world: World, party: str) -> None:
    world.person("robot", Role.APPROVER, signing=party)
    assert actor("robot") not in world.registry.state().persons


def test_an_author_does_not_approve_the_own_model(world: World) -> None:
    world.person("ana", Role.ML_ENGINEER, Role.APPROVER)
    world.sign(GOOD, "ana")
    refused(world, "none of them the author")
    twin(world)


def test_whoever_has_signed_as_author_counts_for_nothing_else(world: World) -> None:
    """Also where the rules ask for no author: without the rule it would be enough."""
    text = """
version = 1
[production]
not_author = true
[[production.approvals]]
meaning = "approved"
roles = ["ml-engineer", "approver"]
persons = 2
"""
    world.sign(GOOD, "ana", role=Role.ML_ENGINEER)
    world.witness()
    with pytest.raises(PolicyRefused, match="none of them the author; 1 did"):
        world.promote(GOOD, text=text)
    world.witness()
    world.promote(GOOD, text=text.replace("true", "false"))
    assert world.current() == GOOD.digest


def test_another_organisation_neither_changes_nor_removes_a_person(world: World) -> None:
    world.sign(GOOD, "eva")
    world.site_says(1, PersonAdded(person=actor("eva"), key=key("mallory").public.hex(), roles=(Role.APPROVER,)))
    world.site_says(1, PersonRemoved(person=actor("ben")))
    state = world.registry.state()
    assert state.persons[actor("eva")].key == key("eva").public
    assert state.persons[actor("ben")].active
    assert len(state.refused) == 2
    world.witness()
    world.promote(GOOD)


def test_a_person_nobody_signed_for_does_not_count(world: World) -> None:
    """Someone writes into the server's database, in the server's name."""
    body = PersonAdded(person=actor("mallory"), key=key("mallory").public.hex(), roles=(Role.APPROVER,))
    forged = sign_event(body, key("mallory"), Place(), org="server", time=TIME)
    world.journal.append_signed(forged, key("mallory").public)
    world.journal.append_signed(leaf(world, signature(), key("mallory"), "mallory"), key("mallory").public)
    refused(world)
    assert len(world.registry.state().refused) == 2
    twin(world)


def gate(**changes: object) -> GateChecked:
    """The gate of the log, passed by the bad bundle."""
    given = {
        "model": BAD.model_digest,
        "alias": "production",
        "gate": "metric",
        "name": "auc",
        "limit": "0.8",
        "found": "0.9",
        "passed": True,
        "bundle": BAD.digest,
    }
    return GateChecked.model_validate({**given, **changes})


def promoted(gates: tuple[int, ...], approvals: tuple[int, ...] = ()) -> Promoted:
    return Promoted(
        model=BAD.model_digest,
        alias=Alias.PRODUCTION,
        replaces=None,
        approvals=approvals,
        gates=gates,
        final_size=5,
        bundle=BAD.digest,
        rules=rules().digest,
    )


def test_a_gate_that_another_has_signed_counts_for_nothing(world: World) -> None:
    """A person who may write into the log says that a gate was passed, and the server's program takes it."""
    signing = key("ben")
    place = world.journal.place_of(signing.public)
    forged = sign_event(gate(), signing, place, org="server", time=TIME, actor=actor("ben"))
    index = world.journal.append_signed(forged, signing.public)
    world.server_says(promoted((index,)))
    assert world.current() is None
    assert [r.reason for r in world.registry.state().refused] == [
        "not signed by the organisation that it names",
        "a promotion by a gate that was not passed for it",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"found": "0.1"},
        {"passed": False, "found": "0.1"},
        {"model": GOOD.model_digest, "bundle": GOOD.digest},
        {"alias": "canary"},
        {"bundle": None},
        {"found": None},
        {"gate": "epsilon", "limit": "3", "found": "3.1"},
    ],
    ids=str,
)
def test_a_promotion_by_a_gate_that_does_not_let_it_counts_for_nothing(
    world: World, changes: dict[str, object]
) -> None:
    index = world.server_says(gate(**changes))
    world.server_says(promoted((index,)))
    assert world.current() is None
    # Which gates have to be there is for the rules to say; by its form alone this one would be a promotion.
    index = world.server_says(gate())
    world.server_says(promoted((index,)))
    assert world.current() == BAD.digest


def test_a_server_that_forges_its_own_gates_is_seen_by_whoever_makes_the_promotion_again(world: World) -> None:
    """Its form is right and the server has signed it: the replay takes it, the check from the log does not."""
    index = world.server_says(gate())
    world.server_says(promoted((index,)))
    (again,) = recheck(world.registry.entries, world.registry.parties, world.journal.policy, [rules()])
    said = "; ".join(again.problems)
    for text in ("1 as authored", "2 as approved", "auc is 0.1", "no quorum", "something else than the log"):
        assert text in said


def test_a_promotion_with_signatures_that_were_not_given_for_it_counts_for_nothing(world: World) -> None:
    index = world.server_says(gate())
    given = world.registry.state().approvals[0].index
    for approvals in ((given,), (0,), (10_000,)):
        world.server_says(promoted((index,), approvals))
        assert world.current() is None
    world.server_says(promoted((index,)))
    assert world.current() == BAD.digest


def test_a_promotion_by_a_removed_persons_signature_counts_for_nothing(world: World) -> None:
    by_eva = world.sign(GOOD, "eva")
    aim = {"model": GOOD.model_digest, "bundle": GOOD.digest}
    passed = world.server_says(gate(**aim))
    world.remove("eva")
    world.server_says(promoted((passed,), (by_eva,)).model_copy(update=aim))
    assert world.current() is None
    assert "was removed" in world.registry.state().refused[-1].reason
    others = [a.index for a in world.registry.state().approvals]
    world.server_says(promoted((passed,), tuple(others)).model_copy(update=aim))
    assert world.current() == GOOD.digest


def test_only_the_server_moves_an_alias(world: World) -> None:
    index = world.server_says(gate())
    for who, org in ((key("site-1"), "site-1"), (key("mallory"), "server"), (key("site-1"), "server")):
        forged = sign_event(promoted((index,)), who, world.journal.place_of(who.public), org=org, time=TIME)
        world.journal.append_signed(forged, who.public)
        assert world.current() is None
    real = sign_event(promoted((index,)), SERVER, world.journal.place_of(SERVER.public), org="server", time=TIME)
    world.journal.append_signed(real, SERVER.public)
    assert world.current() == BAD.digest
    assert read_event(real).signed_by(SERVER.public)


def test_a_rollback_that_nothing_led_to_counts_for_nothing(world: World) -> None:
    twin(world)
    body = RolledBack(
        model=BAD.model_digest,
        alias=Alias.PRODUCTION,
        replaces=GOOD.model_digest,
        reason=RollbackReason.OTHER,
        bundle=BAD.digest,
    )
    world.server_says(body)
    world.server_says(body.model_copy(update={"model": GOOD.model_digest, "bundle": None}))
    assert world.current() == GOOD.digest
    assert len(world.registry.state().refused) == 2


def test_an_entry_that_the_sites_have_not_cosigned_as_it_is_stops_a_promotion(world: World) -> None:
    """The server writes its registration anew into its own database, with its key: all holds but what was cosigned."""
    world.sign(GOOD, "eva")
    world.witness()
    registered = world.registry.entries.of(["model.registered/v1"])[0]
    event = registered.event
    later = "2026-11-28T09:00:00.000001Z"
    place = Place(event.seq, event.prev)
    written_anew = sign_event(event.body, SERVER, place, org="server", time=later, run=event.run)
    put(world, registered.index, written_anew)
    with pytest.raises(PolicyRefused, match="not the one that the sites have cosigned"):
        world.promote(GOOD)
    put(world, registered.index, event.leaf)
    world.promote(GOOD)
    assert world.current() == GOOD.digest


def put(world: World, index: int, leaf: bytes) -> None:
    """Write another leaf into the database of a log, past everything that looks after it."""
    with world.engine.begin() as connection:
        first = connection.execute(select(func.min(LEAVES.c.position))).scalar_one()
        connection.execute(update(LEAVES).where(LEAVES.c.position == first + index).values(leaf=leaf))


@pytest.mark.parametrize(("who", "org"), [("mallory", "server"), ("ben", "server"), ("eva", "site-1")])
def test_a_signature_in_anothers_name_does_not_count(world: World, who: str, org: str) -> None:
    """Whoever may write into the log signs as eva, with another key, or as another organisation's eva."""
    world.journal.append_signed(leaf(world, signature(), key(who), "eva", org), key(who).public)
    assert "not made with the person's key" in world.registry.state().refused[0].reason
    refused(world)
    twin(world)
