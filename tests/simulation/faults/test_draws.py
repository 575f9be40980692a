"""Which faults strike whom: as the tables say, keyed by fault, site and round."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.config import validate
from fedseal.errors import ConfigError
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.faults.attacks import Attack, Lie, attacked, flipped_labels
from fedseal.simulation.faults.draws import RoundFaults, faults_of_round, struck
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.virtual.rounds import Disturbance

NAMES = tuple(f"site-{i}" for i in range(1, 10))


def of_round(*tables: dict[str, Any], number: int = 1, seed: int = 1) -> RoundFaults:
    return faults_of_round([Fault.model_validate(table) for table in tables], NAMES, number, seed)


def test_every_kind_is_where_its_table_says() -> None:
    found = of_round(
        {"where": ["site-1"], "stage": "consistency"},
        {"where": ["site-2"], "stage": "before_round"},
        {"where": ["site-3"], "stage": "after_train"},
        {"where": ["site-4"], "kind": "lost", "stage": "unmask"},
        {"where": ["site-5"], "kind": "slow", "seconds": 7.0},
        {"where": ["site-6"], "kind": "byzantine", "attack": "scale:-10"},
        {"where": ["site-6"], "kind": "byzantine", "attack": "wrong_share"},
        {"where": ["site-7"], "kind": "restored_backup", "at": "round:1"},
        {"kind": "server_crash", "at": "round:1", "stage": "unmask"},
    )
    assert found.silent == {0: Stage.CONSISTENCY, 1: Stage.ADVERTISE, 2: Stage.CONSISTENCY}
    assert found.lost == {(2, Stage.MASK)} and found.lost_once == {(3, Stage.UNMASK)}
    assert found.delays == {(4, Stage.MASK): 7.0}
    assert found.attacks == {5: (Attack(Lie.SCALE, factor=-10.0), Attack(Lie.WRONG_SHARE, Stage.SHARE))}
    assert found.restored == {6: Stage.ADVERTISE} and found.crash == "unmask"


def test_of_two_dropouts_the_earlier_one_holds() -> None:
    tables = [{"where": ["site-1"], "stage": stage} for stage in ("unmask", "share_keys", "consistency")]
    assert of_round(*tables).silent == {0: Stage.SHARE}


def test_a_round_in_virtual_time_has_what_the_server_would_refuse_at_once_as_lost() -> None:
    found = of_round(
        {"where": ["site-1"], "kind": "byzantine", "attack": "replay", "stage": "consistency"},
        {"where": ["site-2"], "kind": "byzantine", "attack": "wrong_share", "stage": "unmask"},
        {"where": ["site-3"], "kind": "byzantine", "attack": "sign_flip"},
        {"where": ["site-4"], "kind": "slow", "seconds": 2.0, "stage": "advertise"},
    ).disturbance()
    assert found.lost == {(0, Stage.CONSISTENCY), (1, Stage.UNMASK)}
    assert found.delays == {(3, Stage.ADVERTISE): 2.0}
    assert found.of_attempt(1) == Disturbance(lost=found.lost)


def test_rounds_outside_are_quiet() -> None:
    table = {"where": ["site-1"], "at": "rounds:3-4"}
    assert [bool(of_round(table, number=n).silent) for n in (2, 3, 4, 5)] == [False, True, True, False]
    once = {"where": ["site-1"], "kind": "restored_backup", "at": "rounds:3-5"}
    assert [bool(of_round(once, number=n).restored) for n in (2, 3, 4)] == [False, True, False]


def test_a_count_is_exact_and_drawn_anew_every_round() -> None:
    fault, sets = Fault(count=3), set()
    for number in range(1, 60):
        hit = struck(fault, 0, NAMES, number, 1)
        assert len(hit) == 3 and hit == sorted(hit)
        sets.add(tuple(hit))
    assert len(sets) > 20
    assert struck(Fault(count=99), 0, NAMES, 1, 1) == list(range(9))
    assert len(struck(Fault(count=2, where=("site-2", "site-5", "site-7")), 0, NAMES, 1, 1)) == 2


def test_a_probability_is_kept() -> None:
    hits = sum(len(struck(Fault(prob=0.1), 0, NAMES, number, 1)) for number in range(1, 1001))
    # Four standard deviations of 9,000 coins.
    assert hits == pytest.approx(900, abs=4 * (9000 * 0.09) ** 0.5)
    assert struck(Fault(prob=1.0), 0, NAMES, 1, 1) == list(range(9))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 100), more=st.integers(1, 5), prob=st.floats(0.05, 1.0))
def test_a_site_more_leaves_the_others_tosses(seed: int, number: int, more: int, prob: float) -> None:
    fault = Fault(prob=prob)
    names = (*NAMES, *(f"new-{i}" for i in range(more)))
    before, after = struck(fault, 2, NAMES, number, seed), struck(fault, 2, names, number, seed)
    assert [site for site in after if site < len(NAMES)] == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "say which sites"),
        ({"count": 1, "prob": 0.5}, "exclude each other"),
        ({"count": 0}, "count"),
        ({"prob": 0.0}, "prob"),
        ({"kind": "byzantine", "count": 1}, "has an attack"),
        ({"attack": "nan", "count": 1}, "has an attack"),
        ({"kind": "byzantine", "count": 1, "attack": "scale"}, "attack"),
        ({"kind": "byzantine", "count": 1, "attack": "wrong_share", "stage": "masked_input"}, "dealt at"),
        ({"kind": "slow", "count": 1}, "by how many seconds"),
        ({"kind": "server_crash"}, "has to say when"),
        ({"kind": "server_crash", "at": "round:0"}, "at"),
        ({"kind": "server_crash", "at": "round:2", "count": 1}, "no where"),
        ({"kind": "restored_backup", "count": 1, "at": "round:2", "backup": 3}, "before it is put back"),
        ({"count": 1, "at": "rounds:4-3"}, "are none"),
        ({"count": 1, "stages": "unmask"}, "unknown key"),
        ({"count": 1, "stage": "mask"}, "stage"),
    ],
)
def test_tables_that_say_nothing_sensible(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Fault, table, text="[[fault]]", source="s.toml", where=("fault",))


def test_an_unknown_site_is_named() -> None:
    with pytest.raises(ConfigError, match="fault 2 names site 'site-99'") as caught:
        of_round({"count": 1}, {"where": ["site-99"]})
    assert "site-1, site-2" in caught.value.next_step


# What a lie makes of an update and of labels.


def test_updates_by_hand() -> None:
    update = np.array([1.0, -2.0, 0.5])
    assert attacked(update, (Attack(Lie.SIGN_FLIP),)).tolist() == [-1.0, 2.0, -0.5]
    assert attacked(update, (Attack(Lie.SCALE, factor=10.0), Attack(Lie.SIGN_FLIP))).tolist() == [-10.0, 20.0, -5.0]
    assert np.isnan(attacked(update, (Attack(Lie.NAN),))).all()
    assert attacked(update, (Attack(Lie.REPLAY), Attack(Lie.LABEL_FLIP))).tolist() == update.tolist()
    assert update.tolist() == [1.0, -2.0, 0.5]


def test_labels_turned_round_twice_are_as_they_were() -> None:
    labels, classes = np.array(["b", "a", "c", "a"]), np.array(["c", "a", "b"])
    flipped = flipped_labels(labels, classes)
    assert flipped.tolist() == ["b", "c", "a", "c"]
    assert flipped_labels(flipped, classes).tolist() == labels.tolist()
