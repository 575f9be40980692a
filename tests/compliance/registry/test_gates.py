"""Gates by the log alone: exact numbers, the worst of all evaluations, and every charge of every site."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registry import NOW, QUIET, World, actor, bundle, rules

from fedseal.compliance.events.bodies import Charged
from fedseal.compliance.events.fields import Alias, CorrectionReason, GateKind, Meaning, Role
from fedseal.compliance.events.leaf import TIME_FORMAT
from fedseal.compliance.events.subjects import Correction, Evaluated, Measure
from fedseal.compliance.registry.aliases import Evaluation
from fedseal.compliance.registry.entries import names_of
from fedseal.compliance.registry.gates import (
    Finality,
    Found,
    check_gates,
    evaluations_of,
    largest_epsilon,
    log_final,
    measure_name,
)
from fedseal.compliance.registry.rules import RegistryRules, Required, read_rules, unmet
from fedseal.errors import ConfigError
from fedseal.privacy.accounting import epsilon_pld
from fedseal.privacy.plan import LocalGaussian, NoPrivacy

MADE, MODEL = bundle(1), bundle(1).model_digest
FINAL = Finality(5, 5, included=True)


def evaluation(*measures: tuple[str, str, str], by_server: bool = True) -> Evaluation:
    named = tuple(Measure(name=n, value=v, margin=m) for n, v, m in measures)
    return Evaluation(3, by_server, Evaluated(model=MODEL, measures=named, simulated=True, report=None))


def asked(kind: str, limit: str, more: str = "") -> RegistryRules:
    text = f'version = 1\n[canary]\n[[canary.gates]]\nkind = "{kind}"\n{limit}\n{more}'
    return rules(text)


def found(given: RegistryRules, *evaluations: Evaluation) -> Found:
    final, one = check_gates(given.of(Alias.CANARY), evaluations, [], FINAL)
    assert final.passed
    return one


@pytest.mark.parametrize(
    ("value", "margin", "passed", "shown"),
    [
        ("0.9", "0.1", True, "0.8"),
        ("0.9", "0.100000000000000000000001", False, "0.799999999999999999999999"),
        ("0.8", "0", True, "0.8"),
        # The margin of a sloppy author has no sign.
        ("0.8", "-0.1", False, "0.7"),
        ("1", "0.2", True, "0.8"),
    ],
)
def test_a_margin_counts_against_the_model_exactly(value: str, margin: str, passed: bool, shown: str) -> None:
    gate = found(asked("metric", 'measure = "auc"\nat_least = 0.8'), evaluation(("auc", value, margin)))
    assert (gate.passed, gate.found, gate.limit) == (passed, shown, "0.8")


@given(st.decimals(-1000, 1000, places=12), st.decimals(0, 10, places=12), st.floats(-1000, 1000))
def test_a_gate_is_passed_exactly_if_value_less_margin_reaches_it(v: Decimal, m: Decimal, limit: float) -> None:
    given = asked("metric", f'measure = "auc"\nat_least = {limit!r}')
    gate = found(given, evaluation(("auc", format(v, "f"), format(m, "f"))))
    assert gate.passed == (v - m >= Decimal(gate.limit or "nan"))
    assert Decimal(gate.found or "nan") == v - m


def test_the_worst_of_all_evaluations_counts() -> None:
    """Nobody measures until it fits."""
    given = asked("metric", 'measure = "auc"\nat_least = 0.8')
    good, bad = evaluation(("auc", "0.9", "0")), evaluation(("auc", "0.7", "0"))
    assert found(given, good).passed
    assert not found(given, good, bad).passed
    assert not found(given, bad, good).passed


def test_a_site_can_warn_of_a_model_and_not_praise_it() -> None:
    given = asked("metric", 'measure = "auc"\nat_least = 0.8')
    assert "recorded no auc" in found(given, evaluation(("auc", "0.9", "0"), by_server=False)).reason
    server = evaluation(("auc", "0.9", "0"))
    assert found(given, server).passed
    assert not found(given, server, evaluation(("auc", "0.5", "0"), by_server=False)).passed


def test_a_measure_of_another_name_is_none() -> None:
    given = asked("metric", 'measure = "auc"\nat_least = 0.0')
    for name in ("accuracy", "auc~site-1", "gold-set.auc", "au"):
        assert not found(given, evaluation((name, "1", "0"))).passed


def test_the_gold_set_is_another_measure() -> None:
    given = asked("gold-set", 'measure = "accuracy"\nat_least = 0.9')
    assert not found(given, evaluation(("accuracy", "1", "0"))).passed
    gate = found(given, evaluation(("gold-set.accuracy", "0.95", "0.01")))
    assert (gate.kind, gate.passed, gate.found) == (GateKind.GOLD_SET, True, "0.94")


def test_the_worst_subgroup_decides() -> None:
    given = asked("worst-subgroup", 'measure = "auc"\nat_least = 0.6', "subgroups = 3")
    groups = [("auc~a", "0.9", "0"), ("auc~b", "0.65", "0.01"), ("auc~c", "0.8", "0"), ("auc", "0.1", "0")]
    gate = found(given, evaluation(*groups))
    assert (gate.passed, gate.found) == (True, "0.64")
    assert not found(given, evaluation(*groups, ("auc~d", "0.5", "0"))).passed
    assert "2 subgroups" in found(given, evaluation(*groups[:2])).reason
    # A subgroup that only a site has reported may be the worst, and is not one of those that are asked for.
    assert "2 subgroups" in found(given, evaluation(*groups[:2]), evaluation(groups[2], by_server=False)).reason


def test_names_of_subgroups_cannot_be_mistaken() -> None:
    assert measure_name("auc", "site 1/a") == "auc~site%201%2Fa"
    assert measure_name("a~b") == "a%7Eb"


def test_finality() -> None:
    assert log_final(Finality(5, 5, included=True)).passed
    assert "what this rests on goes up to entry 4" in log_final(Finality(4, 5, included=False)).reason
    assert "not the one" in log_final(Finality(5, 5, included=False)).reason


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def epsilon(world: World) -> float | None:
    return largest_epsilon(world.registry.entries.of(names_of(Charged)))


def test_epsilon_is_that_of_the_site_that_was_charged_most(world: World) -> None:
    assert epsilon(world) is None
    world.charge(1, times=2)
    world.charge(2, times=4)
    # dp-accounting's own number for the whole of it.
    assert epsilon(world) == pytest.approx(epsilon_pld(QUIET.event(4), 1e-5), rel=1e-9)
    other = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=0.5, steps=3, releases=2, retries=0)
    world.charge(1, other)
    largest = epsilon(world)
    assert largest is not None
    assert largest > epsilon_pld(QUIET.event(4), 1e-5)


def test_a_population_that_only_tests_does_not_count_and_one_without_privacy_does(world: World) -> None:
    world.charge(1, NoPrivacy(releases=1, retries=0), release="evaluation")
    assert epsilon(world) is None
    # The same persons were trained on as well: now it counts, and there is no bound.
    world.charge(1)
    assert epsilon(world) == float("inf")


@pytest.mark.parametrize(("limit", "passed"), [(0.5, False), (2.0, True)])
def test_the_gate_of_epsilon(world: World, limit: float, passed: bool) -> None:
    given = asked("epsilon", f"at_most = {limit}")
    world.charge(2, times=4)
    _, gate = check_gates(given.of(Alias.CANARY), [], world.registry.entries.of(names_of(Charged)), FINAL)
    assert gate.passed is passed
    assert float(gate.found or "nan") == pytest.approx(epsilon_pld(QUIET.event(4), 1e-5), abs=1e-6)
    world.charge(3, NoPrivacy(releases=1, retries=0))
    _, gate = check_gates(given.of(Alias.CANARY), [], world.registry.entries.of(names_of(Charged)), FINAL)
    assert "without privacy" in gate.reason


def test_a_simulations_scores_count_in_a_simulation_only(tmp_path: Path) -> None:
    for simulated in (True, False):
        folder = tmp_path / str(simulated)
        folder.mkdir()
        world = World(folder, simulated=simulated)
        world.register(MADE)
        assert len(evaluations_of(world.registry.state(), MODEL)) == int(simulated)
        world.evaluate(MADE, Measure(name="auc", value="0.9"), simulated=False)
        assert len(evaluations_of(world.registry.state(), MODEL)) == 1 + int(simulated)


def test_an_evaluation_is_taken_back_by_whoever_said_it(world: World) -> None:
    world.register(MADE)
    index = world.registry.state().evaluations[0].index
    correction = Correction(index=index, by=None, reason=CorrectionReason.ENTRY_ERROR)
    world.site_says(1, correction)
    assert len(world.registry.state().evaluations) == 1
    world.server_says(correction)
    assert world.registry.state().evaluations == ()


# Who has to sign

SETS = st.dictionaries(st.sampled_from(list(Meaning)), st.frozensets(st.sampled_from("abcde")))


@given(
    st.lists(st.tuples(st.sampled_from(list(Meaning)), st.integers(1, 3)), max_size=4, unique_by=lambda t: t[0]), SETS
)
def test_places_are_filled_as_a_search_through_all_ways_fills_them(
    wanted: list[tuple[Meaning, int]], signers: dict[Meaning, frozenset[str]]
) -> None:
    required = tuple(Required(meaning=m, roles=(Role.APPROVER,), persons=n) for m, n in wanted)
    places = [m for m, n in wanted for _ in range(n)]

    def fill(left: list[Meaning], taken: frozenset[str]) -> bool:
        if not left:
            return True
        return any(fill(left[1:], taken | {who}) for who in signers.get(left[0], frozenset()) - taken)

    assert (not unmet(required, signers)) == fill(places, frozenset())


def test_one_person_fills_one_place(world: World) -> None:
    text = """
