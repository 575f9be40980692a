"""Devices and hours: drawn, and read from files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedseal.config import validate
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.virtual.fleet import make_fleet, uniform
from fedseal.simulation.virtual.tables import Devices
from fedseal.simulation.virtual.traces import read_openings

SITES = 20_000


def test_a_lognormal_fleet_has_its_medians_and_deviations() -> None:
    devices = Devices(trace="lognormal", compute=(2.0, 0.6), bandwidth_mbps=(50.0, 1.2), latency_ms=(30.0, 0.5))
    fleet = make_fleet(devices, SITES, seed=1)
    for values, median, deviation in (
        (fleet.compute, 2.0, 0.6),
        (fleet.down, 50e6, 1.2),
        (fleet.latency, 0.03, 0.5),
    ):
        logs = np.log(values)
        # Four standard errors.
        assert np.mean(logs) == pytest.approx(np.log(median), abs=4 * deviation / SITES**0.5)
        assert np.std(logs) == pytest.approx(deviation, rel=4 / (2 * SITES) ** 0.5)
    assert fleet.up is fleet.down
    assert abs(np.corrcoef(np.log(fleet.compute), np.log(fleet.down))[0, 1]) < 4 / SITES**0.5


def test_coins_are_tossed_anew_every_round() -> None:
    fleet, everyone = make_fleet(Devices(availability=0.7), SITES, seed=1), np.arange(SITES)
    randomness = KeyedRandomness(1, "devices")
    first, until = fleet.there(everyone, 0.0, randomness, 1, 0)
    second, _ = fleet.there(everyone, 0.0, randomness, 2, 0)
    assert np.isinf(until).all()
    assert first.mean() == pytest.approx(0.7, abs=4 * (0.21 / SITES) ** 0.5)
    assert (first & second).mean() == pytest.approx(0.49, abs=4 * (0.25 / SITES) ** 0.5)
    some = np.array([3, 17, 400])
    np.testing.assert_array_equal(fleet.there(some, 0.0, randomness, 1, 0)[0], first[some])


def test_sessions_keep_the_share_of_time_that_their_medians_say() -> None:
    devices = Devices.model_validate({"availability": {"active_s": 300.0, "away_s": 100.0}})
    fleet = make_fleet(devices, SITES, seed=1)
    for now in (0.0, 1234.5, 1e5):
        there, until = fleet.there(np.arange(SITES), now, KeyedRandomness(1, "devices"), 1)
        assert there.mean() == pytest.approx(0.75, abs=4 * (0.1875 / SITES) ** 0.5)
        left = until[there] - now
        assert left.min() > 0 and left.max() <= 300.0 and left.mean() == pytest.approx(150.0, rel=0.03)


def hours(folder: Path, rows: Any) -> Path:
    path = folder / "hours.json"
    path.write_text(json.dumps(rows))
    return path


# FedScale's client_behave_trace, as JSON: one row a person's telephone.
ROW = {"duration": 211625, "active": [12788, 100044, 188992], "inactive": [65881, 133574, 208292]}


def test_hours_are_fedscales(tmp_path: Path) -> None:
    openings = read_openings(hours(tmp_path, {"1": {**ROW, "finish_time": 518400, "model": "CPH1801"}}))
    times = np.array([0, 12787.9, 12788, 65880, 65881, 133573.5, 208292, 518400 + 12788.0, 3 * 518400 + 60000.0])
    there, until = openings.there(np.zeros(len(times), dtype=np.intp), times, 0.0)
    assert there.tolist() == [False, False, True, True, False, True, False, True, True]
    assert until[2] == 65881 - 12788 and until[5] == 0.5 and until[0] == -np.inf


def test_open_over_the_end_of_a_period_is_open(tmp_path: Path) -> None:
    rows = [
        {"active": [0, 80], "inactive": [20, 100], "finish_time": 100},
        {"active": [0], "inactive": [100], "finish_time": 100},
    ]
    openings = read_openings(hours(tmp_path, rows))
    there, until = openings.there(np.array([0, 0, 0, 1]), np.array([90.0, 10.0, 50.0, 70.0]), 1000.0)
    assert there.tolist() == [True, True, False, True]
    assert until[:2].tolist() == [1000 + 10 + 20, 1000 + 10] and until[3] == np.inf


def test_devices_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("compute,down_mbps,up_mbps,latency_ms\n1,10,5,40\n0.5,8,,\n")
    fleet = make_fleet(Devices(trace="devices.csv", latency_ms=25.0), 50, seed=2, folder=tmp_path)
    found = {*zip(fleet.compute, fleet.down, fleet.up, fleet.latency, strict=True)}
    assert found == {(1.0, 10e6, 5e6, 0.04), (0.5, 8e6, 8e6, 0.025)}


def test_devices_as_fedscale_has_them(tmp_path: Path) -> None:
    """Three times 40 ms an example, so 0.12 s; 1500 kbit/s both ways."""
    (tmp_path / "devices.json").write_text(json.dumps([{"computation": 40.0, "communication": 1500.0}]))
    fleet = make_fleet(Devices(trace="devices.json", seconds_per_example=0.06), 3, seed=2, folder=tmp_path)
    assert (0.06 / fleet.compute).tolist() == pytest.approx([0.12] * 3)
    assert fleet.down.tolist() == fleet.up.tolist() == [1.5e6] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, "cannot be read"),
        ("bad.json", "{", "not JSON"),
        ("empty.json", "[]", "no rows"),
        ("numbers.json", "[1, 2]", "no rows"),
        ("row.csv", "compute,down_mbps\n1,2\n0,2\n", "row 2: compute"),
        ("unknown.csv", "compute,down_mbps,cores\n1,2,4\n", "row 1: cores"),
    ],
)
def test_files_that_are_no_devices(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        make_fleet(Devices(trace=name), 3, 1, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        {"active": [10, 5], "inactive": [20, 8], "finish_time": 100},
        {"active": [10], "inactive": [], "finish_time": 100},
        {"active": [10], "inactive": [200], "finish_time": 100},
        {"active": [], "inactive": [], "finish_time": 100},
    ],
)
def test_hours_that_are_none(row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 1"):
        read_openings(hours(tmp_path, [row]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"bandwith_mbps": 3.0}, "unknown key 'devices.bandwith_mbps'"),
        ({"compute": 0.0}, "devices.compute"),
        ({"availability": 1.5}, "devices.availability"),
        ({"trace": "lognormal"}, "median, deviation"),
        ({"over_commit": 0.5}, "devices.over_commit"),
    ],
)
def test_tables_that_say_nothing_sensible(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Devices, table, text="[devices]", source="s.toml", where=("devices",))


def test_uniform_numbers_are_never_at_the_ends() -> None:
    values = uniform(KeyedRandomness(1, "devices"), np.arange(100_000), "x")
    assert values.min() > 0.0 and values.max() < 1.0
    assert uniform(KeyedRandomness(1, "devices"), np.zeros(0, dtype=np.intp), "x").tolist() == []
