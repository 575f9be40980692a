"""What a clip norm that adapts is worth: the same study and promise with a clip norm fixed well, fixed badly, and
adapting from each of these.

    python bench/adaptive_clip.py --out bench/results/adaptive_clip.json
    python bench/adaptive_clip.py --study examples/heart-disease --data ../shared/data/heart-disease --delta 1e-4

Plan `distributed` over the study's own sites, with the real protocol and ledgers. A seed fixes the spread of persons
over sites, the first model and all noise. "Well" is the study's own `clip_norm`; badly is a factor above or below it.
Nothing else is tuned: the learning rate is the study's, and goes with its own clip norm.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from statistics import mean, stdev

from fedseal.simulation.simulate import Options, simulate
from fedseal.simulation.training import RoundView
from fedseal.study import Contract, Study, load_study

STUDY = Path(__file__).resolve().parents[1] / "examples" / "breast-cancer"


class Silent:
    """Watches nothing."""

    def begin(self, *_: object) -> None:
        """Nothing."""

    def phase(self, title: str) -> None:
        """Nothing."""

    def round(self, view: RoundView) -> None:
        """Nothing."""


def arm(study: Study, arguments: argparse.Namespace, factor: float, rate: float | None) -> Study:
    """The study with its clip norm times a factor, fixed or adapting at a rate."""
    tables = study.contract.model_dump()
    tables["privacy"] |= {
        "plan": "distributed",
        "epsilon": arguments.epsilon,
        "delta": arguments.delta,
        "clip_norm": study.contract.privacy.clip_norm * factor,
        "adaptive_clip": None if rate is None else {"learning_rate": rate, "budget_share": arguments.share},
    }
    tables["training"] |= {"rounds": arguments.rounds}
    tables["cohort"]["colluders"] = max(tables["cohort"]["colluders"], 1)
    return Study(study.folder, Contract.model_validate(tables))


def measured(study: Study, seed: int, data: Path | None) -> dict[str, float]:
    """One simulation: the final model's scores on the test persons, its last clip norm, and the epsilon spent."""
    with tempfile.TemporaryDirectory() as folder:
        done = simulate(study, Options(seed=seed, data=data, baselines=False), Path(folder), Silent())
    last = done.findings.main.rounds[-1]
    scores = last.judged.everyone
    clip = study.contract.privacy.clip_norm if last.record.clip is None else last.record.clip.clip_norm
    accuracy, loss = scores["accuracy"], scores["loss"]
    return {"accuracy": accuracy or 0.0, "loss": loss or 0.0, "clip": clip, "epsilon": last.epsilon or 0.0}


def main() -> None:
    """Run all arms with all seeds, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--factor", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.2])
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    study = load_study(arguments.study)
    starts = {"well": 1.0, "too small": 1 / arguments.factor, "too large": arguments.factor}
    ways: list[float | None] = [None, *arguments.rates]
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        for way in ways:
            for start, factor in starts.items():
                name = f"{'fixed' if way is None else f'adapts, rate {way:g}'}, {start}"
                found = measured(arm(study, arguments, factor, way), seed, arguments.data)
                rows.setdefault(name, []).append(found)
                print(f"seed {seed}  {name:<28}" + "".join(f"  {k} {v:.4g}" for k, v in found.items()), flush=True)
        if arguments.out is not None:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"\n{'':<28} {'accuracy':>16} {'loss':>16} {'last clip norm':>24}")
    for name, found_rows in rows.items():
        cells = []
        for key in ("accuracy", "loss"):
            values = [r[key] for r in found_rows]
            cells.append(f"{mean(values):.3f} +- {stdev(values) if len(values) > 1 else 0.0:.3f}".rjust(16))
        clips = [r["clip"] for r in found_rows]
        print(f"{name:<28} {' '.join(cells)} {f'{min(clips):.3g} to {max(clips):.3g}':>24}")


if __name__ == "__main__":
    main()
