"""Worlds: a window is a function of seed, site and step; every declared change does what it says and nothing else."""

import pickle
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedseal.errors import ConfigError, DataError, LocalError
from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.tables import WorldTables
from fedseal.simulation.worlds.window import Window, Withdrawal
from fedseal.simulation.worlds.world import World

HEART = Path(__file__).parents[3] / "shared" / "data" / "heart-disease"
GAUSSIANS = """
[population]
source = "generator:gaussians"
sites = 4
rows_per_step = 300
dimensions = 4
classes = 3
"""
SEA = """
[population]
source = "generator:sea"
sites = 10
rows_per_step = 100
"""
DIGITS = """
[population]
source = "sklearn:digits"
sites = 4
"""


def world(text: str, *, steps: int = 6, seed: int = 1, folder: Path | None = None, data: Path | None = None) -> World:
    tables = WorldTables.model_validate(tomllib.loads(text))
    return build_world(tables, steps=steps, seed=seed, folder=folder, data=data)


def same(a: Window, b: Window) -> bool:
    return (
        a.x.tobytes() == b.x.tobytes()
        and a.y.tobytes() == b.y.tobytes()
        and a.observed.tobytes() == b.observed.tobytes()
        and a.persons.tobytes() == b.persons.tobytes()
        and a.consent.tobytes() == b.consent.tobytes()
        and a.ready == b.ready
    )


# Everything at once, on a generator and on a file.
MUCH = """
[[drift]]
kind = "covariate"
op = "shift"
feature = "all"
by = 0.5
when = "gradual@1..3"
where = "staggered=2"
[[drift]]
kind = "covariate"
op = "mix"
by = 0.3
when = "recurring@1/2/.5"
where = "fraction=.5"
[[drift]]
kind = "schema"
op = "unit"
feature = "FEATURE"
by = 2.0
when = "sudden@2"
[[drift]]
kind = "label"
shares = { "0" = 0.5 }
when = "incremental@2..4"
[[label_noise]]
kind = "instance"
rate = 0.2
where = "fraction=.5"
[[missing]]
feature = "all"
mechanism = "mnar"
rate = 0.1
[labels]
delay_steps = 1
annotators = 3
accuracy = [0.9, 0.8, 0.7]
[[consent]]
share = 0.3
at = 3
"""
WORLDS = {
    "gaussians": GAUSSIANS + '[partition]\nkind = "label_dirichlet"\nalpha = 0.5\n' + MUCH.replace("FEATURE", "x1"),
    "digits": DIGITS + MUCH.replace("FEATURE", "pixel_2_2"),
    "resampled": DIGITS + "rows_per_step = 50\nresample = true\n" + MUCH.replace("FEATURE", "pixel_2_2"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_window_is_a_function_of_seed_site_and_step(name: str) -> None:
    first, second = world(WORLDS[name]), pickle.loads(pickle.dumps(world(WORLDS[name])))  # noqa: S301 - our own
    places = [(site, step) for site in range(4) for step in range(6)]
    forward = {place: first.window(*place) for place in places}
    backward = {place: second.window(*place) for place in reversed(places)}
    assert all(same(forward[place], backward[place]) for place in places)
    assert same(first.test(1, 4, 40), second.test(1, 4, 40))
    other = world(WORLDS[name], seed=2)
    assert not any(same(forward[place], other.window(*place)) for place in places)


def test_sites_that_are_added_change_nothing_for_the_others() -> None:
    text = WORLDS["gaussians"]
    few, many = world(text), world(text.replace("sites = 4", "sites = 9"))
    assert many.sites[:4] == few.sites
    for site in range(4):
        for step in range(6):
            assert same(few.window(site, step), many.window(site, step))


def test_a_step_that_is_added_changes_nothing_of_a_generator() -> None:
    short, long = world(WORLDS["gaussians"], steps=5), world(WORLDS["gaussians"], steps=9)
    assert all(same(short.window(s, t), long.window(s, t)) for s in range(4) for t in range(5))


SKEWS: dict[str, str] = {
    "iid": "",
    "label_dirichlet": "alpha = 0.3",
    "labels_per_site": "labels = 3",
    "quantity": 'rule = "dirichlet"\nalpha = 2.0',
    "feature_noise": "sigma = 0.5",
    "concept": 'maps = [{}, { "0" = "1" }]',
    "label_noise": 'noise = "pair"\nrate = 0.4',
    "missing": 'feature = "all"\nmechanism = "mcar"\nrate = 0.4',
}


@pytest.mark.parametrize("kind", SKEWS)
@pytest.mark.parametrize("population", [GAUSSIANS, DIGITS], ids=["gaussians", "digits"])
def test_every_partition_makes_a_world(population: str, kind: str) -> None:
    made = world(f'{population}[partition]\nkind = "{kind}"\n{SKEWS[kind]}\n')
    windows = [Window.joined([made.window(site, step) for step in range(6)]) for site in range(4)]
    assert all(len(window) > 0 for window in windows)
    known = [np.isnan(window.x).mean() for window in windows]
    wrong = [float((window.y != window.observed).mean()) for window in windows]
    if kind == "missing":
        assert known == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.05)
    else:
        assert max(known) == 0.0
    if kind == "label_noise":
        assert wrong == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.07)
    else:
        assert max(wrong) == 0.0
    table = made.class_table(0)
    if kind == "labels_per_site":
        assert ((table > 0).sum(axis=1) == 3).all()
    if kind == "concept":
        assert (table[[1, 3], 0] == 0).all()
        assert (table[[0, 2], 0] > 0).all()


