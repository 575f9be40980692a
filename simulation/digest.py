"""One number for what a run came to: two runs are the same if, and only if, their digests are."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedseal.client.trainer import Arrays
from fedseal.simulation.oracle import Scores
from fedseal.simulation.training import RoundView, Trained

# Of a mapping, the parts in the order of their names; of seconds, nothing: they are another time's.
Canonical = Mapping[str, "Canonical"] | Sequence["Canonical"] | str | float | int | bool | None


def run_digest(trained: Trained) -> str:
    """SHA-256 over a training's engine, metrics, charges and final model, in hexadecimal.

    Engines whose floats are added in another order come to other bits, so the engine is part of it. The number of
    processes is not, nor is what is measured in seconds.
    """
    evaluation = trained.evaluation
    facts: Canonical = {
        "engine": trained.engine,
        "rounds": [_round(view) for view in trained.rounds],
        "privacy": {name: _charged(p.plan, p.epsilon, p.releases) for name, p in trained.privacy.items()},
        "test-privacy": {name: _charged(p.plan, p.epsilon, p.releases) for name, p in trained.test_privacy.items()},
        "evaluation": None if evaluation is None else [int(count) for count in evaluation.counts],
        "model": model_hash(trained.model),
        "personal": {name: model_hash(model) for name, model in (trained.personal or {}).items()},
    }
    return canonical_digest(facts)


def canonical_digest(value: Canonical) -> str:
    """SHA-256 of values in one form: mappings by name, floats by their bits, each part with its length."""
    digest = hashlib.sha256(b"fedseal/run-digest/1")
    digest.update(_canonical(value))
    return digest.hexdigest()


def model_hash(model: Arrays) -> str:
    """SHA-256 over the arrays in the order of their names, with dtypes and shapes."""
    digest = hashlib.sha256()
    for name in sorted(model):
        array = np.ascontiguousarray(model[name])
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(array.tobytes())
    return digest.hexdigest()


def _round(view: RoundView) -> Canonical:
    record = view.record
    return {
        "number": record.number,
        "sites": record.sites,
        "attempts": record.attempts,
        "weight": record.weight,
        "clipped": record.clipped,
        "metrics": dict(record.metrics),
        "clip": None if record.clip is None else [record.clip.clip_norm, record.clip.unclipped, record.clip.following],
        "model": model_hash(record.model),
        "everyone": _scores(view.judged.everyone),
        "by-site": {name: _scores(scores) for name, scores in view.judged.sites.items()},
        "epsilon": view.epsilon,
    }


def _scores(scores: Scores) -> Canonical:
    return dict(scores)


def _charged(plan: str, epsilon: float, releases: int) -> Canonical:
    return [plan, epsilon, releases]


def _canonical(value: Canonical) -> bytes:
    match value:
        case None:
            body, kind = b"", b"n"
        case bool():
            body, kind = bytes((value,)), b"b"
        case int():
            body, kind = str(value).encode(), b"i"
        case float():
            # One zero and one NaN; everything else by its bits.
            body, kind = (b"nan" if math.isnan(value) else (value + 0.0).hex().encode()), b"f"
        case str():
            body, kind = value.encode("utf-8"), b"s"
        case Mapping():
            body, kind = b"".join(_canonical(name) + _canonical(value[name]) for name in sorted(value)), b"m"
        case _:
            body, kind = b"".join(_canonical(part) for part in value), b"l"
    return kind + len(body).to_bytes(8, "big") + body
