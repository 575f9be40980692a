"""One federated training in a simulation: a federation of its own, the deployed apps, and an eye on every round."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.numpy
import torch

from fedseal.client.app import app as client_app
from fedseal.client.first_model import first_arrays
from fedseal.client.metrics import LOSS, loss_range
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.client.mod import STORE_KEY as SITE_STORE_KEY
from fedseal.client.normalise import Normalisation
from fedseal.client.personal import MEMORY_NAME, state_of
from fedseal.client.task import Metric, Split, Task, size
from fedseal.client.trainer import Arrays, trainable
from fedseal.compliance.data.code import code_digest
from fedseal.errors import RoundAborted
from fedseal.privacy.inference.tally import Tally
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.releases import VALIDATION_RATIO, Population
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.store import SiteStore
from fedseal.server.app import (
    CODE_KEY,
    CONTRACT_KEY,
    METRICS_KEY,
    MODEL_KEY,
    RESUME_KEY,
    ROUNDING_KEY,
    SITES_KEY,
    STORE_KEY,
)
from fedseal.server.app import app as server_app
from fedseal.server.means import Means
from fedseal.server.rounds import RoundRecord
from fedseal.server.statistics import Moments
from fedseal.simulation.books import Books
from fedseal.simulation.engine.processes import MakeGrid, Processes
from fedseal.simulation.faults.crash import served_through_crashes
from fedseal.simulation.federation import FIRST_NODE, Federation, SitePrivacy, enrol, site_privacy
from fedseal.simulation.grid import Deliver, Observer
from fedseal.simulation.oracle import Judged, Oracle
from fedseal.simulation.personal import OwnModels
from fedseal.simulation.registered import register_site
from fedseal.study import Contract, Study, Training


@dataclass(frozen=True, slots=True)
class Material:
    """What all trainings of one simulation share.

    ``initial`` are the parameters to begin with; the seed's if None. ``processes``: where the sites run.
    """

    study: Study
    task: Task
    splits: Mapping[str, Split]
    data: Mapping[str, Path]
    oracle: Oracle
    seed: int
    initial: Arrays | None = None
    processes: Processes = field(default_factory=Processes)

    def first_model(self) -> Arrays:
        """The parameters of the whole model that everyone begins with."""
        return initial_model(self.task, self.seed) if self.initial is None else self.initial

    def server_model(self, training: Training) -> Arrays:
        """What the server begins with: all of it, or what the strategy lets it have, or a model for each cluster."""
        if self.initial is None:
            return server_model(self.task, training, self.seed)
        initial = self.initial
        return first_arrays(self.task, training, lambda _: initial, _initial_stream(self.seed, "apart"))


@dataclass(frozen=True, slots=True)
class RoundView:
    """A finished round with what the oracle says about it: of the model, or where the sites share no whole one of each
    site's own.

    ``epsilon`` is what was charged so far, failed attempts included, at the site where it is largest.
    """

    record: RoundRecord
    judged: Judged
    epsilon: float | None


@dataclass(slots=True)
class Trained:
    """A finished training. ``evaluation`` is its private one, if the contract has one, charged to ``test_privacy``.

    Where sites have models of their own, ``personal`` are those at the end, by site, parameters and statistics, and
    ``judged_own`` is what the oracle says of each on its own site's test persons. ``personalised`` is what the server
    learns of fine-tuned ones: the means of their metrics over all test persons.
    ``engine`` is how its sites computed: one by one, or many at once in one of the ways of `simulation.engine`.
    """

    contract: Contract
    plans: RunPlans
    metrics: tuple[Metric, ...]
    model: Arrays = field(default_factory=dict)
    moments: Moments | None = None
    rounds: list[RoundView] = field(default_factory=list)
    privacy: dict[str, SitePrivacy] = field(default_factory=dict)
    federation: Federation | None = None
    evaluation: Tally | None = None
    test_privacy: dict[str, SitePrivacy] = field(default_factory=dict)
    personal: dict[str, Arrays] | None = None
    judged_own: Judged | None = None
    personalised: Means | None = None
    engine: str = "one-by-one"

    @property
    def normalisation(self) -> Normalisation | None:
        """The federation's normalisation, if it made one."""
        return None if self.moments is None else Normalisation(self.moments.mean, self.moments.deviation)