def test_feature_noise_grows_with_the_site_s_number() -> None:
    plain, noisy = world(GAUSSIANS), world(GAUSSIANS + '[partition]\nkind = "feature_noise"\nsigma = 2.0\n')
    added = [noisy.window(s, 0).x - plain.window(s, 0).x for s in range(4)]
    deviations = [float((x / plain.moments.deviation).std()) for x in added]
    assert deviations == pytest.approx([0.5, 1.0, 1.5, 2.0], rel=0.07)


def test_a_file_s_rows_come_once_and_held_out_ones_never() -> None:
    made = world(DIGITS)
    persons = np.concatenate([made.window(site, step).persons for site in range(4) for step in range(6)])
    assert len(np.unique(persons)) == len(persons)
    # A fifth of 1797 rows is held out.
    assert len(persons) == pytest.approx(0.8 * 1797, abs=4)
    held_out = np.concatenate([made.test(site, 0, 500).persons for site in range(4)])
    assert not set(held_out) & set(persons)


def test_persons_of_a_generator_are_unique_in_the_world() -> None:
    made = world(WORLDS["gaussians"])
    persons = np.concatenate([made.window(site, step).persons for site in range(4) for step in range(6)])
    assert len(np.unique(persons)) == len(persons)
    assert (made.test(0, 0, 50).persons < 0).all()


def test_too_few_rows_for_the_steps_are_refused_unless_they_are_drawn_again() -> None:
    with pytest.raises(ConfigError, match=r"has \d+ rows for 500 steps") as caught:
        world(DIGITS, steps=500)
    assert "resample" in caught.value.next_step
    made = world(DIGITS + "rows_per_step = 20\nresample = true\n", steps=500)
    assert len(made.window(3, 499)) == 20


def drifted(text: str, op: str, *, steps: int = 6) -> tuple[World, World]:
    """A world without and with one change from step 3 on, everywhere."""
    return world(text, steps=steps), world(f'{text}[[drift]]\nwhen = "sudden@3"\n{op}\n', steps=steps)


# What each change does to a window, given the window without it and the world.
def shifted(x: NDArray[np.float64], made: World) -> NDArray[np.float64]:
    x[:, 1] += 0.5 * made.moments.deviation[1]
    return x


def scaled(x: NDArray[np.float64], made: World) -> NDArray[np.float64]:
    x[:, 1] = made.moments.mean[1] + 3.0 * (x[:, 1] - made.moments.mean[1])
    return x


