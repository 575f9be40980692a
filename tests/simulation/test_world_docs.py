"""What docs/heterogeneity-and-drift.md shows can be run, and it names everything there is."""

import re
import tomllib
from pathlib import Path

import pytest

from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.population_tables import PARTITION_KEYS, SOURCES
from fedseal.simulation.worlds.tables import OPS, WorldTables

PAGE = (Path(__file__).parents[2] / "docs" / "heterogeneity-and-drift.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
GENERATOR = '[population]\nsource = "generator:gaussians"\nsites = 8\nrows_per_step = 50\n'


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_page_shows_makes_a_world(block: str) -> None:
    text = block if "[population]" in block else GENERATOR + block
    made = build_world(WorldTables.model_validate(tomllib.loads(text)), steps=9, seed=1)
    assert len(made.window(0, 8)) > 0


def test_the_page_names_every_source_kind_and_op() -> None:
    assert len(BLOCKS) >= 4
    for name in (*SOURCES, *PARTITION_KEYS, *OPS):
        assert f"`{name}`" in PAGE, name
