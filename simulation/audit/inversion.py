"""What a server reads out of sums, with and without noise: gradient inversion on persons that were made up.

The attacker is the server. Where sites are sealed it has what `SealedGrid` released, the new model, and nothing else;
the rows with one site are what a server without secure aggregation gets from every site.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.app import app as client_app
from fedseal.client.mod import DATA_KEY, STORE_KEY
from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.client.trainer import Arrays, Trainer, TrainSettings, trainable
from fedseal.privacy.accounting import best_order
from fedseal.privacy.audit.inversion import candidates, recovered
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.planning import plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.server.app import app as server_app
from fedseal.simulation.federation import FIRST_NODE, enrol
from fedseal.simulation.grid import LocalGrid, Observer
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import study_config
from fedseal.study import Cohort, Contract, Privacy, Training

Real = NDArray[np.float64]

FEATURES, UNITS = 13, 64
NAMES = [f"x{i + 1}" for i in range(FEATURES)]
TASK = "fedseal.simulation.audit.inversion:Patients"
SITES = 5
TRIALS = 10
DELTA = 1e-5
# Far too little to be called private, and already too much for a ratio of two small numbers.
NOISE = 0.05


class Patients:
    """The task: a small network on 13 features in [-1, 1], two classes. Everyone is trained on."""

    def model(self) -> nn.Module:
        """One hidden layer of ReLU units, the one that is read."""
        return nn.Sequential(nn.Linear(FEATURES, UNITS), nn.ReLU(), nn.Linear(UNITS, 2))

    def data(self, site: SiteData) -> Split:
        """Columns x1 to x13 and label."""
        table = columns(site.table(), [*NAMES, "label"])
        return self.split(table[NAMES].to_numpy(dtype=np.float64), table["label"].to_numpy(dtype=np.int64))

    @staticmethod
    def split(features: Real, labels: NDArray[np.int64]) -> Split:
        """The same from arrays."""
        everyone = TensorDataset(torch.tensor(features, dtype=torch.float32), torch.tensor(labels))
        noone = TensorDataset(torch.zeros(0, FEATURES), torch.zeros(0, dtype=torch.int64))
        return Split(everyone, noone, noone)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each person."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        """None."""
        return []


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the demonstration.

    Attributes:
        name: what a person reads.
        sites: how many; one is a site whose update is not sealed.
        batch: persons of each site in its one step.
        noisy: with plan local and a noise multiplier of 0.05.
        crafted: the server chose the first layer to read it.
    """

    name: str
    sites: int
    batch: int
    noisy: bool = False
    crafted: bool = False


SCENES = (
    Scene("1 site, batch of 1", 1, 1),
    Scene("1 site, batch of 8", 1, 8),
    Scene("1 site, batch of 32", 1, 32),
    Scene(f"sum of {SITES} sites, batch of 1 each", SITES, 1),
    Scene(f"sum of {SITES} sites, batch of 8 each", SITES, 8),
    Scene(f"sum of {SITES} sites, batch of 8 each, model made by the server to read it", SITES, 8, crafted=True),
    Scene(f"sum of {SITES} sites, batch of 1 each, with noise", SITES, 1, noisy=True),
    Scene(f"sum of {SITES} sites, batch of 8 each, model made by the server, with noise", SITES, 8, True, True),
)


@dataclass(frozen=True, slots=True)
class Read:
    """How much was read in a scene: of ``records``, over all trials, ``recovered`` to an RMSE below 0.01.

    ``epsilon`` is the promise of the scene's noise at delta 1e-5; None without.
    """

    scene: Scene
    records: int
    recovered: int
    epsilon: float | None

    @property
    def fraction(self) -> float:
        """Of all records."""
        return self.recovered / self.records


def demonstrate(
    seed: int, trials: int = TRIALS, scenes: Sequence[Scene] = SCENES, tell: Callable[[str], None] = lambda _: None
) -> list[Read]:
    """Attack every scene.

    Args:
        seed: fixes persons, models and noise.
        trials: how often each scene is played, each time with other persons and another model.
        scenes: which.
        tell: told of each scene before it is played.
    """
    found = []
    with one_thread():
        for scene in scenes:
            tell(scene.name)
            hits = [_trial(scene, KeyedRandomness(seed, "inversion", trial), seed + trial) for trial in range(trials)]
            recorded = scene.sites * scene.batch * trials
            epsilon = _contract(scene).privacy.epsilon if scene.noisy else None
            found.append(Read(scene, recorded, sum(hits), epsilon))
    return found


def _trial(scene: Scene, randomness: KeyedRandomness, seed: int) -> int:
    """How many of the scene's persons the server reads."""
    features, labels = _persons(randomness, scene.sites * scene.batch)
    model = crafted_model(randomness) if scene.crafted else first_model(randomness)
    sites = [(features[i : i + scene.batch], labels[i : i + scene.batch]) for i in range(0, len(labels), scene.batch)]
    after = _unsealed(*sites[0], model, randomness) if scene.sites == 1 else _sealed(scene, sites, model, seed)
    # One step of gradient descent: what was released moved against the gradient, by a factor that a ratio does not see.
    moved = {name: model[name].astype(np.float64) - after[name] for name in model}
    return int(recovered(candidates(moved["0.weight"], moved["0.bias"]), features).sum())


