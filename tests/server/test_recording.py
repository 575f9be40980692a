"""What a deployed run writes down, with an honest federation in memory and with a run that fails."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from support.studies import RANGES, material, tiny

from fedseal.client.app import app as client_app
from fedseal.client.task import size
from fedseal.errors import ConfigError
from fedseal.privacy.planning import plan_run
from fedseal.server.progress import read_progress
from fedseal.server.recording import EVENTS, MODEL, OUTPUT_KEY, Events, app
from fedseal.simulation.federation import enrol
from fedseal.simulation.grid import LocalGrid, Setting
from fedseal.simulation.training import node_configs, run_config
from fedseal.study import Study


def run(folder: Path, study: Study, **changes: Setting) -> None:
    """A run of a study, recorded in a folder."""
    gathered = material(study, folder / "data")
    persons = {name: size(split.train) for name, split in gathered.splits.items()}
    federation = enrol(folder / "federation", study.contract, plan_run(study.contract), persons, 5)
    config = {**run_config(gathered, study.contract, federation), OUTPUT_KEY: str(folder), **changes}
    LocalGrid(client_app, node_configs(gathered, federation), run_config=config).serve(app, seed=5)


def events(folder: Path) -> list[dict[str, Any]]:
    """What was written down."""
    return [json.loads(line) for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]


def test_every_round_is_written_down_and_the_model_kept(tmp_path: Path) -> None:
    run(tmp_path, tiny(training={"rounds": 2}))
    started, planned, first, second, finished = events(tmp_path)
    assert [e["event"] for e in (started, planned, first, finished)] == ["started", "planned", "round", "finished"]
    assert (planned["plan"], planned["moments"], len(bytes.fromhex(planned["run"]))) == ("local", {}, 16)
    assert [first["number"], second["number"]] == [1, 2]
    assert set(first["stages"]) == {"advertise", "share", "mask", "consistency", "unmask"}
    assert (first["sites"], first["asked"], first["lost"], first["metrics"]) == (4, 4, {}, {})
    standing = read_progress(tmp_path)
    assert standing is not None
    assert (standing.release, standing.round, standing.stage, standing.asked) == ("update", 2, "unmask", 4)
    content = (tmp_path / MODEL).read_bytes()
    assert hashlib.sha256(content).hexdigest() == finished["model_sha256"]
    assert {name: array.shape for name, array in safetensors.numpy.load(content).items()} == {
        "weight": (1, 3),
        "bias": (1,),
    }


@pytest.mark.slow
def test_the_federations_moments_are_written_down(tmp_path: Path) -> None:
    run(tmp_path, tiny(training={"rounds": 1}, normalisation=RANGES))
    moments = events(tmp_path)[1]["moments"]
    assert {name: len(values) for name, values in moments.items()} == {"mean": 3, "deviation": 3}


@pytest.mark.slow
def test_the_private_evaluation_is_written_down_with_its_intervals(tmp_path: Path) -> None:
    run(tmp_path, tiny(training={"rounds": 1}, evaluation={"epsilon": 6.0, "bins": 4}))
    *_, evaluated, finished = events(tmp_path)
    assert (evaluated["event"], finished["event"]) == ("evaluated", "finished")
    assert evaluated["sites"] == 4
    accuracy = evaluated["estimates"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_an_error_of_ours_is_written_down_and_raised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path, tiny(), **{"fedseal-initial-model": str(tmp_path / "missing")})
    *_, last = events(tmp_path)
    assert (last["event"], last["error"]) == ("failed", "ConfigError")
    assert last["message"].endswith("is no safetensors file that can be read")
    assert not (tmp_path / MODEL).exists()


def test_a_run_without_an_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=OUTPUT_KEY):
        run(tmp_path, tiny(), **{OUTPUT_KEY: 1})


@pytest.mark.parametrize("half", ['{"event": "rou', "x" * 5000])
def test_half_a_line_that_a_full_disk_left_behind_is_taken_away(tmp_path: Path, half: str) -> None:
    written = Events(tmp_path)
    written.write("started")
    with (tmp_path / EVENTS).open("a", encoding="utf-8") as file:
        file.write(half)
    written.write("planned", run="00")
    assert [event["event"] for event in events(tmp_path)] == ["started", "planned"]


def test_a_line_that_is_not_on_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / EVENTS).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        Events(tmp_path).write("started")
