"""Files of devices and of the hours at which sites are there.

Devices: a CSV with a header, or a JSON list (or object) of objects, of `compute`, `down_mbps`, `up_mbps`,
`latency_ms`; or of FedScale's `computation` (ms for one example, forward) and `communication` (kbit/s). Hours: a JSON
list (or object) of FedScale's `active` and `inactive` times in seconds, with `finish_time`, after which they repeat.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.simulation.virtual.tables import Devices

Reals = NDArray[np.float64]
# FedScale (fedscale/cloud/internal/client_metadata.py): a training step is three times an inference.
STEPS_A_FORWARD = 3.0


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """One row a device, shape (rows,) each, in the units of `fleet.Fleet`."""

    compute: Reals
    down: Reals
    up: Reals
    latency: Reals


@dataclass(frozen=True, slots=True)
class Openings:
    """When sites are there: row r from ``starts[r, k]`` to ``ends[r, k]`` seconds, again every ``period[r]``.

    Shapes (rows, most) twice and (rows,). In each row the times increase; rows with fewer are filled with infinity.
    """

    starts: Reals
    ends: Reals
    period: Reals

    def there(self, row: NDArray[np.intp], seconds: Reals, now: float) -> tuple[NDArray[np.bool_], Reals]:
        """Whether rows are open so many seconds after their period began, and until when in virtual time."""
        within = np.mod(seconds, self.period[row])
        starts, ends = self.starts[row], self.ends[row]
        last = np.count_nonzero(starts <= within[:, None], axis=1) - 1
        places = np.arange(len(row))
        end = np.where(last >= 0, ends[places, np.maximum(last, 0)], -np.inf)
        left = end - within
        # Open at the end of the period and at the beginning of the next one is open all along.
        goes_on = (end >= self.period[row]) & (starts[:, 0] == 0.0)
        always = goes_on & (ends[:, 0] >= self.period[row])
        left = np.where(goes_on, left + ends[:, 0], left)
        open_now = end > within
        return open_now, np.where(always, np.inf, np.where(open_now, now + left, -np.inf))


class _Device(Frozen):
    """A row as this project writes it."""

    compute: float = Field(gt=0)
    down_mbps: float = Field(gt=0)
    up_mbps: float | None = Field(default=None, gt=0)
    latency_ms: float | None = Field(default=None, ge=0)


class _FedScaleDevice(Frozen):
    """A row as FedScale writes it."""

    computation: float = Field(gt=0)
    communication: float = Field(gt=0)


class _Hours(Frozen, extra="ignore"):
    """A row of FedScale's hours; what else stands there (duration, model) says nothing more."""

    active: tuple[float, ...] = Field(min_length=1)
    inactive: tuple[float, ...]
    finish_time: float = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "_Hours":
        times = [t for pair in zip(self.active, self.inactive, strict=True) for t in pair]
        if times[0] < 0 or times != sorted(set(times)) or times[-1] > self.finish_time:
            raise ValueError("active and inactive times have to alternate, increasing, up to finish_time")
        return self


def read_devices(path: Path, devices: Devices) -> DeviceRows:
    """The devices of a file.

    Args:
        path: the file.
        devices: the scenario's table, for what the file leaves out.

    Raises:
        ConfigError: the file is missing or a row is not a device.
    """
    rows = _rows(path)
    scale = STEPS_A_FORWARD / (1e3 * devices.seconds_per_example)
    latency = devices.latency_ms if isinstance(devices.latency_ms, float) else devices.latency_ms[0]
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            if "computation" in row:
                old = _FedScaleDevice.model_validate(row)
                found.append((1.0 / (scale * old.computation), *(2 * (1e3 * old.communication,)), latency / 1e3))
            else:
                own = _Device.model_validate({k: v for k, v in row.items() if v != ""})
                up = own.down_mbps if own.up_mbps is None else own.up_mbps
                waits = latency if own.latency_ms is None else own.latency_ms
                found.append((own.compute, 1e6 * own.down_mbps, 1e6 * up, waits / 1e3))
        except ValidationError as error:
            raise _unreadable(path, number, error) from None
    compute, down, up, latencies = np.array(found, dtype=np.float64).T
    return DeviceRows(compute, down, up, latencies)


def read_openings(path: Path) -> Openings:
    """The hours of a file; ConfigError where it is missing or a row is none."""
    found = []
    for number, row in enumerate(_rows(path), start=1):
        try:
            found.append(_Hours.model_validate(row))
        except (ValidationError, ValueError) as error:
            raise _unreadable(path, number, error) from None
    most = max(len(hours.active) for hours in found)
    starts, ends = (np.full((len(found), most), np.inf) for _ in range(2))
    for place, hours in enumerate(found):
        starts[place, : len(hours.active)], ends[place, : len(hours.active)] = hours.active, hours.inactive
    return Openings(starts, ends, np.array([hours.finish_time for hours in found]))


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows: Any = list(csv.DictReader(file))
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{path} cannot be read", next_step="A trace is a .csv or .json file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not JSON", next_step="A trace is a .csv or .json file.") from None
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} has no rows", next_step="A trace has one row a site.")
    return rows


def _unreadable(path: Path, number: int, error: ValidationError | ValueError) -> ConfigError:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(p) for p in problem["loc"])
        return ConfigError(f"{path}: row {number}: {place}: {problem['msg']}")
    return ConfigError(f"{path}: row {number}: {error}")
