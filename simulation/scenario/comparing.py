"""What every scenario's model is compared with, on the material of its first training."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedseal.client.tabular import Tabular
from fedseal.simulation.baselines import local_baseline, majority_baseline, pooled_baseline
from fedseal.simulation.oracle import Judged, Oracle
from fedseal.simulation.scenario.material import Rows, split_of
from fedseal.simulation.scenario.outcome import Compared
from fedseal.simulation.scenario.training import Conditions, attempt
from fedseal.simulation.scenario.trainings import FirstTraining
from fedseal.simulation.training import Material

# Training alone is simulated for at most so many sites, evenly chosen.
ALONE = 40


def compare(first: FirstTraining, task: Tabular, conditions: Conditions) -> list[Compared]:
    """The first model beside the majority class, every site alone, all data pooled, and training without privacy.

    All begin with the same untrained model, see the same persons, and are judged on the same others.

    Args:
        first: the training.
        task: the scenario's.
        conditions: under which a federation without privacy trains.
    """
    material, contract = first.material, first.trained.contract
    final = first.trained.rounds[-1].judged
    found = [_compared("federated", final)]
    majority = majority_baseline(material)
    if majority is not None:
        found.append(_compared("majority", majority))
    found.append(_compared("local", local_baseline(_alone(first, task), contract.training, normalise=False)))
    if contract.privacy.plan == "none":
        found.append(_compared("plain", final))
    else:
        plain = contract.model_copy(update={"privacy": contract.privacy.model_copy(update={"plan": "none"})})
        ended = attempt(material, plain, conditions).trained
        if ended is not None:
            found.append(_compared("plain", ended.rounds[-1].judged))
    found.append(_compared("pooled", pooled_baseline(material, contract.training, normalise=False)))
    return found


def _alone(first: FirstTraining, task: Tabular) -> Material:
    """The material for sites alone: of many sites the persons of some, and an oracle that looks at everyone's held-out
    persons at once, as nothing else is asked of a site's own model.
    """
    material, names = first.material, list(first.material.splits)
    if len(names) <= ALONE:
        return material
    tests = list(first.test.values())
    everyone = Rows(
        np.concatenate([rows.x for rows in tests]),
        np.concatenate([rows.y for rows in tests]),
        np.concatenate([rows.persons for rows in tests]),
    )
    nobody = Rows(everyone.x[:0], everyone.y[:0], everyone.persons[:0])
    chosen = [names[i * len(names) // ALONE] for i in range(ALONE)]
    return replace(
        material,
        splits={name: material.splits[name] for name in chosen},
        oracle=Oracle(material.task, {"everyone": split_of(task, nobody, everyone)}),
    )


def _compared(name: str, judged: Judged) -> Compared:
    sites: Mapping[str, float | None] = {site: scores.get("accuracy") for site, scores in judged.sites.items()}
    return Compared.model_validate(
        {
            "name": name,
            "accuracy": judged.everyone.get("accuracy"),
            "loss": judged.everyone.get("loss"),
            "sites": dict(sites),
        }
    )
