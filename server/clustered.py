"""Clustered training on sealed sums, where no sum over fewer sites than a minimum ever exists.

IFCA (Ghosh, Chung, Yin and Ramchandran 2020, Algorithm 1, model averaging) trains m models: every site takes the one
that fits its persons best, and each model moves by the mean of the sites that took it. Under secure aggregation a site
sends m blocks, zeros but for the one of its model, and the server gets each block's sum.

Whoever unmasks a sum has all of it: a block cannot be held back afterwards, and a block of one site would be that
site's update. So who goes where is asked for before anything is trained, in a sealed sum of its own, as the number of
sites of each cluster. Only clusters of at least ``minimum`` sites are open in the round that follows; sites of the
others train the open one that fits them best, and if none is open all train the largest.

A site that was counted may fall silent before the second sum. With s = (the smallest open cluster) - ``minimum``, that
sum needs all but s of the sites that were counted, which is in the signed header, and sites go by it: of fewer, nothing
is unmasked. Only sites that were counted are asked. So every block of every sum is over at least ``minimum`` sites, or
over none.

This holds against a server that follows the protocol and keeps what it sees. One that does not could send a model that
it knows only one site will take, or open a cluster that is too small, which no site can see.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedseal.errors import LocalError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.quantize import signed
from fedseal.privacy.releases import MEMBERS, REGISTRY, VALUES, MetricRange
from fedseal.server.contents import Arrays

# As the sites name them; neither side imports the other.
CLUSTERS, OPEN = "clusters", "clusters-open"
CLUSTER_METRIC = "cluster-members"
# A number of sites, for as many rounds as a run may have.
COUNTING = NoPrivacy(releases=10_000, retries=10_000)


def block(cluster: int) -> str:
    """What the names of a cluster's arrays begin with."""
    return f"cluster-{cluster}/"


class Clustered(FedAvg):
    """IFCA for sealed sums. Its model are the models of all clusters, under names that begin with `block`.

    Args:
        sites: how many sites there are.
        clusters: how many models, m.
        minimum: no sum of a cluster's updates is over fewer sites.
    """

    sum_only = True
    asks_who = True

    def __init__(self, sites: int, *, clusters: int, minimum: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self._clusters = clusters
        self._minimum = minimum
        self._sent: Arrays = {}
        self._open: tuple[int, ...] = ()
        # The last counts of sites by cluster, which is all that is known of who goes where.
        self.counts: tuple[int, ...] = ()
        # How many sites the next sum has to be over at least.
        self.fewest: int | None = None

    @property
    def own_metrics(self) -> dict[str, MetricRange]:
        """What rides along an update: each cluster's share of the weight."""
        return {CLUSTER_METRIC: MetricRange(0.0, 1.0, self._clusters)}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask how many sites go where, then ask those that were counted to train.

        Raises:
            LocalError: the grid seals nothing.
            RoundAborted: too few sites said where they go. Nothing was released.
        """
        # That module knows every strategy, this one too.
        from fedseal.server.grid import AveragingGrid

        if not isinstance(grid, AveragingGrid):
            raise LocalError("Clustered needs a SealedGrid")
        config[CLUSTERS] = self._clusters
        finished = grid.release(
            REGISTRY[MEMBERS],
            list(grid.get_node_ids()),
            task={"arrays": arrays, "config": ConfigRecord(dict(config))},
            shapes={MEMBERS: np.zeros(self._clusters)},
            plan=COUNTING,
            fl_round=server_round,
            timeout=None,
            value_range=1.0,
        )
        total = finished.total
        found = signed(total.vector[total.layout.offsets()[VALUES]])
        self.counts = tuple(int(n) for n in found)
        self._open, self.fewest = opened(self.counts, self._minimum, total.sites)
        config[OPEN] = list(self._open)
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        counted = grid.nodes_of(finished.survivors)
        messages = super().configure_train(server_round, arrays, config, grid)
        return [message for message in messages if message.metadata.dst_node_id in counted]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move each cluster's model by the mean of its sites; one that nobody trained stays as it is."""
        batch = list(replies)
        arrays, metrics = super().aggregate_train(server_round, batch)
        if arrays is None or metrics is None:
            return arrays, metrics
        shares = cast(list[float], metrics.pop(CLUSTER_METRIC))
        moved: dict[str, Array] = {}
        for name, sent in self._sent.items():
            cluster = next(j for j in range(self._clusters) if name.startswith(block(j)))
            begin = sent.astype(np.float64)
            way = arrays[name].numpy().astype(np.float64) - begin
            # The mean is over the weight of all sites, and all but this cluster's have zeros here.
            if cluster in self._open and shares[cluster] > 0:
                begin = begin + way / shares[cluster]
            moved[name] = Array(begin.astype(sent.dtype))
        return ArrayRecord(moved), metrics


def opened(counts: tuple[int, ...], minimum: int, sites: int) -> tuple[tuple[int, ...], int]:
    """Which clusters are trained, and how many of the counted sites the sum has to be over at least.

    Args:
        counts: sites by cluster.
        minimum: the fewest sites a block's sum may be over.
        sites: how many were counted, those without persons included.
    """
    large = tuple(j for j, count in enumerate(counts) if count >= minimum)
    if not large:
        return (max(range(len(counts)), key=lambda j: (counts[j], -j)),), minimum + sites - sum(counts)
    if len(large) == 1:
        # Everybody trains it.
        return large, minimum + sites - sum(counts)
    return large, sites - (min(counts[j] for j in large) - minimum)
