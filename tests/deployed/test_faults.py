"""Short forms of the trials of `bench/faults.py` with real processes, and what a recorder would see without a seal."""

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from support.linked import Keys, answering
from support.trials import clock, disk, flooded
from support.trials.certificates import replaced
from support.trials.chunks import killed
from support.trials.light import train
from support.trials.network import Disturbance, disturbed
from support.trials.proxy import Weather
from support.trials.recorder import Recorder, canaries
from support.trials.study import Shape, first_model, make_federation

from fedseal.client.mod import DATA_KEY
from fedseal.client.records import CONTROL
from fedseal.privacy.plan import NoPrivacy, encode_plan


def well(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last row, after looking that nothing was found in any."""
    assert [row["breaches"] for row in rows] == [[]] * len(rows)
    assert sum(sum(row["checks"].values()) for row in rows) > 20
    return rows[-1]


@pytest.mark.slow
def test_killed_processes_change_nothing(tmp_path: Path) -> None:
    row = well(killed(Shape(sites=3, rounds=4), 3, tmp_path, 300.0, kills=5))
    assert row["times"] == 5
    assert row["happened"] == "all runs finished"


@pytest.mark.slow
def test_killed_processes_are_charged_once(tmp_path: Path) -> None:
    row = well(killed(Shape(sites=4, rounds=6, plan="distributed", retries=60), 4, tmp_path, 300.0, kills=4))
    assert row["checks"]["no lost charge"] > 40


@pytest.mark.slow
def test_a_bad_line_changes_nothing(tmp_path: Path) -> None:
    weathers = (Disturbance("cut", Weather(cut=True), 2, 1), Disturbance("reset", Weather(drop_after=5000), 2, 1))
    assert well(disturbed(weathers, "none", tmp_path, 300.0))["figures"]["broken_connections"] > 0


@pytest.mark.slow
def test_runs_go_on_when_a_full_disk_has_room_again(tmp_path: Path) -> None:
    row = well(disk.filled("none", tmp_path, 300.0, times=1))
    assert row["happened"] in {"all runs finished", "not tried: needs root and Linux"}


@pytest.mark.slow
@pytest.mark.skipif(not clock.LIBRARY.is_file(), reason="needs Debian's faketime")
def test_a_servers_clock_that_is_set_changes_nothing(tmp_path: Path) -> None:
    assert well(clock.skewed("server", tmp_path, 300.0))["happened"] == "all runs finished"


@pytest.mark.slow
def test_a_bad_certificate_is_named_and_a_good_one_goes_on(tmp_path: Path) -> None:
    assert well(replaced(tmp_path, 300.0))["happened"] == "each node named it; all runs finished"


@pytest.mark.slow
def test_a_flood_changes_nothing_and_nothing_of_a_site_is_in_what_it_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flooded, "TURNS", 1)
    monkeypatch.setattr(flooded, "SECONDS", 8.0)
    row = well(flooded.flooded("none", tmp_path, 300.0))
    assert row["checks"]["no data out"] > 400
    assert row["figures"]["recorded_bodies"] > 100


def test_without_a_seal_the_recorder_sees_what_a_site_has_computed(tmp_path: Path) -> None:
    federation, keys = make_federation(tmp_path / "federation", Shape()), Keys.make(tmp_path, "a")
    facts = ConfigRecord({"release": "update", "plan": encode_plan(NoPrivacy(releases=1, retries=0))})
    model = ArrayRecord({name: Array(array) for name, array in first_model(0).items()})

    def unsealed(message: Message) -> Message:
        return train(message, Context(1, 1, {DATA_KEY: str(federation.data["ward-02"])}, RecordDict(), {}))

    with keys.link() as link, Recorder(link.port, tmp_path) as recorder, link.run({}) as grid:
        with answering([keys.fleet("a", link, port=recorder.port)], unsealed):
            content = RecordDict({CONTROL: facts, "arrays": model})
            (node,) = grid.get_node_ids()
            asked = [Message(content, dst_node_id=node, message_type="train")]
            assert len(list(grid.send_and_receive(asked, timeout=60))) == 1
            # The thread's question for more work would be held for ten seconds.
            link.state.close()
        found = flooded.secrets_in(recorder, canaries(federation))
    assert {f"ward-02, update {place}" for place in range(0, 12, 2)} <= found
    assert not [name for name in found if not name.startswith("ward-02, update")]
