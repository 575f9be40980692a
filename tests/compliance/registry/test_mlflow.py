"""An export for MLflow has MLflow's form, and says where in the log the model is proven."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from support.registry import World, bundle

from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.registry.bundle import read_bundle
from fedseal.compliance.registry.mlflow import FLAVOR, Tags, write_mlflow
from fedseal.errors import ConfigError

TIME = "2026-11-28 09:00:00.000000"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    world = World(tmp_path)
    world.register(bundle())
    world.charge(1, times=4)
    size = world.witness()
    tags = world.registry.tags(world.registry.find(bundle().digest, world.registry.state()))
    assert tags.size == size
    assert tags.root == "sha256:" + world.registry.entries.root(size).hex()
    write_mlflow(bundle(), tags, TIME, tmp_path / "exported")
    return tmp_path / "exported"


def test_the_form_and_the_tags(exported: Path) -> None:
    described = cast(dict[str, Any], json.loads((exported / "MLmodel").read_text(encoding="utf-8")))
    assert read_bundle(exported / described["flavors"][FLAVOR]["data"]) == bundle()
    assert described["metadata"] | {"fedseal.log.root": ""} == {
        "fedseal.log.origin": server_origin("test"),
        "fedseal.log.index": "1",
        "fedseal.log.size": "7",
        "fedseal.log.root": "",
        "fedseal.epsilon": described["metadata"]["fedseal.epsilon"],
        "fedseal.bundle": bundle().digest,
        "fedseal.model": bundle().model_digest,
    }
    assert 0.5 < float(described["metadata"]["fedseal.epsilon"]) < 1
    with pytest.raises(ConfigError, match="exists"):
        write_mlflow(bundle(), Tags(server_origin("test"), 1, 7, "", None), TIME, exported)


def test_mlflow_reads_it(exported: Path) -> None:
    models = pytest.importorskip("mlflow.models")
    read = models.Model.load(str(exported))
    assert read.metadata["fedseal.bundle"] == bundle().digest
    assert set(read.flavors) == {FLAVOR}
    assert read.utc_time_created == TIME
