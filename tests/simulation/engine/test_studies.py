"""A sealed study is the same to the last bit in whichever processes its sites run."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from support.studies import material, tiny

from fedseal.errors import ConfigError, FedsealError
from fedseal.privacy.store import SiteStore
from fedseal.simulation.engine import processes
from fedseal.simulation.engine.processes import Processes
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.simulate import Options, Progress, resolve, simulate
from fedseal.simulation.training import Trained, train
from fedseal.study import Study

SHORT = {"rounds": 2}
PRIVATE = tiny(training=SHORT)
PLAIN = tiny(training=SHORT, privacy={"plan": "none"})


def trained(study: Study, folder: Path, where: Processes) -> Trained:
    gathered = replace(material(study, folder / "data"), processes=where)
    return train(gathered, study.contract, folder / "federation")


def same(one: Trained, other: Trained) -> bool:
    """The model, and what was measured and charged in each round."""
    assert one.model.keys() == other.model.keys()
    model = all(one.model[name].tobytes() == other.model[name].tobytes() for name in one.model)
    rounds = [(r.record.metrics, r.judged, r.epsilon) for r in one.rounds]
    return model and rounds == [(r.record.metrics, r.judged, r.epsilon) for r in other.rounds]


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_model_metrics_and_charges(tmp_path: Path) -> None:
    one = trained(PRIVATE, tmp_path / "0", Processes())
    for workers in (2, 4):
        other = trained(PRIVATE, tmp_path / str(workers), Processes(workers))
        assert same(one, other)
        assert other.privacy == one.privacy


@pytest.mark.slow
def test_another_seed_does_not(tmp_path: Path) -> None:
    """The twin: what `same` compares does differ between runs."""
    one = trained(PRIVATE, tmp_path / "0", Processes(2))
    gathered = replace(material(PRIVATE, tmp_path / "data", seed=6), processes=Processes(2))
    assert not same(one, train(gathered, PRIVATE.contract, tmp_path / "1"))


def test_why_a_site_refused_is_found_in_its_store_whoever_wrote_there(tmp_path: Path) -> None:
    gathered = replace(material(PLAIN, tmp_path / "data"), processes=Processes(2))
    for name in gathered.data:
        (gathered.data[name] / "persons.csv").unlink()
    with pytest.raises(FedsealError, match="refused"):
        train(gathered, PLAIN.contract, tmp_path / "federation")
    stores = sorted((tmp_path / "federation").glob("*.sqlite"))
    with SiteStore.open(stores[0]).transaction() as transaction:
        assert transaction.incidents()


def test_what_cannot_be_started_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one worker"):
        Processes(0)
    assert resolve(PLAIN.contract, Options(workers=3)) == PLAIN.contract


def test_the_options_of_a_simulation_decide_where_its_sites_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: Progress
) -> None:
    def counted(client_app: ClientApp, count: int) -> Workers:
        raise ConfigError(f"{count} were asked for")

    monkeypatch.setattr(processes, "Workers", counted)
    with pytest.raises(ConfigError, match="3 were asked for"):
        simulate(PLAIN, Options(baselines=False, workers=3), tmp_path, progress)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Ray is not installed") as caught:
        trained(PLAIN, tmp_path, Processes(ray=True))
    assert 'pip install "fedseal[ray]"' in caught.value.next_step


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_flowers_ray_engine_gives_the_same_model(tmp_path: Path) -> None:
    one = trained(PLAIN, tmp_path / "local", Processes())
    other = trained(PLAIN, tmp_path / "ray", Processes(2, ray=True))
    for name, array in one.model.items():
        np.testing.assert_array_equal(other.model[name], array)
    assert [r.judged for r in one.rounds] == [r.judged for r in other.rounds]
