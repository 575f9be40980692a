"""FedAdam without bias correction: the paper's algorithm where Flower's departs from it."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam


class UncorrectedFedAdam(FedAdam):
    """FedAdam as in Reddi et al. 2021, Algorithm 2, without the bias correction that Flower's adds.

    Needs nothing but the weighted mean.
    """

    sum_only = True

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's step with a learning rate that undoes its correction.

        The paper: x_{t+1} = x_t + eta m_t / (sqrt(v_t) + tau). Flower multiplies eta by
        sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)).
        """
        eta = self.eta
        self.eta = eta * (1 - self.beta_1 ** (server_round + 1)) / (1 - self.beta_2 ** (server_round + 1)) ** 0.5
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self.eta = eta