def swapped(x: NDArray[np.float64], made: World) -> NDArray[np.float64]:
    return x[:, [2, 1, 0, 3]]


def gone(x: NDArray[np.float64], made: World) -> NDArray[np.float64]:
    x[:, 1] = np.nan
    return x


def converted(x: NDArray[np.float64], made: World) -> NDArray[np.float64]:
    x[:, 1] = 1.8 * x[:, 1] + 32.0
    return x


MOVES: list[tuple[str, Any]] = [
    ('kind = "covariate"\nop = "shift"\nfeature = "x2"\nby = 0.5', shifted),
    ('kind = "covariate"\nop = "scale"\nfeature = "x2"\nby = 3.0', scaled),
    ('kind = "covariate"\nop = "swap"\nfeature = "x1"\nother = "x3"', swapped),
    ('kind = "schema"\nop = "absent"\nfeature = "x2"', gone),
    ('kind = "schema"\nop = "rename"\nfeature = "x2"\nname = "x2_new"', gone),
    ('kind = "schema"\nop = "unit"\nfeature = "x2"\nby = 1.8\noffset = 32.0', converted),
]


@pytest.mark.parametrize(("op", "expected"), MOVES, ids=[op.split("\n")[1] for op, _ in MOVES])
def test_a_change_of_features_changes_them_and_no_label(op: str, expected: Any) -> None:
    plain, changed = drifted(GAUSSIANS, op)
    for step in (2, 3, 5):
        before, after = plain.window(1, step), changed.window(1, step)
        x = expected(before.x.copy(), plain) if step >= 3 else before.x
        assert np.allclose(after.x, x, equal_nan=True)
        assert np.array_equal(after.y, before.y)
    held_out = changed.test(1, 3, 40)
    assert np.allclose(held_out.x, expected(plain.test(1, 3, 40).x, plain), equal_nan=True)


def test_relabelling_changes_labels_and_no_feature() -> None:
    plain, changed = drifted(GAUSSIANS, 'kind = "concept"\nop = "relabel"\nmap = { "0" = "1", "1" = "0" }')
    before, after = plain.window(0, 4), changed.window(0, 4)
    assert np.array_equal(after.x, before.x)
    assert np.array_equal(after.y, np.array([1, 0, 2])[before.y])
    assert np.array_equal(after.observed, after.y)


def test_a_concept_of_a_generator_comes() -> None:
    _, changed = drifted(SEA, 'kind = "concept"\nop = "concept"\nto = 2')
    for step, threshold in ((2, 8.0), (3, 7.0)):
        window = changed.window(0, step)
        assert np.array_equal(window.y, window.x[:, 0] + window.x[:, 1] > threshold)


def test_a_gradual_concept_mixes_rows_and_an_incremental_one_moves_all() -> None:
    change = '[[drift]]\nkind = "concept"\nop = "concept"\nto = 2\nwhen = '
    text = SEA.replace("= 100", "= 4000")
    gradual = world(text + change + '"gradual@1..4"').window(0, 2)
    total = gradual.x[:, 0] + gradual.x[:, 1]
    between = (total > 7) & (total <= 8)
    # At step 2 a half of the rows follow the new threshold.
    assert gradual.y[between].mean() == pytest.approx(0.5, abs=0.1)
    incremental = world(text + change.replace("to = 2", "to = 1") + '"incremental@1..4"').window(0, 2)
    assert np.array_equal(incremental.y, incremental.x[:, 0] + incremental.x[:, 1] > 8.5)


@pytest.mark.parametrize("population", [GAUSSIANS, DIGITS], ids=["gaussians", "digits"])
def test_prevalence_comes_to_its_shares_and_the_others_keep_theirs(population: str) -> None:
    plain, changed = drifted(population, 'kind = "label"\nshares = { "0" = 0.6 }')
    before, after = plain.class_table(3).sum(axis=0), changed.class_table(3).sum(axis=0)
    assert after[0] / after.sum() == pytest.approx(0.6, abs=0.07)
    assert after[1:] / after[1:].sum() == pytest.approx(before[1:] / before[1:].sum(), abs=0.09)
    assert np.array_equal(plain.class_table(2), changed.class_table(2))
    held_out = changed.test(0, 3, 400)
    assert (held_out.y == 0).mean() == pytest.approx(0.6, abs=0.1)


