"""Sites' own models in a simulation: fine-tuned through the whole deployed path, and what the oracle says of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from pydantic import ValidationError
from support.doors import walk
from support.studies import tiny

from fedseal.client import personal, remembered
from fedseal.client.facts import ReleaseStreams
from fedseal.client.metrics import measure, pooled
from fedseal.client.site_round import fine_tune
from fedseal.client.task import build_model
from fedseal.client.trainer import load
from fedseal.client.work import SiteWork
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.store import SiteStore
from fedseal.server import personalised
from fedseal.server.app import task_settings
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.grid import Deliver
from fedseal.simulation.population import gather
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.simulate import prepared_material
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, Trained, train
from fedseal.study import WITHOUT_ONE_MODEL, Study

NONE = {"plan": "none"}
TUNED = {"personalise": "finetune", "personal_steps": 4, "personal_learning_rate": 0.3}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


def material_of(study: Study, folder: Path) -> Material:
    population = gather(study, data=None, sites=4, seed=5)
    return prepared_material(study, population, folder / "data", 5)


def trained(folder: Path, deliver: Deliver | None = None, **changes: Any) -> tuple[Material, Trained]:
    study = tiny(privacy=NONE, training=changes)
    material = material_of(study, folder)
    where = folder / "federation"
    return material, train(material, study.contract, where, rounding=Rounding.NEAREST, deliver=deliver)


def walked(app: ClientApp, message: Message, context: Context) -> Message:
    """Every answer of a site goes through the walker of all that leaves."""
    answer = app(message, context)
    walk(answer)
    return answer


def test_fine_tuned_models_stay_and_the_mean_of_their_metrics_is_all_that_leaves(tmp_path: Path) -> None:
    material, found = trained(tmp_path, walked, rounds=2, **TUNED)
    assert found.personal is not None
    assert found.personalised is not None
    assert found.federation is not None
    # A slow twin: each site takes the steps from the final model, with the randomness of its third release.
    settings: dict[str, object] = {
        **task_settings(found.contract.training, None),
        remembered.FINETUNE_STEPS: 4,
        personal.FINETUNE_RATE: 0.3,
    }
    measured = []
    for name, split in material.splits.items():
        store = SiteStore.open(found.federation.site_stores[name])
        # Two updates came before.
        tuned = fine_tune(
            SiteWork(material.task, split, 10), found.model, settings, ReleaseStreams(store.identity, 3, 0)
        )
        module = build_model(material.task)
        load(module, found.personal[name])
        for key, array in personal.unpack(tuned.memory, found.model).items():
            np.testing.assert_array_equal(found.personal[name][key], array)
            assert np.abs(array - found.model[key]).max() > 1e-3
        measured.append(measure(material.task, module, split.test))
    whole = pooled(measured)
    for metric, mean in whole.means.items():
        np.testing.assert_allclose(np.atleast_1d(cast(Any, found.personalised[metric])), mean, atol=1e-5)
    assert found.judged_own is not None
    assert found.judged_own.everyone["accuracy"] == pytest.approx(whole.means["accuracy"][0])
    assert found.judged_own.everyone["loss"] < found.rounds[-1].judged.everyone["loss"]  # type: ignore[operator]


def test_own_models_are_judged_on_their_own_sites_persons(tmp_path: Path) -> None:
    material, found = trained(tmp_path, strategy="fedrep", personal_layers=["bias"], rounds=2)
    assert set(found.model) == {"weight"}
    assert found.personal is not None
    assert found.personal.keys() == material.splits.keys()
    assert all(own.keys() == {"weight", "bias"} for own in found.personal.values())
    # The server has no whole model: rounds are judged by each site's own.
    assert found.judged_own == found.rounds[-1].judged
    biases = [float(own["bias"][0]) for own in found.personal.values()]
    assert len(set(biases)) == len(biases)
    for name, own in found.personal.items():
        module = build_model(material.task)
        load(module, own)
        mine = material.oracle.judge(module, None)
        assert mine.sites[name] == found.judged_own.sites[name]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_own_models(tmp_path: Path) -> None:
    runs = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        _, found = trained(tmp_path / folder, strategy="ditto", rounds=2)
        assert found.personal is not None
        runs.append({name: {k: a.tolist() for k, a in own.items()} for name, own in found.personal.items()})
    assert runs[0] == runs[1]


def test_where_sites_have_nothing_of_their_own_there_is_none(tmp_path: Path) -> None:
    _, found = trained(tmp_path, rounds=1)
    assert (found.personal, found.judged_own, found.personalised) == (None, None, None)


def test_fine_tuning_goes_with_one_model_and_plan_none() -> None:
    with pytest.raises(ValidationError, match="personalise goes with plan none"):
        tiny(training={"personalise": "finetune"})
    for strategy in ("ditto", "clustered", "fedbn"):
        with pytest.raises(ValidationError, match="one model of all"):
            tiny(privacy=NONE, training={"strategy": strategy, "personalise": "finetune"})


def test_both_sides_use_the_same_names() -> None:
    assert (personalised.FINETUNE_STEPS, personalised.FINETUNE_RATE) == (
        remembered.FINETUNE_STEPS,
        personal.FINETUNE_RATE,
    )


OWN: dict[str, dict[str, Any]] = {
    "fednova": {"strategy": "fednova", "batch_size": 16, "local_epochs": 1},
    "ditto": {"strategy": "ditto"},
    "fedrep": {"strategy": "fedrep", "personal_layers": ["bias"]},
    "clustered": {"strategy": "clustered", "cluster_minimum": 3},
    "finetune": TUNED,
}


@pytest.mark.quick("fednova")
@pytest.mark.parametrize("name", list(OWN))
def test_with_the_protocol_modelled_the_same_comes_out(name: str, tmp_path: Path) -> None:
    """Every bit of the federation's model and of each site's own."""
    material, sealed = trained(tmp_path, rounds=2, **OWN[name])
    modelled = train_modelled(material, sealed.contract, rounding=Rounding.NEAREST)
    assert {k: a.tolist() for k, a in modelled.model.items()} == {k: a.tolist() for k, a in sealed.model.items()}
    assert (modelled.personal is None) == (sealed.personal is None) == (name == "fednova")
    for site, own in (sealed.personal or {}).items():
        assert {k: a.tolist() for k, a in (modelled.personal or {})[site].items()} == {
            k: a.tolist() for k, a in own.items()
        }
    assert modelled.personalised == sealed.personalised
    assert modelled.judged_own == sealed.judged_own
    assert [view.judged for view in modelled.rounds] == [view.judged for view in sealed.rounds]


@pytest.mark.parametrize("table", ["run", "sweep"])
@pytest.mark.parametrize("strategy", WITHOUT_ONE_MODEL)
def test_a_scenario_is_about_one_model(table: str, strategy: str) -> None:
    tables: dict[str, dict[str, Any]] = {
        "scenario": {"name": "s", "seed": 1},
        "population": {"source": "sklearn:digits"},
    }
    Scenario.model_validate(tables)
    wanted: dict[str, Any] = {"strategy": strategy if table == "run" else [strategy]}
    if table == "run" and strategy == "fedrep":
        wanted["personal_layers"] = ["output"]
    with pytest.raises(ValidationError, match="one model of all sites"):
        Scenario.model_validate(tables | {table: wanted})
