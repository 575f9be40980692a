"""`[devices]`: what a scenario says of its sites' machines, networks and opening hours."""

from typing import Annotated

from pydantic import Field, model_validator

from fedseal.config import Frozen

Positive = Annotated[float, Field(gt=0)]
# A number that all sites have, or a median and the standard deviation of the logarithm: a lognormal distribution.
Spread = Positive | tuple[Positive, Annotated[float, Field(ge=0)]]


class Sessions(Frozen):
    """Sites come and go: a site is there for a time, away for a time, and so on, each time drawn anew.

    ``active_s`` and ``away_s``: median seconds, or median and deviation of the logarithm.
    """

    active_s: Spread
    away_s: Spread


class Devices(Frozen):
    """The devices of a scenario's sites.

    ``trace``: "given" takes the numbers below; "lognormal" wants medians and deviations; anything else is the name of
    a CSV or JSON file with one row a site (docs/virtual-time-and-faults.md says which columns).

    ``compute``: how fast a site is beside one of compute 1. ``seconds_per_example``: what one example costs such a
    site, forward and backward. ``bandwidth_mbps`` to the site and ``up_mbps`` from it (as much if not given), in 10^6
    bits a second; ``latency_ms`` one way.

    ``availability``: the probability that a site is there in a round, a coin per site and round; or the name of a
    JSON file of active and inactive times; or sessions that are drawn.

    ``stragglers``: the probability that a site's computation in a round takes ``slowdown`` times as long.

    ``deadline_s``: how long the server waits in the exchange in which sites train; ``stage_deadline_s``: in each of
    the other four. ``over_commit``: so many times the sites wanted are asked, and the exchange in which they train
    ends once the number wanted have answered.
    """

    trace: str = "given"
    compute: Spread = 1.0
    seconds_per_example: Positive = 0.001
    bandwidth_mbps: Spread = 100.0
    up_mbps: Spread | None = None
    latency_ms: Annotated[float, Field(ge=0)] | tuple[Positive, Annotated[float, Field(ge=0)]] = 20.0
    availability: Annotated[float, Field(ge=0, le=1)] | Sessions | str = 1.0
    stragglers: float = Field(default=0.0, ge=0, le=1)
    slowdown: float = Field(default=10.0, ge=1)
    deadline_s: Positive = 3600.0
    stage_deadline_s: Positive = 120.0
    over_commit: float = Field(default=1.0, ge=1, le=10)

    @model_validator(mode="after")
    def _lognormal_has_deviations(self) -> "Devices":
        if self.trace == "lognormal" and not any(isinstance(s, tuple) for s in (self.compute, self.bandwidth_mbps)):
            raise ValueError(
                'trace "lognormal" wants compute or bandwidth_mbps as [median, deviation of the logarithm]'
            )
        return self
