"""The mod at a site with registered data: what was answered is answered again, and nothing new is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.datasets import people, registered, sites, write
from support.flower import Nodes, Script, flower_task, header_for, ordinary_app

from fedseal.client.mod import DATA_KEY
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.server.exchange import control_of


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(people(), tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def nodes(tmp_path: Path, folder: Path) -> Nodes:
    """Three sites, of which the first has registered its data."""
    (tmp_path / "stores").mkdir()
    federation = sites(tmp_path / "stores", 3)
    registered(federation, folder)
    script = Script({1: 1.0, 2: 2.0, 3: 3.0})
    return Nodes(federation, ordinary_app(script), config={1: {DATA_KEY: str(folder)}})


def test_what_was_answered_is_answered_again_and_nothing_new(nodes: Nodes, folder: Path) -> None:
    _, seen = nodes.run(header_for(nodes.federation), until=Stage.MASK)
    write(people().assign(age=1), folder)
    for stage in (Stage.ADVERTISE, Stage.SHARE, Stage.MASK):
        raw, before = seen[stage, 1]
        # What is said of the log beside it may be more by now.
        assert control_of(nodes.send(1, raw)) == control_of(before)
    header = header_for(nodes.federation, release_seq=2, fl_round=2)
    assert nodes.refusal(1, nodes.opening(header)) is RefusalCode.TASK
    assert "persons.csv has changed" in nodes.incident(1)


def test_a_file_that_changes_in_the_middle_of_a_round_stops_the_site_before_it_computes(
    nodes: Nodes, folder: Path
) -> None:
    step = nodes.open(header_for(nodes.federation))
    for _ in range(2):
        step = server.close(nodes.exchange(step, {}))
    write(people().assign(age=1), folder)
    state = nodes.exchange(step, {})
    assert {r.site: RefusalCode(r.refusal.code) for r in state.refused} == {1: RefusalCode.TASK}


def test_a_node_that_names_no_folder_is_refused(nodes: Nodes) -> None:
    running = Nodes(nodes.federation, nodes.app)
    assert running.refusal(1, running.opening(header_for(nodes.federation))) is RefusalCode.TASK
    assert "names no data folder" in running.incident(1)
