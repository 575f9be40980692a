"""What does private training at a site cost, beside training without privacy and beside Opacus as its tutorials use it?

    python bench/dpsgd.py --out bench/results/dpsgd.json

One site's round of local steps, by turns on the same persons with the same expected batch:

- plain: torch's SGD over a shuffled DataLoader;
- ours, none: fedseal's trainer without privacy;
- ours, local: fedseal's trainer under plan `local`: Poisson sampling, clipping on the path that it chose itself, noise
  of the operating system's generator. What it costs in epsilon is known before the run and computed once, outside;
- naive: a new `PrivacyEngine`, `make_private` and `get_epsilon` in every round, as in Opacus' tutorials;
- hooks, ghost, analytic: fedseal's trainer again, held to one path, where the model has it.

For three models: an MLP of 2242 parameters, a convolutional network of 110 510, and a transformer whose frozen weights
have low-rank adapters. One thread; the first round of each is not counted.
"""

import argparse
import gc
import json
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from opacus import PrivacyEngine
from timing import Stopwatch, Task, machine, timed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedseal.client.clipping.choice import ClippingPath, clip_by, is_true
from fedseal.client.task import Batch, Metric, SiteData, Split, build_model
from fedseal.client.trainer import Trainer, TrainSettings, trainable
from fedseal.privacy.plan import LocalGaussian, NoPrivacy
from fedseal.privacy.randomness import SystemRandomness

RATE, CLIP, NOISE, DELTA = 0.1, 1.0, 1.1, 1e-5
PLAIN, OURS_PLAIN, OURS, NAIVE = "plain", "ours, none", "ours, local", "naive Opacus"


@dataclass(frozen=True)
class Study:
    """One model and its persons; a task of fedseal's."""

    name: str
    make: Callable[[], nn.Module]
    persons: TensorDataset
    batch: int

    def model(self) -> nn.Module:
        """A new one."""
        return self.make()

    def data(self, site: SiteData) -> Split:
        """The same persons everywhere."""
        return Split(self.persons, self.persons, self.persons)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each person."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        """None."""
        return []

    @property
    def steps(self) -> int:
        """One pass over the persons."""
        return -(-len(self.persons) // self.batch)


class Adapted(nn.Module):
    """A frozen linear layer with a trained low-rank path beside it."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, values: Tensor) -> Tensor:
        """(persons, places, width) to the same."""
        return cast(Tensor, self.base(values) + self.up(self.down(values)))


class Transformer(nn.Module):
    """One block of attention over 16 words, adapters on queries and values, a head."""

    def __init__(self, words: int = 200, width: int = 64, rank: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width).requires_grad_(False)
        self.before, self.between = (nn.LayerNorm(width).requires_grad_(False) for _ in range(2))
        self.query, self.value = Adapted(width, rank), Adapted(width, rank)
        self.key, self.out = (nn.Linear(width, width).requires_grad_(False) for _ in range(2))
        self.wide, self.narrow = (
            nn.Linear(width, 4 * width).requires_grad_(False),
            nn.Linear(4 * width, width).requires_grad_(False),
        )
        self.head = nn.Linear(width, 2)

    def forward(self, words: Tensor) -> Tensor:
        """Word numbers (persons, places) to logits."""
        state = self.words(words)
        normal = self.before(state)
        query, key, value = (
            layer(normal).unflatten(2, (4, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        seen = torch.softmax(query @ key.transpose(2, 3) * query.shape[3] ** -0.5, dim=3) @ value
        state = state + self.out(seen.transpose(1, 2).flatten(2))
        state = state + self.narrow(torch.relu(self.wide(self.between(state))))
        return cast(Tensor, self.head(state.mean(dim=1)))


def mlp() -> nn.Module:
    """32 features, 64 units, two classes."""
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))


def cnn() -> nn.Module:
    """Two strided convolutions and a linear layer, 28 x 28 to 62 classes."""
    layers = (nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 7 * 7, 62))


def studies(quick: bool) -> list[Study]:
    """The three models with made-up persons."""
    draw = torch.Generator().manual_seed(1)
    count = 1000 if quick else 5000
    few = count if quick else 2000
    rows = torch.randn(count, 32, generator=draw)
    images = torch.randn(few, 1, 28, 28, generator=draw)
    texts = torch.randint(0, 200, (few, 16), generator=draw)
    return [
        Study("MLP", mlp, TensorDataset(rows, (rows[:, 0] > 0).long()), 64),
        Study("CNN", cnn, TensorDataset(images, torch.randint(0, 62, (len(images),), generator=draw)), 64),
        Study("LoRA transformer", Transformer, TensorDataset(texts, (texts[:, 0] > 99).long()), 64),
    ]


