"""A site's part of clustered training: which of several models fits its persons, and training that one.

IFCA (Ghosh, Chung, Yin and Ramchandran 2020, Algorithm 1, model averaging): a site takes the model of the least loss on
its own training persons. `server/clustered.py` has the other part, and says why a site's choice is asked for first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedseal.client.metrics import LOSS, measure
from fedseal.client.normalise import normalised
from fedseal.client.trainer import Arrays, load
from fedseal.client.work import Settings, SiteWork, normalisation_of, number
from fedseal.errors import ConfigError

# As the server names them; neither side imports the other.
CLUSTERS, OPEN = "clusters", "clusters-open"
CLUSTER_METRIC = "cluster-members"


def block(cluster: int) -> str:
    """What the names of a cluster's arrays begin with."""
    return f"cluster-{cluster}/"


def models_in(received: Mapping[str, NDArray[Any]], clusters: int) -> list[Arrays]:
    """The models of all clusters, in their order.

    Raises:
        ConfigError: they are not of the same arrays.
    """
    found: list[Arrays] = []
    for cluster in range(clusters):
        begin = block(cluster)
        found.append({n.removeprefix(begin): a for n, a in received.items() if n.startswith(begin)})
    shapes = [{name: array.shape for name, array in model.items()} for model in found]
    if not found or any(s != shapes[0] for s in shapes) or sum(map(len, found)) != len(received):
        raise ConfigError("the received arrays are not those of as many models as there are clusters")
    return found


def best(work: SiteWork, models: Sequence[Arrays], among: Sequence[int], settings: Settings) -> int:
    """The cluster, of some, whose model has the least loss on this site's training persons; of equals the first."""
    normalisation = normalisation_of(settings)
    module = work.trainer(normalisation).module
    persons = normalised(work.split.train, normalisation)
    losses: dict[int, float] = {}
    for cluster in among:
        load(module, models[cluster])
        loss = float(measure(work.task, module, persons, bounded=False).means[LOSS][0])
        losses[cluster] = loss if np.isfinite(loss) else np.inf
    return min(losses, key=lambda cluster: (losses[cluster], cluster))


def membership(work: SiteWork, received: Mapping[str, NDArray[Any]], settings: Settings) -> NDArray[np.float64]:
    """One at the cluster that this site belongs to, zero elsewhere; nowhere one if it has no training persons.

    A site without persons would be counted where it adds nothing, and another's update would stand alone.
    """
    models = models_in(received, int(number(settings, CLUSTERS)))
    one_hot = np.zeros(len(models))
    if work.persons:
        one_hot[best(work, models, range(len(models)), settings)] = 1.0
    return one_hot


def open_clusters(settings: Settings) -> list[int]:
    """The clusters that enough sites belong to for a sum; ConfigError if the task names none."""
    found = settings.get(OPEN)
    if not isinstance(found, list) or not found:
        raise ConfigError("the task does not say which clusters are trained in this round")
    return [int(cast(int, cluster)) for cluster in found]