def test_a_mix_brings_rows_of_the_population_and_other_persons() -> None:
    text = GAUSSIANS + '[partition]\nkind = "labels_per_site"\nlabels = 1\n'
    _, changed = drifted(text, 'kind = "covariate"\nop = "mix"\nby = 0.6')
    before, after = changed.class_table(2), changed.class_table(3)
    assert ((before > 0).sum(axis=1) == 1).all()
    # Of the 60 % from elsewhere two thirds are of another class.
    assert 1 - after.max(axis=1) / after.sum(axis=1) == pytest.approx(np.full(4, 0.4), abs=0.1)
    persons = np.concatenate([changed.window(s, t).persons for s in range(4) for t in range(6)])
    assert len(np.unique(persons)) == len(persons)


def test_participation_multiplies_rows_or_takes_them_all() -> None:
    op = 'kind = "participation"\nwhere = ["site-2"]\nby = '
    _, five = drifted(GAUSSIANS, op + "5.0")
    assert [len(five.window(site, 3)) for site in range(4)] == [300, 1500, 300, 300]
    _, none = drifted(GAUSSIANS, op + "0.0")
    assert len(none.window(1, 3)) == 0
    assert len(none.test(1, 3, 50)) == 50
    _, half = drifted(DIGITS, op + "0.5")
    assert len(half.window(1, 3)) == pytest.approx(len(half.window(1, 2)) / 2, abs=1)
    with pytest.raises(ConfigError, match="no further rows"):
        drifted(DIGITS, op + "2.0")


def test_noise_and_gaps_touch_what_is_recorded_and_not_the_truth() -> None:
    extra = '[[label_noise]]\nkind = "symmetric"\nrate = 0.3\nwhere = ["site-1"]\nwhen = "sudden@2"\n'
    extra += '[[missing]]\nfeature = "x1"\nmechanism = "mar"\ndriver = "x2"\nrate = 0.4\nwhere = ["site-2"]\n'
    plain, noisy = world(GAUSSIANS), world(GAUSSIANS + extra)
    assert np.array_equal(noisy.window(0, 2).y, plain.window(0, 2).y)
    assert (noisy.window(0, 2).observed != noisy.window(0, 2).y).mean() == pytest.approx(0.3, abs=0.1)
    assert same(noisy.window(0, 1), plain.window(0, 1))
    gap = np.isnan(noisy.window(1, 0).x[:, 0])
    driver = noisy.window(1, 0).x[:, 1]
    assert gap.mean() == pytest.approx(0.4, abs=0.1)
    assert driver[gap].mean() > driver[~gap].mean() + 0.5
    assert same(noisy.window(2, 0), plain.window(2, 0))


def test_a_whole_column_may_be_absent_at_a_site() -> None:
    made = world(GAUSSIANS + '[[missing]]\nfeature = "x1"\nmechanism = "absent"\nwhere = ["site-3"]\n')
    assert np.isnan(made.window(2, 0).x).mean(axis=0).tolist() == [1, 0, 0, 0]


def test_a_majority_of_annotators_is_right_as_often_as_it_should_be() -> None:
    accuracy = (0.9, 0.8, 0.7)
    text = SEA.replace("= 100", "= 20000") + f"[labels]\nannotators = 3\naccuracy = {list(accuracy)}\n"
    window = world(text).window(0, 0)
    a, b, c = accuracy
    right = a * b * c + a * b * (1 - c) + a * (1 - b) * c + (1 - a) * b * c
    assert (window.observed == window.y).mean() == pytest.approx(right, abs=0.01)


