"""The devices of all sites, as arrays: 10^6 sites are a few dozen megabytes and no objects.

Draws are by place: word i of a stream is site i's, whatever the number of sites, so a site more leaves the others'
devices as they were.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.virtual.tables import Devices, Sessions, Spread
from fedseal.simulation.virtual.traces import Openings, read_devices, read_openings

Reals = NDArray[np.float64]
Sites = NDArray[np.intp]
Flags = NDArray[np.bool_]

COMPONENT = "devices"
# Of a site whose hours are drawn; then they repeat.
CYCLES = 8


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices by site, each array of shape (sites,).

    ``compute``: beside a site that takes ``seconds_per_example`` for one example; ``down`` and ``up``: bits a second;
    ``latency``: seconds one way. ``availability``: the probability of being there in a round; ``openings``, where
    given, says instead when which row of hours is open: ``row`` and ``phase`` (seconds into its period at time 0) by
    site.
    """

    devices: Devices
    compute: Reals
    down: Reals
    up: Reals
    latency: Reals
    openings: Openings | None = None
    row: Sites = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    phase: Reals = field(default_factory=lambda: np.zeros(0))

    @property
    def sites(self) -> int:
        """How many sites there are."""
        return len(self.compute)

    def there(self, cohort: Sites, now: float, randomness: KeyedRandomness, *moment: str | int) -> tuple[Flags, Reals]:
        """Which sites of a cohort are there at a time, and until when, shape (cohort,) each.

        Args:
            cohort: numbers of sites, from 0.
            now: virtual seconds.
            randomness: where coins come from; ``moment`` names their toss, such as a round and an attempt.
        """
        if self.openings is not None:
            return self.openings.there(self.row[cohort], now + self.phase[cohort], now)
        forever = np.full(len(cohort), np.inf)
        chance = self.devices.availability
        if not isinstance(chance, float) or chance >= 1.0:
            return np.ones(len(cohort), dtype=np.bool_), forever
        return uniform(randomness, cohort, "there", *moment) < chance, forever


def uniform(randomness: KeyedRandomness, sites: Sites, *purpose: str | int) -> Reals:
    """One number in (0, 1) for each of some sites: word i of the purpose's stream is site i's."""
    if not len(sites):
        return np.zeros(0)
    words = randomness.stream(*purpose).words64(int(sites.max()) + 1)
    # In the middle of its interval of 2^-53, so neither 0 nor 1, both of which a normal quantile sends to infinity.
    return ((words[sites] >> np.uint64(11)) + np.float64(0.5)) * np.float64(2.0**-53)


def drawn(spread: Spread | float, randomness: KeyedRandomness, sites: Sites, *purpose: str | int) -> Reals:
    """A number for each of some sites: the same for all, or lognormal of a median and a deviation of the logarithm."""
    if not isinstance(spread, tuple):
        return np.full(len(sites), float(spread))
    median, deviation = spread
    values: Reals = median * np.exp(deviation * ndtri(uniform(randomness, sites, *purpose)))
    return values


def make_fleet(devices: Devices, sites: int, seed: int, folder: Path = Path()) -> Fleet:
    """Draw the devices of a scenario's sites.

    Args:
        devices: the scenario's table.
        sites: how many.
        seed: the scenario's.
        folder: where the names of trace files start from.

    Raises:
        ConfigError: a trace file is missing or cannot be read.
    """
    if sites < 1:
        raise ConfigError("expected at least one site with a device")
    randomness, every = KeyedRandomness(seed, COMPONENT), np.arange(sites, dtype=np.intp)
    if devices.trace in ("given", "lognormal"):
        compute = drawn(devices.compute, randomness, every, "compute")
        down = 1e6 * drawn(devices.bandwidth_mbps, randomness, every, "bandwidth")
        up = down if devices.up_mbps is None else 1e6 * drawn(devices.up_mbps, randomness, every, "up")
        latency = drawn(devices.latency_ms, randomness, every, "latency") / 1e3
    else:
        rows = read_devices(folder / devices.trace, devices)
        taken = (uniform(randomness, every, "device-row") * len(rows.compute)).astype(np.intp)
        compute, down, up, latency = (a[taken] for a in (rows.compute, rows.down, rows.up, rows.latency))
    hours = devices.availability
    if isinstance(hours, float):
        return Fleet(devices, compute, down, up, latency)
    if isinstance(hours, Sessions):
        openings, row = _sessions(hours, randomness, every), every
    else:
        openings = read_openings(folder / hours)
        row = (uniform(randomness, every, "hours-row") * len(openings.period)).astype(np.intp)
    phase = uniform(randomness, every, "phase") * openings.period[row]
    return Fleet(devices, compute, down, up, latency, openings, row, phase)


def _sessions(sessions: Sessions, randomness: KeyedRandomness, sites: Sites) -> Openings:
    """`CYCLES` times of being there and of being away for each site, one after the other."""
    active, away = (
        np.stack([drawn(spread, randomness, sites, name, cycle) for cycle in range(CYCLES)], axis=1)
        for name, spread in (("active", sessions.active_s), ("away", sessions.away_s))
    )
    ends = np.cumsum(active + away, axis=1) - away
    return Openings(ends - active, ends, ends[:, -1] + away[:, -1])