def initial_model(task: Task, seed: int, number: int = 0) -> Arrays:
    """The parameters everyone begins with, fixed by the seed; those of further models under further numbers."""
    stream = _initial_stream(seed, *((number,) if number else ()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream.words64(1)[0]) >> 1)
        return trainable(task.model())


def server_model(task: Task, training: Training, seed: int) -> Arrays:
    """The arrays that the server of a run begins with, public and fixed by the seed.

    Raises:
        ConfigError: the strategy does not go with the task's model.
    """
    return first_arrays(task, training, lambda n: initial_model(task, seed, n), _initial_stream(seed, "apart"))


def _initial_stream(seed: int, *purpose: str | int) -> Stream:
    return KeyedRandomness(seed, "simulation").stream("initial-model", *purpose)


def metric_ranges(task: Task) -> dict[str, tuple[float, float, int]]:
    """The public range of everything that may ride along an update, as the run's configuration wants it.

    Values ride along multiplied by a ratio of at most 1, so each range includes 0.
    """
    low, high = loss_range(task)
    ranges: dict[str, tuple[float, float, int]] = {
        LOSS: (min(low, 0.0), max(high, 0.0), 1),
        VALIDATION_RATIO: (0.0, 1.0, 1),
    }
    for metric in task.metrics():
        ranges[metric.name] = (min(metric.low, 0.0), max(metric.high, 0.0), metric.length)
    return ranges


def train(
    material: Material,
    contract: Contract,
    folder: Path,
    on_round: Callable[[RoundView], None] | None = None,
    rounding: Rounding = Rounding.STOCHASTIC,
    *,
    on_record: bool = False,
    federation: Federation | None = None,
    deliver: Deliver | None = None,
) -> Trained:
    """Train one federation.

    Args:
        material: what the simulation has gathered.
        contract: the study's contract, perhaps with another promise.
        folder: a new folder for the federation's stores.
        on_round: told of every round.
        rounding: how values become integers.
        on_record: whether sites register their data and look at it before every round, as real ones do.
        federation: one that has trained before, whose ledgers pay for this run too; ``folder`` is then its.
        deliver: how messages reach sites and answers the server, see `LocalGrid`: where virtual time and faults come
            in. A crash of the server is followed by a server that goes on with the run. It sees all messages in their
            order, so the sites then run in this process, whatever the material says.

    Raises:
        RoundAborted: a round failed for good; the next step quotes what the simulated sites wrote down.
        BudgetExceeded, PolicyRefused, PeerError, LocalError: likewise, where that is why sites refused.
        ConfigError: no noise keeps the promise, or the study's own code failed; a worker has ended.
    """
    with material.processes.started(client_app, deliver) as make_grid:
        return _trained(material, contract, folder, on_round, rounding, on_record, federation, make_grid)