def plain(study: Study) -> Task:
    """torch's own loop."""
    module = build_model(study)

    def job() -> None:
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=RATE)
        for batch in DataLoader(study.persons, batch_size=study.batch, shuffle=True):
            optimizer.zero_grad()
            study.loss(module, batch).mean().backward()
            optimizer.step()

    return timed(job)


def naive(study: Study) -> Task:
    """Opacus, as its tutorials use it; the engine that keeps the account lives on."""
    engine = PrivacyEngine()

    def job() -> None:
        model = build_model(study)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
        loader = DataLoader(study.persons, batch_size=study.batch, shuffle=True)
        private, private_optimizer, private_loader = engine.make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
        )
        for batch in private_loader:
            private_optimizer.zero_grad()
            study.loss(private, batch).mean().backward()
            private_optimizer.step()
        engine.get_epsilon(DELTA)

    return timed(job)


def ours(study: Study, *, private: bool, path: ClippingPath | None = None) -> Task:
    """fedseal's trainer, which is kept from round to round, as at a site."""
    held = None if path is None else clip_by(path, build_model(study))
    trainer = Trainer(study, study.persons, public_persons=len(study.persons), clipping=held)
    rate = study.batch / len(study.persons)
    settings = TrainSettings(learning_rate=RATE, sample_rate=rate, local_steps=study.steps)
    plan: LocalGaussian | NoPrivacy = NoPrivacy(releases=1, retries=0)
    if private:
        plan = LocalGaussian(
            clip_norm=CLIP, noise_multiplier=NOISE, sample_rate=rate, steps=study.steps, releases=1, retries=0
        )
    start: dict[str, NDArray[Any]] = trainable(build_model(study))
    return timed(lambda: trainer.fit(start, settings, plan, SystemRandomness().stream))


def by_turns(tasks: Mapping[str, Task], repeat: int) -> dict[str, list[float]]:
    """CPU seconds of every turn, A B A B ..., after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeat + 1):
        for name, task in tasks.items():
            watch = Stopwatch()
            gc.collect()
            task(watch)
            if turn:
                found[name].append(watch.cpu)
    return found


def ratios(seconds: Mapping[str, list[float]], over: str, under: str) -> list[float]:
    """Turn by turn: both sides of a ratio are neighbours in time."""
    return [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]


def compare(study: Study, repeat: int) -> dict[str, Any]:
    """Time one study and print the ratios."""
    tasks = {
        PLAIN: plain(study),
        OURS_PLAIN: ours(study, private=False),
        OURS: ours(study, private=True),
        NAIVE: naive(study),
    }
    chosen = Trainer(study, study.persons, public_persons=1).clipping.path
    for path in ClippingPath:
        if is_true(study, path, study.persons):
            tasks[path.value] = ours(study, private=True, path=path)
    seconds = by_turns(tasks, repeat)
    rows: Mapping[str, list[float]] = {
        "naive / ours": ratios(seconds, NAIVE, OURS),
        "ours / plain": ratios(seconds, OURS, PLAIN),
        "ours none / plain": ratios(seconds, OURS_PLAIN, PLAIN),
        **{f"{p.value} / plain": ratios(seconds, p.value, PLAIN) for p in ClippingPath if p.value in tasks},
    }
    print(f"{study.name}: {study.steps} steps of {study.batch} expected, path {chosen.value}")
    for name, values in seconds.items():
        print(f"  {name:20} {1000 * statistics.median(values):7.1f} ms  [{_span(values, 1000)}]")
    for name, values in rows.items():
        print(f"  {name:20} {statistics.median(values):7.2f} x   [{_span(values, 1)}]", flush=True)
    return {"study": study.name, "steps": study.steps, "path": chosen.value, "cpu_seconds": seconds, "ratios": rows}


def _span(values: list[float], scale: int) -> str:
    return f"{scale * min(values):.2f}, {scale * max(values):.2f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="fewer persons")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Opacus' warnings of its own noise, and torch's of Opacus' hooks.
    warnings.filterwarnings("ignore")
    found = [compare(study, arguments.repeat) for study in studies(arguments.quick)]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine(), "studies": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
