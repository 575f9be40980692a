"""One federated training with the protocol modelled: the same server, strategies and sites, sums in the clear.

What comes out is bit for bit what `simulation.training.train` gives, for sites that compute one by one: the model, the
metrics, the charges. Nothing is written to disk. It is for simulations only, which is where there is a seed.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedseal.client.personal import MEMORY_NAME
from fedseal.errors import RoundAborted
from fedseal.privacy.inference.tally import Tally
from fedseal.privacy.planning import RunPlans, ledger_terms, plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import MetricRange, Population
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.privacy.shared_planning import Extent
from fedseal.server.app import ask_a_share, build_strategy, run_study
from fedseal.server.grid import Asking, AveragingGrid, bits_for
from fedseal.server.means import Means
from fedseal.server.rounds import RoundRecord
from fedseal.server.sealing import CohortRules
from fedseal.server.statistics import Moments
from fedseal.server.store import Checkpoint
from fedseal.simulation.books import Incident, explained, summary
from fedseal.simulation.engine.carrier import Losses, ModelledCarrier, nobody
from fedseal.simulation.engine.charges import Charges
from fedseal.simulation.engine.crew import ONE_BY_ONE, Engine, Forked, Here, Methods
from fedseal.simulation.engine.portions import Failure
from fedseal.simulation.engine.sites import Sites
from fedseal.simulation.federation import FIRST_NODE
from fedseal.simulation.grid import NodeList
from fedseal.simulation.personal import OwnModels
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, RoundView, Trained, judged_round, keep_own, metric_ranges
from fedseal.study import Contract


def train_modelled(
    material: Material,
    contract: Contract,
    on_round: Callable[[RoundView], None] | None = None,
    rounding: Rounding = Rounding.STOCHASTIC,
    *,
    workers: int = 1,
    vectorised: Engine = "auto",
    losses: Losses = nobody,
    fraction: float = 1.0,
) -> Trained:
    """Train one federation with the protocol modelled.

    Args:
        material: what the simulation has gathered; its folders are not used.
        contract: the study's contract, perhaps with another promise.
        on_round: told of every round.
        rounding: how values become integers.
        workers: how many processes compute; changes nothing but the time it takes.
        vectorised: ``one-by-one``; ``batched`` or ``vmap``, many sites together, which gives the same up to the order
            in which floats are added; or ``auto``, of many sites the fastest that does. What ran is in the result.
        losses: which sites fall silent at which stage of an attempt.
        fraction: which share of the sites is asked in a round, by Flower's draw.

    Raises:
        RoundAborted, BudgetExceeded, LocalError: as `simulation.training.train` does.
        ConfigError: no noise keeps the promise, a strategy that asks everyone is to ask a part, or the engine that
            was named cannot do it.
    """
    sites = Sites(contract.name, material.task, material.splits, material.seed)
    count, first = len(sites.names), material.server_model(contract.training)
    plans = plan_run(contract, Extent(sum(a.size for a in first.values()), count))
    strategy = build_strategy(contract.training, count, {e.site: e.persons for e in sites.roster.sites})
    rules = CohortRules(
        minimum=contract.cohort.minimum, colluders=contract.cohort.colluders, retries=contract.privacy.retries
    )
    if fraction != 1.0:
        ask_a_share(strategy, fraction, max(rules.minimum, rules.colluders + 2))
    charges = Charges({terms.population: terms for terms in ledger_terms(contract, plans)})
    nodes = NodeList(FIRST_NODE, count)
    asking = Asking(
        max_examples=contract.cohort.largest_site,
        largest_site=sites.roster.largest_site,
        metrics={name: MetricRange(*row) for name, row in metric_ranges(material.task).items()},
        plan=plans.update,
        update_range=contract.training.update_range,
        rules=rules,
        ring_bits=bits_for(count, plans.ring_bits),
        rounding=rounding,
        run_config={},
    )
    trained = Trained(contract, plans, tuple(material.task.metrics()))
    methods = Methods(sites, nodes, vectorised)
    with (
        one_thread(),
        nodes.task(material.seed),
        closing(Forked(methods, workers) if workers > 1 else Here(methods)) as crew,
    ):
        carrier = ModelledCarrier(sites, crew, rules, charges, losses)
        numbers = {name: number for number, name in enumerate(sites.names, start=1)}
        own = OwnModels(
            material.task, contract.training, material.splits, lambda n: carrier.kept(numbers[n], MEMORY_NAME)
        )
        watch = _Watch(material, trained, carrier, charges, own, on_round)
        grid = AveragingGrid(nodes, strategy, asking, carrier=carrier, store=LastCheckpoint(), run=carrier.run)
        try:
            run_study(grid, strategy, contract, plans, first, watch)
        except RoundAborted as error:
            raise explained(error, cause(sites, carrier.failures)) from None
    keep_own(trained, material, watch.own)
    trained.engine = methods.chosen or ONE_BY_ONE
    trained.privacy = charges.privacy(Population.TRAIN, sites.names)
    if trained.evaluation is not None:
        trained.test_privacy = charges.privacy(Population.TEST, sites.names)
    return trained


class LastCheckpoint:
    """The checkpoint of a run that nobody resumes: only what the run itself reads again is kept, in memory."""

    def __init__(self) -> None:
        self._last: Checkpoint | None = None

    def save(self, run: bytes, checkpoint: Checkpoint) -> None:
        """Replace it."""
        self._last = checkpoint

    def load(self, run: bytes) -> Checkpoint | None:
        """The last one."""
        return self._last


@dataclass(frozen=True, slots=True)
class _Watch:
    """Puts together what a run tells: a `RoundObserver`."""

    material: Material
    trained: Trained
    carrier: ModelledCarrier
    charges: Charges
    own: OwnModels
    on_round: Callable[[RoundView], None] | None

    def run_planned(self, plans: RunPlans, moments: Moments | None, run: bytes) -> None:
        """Keep the moments."""
        self.trained.moments = moments

    def round_finished(self, record: RoundRecord) -> None:
        """Judge the round's model and keep both."""
        trained, contract = self.trained, self.trained.contract
        judged = judged_round(self.material, contract, self.own, record.model, trained.normalisation)
        epsilon = self.charges.epsilon(trained.plans, len(self.material.splits), contract.privacy.delta)
        view = RoundView(record, judged, epsilon)
        # A round ended well: whatever went wrong so far is not why a later one fails.
        self.carrier.failures.clear()
        trained.rounds.append(view)
        if self.on_round is not None:
            self.on_round(view)

    def run_evaluated(self, tally: Tally) -> None:
        """Keep the evaluation."""
        self.trained.evaluation = tally

    def run_personalised(self, means: Means) -> None:
        """Keep what the server learns of fine-tuned models."""
        self.trained.personalised = means

    def run_finished(self, model: dict[str, NDArray[Any]]) -> None:
        """Keep the model."""
        self.trained.model.update(model)


def cause(sites: Sites, failures: list[Failure]) -> Incident | None:
    """Of each site its last failure; of those the most frequent kind."""
    last = {failure.site: failure for failure in failures}
    if not last:
        return None
    kind = Counter(failure.code for failure in last.values()).most_common(1)[0][0]
    found = next(failure for site, failure in sorted(last.items()) if failure.code == kind)
    return Incident(sites.names[found.site - 1], RefusalCode(kind).name, *summary(found.text))
