"""Whatever a world's tables say: windows repeat, persons are one each, sites and truth do not contradict."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.tables import WorldTables
from fedseal.simulation.worlds.world import World

STEPS, SITES = 5, 3
WHENS = ["always", "sudden@2", "gradual@1..3", "recurring@0/2/.5"]
BY_DEGREES = [*WHENS, "incremental@0..4"]
WHERES: list[Any] = ["all", "fraction=.5", "staggered=1", ["site-2"]]


def change(kind: str, op: str, whens: list[str], **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    fixed = {"kind": st.just(kind), "op": st.just(op)}
    return st.fixed_dictionaries({**fixed, "when": st.sampled_from(whens), "where": st.sampled_from(WHERES), **keys})


feature = st.sampled_from(["x1", ["x1", "x3"], "all"])
drifts = st.one_of(
    change("covariate", "shift", BY_DEGREES, feature=feature, by=st.floats(-2, 2)),
    change("covariate", "scale", BY_DEGREES, feature=feature, by=st.floats(0.1, 3)),
    change("covariate", "mix", BY_DEGREES, by=st.floats(0.1, 1)),
    change("covariate", "swap", WHENS, feature=st.just("x1"), other=st.just("x2")),
    change("label", "prevalence", BY_DEGREES, shares=st.just({"0": 0.7})),
    change("concept", "relabel", WHENS, map=st.just({"0": "1"})),
    change("concept", "concept", BY_DEGREES, to=st.integers(0, 3)),
    change("schema", "absent", WHENS, feature=feature),
    change("schema", "unit", WHENS, feature=feature, by=st.just(2.0), offset=st.just(1.0)),
    change("participation", "rows", BY_DEGREES, by=st.sampled_from([0.0, 0.5, 3.0])),
)
noises = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["symmetric", "pair", "instance"]),
        "rate": st.floats(0.01, 1),
        "when": st.sampled_from(BY_DEGREES),
        "where": st.sampled_from(WHERES),
    }
)
gaps = st.sampled_from(
    [
        {"feature": "x1", "mechanism": "mcar", "rate": 0.3},
        {"feature": ["x1", "x2"], "mechanism": "mar", "rate": 0.3, "driver": "x3", "when": "gradual@1..3"},
        {"feature": "all", "mechanism": "mnar", "rate": 0.3, "where": ["site-1"]},
        {"feature": "x2", "mechanism": "absent", "when": "sudden@3"},
    ]
)
partitions = st.sampled_from(
    [
        {"kind": "iid"},
        {"kind": "label_dirichlet", "alpha": 0.2},
        {"kind": "labels_per_site", "labels": 2},
        {"kind": "quantity", "rule": "dirichlet", "alpha": 0.5},
        {"kind": "concept", "concepts": [0, 2]},
    ]
)
worlds = st.fixed_dictionaries(
    {
        "partition": partitions,
        "drift": st.lists(drifts, max_size=4),
        "label_noise": st.lists(noises, max_size=2),
        "missing": st.lists(gaps, max_size=2),
        "labels": st.sampled_from([{}, {"delay_steps": 1}, {"annotators": 2, "accuracy": [0.9, 0.6]}]),
        "consent": st.sampled_from([[], [{"share": 0.5, "at": 2}, {"share": 0.2, "at": 4, "where": ["site-1"]}]]),
    }
)


def made(tables: dict[str, Any], seed: int, sites: int) -> World:
    population = {"source": "generator:gaussians", "sites": sites, "rows_per_step": 25, "dimensions": 3, "classes": 3}
    return build_world(WorldTables.model_validate({"population": population, **tables}), steps=STEPS, seed=seed)


@settings(max_examples=30, deadline=None)
@given(tables=worlds, seed=st.integers(0, 2**63 - 1), site=st.integers(0, SITES - 1), step=st.integers(0, STEPS - 1))
def test_any_world_keeps_its_promises(tables: dict[str, Any], seed: int, site: int, step: int) -> None:
    world, larger = made(tables, seed, SITES), made(tables, seed, SITES + 2)
    windows = [[world.window(i, t) for t in range(STEPS)] for i in range(SITES)]
    again = larger.window(site, step)
    here = windows[site][step]
    assert here.x.tobytes() == again.x.tobytes()
    assert here.observed.tobytes() == again.observed.tobytes()
    assert here.persons.tobytes() == again.persons.tobytes()
    persons = np.concatenate([w.persons for own in windows for w in own])
    assert len(np.unique(persons)) == len(persons)
    for window in (here, world.test(site, step, 10)):
        assert set(window.y) | set(window.observed) <= {0, 1, 2}
        assert len(window.x) == len(window.y) == len(window.observed) == len(window.persons) == len(window.consent)
    active = world.truth(step)
    assert all(entry.start <= step and min(entry.levels) > 0 for entry in active)
    if not any(site in entry.sites for entry in active) and "annotators" not in tables["labels"]:
        # Where nothing holds, nothing was done: the window of a world that only has this partition.
        still = made({"partition": tables["partition"]}, seed, SITES).window(site, step)
        assert np.array_equal(here.x, still.x)
        assert np.array_equal(here.observed, still.y)
    gone = set(world.withdrawn(step))
    assert gone <= {p for own in windows for w in own[:step] for p in w.persons}
    known = world.training(site, step, last=STEPS)
    assert not set(known.persons) & gone
    assert set(known.persons) <= {p for w in windows[site][: step + 1] for p in w.persons}