def test_of_annotators_who_all_differ_the_first_is_recorded() -> None:
    """Three classes and a first annotator who is never wrong: a tie of three goes to it."""
    made = world(GAUSSIANS + "[labels]\nannotators = 2\naccuracy = [1.0, 0.0]\n")
    assert np.array_equal(made.window(0, 0).observed, made.window(0, 0).y)


def test_labels_are_ready_late_and_training_waits_for_them() -> None:
    made = world(GAUSSIANS + "[labels]\ndelay_steps = 2\n")
    assert made.window(0, 3).ready == 5
    assert len(made.training(0, 1, last=3)) == 0
    assert made.training(0, 1, last=3).x.shape == (0, 4)
    known = made.training(0, 4, last=4)
    assert np.array_equal(known.persons, np.concatenate([made.window(0, 1).persons, made.window(0, 2).persons]))


@pytest.mark.parametrize("name", ["gaussians", "resampled"])
def test_who_withdraws_disappears_from_later_training(name: str) -> None:
    text = WORLDS[name].replace("delay_steps = 1", "delay_steps = 0")
    made = world(text)
    assert len(made.withdrawn(2)) == 0
    gone = set(made.withdrawn(3))
    known = {p for site in range(4) for step in range(3) for p in made.window(site, step).persons}
    assert gone <= known
    assert len(gone) / len(known) == pytest.approx(0.3, abs=0.05)
    assert gone == set(made.withdrawn(5))
    for site in range(4):
        before, after = made.training(site, 2, last=3), made.training(site, 3, last=4)
        assert not set(after.persons) & gone
        assert set(before.persons) & gone
        assert all(made.window(site, 2).consent)
        now = made.window(site, 4)
        assert np.array_equal(~now.consent, np.isin(now.persons, list(gone)))
    # With resampling persons come again, and some of those who do have withdrawn.
    assert made.window(0, 4).consent.all() == (name == "gaussians")


def test_a_person_s_coin_is_the_same_in_any_company() -> None:
    withdrawal = Withdrawal(share=0.25, at=1, sites=frozenset({0}), key=12345)
    persons = np.arange(-20_000, 20_000, dtype=np.int64)
    coins = withdrawal.of(persons)
    assert coins.mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(withdrawal.of(persons[::7]), coins[::7])
    assert abs(float(np.corrcoef(coins[1:], coins[:-1])[0, 1])) < 0.02
    assert not np.array_equal(Withdrawal(0.25, 1, frozenset({0}), 12346).of(persons), coins)


TIMES = ["always", "sudden@2", "gradual@2..4", "recurring@1/3/.4", "incremental@2..4"]


@pytest.mark.parametrize("where", ["all", "fraction=.4", "staggered=3"])
@pytest.mark.parametrize("when", TIMES)
def test_the_truth_says_which_change_holds_where_and_since_when(when: str, where: str) -> None:
    """Against a search back through the levels, step by step."""
    text = f'{SEA}[[drift]]\nkind = "covariate"\nop = "shift"\nfeature = "x1"\nby = 1.0\nwhen = "{when}"\n'
    made = world(text + f'where = "{where}"\n', steps=9)
    course = made.changes[0].course
    for step in range(9):
        told = {
            site: (level, entry.start)
            for entry in made.truth(step)
            for site, level in zip(entry.sites, entry.levels, strict=True)
        }
        for site in range(10):
            level = course.level(site, step)
            assert (site in told) == (level > 0)
            if level > 0:
                start = step
                while start > 0 and course.level(site, start - 1) > 0:
                    start -= 1
                assert told[site] == (level, start)
    if where == "fraction=.4":
        assert {site for entry in made.truth(8) for site in entry.sites} <= set(course.delays)
        assert len(course.delays) == 4


