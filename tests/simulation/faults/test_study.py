"""Faults in the training of a study with torch: it goes on, or ends as an aborted round does."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.studies import material, tiny

from fedseal.errors import ConfigError, RoundAborted
from fedseal.simulation.faults.study import study_delivery
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.training import Material, Trained, train


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material(tiny(privacy={"plan": "none"}), tmp_path_factory.mktemp("data"))


def trained(gathered: Material, folder: Path, *tables: dict[str, Any], rounds: int = 2) -> Trained:
    study = tiny(privacy={"plan": "none"}, cohort={"colluders": 0}, training={"rounds": rounds})
    faults = [Fault.model_validate(table) for table in tables]
    deliver = study_delivery(faults, gathered.data, folder, gathered.seed, label="label")
    return train(gathered, study.contract, folder, deliver=deliver)


@pytest.fixture(scope="module")
def undisturbed(gathered: Material, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(gathered, tmp_path_factory.mktemp("plain") / "federation")


def vector(run: Trained, number: int) -> np.ndarray[Any, Any]:
    return np.concatenate([a.ravel() for a in run.rounds[number - 1].record.model.values()])


@pytest.mark.slow
def test_a_server_that_crashes_goes_on_after_its_last_checkpoint(
    gathered: Material, undisturbed: Trained, tmp_path: Path
) -> None:
    """The repeated round is another release, with draws of its own."""
    run = trained(gathered, tmp_path / "f", {"kind": "server_crash", "at": "round:2", "stage": "unmask"})
    assert [view.record.number for view in run.rounds] == [1, 2]
    assert [p.releases for p in run.privacy.values()] == [3] * 4
    np.testing.assert_array_equal(vector(run, 1), vector(undisturbed, 1))
    assert not np.array_equal(vector(run, 2), vector(undisturbed, 2))
    np.testing.assert_allclose(vector(run, 2), vector(undisturbed, 2), atol=0.2)


@pytest.mark.slow
def test_flipped_labels_change_the_model_and_nothing_else(
    gathered: Material, undisturbed: Trained, tmp_path: Path
) -> None:
    name = next(iter(gathered.data))
    run = trained(
        gathered,
        tmp_path / "f",
        {"kind": "byzantine", "where": [name], "attack": "label_flip", "at": "round:2"},
        {"where": [list(gathered.data)[1]], "stage": "masked_input", "at": "round:1"},
    )
    assert [view.record.sites for view in run.rounds] == [3, 4]
    before, after = (pd.read_csv(p / "persons.csv") for p in (gathered.data[name], tmp_path / "f-flipped" / name))
    assert (before["label"] + after["label"] == 1).all()
    pd.testing.assert_frame_equal(before.drop(columns="label"), after.drop(columns="label"))
    assert not np.allclose(vector(run, 2), vector(undisturbed, 2), atol=1e-3)


def test_too_many_dropouts_end_the_run_with_the_reason(gathered: Material, tmp_path: Path) -> None:
    with pytest.raises(RoundAborted, match="round 1"):
        trained(gathered, tmp_path / "f", {"count": 2, "stage": "share_keys"}, rounds=1)


def test_labels_that_are_nowhere(gathered: Material, tmp_path: Path) -> None:
    fault = Fault(kind="byzantine", count=1, attack="label_flip")
    with pytest.raises(ConfigError, match="column of labels"):
        study_delivery([fault], gathered.data, tmp_path, 1, label="diagnosis")
