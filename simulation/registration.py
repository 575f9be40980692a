"""A simulation's run folder as the registry takes it: its model, what is known of how it was made, and its scores."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fedseal.compliance.events.bodies import RunCreated, RunFinished
from fedseal.compliance.events.fields import decimal, sha256
from fedseal.compliance.events.subjects import Measure
from fedseal.compliance.registry.bundle import Standardisation
from fedseal.compliance.registry.description import CardFacts
from fedseal.compliance.registry.entries import Entries, names_of
from fedseal.compliance.registry.gates import measure_name
from fedseal.compliance.registry.promotion import Origin
from fedseal.compliance.registry.recipe import Abstention, ScoreReference
from fedseal.errors import ConfigError
from fedseal.privacy.inference.evaluation import PERSONS
from fedseal.server.store import ServerStore
from fedseal.simulation.result import Judgement, Result
from fedseal.study import Contract

MADE_BY = "Give a folder that `fedseal simulate` has finished."


@dataclass(frozen=True, slots=True)
class RunFolder:
    """What a finished run has left. ``report`` is the digest of its result.json."""

    model: bytes
    contract: Contract
    result: Result
    report: str


@dataclass(frozen=True, slots=True)
class Made:
    """What the log knows of how a model was made. ``code`` is None where no code was named."""

    origin: Origin
    code: str | None


def read_run(folder: Path) -> RunFolder:
    """The files of a run's folder.

    Raises:
        ConfigError: one is missing or of another form, or they are not of one run.
    """
    try:
        model = (folder / "model.safetensors").read_bytes()
        raw = (folder / "result.json").read_bytes()
        configuration = json.loads((folder / "config.json").read_bytes())
        result = Result.model_validate_json(raw)
        contract = Contract.model_validate(configuration["contract"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise ConfigError(f"{folder} is no finished run", next_step=MADE_BY) from None
    if sha256(model) != f"sha256:{result.model_sha256}":
        raise ConfigError(f"{folder} holds another model than its result.json is about", next_step=MADE_BY)
    return RunFolder(model, contract, result, sha256(raw))


def made(entries: Entries, model: str) -> Made:
    """The run of a log that ended with a model.

    Raises:
        ConfigError: there is none.
    """
    finished, created = names_of(RunFinished, RunCreated)
    found = entries.of((finished, created))
    ended = [e.event for e in found if isinstance(e.event.body, RunFinished) and e.event.body.model == model]
    if not ended or ended[-1].run is None:
        raise ConfigError(
            "this log knows no run that ended with this model", next_step="Give the log of the run's own federation."
        )
    run, last = ended[-1].run, ended[-1].body
    begun = next((e.event.body for e in found if e.event.run == run and isinstance(e.event.body, RunCreated)), None)
    rounds = last.rounds if isinstance(last, RunFinished) else 0
    parent, code = (None, None) if begun is None else (begun.model_in, begun.code)
    return Made(Origin(bytes.fromhex(run), rounds, parent), code)


def normalisation(store: ServerStore, run: bytes | None) -> Standardisation | None:
    """What the federation has measured for a run's features; None if the task scales them itself."""
    checkpoint = None if run is None else store.load(run)
    if checkpoint is None or "feature-mean" not in checkpoint.settings:
        return None
    settings = checkpoint.settings
    return Standardisation(mean=tuple(settings["feature-mean"]), deviation=tuple(settings["feature-deviation"]))


def measures(result: Result) -> tuple[Measure, ...]:
    """A simulation's scores on test persons: of all, and of each site's as a subgroup. What is undefined is left out.

    A metric that bins has its error on all test persons as margin, also for subgroups: theirs is not in the file. Those
    of the private evaluation's groups, which a deployment has too, have the wider side of their noise
    interval.
    """
    return tuple(_measures(result.final, result.metric_errors)) + tuple(_private(result))


def card_facts(result: Result, contract: Contract) -> CardFacts:
    """What the card of a simulation's private evaluation gives whoever applies the model."""
    evaluation = result.evaluation
    card = None if evaluation is None else evaluation.card
    if evaluation is None or card is None:
        return CardFacts()
    rule, rows = card.conformal, card.reliability
    abstention = None
    if rule is not None:
        abstention = Abstention(coverage=rule.coverage, level=rule.level, quantile=rule.quantile)
    counts = tuple(row.persons.value or 0.0 for row in rows)
    edges = (*(row.low for row in rows), rows[-1].high)
    if len(counts) < 2 or sum(counts) <= 0:
        return CardFacts(abstention)
    # A row is a sum over bins, labels and groups, with the noise of each; rows of fewer bins have less of it.
    groups = max(len(contract.evaluation.groups), 1)
    widest = max(row.high - row.low for row in rows) * contract.evaluation.bin_count
    noise = evaluation.noise_deviation**2 * 2 * groups * math.ceil(widest - 1e-9)
    return CardFacts(abstention, ScoreReference(edges=edges, counts=counts, noise=noise))


def _private(result: Result) -> Iterator[Measure]:
    card = None if result.evaluation is None else result.evaluation.card
    if card is None or card.subgroups is None:
        return
    for group, found in card.subgroups.groups.items():
        for name, e in found.estimates.items():
            if name != PERSONS and e.value is not None and e.low is not None and e.high is not None:
                margin = max(e.high - e.value, e.value - e.low)
                subgroup = f"{card.subgroups.attribute}={group}"
                yield Measure(name=measure_name(name, subgroup), value=decimal(e.value), margin=decimal(margin))


def _measures(judged: Judgement, errors: dict[str, float]) -> Iterator[Measure]:
    groups = [(None, judged.global_), *judged.sites.items()]
    for subgroup, scores in groups:
        for name, value in scores.named().items():
            if value is not None:
                margin = decimal(errors.get(name, 0.0))
                yield Measure(name=measure_name(name, subgroup), value=decimal(value), margin=margin)
