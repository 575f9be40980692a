"""FedNova (Wang, Liu, Liang, Joshi and Poor 2020) on sealed sums.

Sites take different numbers of local steps tau_i, for example because they pass over different numbers of persons. With
FedAvg a site that takes more steps pulls the model towards itself; FedNova averages mean steps,

    x <- x - eta tau_eff sum_i p_i d_i,    d_i = (x - y_i) / tau_i,    tau_eff = sum_i p_i tau_i,    p_i = n_i / n

(their equation 8 with plain gradient descent at the sites, and the default tau_eff of section 4.2). Both sums are in
the one sealed vector: d_i as the update, tau_i as one more number that is weighted by persons. Both are sent in
multiples of a public reference number of steps, so an update has the size it has with FedAvg.

Under plan ``client`` numbers ride beside no update. There a site counts its steps by the roster's public number of its
persons, and the server does the same for the sites in the sum.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedseal.errors import LocalError
from fedseal.privacy.releases import MetricRange
from fedseal.server.contents import Arrays
from fedseal.server.counted import survivors_of
from fedseal.study import Training

# As the sites name them; neither side imports the other.
NOVA_STEPS, NOVA_MOST = "nova-steps", "nova-most-steps"
NOVA_METRIC = "nova-steps"
# A site that holds more persons than the roster says takes at most so many times the steps of the largest.
MARGIN = 2


class FedNova(FedAvg):
    """FedNova for sealed sums.

    Args:
        sites: how many sites there are.
        training: their local steps, and eta as ``server_learning_rate``.
        persons: the roster's public number of persons of each site; needed where steps are counted in passes.

    Raises:
        ConfigError: steps are counted in passes, and nobody says over how many persons.
    """

    sum_only = True
    asks_who = True

    def __init__(self, sites: int, training: Training, persons: Mapping[int, int]) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        self._rate = training.server_rate
        self._persons = persons
        self._steps = {site: training.steps_over(count) for site, count in persons.items()}
        every = list(self._steps.values()) or [training.steps_over(None)]
        self._reference = max(1, round(sum(every) / len(every)))
        self._most = MARGIN * max(every)
        self._sent: Arrays = {}

    @property
    def own_metrics(self) -> dict[str, MetricRange]:
        """What rides along an update for this strategy: tau_i in multiples of the reference."""
        return {NOVA_METRIC: MetricRange(0.0, self._most / self._reference)}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model, the reference and the largest number of steps."""
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        config[NOVA_STEPS], config[NOVA_MOST] = self._reference, self._most
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the model by eta tau_eff times the mean normalised step."""
        batch = list(replies)
        survivors = survivors_of(batch)
        arrays, metrics = super().aggregate_train(server_round, batch)
        if arrays is None or metrics is None:
            return arrays, metrics
        found = metrics.pop(NOVA_METRIC, None)
        effective = self._public(survivors) if found is None else found
        if not isinstance(effective, float):
            raise LocalError("the sites' steps are no number")
        moved = {}
        for name, sent in self._sent.items():
            begin = sent.astype(np.float64)
            way = arrays[name].numpy().astype(np.float64) - begin
            moved[name] = Array((begin + self._rate * effective * way).astype(sent.dtype))
        return ArrayRecord(moved), metrics

    def _public(self, survivors: list[int]) -> float:
        """tau_eff in multiples of the reference, by the roster's numbers."""
        weights = {site: self._persons.get(site, 0) for site in survivors}
        total = sum(weights.values())
        if not total:
            return 1.0
        return sum(weights[site] * self._steps[site] for site in weights if site in self._steps) / (
            total * self._reference
        )
