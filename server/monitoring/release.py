"""A window's release over a sealed grid: what `outcome` measures, made by the sites themselves.

watch = watch_of(table, classes=2)
plan = plan_of(table, watch, windows=52)
shares = federation_reference(grid, table, watch, model, most=...)    # once, with the model's card
window = release_window(grid, watch, plan, model, number=0, most=...)
measured = measure_window(table, watch, window, shares)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

from fedseal.errors import ConfigError
from fedseal.privacy.inference.tally import CountNoise
from fedseal.privacy.plan import NoPrivacy, SharedGeometric
from fedseal.privacy.quantize import signed
from fedseal.privacy.releases import COUNTS, DRIFT, REGISTRY, VALUES
from fedseal.privacy.watch import Watch, encode_watch, reference_tables
from fedseal.server.contents import Arrays
from fedseal.server.counts import Asked, federated_counts, plan_counts
from fedseal.server.grid import SealedGrid
from fedseal.server.monitoring.outcome import Shares, WindowSum, pooled_shares

WATCH, WINDOW = "watch", "window"


@dataclass(frozen=True, slots=True)
class Watched:
    """A model under watch.

    Args:
        watch: what is asked.
        model: its arrays.
        most: the most persons of one site in a window, public; what is more is cut, never refused.
        settings: more of what the sites are told, as the federation's mean and deviation.
        timeout: seconds a site may take.
    """

    watch: Watch
    model: Arrays
    most: int
    settings: Mapping[str, float | int | str | list[float]] = field(default_factory=dict)
    timeout: float | None = None


def release_window(grid: SealedGrid, watched: Watched, plan: NoPrivacy | SharedGeometric, *, number: int) -> WindowSum:
    """One window's sum over the sites of a grid, charged to the ledgers of the persons who are in windows.

    The first window of a model also charges every site's training persons, for its reference.

    Raises:
        RoundAborted: too few sites answered, or their policies or ledgers refuse. Nothing was released: not evaluable.
        ConfigError: the plan is for another watch, or every site is trusted.
    """
    watch = watched.watch
    if isinstance(plan, SharedGeometric) and (plan.length, plan.cells) != (watch.length, watch.sensitivity):
        raise ConfigError("a plan for another watch", next_step="Plan this watch: plan_of.")
    config = ConfigRecord({**watched.settings, WATCH: encode_watch(watch), WINDOW: number})
    finished = grid.release(
        REGISTRY[DRIFT],
        list(grid.get_node_ids()),
        task={"arrays": ArrayRecord({name: Array(a) for name, a in watched.model.items()}), "config": config},
        shapes={COUNTS: np.zeros(watch.length)},
        plan=plan,
        fl_round=number,
        timeout=watched.timeout,
        # Weights may be three times the persons, differences have their share.
        value_range=float(watched.most * max(watch.share, 3)),
    )
    total = finished.total
    counts = signed(total.vector[total.layout.offsets()[VALUES]]).astype(np.int64)
    noise = None
    if isinstance(plan, SharedGeometric):
        noise = CountNoise(plan.decay, total.sites, grid.noise_shares(plan, finished))
    return WindowSum(number, counts, total.sites, noise)


def federation_reference(grid: SealedGrid, watched: Watched, *, epsilon: float | None, most: int) -> Shares:
    """The public reference of a model's card: one release of counts over all training persons.

    Args:
        grid: the sealed grid of a run of its own, or of the training.
        watched: the model.
        epsilon: pure, charged to training persons; None releases exact counts, where every site allows that.
        most: the most training persons of a site.

    Raises:
        RoundAborted: too few sites answered, or their policies or ledgers refuse.
    """
    tables = reference_tables(watched.watch)
    plan = NoPrivacy(releases=1, retries=0) if epsilon is None else plan_counts(tables, epsilon)
    asked = Asked(tables, most, watched.model, watched.settings, timeout=watched.timeout)
    tally = federated_counts(grid, asked, plan)
    return pooled_shares(watched.watch, tally.split)
