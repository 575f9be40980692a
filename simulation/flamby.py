"""FLamby's published results on Fed-Heart-Disease, run again through sealed sums, each method beside a predictor that
knows nothing but the majority.

FLamby: Ogier du Terrail et al., NeurIPS 2022. Published figures are means and standard deviations over the seeds 42 to
46, from the result files in its repository; its settings are repeated here. "Centres" is the mean accuracy over the
four hospitals' own test patients, "pooled" that over all of them together, there normalised with pooled statistics.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import cast

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedseal.client.metrics import measure, values
from fedseal.client.task import Persons, SiteData, Task, batch_of, build_model, size
from fedseal.client.trainer import Arrays, Trainer, TrainSettings, load, trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.baselines import together
from fedseal.simulation.folders import run_folder
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import write_tables
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, train
from fedseal.study import Contract, Normalisation, Study, Training
from fedseal.study_code import load_object, load_task

SEEDS = (42, 43, 44, 45, 46)
ROUNDS, UPDATES, BATCH, POOLED_EPOCHS = 15, 100, 4, 50
# The three ways in which a study that offers this prepares its data, and the public ranges of its features.
PER_HOSPITAL, AS_PUBLISHED, IMPUTED = "task:PerHospital", "task:AsPublished", "task:HeartDisease"
LOW, HIGH = "task:FEDERATED_LOW", "task:FEDERATED_HIGH"


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracies: the mean over hospitals, and of all test patients together."""

    centres: float
    pooled: float


@dataclass(frozen=True, slots=True)
class Published:
    """FLamby's figures: means and standard deviations over five seeds."""

    centres: float
    centres_sd: float
    pooled: float
    pooled_sd: float


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train together, how the data is prepared for it, and what FLamby published for it."""

    name: str
    training: Training
    task: str = PER_HOSPITAL
    published: Published | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A method's scores, one for each seed."""

    name: str
    scores: tuple[Score, ...]
    published: Published | None

    @property
    def mean(self) -> Score:
        """Over the seeds."""
        return Score(mean(s.centres for s in self.scores), mean(s.pooled for s in self.scores))

    @property
    def deviation(self) -> Score:
        """Over the seeds, as FLamby's: the sample's."""
        return Score(stdev(s.centres for s in self.scores), stdev(s.pooled for s in self.scores))

    @property
    def reproduced(self) -> bool | None:
        """Whether both means lie within one published standard deviation; None where nothing was published."""
        if (p := self.published) is None:
            return None
        found = self.mean
        return abs(found.centres - p.centres) <= p.centres_sd and abs(found.pooled - p.pooled) <= p.pooled_sd


def _settings(rate: float, strategy: str = "fedavg", **changes: float | bool) -> Training:
    common = {
        "rounds": ROUNDS,
        "local_steps": UPDATES,
        "batch_size": BATCH,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "tau": 1e-8,
    }
    return Training.model_validate({**common, "learning_rate": rate, "strategy": strategy, **changes})


