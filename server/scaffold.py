"""SCAFFOLD (Karimireddy, Kale, Mohri, Reddi, Stich and Suresh 2020, Algorithm 1, option II) without a second vector.

Each site trains with steps ``y <- y - eta_l (g_i(y) - c_i + c)`` and keeps its control variate ``c_i`` to itself. In
the paper it sends two vectors, ``dy_i = y_i - x`` and ``dc_i = c_i+ - c_i``. Here it sends the first one only, because
with K steps of size eta_l option II says

    c_i+ = c_i - c + (x - y_i) / (K eta_l)    so    dc_i = -c - dy_i / (K eta_l)

and the server, which knows c, K and eta_l, gets every weighted sum of the second from that of the first:

    sum_S w_i dc_i = -W_S c - W_S mean(dy) / (K eta_l)    with    W_S = sum_S w_i.

It keeps ``held``, the sum of ``w_i c_i`` over all sites, exactly up to rounding, and ``c = held / W`` with W the weight
of all sites. With equal weights that is the paper's ``c <- c + |S|/N mean(dc)``; if all take part it is simply
``c = -mean(dy) / (K eta_l)``.

The weights w_i have to stay what they are. Under a private plan they are the roster's; under plan none they are the
sites' numbers of examples, and a site that reports another number from some round on leaves ``held`` with its old
weight in it. The single weight is sealed, but of a sum over all sites the whole weight is known: if it is not what it
was, SCAFFOLD begins anew, with control variates of zero everywhere. A change that keeps the whole weight, or that is
never followed by a round of all sites, is not seen.
"""

import logging
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedseal.operation.events import ScaffoldReset
from fedseal.operation.logs import say
from fedseal.server.counted import count, survivors_of, told

# The server's control variate travels beside the model under such names; it is no part of what is summed.
VARIATE_PREFIX = "control/"

log = logging.getLogger("fedseal.server")

Arrays = dict[str, NDArray[Any]]


class Scaffold(FedAvg):
    """SCAFFOLD for sealed sums. Every site is asked every round; whoever drops out is left out, as in the paper.

    Args:
        sites: how many sites there are, N.
        local_steps: steps of a site in a round, K, the same everywhere.
        learning_rate: their size, eta_l.
        server_learning_rate: eta_g.
    """

    sum_only = True
    asks_who = True
    unsummed_prefix = VARIATE_PREFIX

    def __init__(
        self, sites: int, *, local_steps: int, learning_rate: float, server_learning_rate: float = 1.0
    ) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self._number = sites
        # K eta_l: what turns a way into a mean gradient.
        self._span = local_steps * learning_rate
        self._rate = server_learning_rate
        self._sent: Arrays = {}
        self._variate: Arrays = {}
        # What a checkpoint keeps: the sum of w_i c_i by array; the weight of all sites; each site's last counted round.
        self.held: dict[str, NDArray[Any]] = {}
        self.tally: dict[str, NDArray[Any]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model with the server's control variate beside it."""
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        self._variate = self.variate(self._sent)
        beside = {VARIATE_PREFIX + name: Array(value) for name, value in self._variate.items()}
        config.update(told(self.tally))
        return super().configure_train(server_round, ArrayRecord({**arrays, **beside}), config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the model by eta_g times the mean way, and derive the control variates' sum."""
        batch = list(replies)
        arrays, metrics = super().aggregate_train(server_round, batch)
        if arrays is None:
            return None, metrics
        ways = {
            name: arrays[name].numpy().astype(np.float64) - sent.astype(np.float64) for name, sent in self._sent.items()
        }
        self._account(server_round, batch, ways)
        # x <- x + eta_g / |S| sum dy_i
        moved = {
            name: Array((sent.astype(np.float64) + self._rate * ways[name]).astype(sent.dtype))
            for name, sent in self._sent.items()
        }
        return ArrayRecord(moved), metrics

    def variate(self, like: Arrays) -> Arrays:
        """The server's control variate c, in the shapes and types of ``like``: the weighted mean of the sites' own."""
        total = float(self.tally["weight"][0]) if "weight" in self.tally else 1.0
        return {
            name: (self.held.get(name, np.zeros(array.shape)) / total).astype(array.dtype)
            for name, array in like.items()
        }

    def _account(self, server_round: int, replies: list[Message], ways: Arrays) -> None:
        """Take one sum into account: W_S, mean(dy), and who is in it."""
        survivors = survivors_of(replies)
        weight = float(cast(float, next(iter(replies[0].content.metric_records.values()))[self.weighted_by_key]))
        whole = len(survivors) >= self._number
        if whole and "full" in self.tally and weight != float(self.tally["weight"][0]):
            say(log, ScaffoldReset(server_round))
            # A site that was counted in no round has a control variate of zero.
            self.held, self.tally = {}, {"weight": np.array([weight]), "full": np.array([1.0])}
            return
        for name, way in ways.items():
            before = self.held.get(name, np.zeros(way.shape))
            # sum_S w_i dc_i = -W_S (c + mean(dy) / (K eta_l))
            self.held[name] = before - weight * (self._variate[name].astype(np.float64) + way / self._span)
        # Before all were there once, as if those who were not had the others' mean weight.
        if whole or "full" not in self.tally:
            self.tally["weight"] = np.array([weight * self._number / len(survivors)])
        if whole:
            self.tally["full"] = np.array([1.0])
        count(self.tally, survivors, server_round)