def test_noise_and_gaps_are_part_of_the_truth() -> None:
    made = world(WORLDS["gaussians"])
    kinds = {(entry.table, entry.kind, entry.op) for entry in made.truth(4)}
    assert ("label_noise", "label_noise", "instance") in kinds
    assert ("missing", "missing", "mnar") in kinds
    assert ("drift", "label", "prevalence") in kinds


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_matrix_says_the_concept_of_every_site_and_step(name: str) -> None:
    made = world(f'{SEA}[[drift]]\nkind = "concept"\nop = "concept"\nwhen = "matrix={name}.cp"\n', steps=12)
    matrix = made.changes[0].course.matrix
    assert matrix is not None
    assert matrix.shape == (12, 10)
    assert not matrix[0].any()
    for site in range(10):
        for step in range(12):
            window = made.window(site, step)
            threshold = (8.0, 9.0, 7.0, 9.5)[matrix[step, site]]
            assert np.array_equal(window.y, window.x[:, 0] + window.x[:, 1] > threshold)
    for entry in made.truth(11):
        for site in entry.sites:
            assert len(set(matrix[entry.start :, site])) == 1
            assert entry.start == 0 or matrix[entry.start - 1, site] != matrix[entry.start, site]


def test_a_matrix_of_one_s_own_is_read_and_its_mistakes_are_named(tmp_path: Path) -> None:
    text = f'{SEA.replace("10", "2", 1)}[[drift]]\nkind = "concept"\nop = "concept"\nwhen = "matrix=m.cp"\n'
    (tmp_path / "m.cp").write_text("# two sites\n0, 0\n0 1\n2 1\n", encoding="utf-8")
    assert world(text, steps=3, folder=tmp_path).changes[0].course.level(1, 1) == 1.0
    with pytest.raises(ConfigError, match="3 rows, but there are 4 steps"):
        world(text, steps=4, folder=tmp_path)
    for content, sentence in (
        ("0 0\n0 -1\n", "m.cp:2: concepts are whole numbers"),
        ("0 0\n0\n", "m.cp:2: 1 numbers"),
        ("0 0 0\n", "3 columns, but there are 2 sites"),
        ("0 4\n", "concept 4 does not exist"),
        ("# nothing\n", "has no rows"),
    ):
        (tmp_path / "m.cp").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=sentence):
            world(text, steps=1, folder=tmp_path)
    with pytest.raises(ConfigError, match="there is no change-point matrix"):
        world(text, steps=1)


DRIFT = '[[drift]]\nwhen = "sudden@1"\n'
IMPOSSIBLE = [
    (GAUSSIANS + '[partition]\nkind = "natural"\ncolumn = "a"\n', "a generator has none"),
    (DIGITS + '[partition]\nkind = "natural"\ncolumn = "a"\n', "no column 'a' to spread by"),
    (DIGITS + '[partition]\nkind = "concept"\nconcepts = [0, 1]\n', "no concepts to choose from"),
    (DIGITS + DRIFT + 'kind = "concept"\nop = "concept"\nto = 1\n', "needs a generator"),
    (DIGITS + DRIFT + 'kind = "concept"\nop = "threshold"\nby = 1.0\n', "made of grades"),
    (SEA + DRIFT + 'kind = "concept"\nop = "concept"\nto = 4\n', "has 0 to 3"),
    (SEA + '[partition]\nkind = "concept"\nconcepts = [0, 7]\n', "has 0 to 3"),
    (SEA + DRIFT + 'kind = "covariate"\nop = "shift"\nby = 1.0\nfeature = "age"\n', "no feature 'age'"),
    (SEA + DRIFT + 'kind = "label"\nshares = { up = 0.5 }\n', "no class 'up'"),
    (SEA + DRIFT + 'kind = "label"\nshares = { below = 0.5, above = 0.1 }\n', "have to be 1"),
    (SEA + DRIFT + 'where = ["mars"]\nkind = "participation"\nby = 2.0\n', "'mars', which is no site"),
    (SEA + '[[label_noise]]\nrate = 0.1\nwhen = "sudden@6"\n', "never comes: the last step is 5"),
    (
        SEA.replace("sea", "agrawal")
        + '[[drift]]\nwhen = "incremental@1..3"\nkind = "concept"\nop = "concept"\nto = 1\n',
        "no concepts between",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), IMPOSSIBLE)
