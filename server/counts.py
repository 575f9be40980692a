"""Releases of counts: the tables over all sites' persons, exact under plan none, noisy and charged under histogram."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

from fedseal.errors import ConfigError
from fedseal.privacy.counts import Tables, encode_tables
from fedseal.privacy.inference.tally import CountNoise, Tally
from fedseal.privacy.plan import NoPrivacy, PrivacyPlan, SharedGeometric
from fedseal.privacy.quantize import signed
from fedseal.privacy.releases import COUNTS, EVALUATION, REGISTRY, VALUES
from fedseal.privacy.secagg.server_states import Finished
from fedseal.server.contents import Arrays
from fedseal.server.grid import AveragingGrid

TABLES = "tables"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is counted.

    Args:
        tables: over which cells.
        most: the most persons that a site may have in one cell, public; a site counts no more.
        model: the model that scores and losses are about, if any are.
        settings: more of what the sites are told, as the federation's mean and deviation.
        fl_round: the round's number.
        timeout: seconds a site may take.
    """

    tables: Tables
    most: int
    model: Arrays | None = None
    settings: Mapping[str, float | int | str | list[float]] = field(default_factory=dict)
    fl_round: int = 0
    timeout: float | None = None

    def task(self) -> dict[str, ArrayRecord | ConfigRecord]:
        """The records that the sites' app gets."""
        config = ConfigRecord({**self.settings, TABLES: encode_tables(self.tables)})
        if self.model is None:
            return {"config": config}
        return {"arrays": ArrayRecord({name: Array(a) for name, a in self.model.items()}), "config": config}


def federated_counts(grid: AveragingGrid, asked: Asked, plan: NoPrivacy | SharedGeometric) -> Tally:
    """Release tables over the training persons of all sites.

    A run's releases of counts all have one plan and one length: a site pins them at the first.

    Raises:
        RoundAborted: too few sites answered, or their policies or ledgers refuse. Nothing was released.
        ConfigError: the plan is for other tables, or every site is trusted.
    """
    return _released(grid, COUNTS, asked, plan)


def private_evaluation(grid: AveragingGrid, asked: Asked, plan: SharedGeometric) -> Tally:
    """Release tables about a model over the test persons of all sites, charged to their own ledger.

    Raises:
        RoundAborted: too few sites answered, or their policies or ledgers refuse. Nothing was released.
        ConfigError: the plan is for other tables, or every site is trusted.
    """
    return _released(grid, EVALUATION, asked, plan)


def _released(grid: AveragingGrid, name: str, asked: Asked, plan: NoPrivacy | SharedGeometric) -> Tally:
    tables = asked.tables
    if tables.needs_model and asked.model is None:
        raise ConfigError("counts about a model, and there is none", next_step="Give the model.")
    if isinstance(plan, SharedGeometric) and (plan.length, plan.cells) != (tables.length, len(tables.tables)):
        raise ConfigError("a plan for counts of other tables", next_step="Plan these tables: plan_counts.")
    finished = grid.release(
        REGISTRY[name],
        list(grid.get_node_ids()),
        task=asked.task(),
        shapes={COUNTS: np.zeros(tables.length)},
        plan=plan,
        fl_round=asked.fl_round,
        timeout=asked.timeout,
        value_range=float(asked.most),
    )
    return tally_of(finished, tables, plan, grid.noise_shares(plan, finished))


def plan_counts(tables: Tables, epsilon: float, *, releases: int = 1, retries: int = 0) -> SharedGeometric:
    """The plan that releases these tables with so much pure epsilon each time.

    Raises:
        ValueError: less than 2^-10 or more than 64 a table.
    """
    cells = len(tables.tables)
    return SharedGeometric(epsilon=epsilon, cells=cells, length=tables.length, releases=releases, retries=retries)


def tally_of(finished: Finished, tables: Tables, plan: PrivacyPlan, honest: int) -> Tally:
    """A finished release of counts; ``honest`` is how many sites its shares of noise counted on."""
    total = finished.total
    counts = signed(total.vector[total.layout.offsets()[VALUES]]).astype(np.int64)
    noise = CountNoise(plan.decay, total.sites, honest) if isinstance(plan, SharedGeometric) else None
    return Tally(tables, counts, total.sites, noise)


def kept(tally: Tally) -> dict[str, list[float]]:
    """A tally as it is kept in a run's checkpoint."""
    noise = tally.noise
    facts = [float(tally.sites), *([] if noise is None else [noise.decay, float(noise.shares), float(noise.honest)])]
    return {"evaluation-counts": [float(c) for c in tally.counts], "evaluation-facts": facts}


def recalled(settings: Mapping[str, Sequence[float] | float | int | str], tables: Tables) -> Tally | None:
    """The tally that a checkpoint keeps, None if it keeps none."""
    counts, facts = settings.get("evaluation-counts"), settings.get("evaluation-facts")
    if not isinstance(counts, list) or not isinstance(facts, list):
        return None
    noise = CountNoise(facts[1], int(facts[2]), int(facts[3])) if len(facts) > 1 else None
    return Tally(tables, np.array(counts, dtype=np.int64), int(facts[0]), noise)
