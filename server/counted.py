"""Who was in the sum last in which round: what a site with a memory goes by to know what it may keep."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.server.exchange import CONTROL

# In the one reply's record of fedseal: the numbers of the sites whose vectors are in the sum.
SURVIVORS = "survivors"
# In the task's settings: which site was in the sum last in which round.
SITES, ROUNDS = "control-sites", "control-rounds"

# Each site's last counted round, under the site's number; a checkpoint keeps it.
Tally = dict[str, NDArray[Any]]


def survivors_of(replies: list[Message]) -> list[int]:
    """The sites whose vectors are in a sealed round's one reply.

    Raises:
        LocalError: there is not one reply, so no `SealedGrid` made it.
    """
    if len(replies) != 1:
        raise LocalError("this strategy needs a SealedGrid, which returns one reply")
    return cast(list[int], replies[0].content.config_records[CONTROL][SURVIVORS])


def told(tally: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    """The settings that tell every site in which round it was counted last."""
    counted = {int(name): int(value[0]) for name, value in tally.items() if name.isdigit()}
    return {SITES: sorted(counted), ROUNDS: [counted[site] for site in sorted(counted)]}


def count(tally: Tally, survivors: Iterable[int], server_round: int) -> None:
    """Write down who was in a round's sum."""
    for site in survivors:
        tally[str(site)] = np.array([server_round])


class Personal(FedAvg):
    """FedAvg of what sites share, where sites keep arrays of their own from round to round.

    The server's part of Ditto, FedRep and FedBN: to it they are FedAvg of the arrays that it has. It tells every site
    in which round it was counted last, so that what a site keeps of a round that was aborted is forgotten.
    """

    sum_only = True
    asks_who = True

    def __init__(self, sites: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self.tally: Tally = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Say who was counted last when."""
        config.update(told(self.tally))
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of the shared arrays."""
        batch = list(replies)
        count(self.tally, survivors_of(batch), server_round)
        return super().aggregate_train(server_round, batch)