def _persons(randomness: KeyedRandomness, count: int) -> tuple[Real, NDArray[np.int64]]:
    """Made-up persons: correlated features in [-1, 1], and a label that depends on them."""
    stream = randomness.stream("persons")
    common = stream.normal(count)[:, None]
    features = np.tanh(0.4 * common + 0.7 * stream.normal(count * FEATURES).reshape(count, FEATURES))
    # The first model is float32, so what it sees is what counts.
    features = features.astype(np.float32).astype(np.float64)
    labels = (features[:, :4].sum(axis=1) + 0.5 * stream.normal(count) > 0).astype(np.int64)
    return features, labels


def first_model(randomness: KeyedRandomness) -> Arrays:
    """An honest first model, as torch draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(randomness.stream("model").words64(1)[0]) >> 1)
        return trainable(Patients().model())


def crafted_model(randomness: KeyedRandomness) -> Arrays:
    """A first layer that measures the same projection in every unit, above thresholds one after the other (Fowl et
    al. 2022).

    The second layer weighs all units alike, so that the difference of two neighbours' gradients holds just those
    records whose projection lies between their thresholds.
    """
    model = first_model(randomness)
    direction = randomness.stream("direction").normal(FEATURES)
    direction /= np.linalg.norm(direction)
    # Where projections of such features lie is a guess, from the public ranges alone.
    thresholds = np.linspace(-1.2, 1.2, UNITS)
    model["0.weight"] = np.tile(direction, (UNITS, 1)).astype(np.float32)
    model["0.bias"] = -thresholds.astype(np.float32)
    model["2.weight"] = np.repeat([[0.05], [-0.05]], UNITS, axis=1).astype(np.float32)
    return model


def _unsealed(features: Real, labels: NDArray[np.int64], model: Arrays, randomness: KeyedRandomness) -> Arrays:
    """What one site trains, and would send to a server without secure aggregation."""
    trainer = Trainer(Patients(), Patients.split(features, labels).train, public_persons=len(labels))
    settings = TrainSettings(1.0, 1.0, 1, batch_size=len(labels))
    return trainer.fit(model, settings, NoPrivacy(releases=1, retries=0), randomness.stream)


def _sealed(scene: Scene, sites: Sequence[tuple[Real, NDArray[np.int64]]], model: Arrays, seed: int) -> Arrays:
    """One round of a federation: the released model."""
    contract, released = _contract(scene), list[Arrays]()
    with tempfile.TemporaryDirectory(prefix="fedseal-inversion-") as name:
        folder = Path(name)
        federation = enrol(
            folder / "federation",
            contract,
            plan_run(contract),
            {f"site-{i + 1}": len(labels) for i, (_, labels) in enumerate(sites)},
            seed,
        )
        nodes = {}
        for i, ((site, store), (features, labels)) in enumerate(
            zip(federation.site_stores.items(), sites, strict=True)
        ):
            data = folder / "data" / site
            data.mkdir(parents=True)
            pd.DataFrame(features, columns=NAMES).assign(label=labels).to_csv(data / "persons.csv", index=False)
            nodes[FIRST_NODE + i] = {STORE_KEY: str(store), DATA_KEY: str(data)}
        path = folder / "initial.safetensors"
        path.write_bytes(safetensors.numpy.save(model))
        text = contract.model_dump_json()
        config = study_config(Patients(), TASK, text, federation.server_store, path, len(sites), Rounding.STOCHASTIC)
        observer = Observer(lambda *_: None, lambda record: released.append(record.model), lambda _: None)
        LocalGrid(client_app, nodes, run_config=config, observer=observer).serve(server_app, seed=seed)
    return released[-1]


def _contract(scene: Scene) -> Contract:
    """One round, one step over everybody."""
    privacy = Privacy(plan="none", retries=0)
    if scene.noisy:
        one = LocalGaussian(clip_norm=1.0, noise_multiplier=NOISE, sample_rate=1.0, steps=1, releases=1, retries=0)
        epsilon = best_order(one.event(1), DELTA)[1]
        privacy = Privacy(plan="local", epsilon=epsilon * (1 + 1e-6), delta=DELTA, clip_norm=1.0, retries=0)
    return Contract(
        version=1,
        name="inversion",
        task=TASK,
        training=Training(
            rounds=1,
            local_steps=1,
            sample_rate=1.0,
            batch_size=None if scene.noisy else scene.batch,
            learning_rate=1.0,
            update_range=10.0,
            # Such a model can answer so surely that float32 looks to a site's start-up check like a loss that couples
            # persons, and the site would refuse. Without noise it is the server's to say that a loss may.
            batch_level=scene.crafted and not scene.noisy,
        ),
        privacy=privacy,
        # A bound far above the sites' sizes would coarsen the sum, which hides records by luck and not by design.
        cohort=Cohort(minimum=max(scene.sites, 2), largest_site=scene.batch),
    )