version = 1
[canary]
not_author = false
[[canary.approvals]]
meaning = "reviewed"
roles = ["approver"]
[[canary.approvals]]
meaning = "approved"
roles = ["approver"]
"""
    world.person("ben", Role.APPROVER)
    world.person("eva", Role.APPROVER)
    world.register(MADE)
    for meaning in (Meaning.REVIEWED, Meaning.APPROVED):
        world.sign(MADE, "ben", meaning, alias=Alias.CANARY)
    registration = world.registry.find(MADE.digest, world.registry.state())
    (reason, _) = world.registry.check(registration, Alias.CANARY, rules(text)).reasons
    assert reason == "different persons have to sign: 1 as reviewed (approver) and 1 as approved (approver); 1 did"
    world.sign(MADE, "eva", Meaning.REVIEWED, alias=Alias.CANARY)
    world.witness()
    world.promote(MADE, Alias.CANARY, text)
    state = world.registry.state()
    assert {a.actor for a in state.approvals} == {actor("ben"), actor("eva")}
    assert state.approvals[0].time == NOW.strftime(TIME_FORMAT)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = 2", "version"),
        ("version = 1\n[prodution]", "Did you mean 'production'?"),
        ('version = 1\n[canary]\n[[canary.gates]]\nkind = "magic"', "canary.gates"),
        ('version = 1\n[canary]\n[[canary.gates]]\nkind = "metric"\nmeasure = "auc"\nat_least = nan', "finite"),
        ("version = 1\n[canary]\norganisations = 2", "organisations are counted"),
        ('version = 1\n[canary]\n[[canary.approvals]]\nmeaning = "approved"\nroles = []', "roles"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "registry.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_rules(tmp_path / "registry.toml")
    assert says in caught.value.explain()
    assert "registry.toml" in caught.value.message
