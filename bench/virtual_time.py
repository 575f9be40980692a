"""How long does it take to compute how long a round takes? Fleets of 10^3 to 10^6 sites, and the event loop beside it.

    python bench/virtual_time.py                  # about 20 seconds
    python bench/virtual_time.py --out virtual.json

Devices are lognormal, a coin decides who is there, one site in ten is slow, 1.3 times the sites wanted are asked. The
round of a whole population asks everybody; that of a cohort asks 1,000 at random places. Bytes are constants here: the
formula's own time grows with the header, and is measured by itself.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.virtual.events import Loop, trace_round
from fedseal.simulation.virtual.fleet import Fleet, Sites, make_fleet
from fedseal.simulation.virtual.rounds import Moment, Quorum, plan_round
from fedseal.simulation.virtual.sizes import Measured, sizes_for
from fedseal.simulation.virtual.tables import Devices

TABLE = Devices(
    trace="lognormal",
    compute=(1.0, 0.6),
    bandwidth_mbps=(50.0, 1.2),
    availability=0.9,
    stragglers=0.1,
    deadline_s=60.0,
    stage_deadline_s=10.0,
    over_commit=1.3,
)
SIZES = Measured(dict.fromkeys(Stage, 40_000.0), dict.fromkeys(Stage, 40_000.0))


@dataclass(frozen=True)
class Row:
    """CPU seconds of one kind of work, the best of some."""

    what: str
    sites: int
    cpu_s: float


def best(work: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of the fastest of some calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def one_round(fleet: Fleet, cohort: Sites, quorum: Quorum, numbers: Iterator[int]) -> None:
    """Another round each time."""
    plan_round(fleet, cohort, 500.0, SIZES, quorum, Moment(next(numbers), 1))


def fleets() -> list[Row]:
    """Making a fleet, a round of all its sites and a round of a cohort."""
    rows = []
    for sites in (1_000, 10_000, 100_000, 1_000_000):
        rows.append(Row("draw a fleet", sites, best(partial(make_fleet, TABLE, sites, 1), 3)))
        fleet, everyone = make_fleet(TABLE, sites, 1), np.arange(sites)
        quorum = Quorum(1, 1, wanted=int(sites / TABLE.over_commit))
        rows.append(Row("round of all", sites, best(partial(one_round, fleet, everyone, quorum, count()))))
        some = np.sort(np.random.default_rng(1).choice(sites, 1000, replace=False))
        wanted = Quorum(1, 1, wanted=769)
        rows.append(Row("round of 1,000", sites, best(partial(one_round, fleet, some, wanted, count()))))
    return rows


def loops() -> list[Row]:
    """The event loop alone, and a round event by event."""
    times = np.random.default_rng(1).random(200_000)

    def events() -> None:
        loop: Loop[int] = Loop()
        for number, at in enumerate(times.tolist()):
            loop.plan(at, number)
        while loop.take() is not None:
            pass

    fleet, everyone = make_fleet(TABLE, 1000, 1), np.arange(1000)

    def traced() -> None:
        trace_round(fleet, everyone, 500.0, SIZES, Quorum(1, 1, wanted=769), Moment(1, 1))

    sizes = sizes_for(1000, 10_000)

    def formula() -> None:
        for stage in Stage:
            sizes.exchange(stage, (1000,) * (int(stage) + 1))

    return [
        Row("events", len(times), best(events, 3)),
        Row("round event by event", 1000, best(traced, 3)),
        Row("bytes of a round by formula", 1000, best(formula, 3)),
    ]


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [*fleets(), *loops()]
    for row in rows:
        print(f"{row.what:28} {row.sites:>9,} sites  {1e3 * row.cpu_s:10.2f} ms CPU")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB")
    if options.out is not None:
        found = {"rows": [[r.what, r.sites, r.cpu_s] for r in rows], "peak_mib": peak}
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