def _trained(
    material: Material,
    contract: Contract,
    folder: Path,
    on_round: Callable[[RoundView], None] | None,
    rounding: Rounding,
    on_record: bool,
    federation: Federation | None,
    make_grid: MakeGrid,
) -> Trained:
    persons = {name: size(split.train) for name, split in material.splits.items()}
    plans = plan_run(
        contract, Extent(sum(a.size for a in material.server_model(contract.training).values()), len(persons))
    )
    federation = federation or enrol(folder, contract, plans, persons, material.seed)
    if on_record:
        for name, store in federation.site_stores.items():
            register_site(store, material.data[name], material.study.folder, contract)
    books = Books(federation.site_stores, plans, contract.privacy.delta)
    trained = Trained(contract, plans, tuple(material.task.metrics()))

    own: list[OwnModels] = []

    def planned(_: RunPlans, moments: Moments | None, run: bytes) -> None:
        trained.moments = moments

        def kept(site: str) -> bytes | None:
            with SiteStore.open(federation.site_stores[site]).transaction() as transaction:
                return transaction.kept(run, MEMORY_NAME)

        own.append(OwnModels(material.task, contract.training, material.splits, kept))
        books.begin_training()

    def finished(record: RoundRecord) -> None:
        judged = judged_round(material, contract, own[-1], record.model, trained.normalisation)
        view = RoundView(record, judged, books.epsilon())
        books.end_round()
        trained.rounds.append(view)
        if on_round is not None:
            on_round(view)

    def evaluated(tally: Tally) -> None:
        trained.evaluation = tally

    def personalised(means: Means) -> None:
        trained.personalised = means

    nodes, config = node_configs(material, federation), run_config(material, contract, federation, rounding)

    def serve(run: bytes | None) -> None:
        resumed: dict[str, str | int] = {} if run is None else {RESUME_KEY: run.hex()}
        observer = Observer(planned, finished, trained.model.update, evaluated, personalised)
        grid = make_grid(nodes, run_config=config | resumed, observer=observer)
        grid.serve(server_app, seed=material.seed)

    try:
        served_through_crashes(serve)
    except RoundAborted as error:
        raise books.explain(error) from None
    keep_own(trained, material, own[-1])
    trained.federation = federation
    trained.privacy = {name: site_privacy(path) for name, path in federation.site_stores.items()}
    if trained.evaluation is not None:
        stores = federation.site_stores.items()
        trained.test_privacy = {name: site_privacy(path, Population.TEST) for name, path in stores}
    return trained


def judged_round(
    material: Material, contract: Contract, own: OwnModels, model: Arrays, normalisation: Normalisation | None
) -> Judged:
    """What the oracle says after a round: of the federation's model, or where there is no whole one of each site's."""
    if contract.training.has_one_model:
        return material.oracle.judge_arrays(model, normalisation)
    return material.oracle.judge_own(own.modules(model, normalisation) or {}, normalisation)


def keep_own(trained: Trained, material: Material, own: OwnModels) -> None:
    """Keep the sites' own models of a finished training, if they have any, and what the oracle says of them."""
    modules = own.modules(trained.model, trained.normalisation)
    if modules is not None:
        trained.personal = {name: state_of(module, frozenset(module.state_dict())) for name, module in modules.items()}
        trained.judged_own = material.oracle.judge_own(modules, trained.normalisation)


def node_configs(material: Material, federation: Federation) -> dict[int, dict[str, str]]:
    """The configuration of every node, as `--node-config` would give it."""
    return {
        FIRST_NODE + i: {
            SITE_STORE_KEY: str(store),
            DATA_KEY: str(material.data[name]),
            STUDY_KEY: str(material.study.folder),
        }
        for i, (name, store) in enumerate(federation.site_stores.items())
    }


def run_config(
    material: Material, contract: Contract, federation: Federation, rounding: Rounding = Rounding.STOCHASTIC
) -> dict[str, str | int]:
    """The configuration of a simulated run. Writes the first model into the federation's folder."""
    path = federation.folder / "initial.safetensors"
    path.write_bytes(safetensors.numpy.save(material.server_model(contract.training)))
    text, sites = contract.model_dump_json(), len(federation.site_stores)
    code = {CODE_KEY: "sha256:" + code_digest(material.study.folder).hex()}
    return study_config(material.task, contract.task, text, federation.server_store, path, sites, rounding) | code


def study_config(
    task: Task, reference: str, contract: str, server_store: Path, model: Path, sites: int, rounding: Rounding
) -> dict[str, str | int]:
    """What `server.app` and `client.app` read of a run's configuration.

    Args:
        task: whose metrics are averaged.
        reference: the task's, as module:Name.
        contract: the study's, in JSON.
        server_store: the server's store.
        model: the file of the first model.
        sites: how many the run waits for.
        rounding: how values become integers.
    """
    return {
        "fedseal-task": reference,
        STORE_KEY: str(server_store),
        CONTRACT_KEY: contract,
        MODEL_KEY: str(model),
        METRICS_KEY: json.dumps(metric_ranges(task)),
        SITES_KEY: sites,
        ROUNDING_KEY: rounding.name.lower(),
    }
