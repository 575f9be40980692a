"""A bundle's way into production and back: what is asked, what is written, and what the log alone says of it."""

from pathlib import Path

import pytest
from support.registry import RULES, World, bundle, rules

from fedseal.compliance.events.fields import Alias, Meaning, Role, RollbackReason
from fedseal.compliance.events.subjects import GateChecked, Promoted, RolledBack
from fedseal.compliance.journal.attachment import LogReply
from fedseal.compliance.registry.aliases import TYPES, Status, replay
from fedseal.compliance.registry.entries import names_of
from fedseal.compliance.registry.recheck import recheck
from fedseal.errors import ConfigError, LocalError, PolicyRefused

OLD, NEW, NEXT = bundle(1), bundle(2), bundle(3)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A federation with an engineer and two approvers."""
    made = World(tmp_path)
    made.people()
    return made


def test_a_bundle_that_has_everything_is_promoted(world: World) -> None:
    world.ready(OLD)
    world.promote(OLD)
    assert world.current() == OLD.digest
    assert world.registry.resolve(Alias.PRODUCTION) == OLD
    (entry,) = world.registry.entries.of(names_of(Promoted))
    body = entry.event.body
    assert isinstance(body, Promoted)
    assert (body.model, body.bundle, body.replaces) == (OLD.model_digest, OLD.digest, None)
    assert body.rules == rules().digest
    assert len(body.approvals) == 3
    gates = {e.index: e.event.body for e in world.registry.entries.of(names_of(GateChecked))}
    said = [gates[index] for index in body.gates]
    assert [(g.gate.value, g.limit, g.found, g.passed) for g in said if isinstance(g, GateChecked)] == [
        ("log-final", str(max(body.approvals) + 1), str(body.final_size), True),
        ("metric", "0.8", "0.9", True),
    ]


def test_all_reasons_are_told_at_once_and_nothing_moves(world: World) -> None:
    world.register(OLD, auc="0.7")
    with pytest.raises(PolicyRefused) as caught:
        world.promote(OLD)
    for reason in ("1 as authored", "2 as approved", "none of them the author", "auc is 0.7", "quorum of the sites"):
        assert reason in caught.value.message
    assert world.current() is None
    gates = [e.event.body for e in world.registry.entries.of(names_of(GateChecked))]
    assert [g.passed for g in gates if isinstance(g, GateChecked)] == [False, False]


def test_an_alias_without_rules_is_closed(world: World) -> None:
    world.ready(OLD)
    with pytest.raises(PolicyRefused, match="closed"):
        world.promote(OLD, Alias.CANARY)
    world.promote(OLD, Alias.CANDIDATE)
    assert world.current(Alias.CANDIDATE) == OLD.digest


def test_promotion_before_a_quorum_is_refused(world: World) -> None:
    """Also for an alias that asks for nothing: that is no rule, and no rule turns it off."""
    world.register(OLD)
    assert world.witness([1]) == 0
    with pytest.raises(PolicyRefused, match="quorum"):
        world.promote(OLD, Alias.CANDIDATE)
    # Each has to cosign the same checkpoint, and the refusal has made the log longer.
    assert world.witness([1, 2]) > 0
    world.promote(OLD, Alias.CANDIDATE)
    assert world.current(Alias.CANDIDATE) == OLD.digest


def test_a_signature_after_the_final_checkpoint_waits_for_the_next(world: World) -> None:
    world.register(OLD)
    world.sign_all(OLD, ["ben"])
    world.witness()
    world.sign(OLD, "eva")
    with pytest.raises(PolicyRefused, match="quorum"):
        world.promote(OLD)
    world.witness()
    world.promote(OLD)


def test_a_rollback_moves_model_recipe_and_schema_together(world: World) -> None:
    for made in (OLD, NEW):
        world.ready(made)
        world.promote(made)
    binding = world.registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)
    assert binding.bundle == OLD.digest == world.current()
    assert world.registry.resolve(Alias.PRODUCTION) == OLD
    (entry,) = world.registry.entries.of(names_of(RolledBack))
    body = entry.event.body
    assert isinstance(body, RolledBack)
    assert (body.replaces, body.reason) == (NEW.model_digest, RollbackReason.DRIFT)
    with pytest.raises(PolicyRefused, match="no earlier bundle"):
        world.registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)


def test_a_rollback_goes_back_and_never_forward_by_itself(world: World) -> None:
    for made in (OLD, NEW, NEXT):
        world.ready(made)
        world.promote(made)
    for expected in (NEW, OLD):
        world.registry.rollback(Alias.PRODUCTION, RollbackReason.QUALITY)
        assert world.current() == expected.digest
    # By name also to one that was rolled back from: it held the alias.
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.OTHER, NEXT.digest)
    assert world.current() == NEXT.digest
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.OTHER)
    assert world.current() == OLD.digest


def test_a_rollback_of_a_recipe_keeps_the_model(world: World) -> None:
    other = bundle(1, threshold=0.9)
    for made in (OLD, other):
        world.ready(made)
        world.promote(made)
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.QUALITY)
    assert world.registry.resolve(Alias.PRODUCTION).recipe.thresholds == {"label": 0.5}


def test_a_rollback_to_what_the_alias_never_was_is_refused(world: World) -> None:
    world.ready(OLD)
    world.promote(OLD)
    world.ready(NEW)
    with pytest.raises(PolicyRefused, match="other bundle"):
        world.registry.rollback(Alias.PRODUCTION, RollbackReason.OTHER, NEW.digest)
    with pytest.raises(PolicyRefused, match="points to no model"):
        world.registry.rollback(Alias.CANARY, RollbackReason.OTHER)
    world.promote(NEW)
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.OTHER, OLD.digest)


def test_a_suspended_or_retired_model_is_neither_promoted_nor_rolled_back_to_nor_given_out(world: World) -> None:
    for made in (OLD, NEW):
        world.ready(made)
        world.promote(made)
    registry = world.registry
    registry.suspend(registry.find(OLD.digest, registry.state()), RollbackReason.INCIDENT)
    with pytest.raises(PolicyRefused, match="suspended"):
        registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)
    with pytest.raises(PolicyRefused, match="suspended"):
        world.promote(OLD)
    assert registry.resolve(Alias.PRODUCTION) == NEW
    registry.retire(registry.find("production", registry.state()), RollbackReason.INCIDENT)
    with pytest.raises(PolicyRefused, match="retired"):
        registry.resolve(Alias.PRODUCTION)
    with pytest.raises(PolicyRefused, match="already"):
        registry.retire(registry.find(NEW.digest, registry.state()), RollbackReason.INCIDENT)
    assert registry.state().statuses == {OLD.model_digest: Status.SUSPENDED, NEW.model_digest: Status.RETIRED}


def test_a_rollback_to_files_that_were_changed_is_refused(world: World) -> None:
    for made in (OLD, NEW):
        world.ready(made)
        world.promote(made)
    recipe = world.registry.bundles.path(OLD.digest) / "recipe.json"
    before = recipe.read_bytes()
    recipe.write_bytes(before.replace(b"0.5", b"0.6"))
    with pytest.raises(ConfigError, match="not the file"):
        world.registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)
    assert world.current() == NEW.digest
    recipe.write_bytes(before)
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)
    assert world.current() == OLD.digest


def test_the_state_is_the_logs_alone(world: World) -> None:
    for made in (OLD, NEW):
        world.ready(made)
        world.promote(made)
    before = world.registry.state()
    world.open()
    assert world.registry.state() == before
    # Without the writer's index every entry is read: the same comes of it.
    with world.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM log_types")
    assert world.registry.state() == before
    assert replay(world.registry.entries.of(TYPES), world.registry.parties) == before
    assert before.refused == ()


def test_every_promotion_can_be_made_again(world: World) -> None:
    for made in (OLD, NEW):
        world.ready(made)
        world.promote(made)
    again = recheck(world.registry.entries, world.registry.parties, world.journal.policy, [rules()])
    assert [(p.alias, p.bundle, p.problems) for p in again] == [
        (Alias.PRODUCTION, OLD.digest, ()),
        (Alias.PRODUCTION, NEW.digest, ()),
    ]
    other = rules(RULES.replace("0.8", "0.85"))
    again = recheck(world.registry.entries, world.registry.parties, world.journal.policy, [other])
    assert all("other rules" in p.problems[0] for p in again)


def test_a_bundle_is_found_by_enough_digits_or_an_alias(world: World) -> None:
    world.ready(OLD)
    world.promote(OLD)
    state = world.registry.state()
    names = (OLD.digest, OLD.digest[7:13], OLD.model_digest, OLD.model_digest[7:15], "production")
    assert {world.registry.find(name, state).bundle for name in names} == {OLD.digest}
    for name in ("", OLD.digest[7:12], "canary", "zzzzzzzz"):
        with pytest.raises(ConfigError):
            world.registry.find(name, state)
    world.register(bundle(1, threshold=0.1))
    with pytest.raises(ConfigError, match="several"):
        world.registry.find(OLD.model_digest, world.registry.state())


def test_a_bundle_is_registered_once(world: World) -> None:
    world.register(OLD)
    with pytest.raises(ConfigError, match="already"):
        world.register(OLD)


def test_two_organisations_can_be_asked_for(world: World) -> None:
    text = RULES.replace("[production]", "[production]\norganisations = 2")
    world.ready(OLD)
    with pytest.raises(PolicyRefused, match="persons of 2 organisations"):
        world.promote(OLD, text=text)
    world.person("zoe", Role.APPROVER, site=2)
    world.sign(OLD, "zoe")
    world.witness()
    world.promote(OLD, text=text)
    assert {a.org for a in world.registry.state().approvals} == {"server", "site-2"}
    assert {a.meaning for a in world.registry.state().approvals} == {Meaning.AUTHORED, Meaning.APPROVED}


def test_a_running_server_that_another_program_wrote_beside_is_not_behind(world: World) -> None:
    """A site has cosigned what the registry appended; the server's own program has not seen that yet."""
    running = World(world.folder)
    world.register(OLD)
    assert running.journal.size < world.journal.size
    running.seen = world.seen
    assert running.witness([1, 2]) == world.journal.size
    # The twin: a site that has seen more than is in the database says that the log was rolled back.
    with pytest.raises(LocalError, match="rolled back"):
        running.journal.take(3, LogReply(409, world.journal.size + 1, b"", ()))