# FLamby's FedAdam is the paper's, without the bias correction that Flower's adds.
ADAM = _settings(0.01, "fedadam", server_learning_rate=0.01, bias_correction=False)
METHODS = (
    Method("FedAvg", _settings(0.001), published=Published(0.6850, 0.0283, 0.7480, 0.0269)),
    Method(
        "FedProx",
        _settings(0.001, "fedprox", proximal_mu=0.01),
        published=Published(0.6850, 0.0283, 0.7480, 0.0269),
    ),
    Method("Scaffold", _settings(0.001, "scaffold"), published=Published(0.6840, 0.0280, 0.7480, 0.0269)),
    Method("FedAdam", ADAM, published=Published(0.7255, 0.0138, 0.7787, 0.0146)),
    Method(
        "FedYogi",
        _settings(0.003162, "fedyogi", server_learning_rate=0.01),
        published=Published(0.7314, 0.0125, 0.7787, 0.0154),
    ),
    Method(
        "FedAdagrad",
        _settings(0.003162, "fedadagrad", server_learning_rate=0.316228),
        published=Published(0.7314, 0.0125, 0.7787, 0.0154),
    ),
    # Not published: features normalised with the mean and deviation of the federation, themselves sealed sums.
    Method("FedAvg, federated", _settings(0.01), AS_PUBLISHED),
    Method("FedAdam, federated", ADAM, AS_PUBLISHED),
    Method("Scaffold, federated", _settings(0.01, "scaffold"), AS_PUBLISHED),
    # The same where a cholesterol of 0, which only tells the hospital, is replaced by a usual value.
    Method("FedAvg, federated, imputed", _settings(0.01), IMPUTED),
    Method("FedAdam, federated, imputed", ADAM, IMPUTED),
)
CYCLIC = Published(0.7180, 0.0287, 0.7850, 0.0123)
POOLED = Published(0.7353, 0.0027, 0.7953, 0.0028)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The hospitals' data in every preparation, and all test patients normalised with pooled statistics.

    ``ranges`` are those from which federated normalisation sums a mean and deviation.
    """

    materials: Mapping[str, Material]
    ranges: Normalisation
    pooled_train: Persons
    pooled_test: Persons


def simulate_flamby(study: Study, data: Path, out: Path, phase: Callable[[str], None]) -> tuple[Path, list[Row]]:
    """Run the table and write it to a run's folder.

    Args:
        study: examples/heart-disease, or one that prepares its data in the same three ways.
        data: the folder with the hospitals' files.
        out: the folder that holds runs.
        phase: told what begins.

    Returns:
        The file with the numbers, and the table.
    """
    population = gather(study, data=data, sites=None, seed=SEEDS[0])
    with run_folder(out, f"{study.contract.name}-flamby") as (folder, run), one_thread():
        with tempfile.TemporaryDirectory() as tables:
            folders = write_tables(population, Path(tables))
            # Fifty federations with their stores are of no use to anybody afterwards.
            rows = reproduce(prepare(study, folders), Path(tables) / "federations", phase)
        path = folder / "flamby.json"
        path.write_text(json.dumps([_record(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return out / run / path.name, rows


def _record(row: Row) -> dict[str, object]:
    return {
        "method": row.name,
        "seeds": list(SEEDS),
        "scores": [asdict(score) for score in row.scores],
        "mean": asdict(row.mean),
        "deviation": asdict(row.deviation),
        "published": None if row.published is None else asdict(row.published),
        "reproduced": row.reproduced,
    }


def prepare(study: Study, data: Mapping[str, Path]) -> Prepared:
    """Read every hospital's folder in every preparation.

    Raises:
        ConfigError: the study has no such preparations.
    """
    try:
        low, high = load_object(LOW, study.folder), load_object(HIGH, study.folder)
    except ConfigError:
        raise ConfigError(
            "--flamby needs a study that prepares its data as FLamby does", next_step="Use examples/heart-disease."
        ) from None
    ranges = Normalisation.model_validate({"kind": "federated", "low": low, "high": high})
    materials = {}
    for reference in (PER_HOSPITAL, AS_PUBLISHED, IMPUTED):
        task = cast(Task, load_task(reference, study.folder))
        splits = {name: task.data(SiteData(name, folder)) for name, folder in data.items()}
        materials[reference] = Material(study, task, splits, data, Oracle(task, splits), SEEDS[0])
    raw = materials[AS_PUBLISHED].splits
    pooled_train = together([split.train for split in raw.values()])
    features = batch_of(pooled_train, np.arange(size(pooled_train)))[0]
    # FLamby divides by the sample's deviation plus 1e-9.
    centre, width = features.mean(dim=0), features.std(dim=0) + 1e-9

    def normal(persons: Persons) -> Persons:
        rows, targets = batch_of(persons, np.arange(size(persons)))
        return TensorDataset((rows - centre) / width, targets)

    return Prepared(materials, ranges, normal(pooled_train), normal(together([split.test for split in raw.values()])))


def reproduce(prepared: Prepared, folder: Path, phase: Callable[[str], None]) -> list[Row]:
    """Run everything: FLamby's rows, those with federated normalisation, and the predictor that knows the majority.

    Args:
        prepared: the data.
        folder: gets a folder for each federation.
        phase: told what begins.
    """
    rows = []
    for method in METHODS:
        phase(method.name)
        scores = [_federated(prepared, method, seed, folder) for seed in SEEDS]
        rows.append(Row(method.name, tuple(scores), method.published))
    phase("Cyclic, pooled training, majority")
    kept = tuple(_cyclic(prepared, seed, hand_on=False) for seed in SEEDS)
    rows.insert(6, Row("Cyclic, not handed on", kept, CYCLIC))
    rows.insert(7, Row("Pooled training", tuple(_pooled(prepared, seed) for seed in SEEDS), POOLED))
    rows.append(Row("Cyclic, handed on", tuple(_cyclic(prepared, seed, hand_on=True) for seed in SEEDS), None))
    rows.append(Row("Majority per hospital", (majority_per_centre(prepared),) * len(SEEDS), None))
    return rows


def _federated(prepared: Prepared, method: Method, seed: int, folder: Path) -> Score:
    material = replace(prepared.materials[method.task], seed=seed, initial=first_model(prepared, seed))
    contract = _contract(material.study.contract, method, prepared.ranges)
    name = "".join(c if c.isalnum() else "-" for c in method.name.lower())
    trained = train(material, contract, folder / f"{name}-{seed}")
    judged = trained.rounds[-1].judged
    if method.task == PER_HOSPITAL:
        return _score(prepared, trained.model)
    return Score(_mean_of_sites(judged.sites), float(judged.everyone["accuracy"] or 0.0))


def first_model(prepared: Prepared, seed: int) -> Arrays:
    """What torch makes of the seed, as FLamby does: with its small steps much of the first model is left at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trainable(prepared.materials[PER_HOSPITAL].task.model())


