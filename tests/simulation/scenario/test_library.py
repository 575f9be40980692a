"""The library: every scenario's gates hold, its figures are those recorded, and workers change no digest."""

from pathlib import Path

import pytest
from support.scenarios import run

from fedseal.simulation.scenario.execute import Finished, Sources, execute
from fedseal.simulation.scenario.files import library, load
from fedseal.simulation.scenario.golden import Recorded, departures, figures, here, read
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.runner import Silent
from fedseal.simulation.scenario.setting import checked
from fedseal.simulation.scenario.sweep import single

HEART = Path(__file__).parents[5] / "shared" / "data" / "heart-disease"
QUICK = ("iid-digits", "sudden-global", "dropout-below-threshold", "straggler")
INVARIANT = ("noisy-labels", "prevalence-shift", "feature-noise")


def data(scenario: Scenario) -> Path | None:
    """The folder of files that a scenario needs; the test is left out where it is not there."""
    if scenario.population.source != "heart":
        return None
    if not HEART.is_dir():
        pytest.skip("the hospitals' files are not here")
    return HEART


def finished(name: str, folder: Path) -> Finished:
    scenario = load(name)
    return execute(single(scenario), Sources(library()[name].parent, data(scenario)), folder, Silent())


def test_there_are_at_least_thirty_and_each_has_golden_figures() -> None:
    assert len(library()) >= 30
    assert [name for name in library() if read(name) is None] == []
    assert [load(name).scenario.name for name in library()] == list(library())
    assert all(load(name).scenario.title for name in library())


def test_every_scenario_can_be_made() -> None:
    for name, path in library().items():
        scenario = load(name)
        if scenario.population.source == "heart" or scenario.swept:
            continue
        sites, features, classes, runs = checked(scenario, path.parent)
        assert (sites >= 2, features >= 1, classes >= 2, runs) == (True, True, True, 1), name


def check(name: str, folder: Path) -> None:
    """Gates, golden figures, and where it was recorded the very digest."""
    golden, result = read(name), finished(name, folder).result
    assert golden is not None
    assert [gate.gate for gate in result.gates if not gate.passed] == []
    assert departures(golden, result) == []
    assert golden.scenario_sha256 == result.scenario_sha256, "record the golden figures anew"
    if golden.where == here():
        assert golden.digest == result.digest


@pytest.mark.quick("iid-digits", "sudden-global")
@pytest.mark.parametrize("name", QUICK)
def test_golden_figures_of_a_few(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in library() if name not in QUICK])
def test_golden_figures_of_all_others(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


def test_golden_figures_can_fail(tmp_path: Path) -> None:
    golden = read("iid-digits")
    assert golden is not None
    result = run(single(load("noisy-labels")), tmp_path / "run", baselines=False)
    moved = {departure.metric for departure in departures(golden, result)}
    assert {"accuracy.global", "loss.global", "rounds"} <= moved
    same = Recorded(scenario="x", scenario_sha256="", metrics=figures(result), digest="")
    assert departures(same, result) == []


def workers_agree(name: str, folder: Path, counts: tuple[int, ...]) -> None:
    scenario = single(load(name))
    where = data(scenario)
    if where is not None:
        pytest.skip("needs files")
    digests = {run(scenario, folder / str(n), workers=n, baselines=False).digest for n in counts}
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", INVARIANT)
def test_workers_change_no_digest(name: str, tmp_path: Path) -> None:
    workers_agree(name, tmp_path, (1, 2, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in library() if name not in INVARIANT])
def test_workers_change_no_digest_of_all_others(name: str, tmp_path: Path) -> None:
    workers_agree(name, tmp_path, (1, 2, 4))