def test_what_a_population_cannot_do_is_refused_before_anything_runs(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        world(text)


def test_a_class_that_a_concept_hardly_makes_is_named() -> None:
    text = SEA.replace("sea", "stagger") + "noise = 0.0\n" + '[[drift]]\nkind = "label"\nwhen = "always"\n'
    made = world(text + "shares = { positive = 0.9 }\n")
    assert (made.window(0, 0).y == 1).mean() == pytest.approx(0.9, abs=0.1)


def test_no_such_site_or_step_is_our_own_mistake() -> None:
    made = world(SEA)
    for site, step in ((10, 0), (0, 6), (-1, 0)):
        with pytest.raises(LocalError):
            made.window(site, step)


def test_noise_of_a_generator_is_part_of_the_truth() -> None:
    made = world(SEA.replace("= 100", "= 5000") + "noise = 0.1\n", seed=0).window(0, 0)
    assert (made.y != (made.x[:, 0] + made.x[:, 1] > 8.0)).mean() == pytest.approx(0.1, abs=0.015)


CSV = "age,income,city,ill\n" + "".join(f"{20 + i % 50},{i * 7 % 90}.5,{'abc'[i % 3]},{i % 4}\n" for i in range(120))


def test_a_csv_is_spread_by_a_column_and_its_grades_can_move(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(CSV, encoding="utf-8")
    text = '[population]\nsource = "csv"\npath = "people.csv"\nlabel = "ill"\nthreshold = 2\n'
    text += '[partition]\nkind = "natural"\ncolumn = "city"\n'
    text += '[[drift]]\nkind = "concept"\nop = "threshold"\nby = 1.0\nwhen = "sudden@2"\n'
    made = world(text, steps=4, folder=tmp_path)
    assert made.sites == ("a", "b", "c")
    assert made.features == ("age", "income")
    assert made.classes == ("negative", "positive")
    share = [float(np.mean([made.window(s, t).y.mean() for s in range(3)])) for t in range(4)]
    assert np.mean(share[:2]) == pytest.approx(0.5, abs=0.12)
    assert np.mean(share[2:]) == pytest.approx(0.25, abs=0.12)


def test_a_folder_of_tables_is_a_site_each_and_nobody_is_at_two(tmp_path: Path) -> None:
    lines = CSV.splitlines()
    for number, name in enumerate(("north", "south")):
        part = [lines[0], *lines[1 + number :: 2]]
        (tmp_path / f"{name}.csv").write_text("\n".join(part) + "\n", encoding="utf-8")
    text = f'[population]\nsource = "tables"\npath = "{tmp_path}"\nlabel = "ill"\n'
    made = world(text, steps=3)
    assert made.sites == ("north", "south")
    assert made.classes == ("0", "1", "2", "3")
    with pytest.raises(DataError, match="at two sites"):
        world(text + 'person = "city"\n', steps=3)
    with pytest.raises(DataError, match="there is no column 'sick'"):
        world(text.replace('"ill"', '"sick"'), steps=3)


def test_heart_needs_its_folder() -> None:
    with pytest.raises(ConfigError, match="needs the folder"):
        world('[population]\nsource = "heart"\n')


@pytest.mark.skipif(not HEART.is_dir(), reason="needs the four files of the UCI heart disease data")
def test_heart_is_four_hospitals_with_their_real_gaps() -> None:
    text = '[population]\nsource = "heart"\n[partition]\nkind = "natural"\ncolumn = "hospital"\n'
    made = world(text, steps=1, data=HEART)
    assert made.sites == ("cleveland", "hungarian", "switzerland", "va")
    rows = [len(made.window(site, 0)) for site in range(4)]
    # Four fifths of 303, 294, 123 and 200.
    assert rows == pytest.approx([242, 235, 98, 160], abs=1)
    gaps = np.array([np.isnan(made.window(site, 0).x).mean(axis=0) for site in range(4)])
    assert gaps[0].max() < 0.05
    assert gaps[2, made.features.index("cholesterol")] == 1.0
    assert gaps[1, made.features.index("vessels")] > 0.9