def _contract(contract: Contract, method: Method, ranges: Normalisation) -> Contract:
    normalisation = Normalisation() if method.task == PER_HOSPITAL else ranges
    return contract.model_copy(
        update={
            "task": method.task,
            "training": method.training,
            "privacy": contract.privacy.model_copy(update={"plan": "none"}),
            "normalisation": normalisation,
        }
    )


def _score(prepared: Prepared, model: Arrays) -> Score:
    """Of a model for data that each hospital normalises by itself."""
    material = prepared.materials[PER_HOSPITAL]
    module = build_model(material.task)
    load(module, model)
    everyone = values(material.task, measure(material.task, module, prepared.pooled_test))
    return Score(_mean_of_sites(material.oracle.judge(module, None).sites), float(everyone["accuracy"] or 0.0))


def _mean_of_sites(sites: Mapping[str, Mapping[str, float | None]]) -> float:
    return mean(float(scores["accuracy"] or 0.0) for scores in sites.values())


def _cyclic(prepared: Prepared, seed: int, *, hand_on: bool) -> Score:
    """Cyclic weight transfer: one hospital a round, in a new random order each cycle.

    In FLamby's code every hospital keeps a copy of its own and the first hospital's is scored: nothing travels. So it
    was when its figures were made, which come out only that way.
    """
    material, randomness = prepared.materials[PER_HOSPITAL], KeyedRandomness(seed, "flamby")
    trainers = [Trainer(material.task, s.train, public_persons=size(s.train)) for s in material.splits.values()]
    models = [first_model(prepared, seed)] * len(trainers)
    settings = TrainSettings(learning_rate=0.01, sample_rate=1.0, local_steps=UPDATES, batch_size=BATCH)
    order: list[int] = []
    for number in range(ROUNDS):
        if not order:
            draws = randomness.stream("order", number).words64(len(trainers))
            order = [int(i) for i in np.argsort(draws)]
        at = order.pop(0)
        trained = trainers[at].fit(
            models[at],
            settings,
            NoPrivacy(releases=1, retries=0),
            lambda *purpose, number=number: randomness.stream("cyclic", number, *purpose),
        )
        models = [trained] * len(models) if hand_on else [*models[:at], trained, *models[at + 1 :]]
    return _score(prepared, models[0])


def _pooled(prepared: Prepared, seed: int) -> Score:
    """All data in one place, 50 epochs of Adam, normalised together; hospitals judge it normalised by themselves."""
    material = prepared.materials[PER_HOSPITAL]
    module = build_model(material.task)
    load(module, first_model(prepared, seed))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.001)
    stream, persons = KeyedRandomness(seed, "flamby").stream("pooled"), size(prepared.pooled_train)
    for _ in range(POOLED_EPOCHS):
        order = np.argsort(stream.words64(persons))
        for start in range(0, persons, BATCH):
            optimizer.zero_grad()
            losses = material.task.loss(module, batch_of(prepared.pooled_train, order[start : start + BATCH]))
            torch.autograd.backward(losses.mean())
            optimizer.step()
    return _score(prepared, trainable(module))


def majority_per_centre(prepared: Prepared) -> Score:
    """What a predictor reaches that says of every patient what most training patients of the same hospital have."""
    right, persons = [], []
    for split in prepared.materials[PER_HOSPITAL].splits.values():
        answer = float(_labels(split.train).mean() > 0.5)
        right.append(float((_labels(split.test) == answer).sum()))
        persons.append(size(split.test))
    return Score(mean(r / n for r, n in zip(right, persons, strict=True)), sum(right) / sum(persons))


def _labels(persons: Persons) -> torch.Tensor:
    return batch_of(persons, np.arange(size(persons)))[-1]
