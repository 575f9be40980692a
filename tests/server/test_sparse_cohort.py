"""A cohort of more than 256 sites through grid, stores and ledgers: the protocol's own ring."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    numpy_of,
    ordinary_app,
    train_messages,
)

from fedseal.errors import ConfigError
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

N = 257


@pytest.fixture(autouse=True)
def _task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.mark.slow
def test_the_mean_over_257_sites(tmp_path: Path) -> None:
    change = {site: (site % 7) / 8 for site in range(1, N + 1)}
    federation = make_federation(tmp_path, N)
    rules = CohortRules(minimum=3, colluders=0, retries=0, stage_timeout=600.0)
    grid = local_grid(federation, ordinary_app(Script(change)))
    sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules)
    (reply,) = sealed.send_and_receive(train_messages(sealed, model()), timeout=600.0)
    moved = numpy_of(reply.content["arrays"])["bias"][-1] - numpy_of(model())["bias"][-1]
    assert moved == pytest.approx(np.mean(list(change.values())), abs=1e-3)
    assert sealed.last_account is not None
    sure = sealed.last_account.assurance
    assert sure is not None
    assert (sure.members, sure.degree, sure.threshold, sure.sigma, sure.eta) == (N, 28, 15, 80, 20)
    assert not sealed.last_account.refused


@pytest.mark.slow
def test_colluders_that_no_graph_withstands_are_an_error_of_the_configuration(tmp_path: Path) -> None:
    """Said before any site is asked for keys."""
    federation = make_federation(tmp_path, N)
    rules = CohortRules(minimum=3, colluders=200, retries=0, stage_timeout=60.0)
    grid = local_grid(federation, ordinary_app(Script({})))
    sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules)
    with pytest.raises(ConfigError, match="no sparse graph on 257 sites"):
        list(sealed.send_and_receive(train_messages(sealed, model()), timeout=60.0))
