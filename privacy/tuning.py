"""What a search for hyper-parameters costs, and whom it costs that.

A search trains several models on the same persons. Whoever sees every trial, as the server and the sites do, learns
what all of them together say: their costs add up, and the ledgers charge each trial like any other run. Whoever sees
only the chosen model learns less. If the number of trials is random and nobody is told it, that is bounded by theorem 2
of Papernot and Steinke, *Hyperparameter tuning with Rényi differential privacy* (ICLR 2022), whatever the candidates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import gammaln

from fedseal.errors import ConfigError
from fedseal.privacy.accounting import ORDERS, conversion
from fedseal.privacy.randomness import Stream

Divergence = Callable[[float], float]
# A shape so near to 0 is the logarithmic distribution, where the general formula is 0 / 0.
LOGARITHMIC = 1e-7
# Orders for the second divergence of the theorem: its share shrinks with the order.
LARGE_ORDERS = (*ORDERS, 512.0, 1024.0, 4096.0)


@dataclass(frozen=True, slots=True)
class Trials:
    """The truncated negative binomial distribution of the number of trials (definition 1 of the paper).

    Args:
        eta: its shape, above -1: 1 is the geometric distribution, 0 the logarithmic; smaller is wider and cheaper.
        gamma: in (0, 1); the smaller, the more trials.
    """

    eta: float
    gamma: float

    def __post_init__(self) -> None:
        if not (-1 < self.eta <= 100 and 0 < self.gamma < 1):
            raise ConfigError("a number of trials needs a shape above -1, at most 100, and 0 < gamma < 1")

    @property
    def mean(self) -> float:
        """The expected number."""
        if abs(self.eta) < LOGARITHMIC:
            return (1 / self.gamma - 1) / math.log(1 / self.gamma)
        return self.eta * (1 - self.gamma) / (self.gamma * -math.expm1(self.eta * math.log(self.gamma)))

    def probability(self, count: int) -> float:
        """Of so many trials, 1 or more."""
        if count < 1:
            return 0.0
        log_power = count * math.log1p(-self.gamma)
        if abs(self.eta) < LOGARITHMIC:
            return math.exp(log_power) / (count * math.log(1 / self.gamma))
        # prod (l + eta) / (l + 1) for l from 0 to count - 1; its sign is that of eta, as is that of gamma^-eta - 1.
        product = gammaln(count + self.eta) - gammaln(1 + self.eta) - gammaln(count + 1)
        return float(math.exp(log_power + product) * self.eta / math.expm1(-self.eta * math.log(self.gamma)))

    def beyond(self, count: int) -> float:
        """The probability of more than so many trials."""
        return max(0.0, 1.0 - math.fsum(self.probability(k) for k in range(1, count + 1)))

    def enough(self, chance: float, most: int) -> int | None:
        """The least number that is exceeded with a probability of at most ``chance``; None if ``most`` is not enough.

        The probabilities fall at least as fast as (1 - gamma)^k for a shape up to 1, and are summed from there down, as
        1 minus a sum of nearly 1 is no small number.
        """
        ratio = 1 - self.gamma * (0.5 if self.eta > 1 else 1.0)
        last = min(most, 20_000)
        tail = self.probability(last + 1) / (1 - ratio)
        for count in range(last, 0, -1):
            if tail > chance:
                return None if count == last else count + 1
            tail += self.probability(count)
        return 1

    def draw(self, stream: Stream, most: int) -> int | None:
        """A number of trials; None if it is more than ``most``.

        Args:
            stream: of the operating system; keyed in simulation only.
            most: the largest number of interest.
        """
        left = float(stream.uniform53(1)[0])
        for count in range(1, most + 1):
            left -= self.probability(count)
            if left < 0:
                return count
        return None


def trials_of(mean: float, eta: float) -> Trials:
    """The distribution of a shape and an expected number.

    Raises:
        ConfigError: the mean is not above 1, or above a million.
    """
    if not 1 < mean <= 1e6:
        raise ConfigError("expected a mean number of trials above 1, at most a million")
    low, high = 1e-12, 1 - 1e-9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if Trials(eta, middle).mean > mean else (low, middle)
    return Trials(eta, high)


def selected_divergence(one: Divergence, trials: Trials, order: float) -> float:
    """A bound on the Rényi divergence at ``order`` of the best of the trials, their number unknown: theorem 2.

    rdp(a) + (1 + eta) (1 - 1/b) rdp(b) + (1 + eta) log(1 / gamma) / b + log(E[K]) / (a - 1), at the best b.

    Args:
        one: a bound on the divergence of one trial, score included, at each order; the same for all candidates.
        trials: the distribution of their number.
        order: above 1.
    """
    return _selected(one, trials, order, _second(one, trials))


def epsilon_selected(one: Divergence, trials: Trials, delta: float) -> float:
    """The epsilon at ``delta`` towards those who see only the chosen model."""
    # The same at every order, and a search over orders itself.
    second = _second(one, trials)
    return min(_selected(one, trials, a, second) + conversion(a, delta) for a in ORDERS)


def _selected(one: Divergence, trials: Trials, order: float, second: float) -> float:
    return one(order) + second + math.log(trials.mean) / (order - 1)


def _second(one: Divergence, trials: Trials) -> float:
    """The terms of the second order b, at the best one."""
    return (1 + trials.eta) * min((1 - 1 / b) * one(b) - math.log(trials.gamma) / b for b in LARGE_ORDERS)


def epsilon_of_all(one: Divergence, count: int, delta: float) -> float:
    """The epsilon at ``delta`` towards those who see every one of ``count`` trials."""
    return min(count * one(a) + conversion(a, delta) for a in LARGE_ORDERS)


def refusal_delta(trials: Trials, most: int, epsilon: float) -> float:
    """What is added to delta because a search of more than ``most`` trials does not take place.

    What then comes out differs in distribution from the search of the theorem by at most the probability of that, for
    either of two neighbouring datasets: (1 + e^epsilon) times it.
    """
    return (1 + math.exp(min(epsilon, 700.0))) * trials.beyond(most)
