"""Each site's own model in a simulation: put together from what the server has and what the site keeps.

No real federation has these in one place. Everything that comes from here is marked as an oracle value.
"""

from collections.abc import Callable, Mapping

from torch import nn

from fedseal.client.clusters import best, models_in
from fedseal.client.normalise import Normalisation
from fedseal.client.personal import first_state, put_state, staying_in, unpack
from fedseal.client.task import Split, Task, build_model, size
from fedseal.client.trainer import Arrays, load
from fedseal.client.work import SiteWork
from fedseal.study import Training


class OwnModels:
    """The sites' own models of one run.

    Args:
        task: the study's.
        training: whose strategy says what a site has of its own.
        splits: every site's persons.
        kept: what a site has kept of its personal model in this run, by its name.
    """

    def __init__(
        self, task: Task, training: Training, splits: Mapping[str, Split], kept: Callable[[str], bytes | None]
    ) -> None:
        self._task = task
        self._training = training
        self._splits = splits
        self._kept = kept

    def modules(self, shared: Arrays, normalisation: Normalisation | None) -> dict[str, nn.Module] | None:
        """A module for each site, by name; None where the strategy leaves sites nothing of their own.

        Args:
            shared: the arrays that the server has.
            normalisation: the federation's.
        """
        match self._training.strategy:
            case "clustered":
                return {name: self._of_its_cluster(name, shared, normalisation) for name in self._splits}
            case "fedrep" | "fedbn":
                return {name: self._in_halves(name, shared) for name in self._splits}
            case "ditto":
                return {name: self._whole(name, shared) for name in self._splits}
            case _:
                return (
                    None if self._training.personalise == "none" else {n: self._whole(n, shared) for n in self._splits}
                )

    def _whole(self, site: str, shared: Arrays) -> nn.Module:
        """Of a model that a site trains beside the federation's, or from it; the federation's if it has none."""
        module, kept = build_model(self._task), self._kept(site)
        load(module, shared if kept is None else unpack(kept, shared))
        return module

    def _in_halves(self, site: str, shared: Arrays) -> nn.Module:
        module, kept = build_model(self._task), self._kept(site)
        if (staying := staying_in(self._training)) is not None:
            names = staying.names(module)
            first = first_state(self._task, names)
            put_state(module, first if kept is None else unpack(kept, first))
            load(module, shared, names)
        return module

    def _of_its_cluster(self, site: str, shared: Arrays, normalisation: Normalisation | None) -> nn.Module:
        settings: dict[str, object] = {}
        if normalisation is not None:
            settings = {"feature-mean": list(normalisation.mean), "feature-deviation": list(normalisation.deviation)}
        models = models_in(shared, self._training.clusters)
        split = self._splits[site]
        work = SiteWork(self._task, split, size(split.train))
        module = build_model(self._task)
        load(module, models[best(work, models, range(len(models)), settings)])
        return module
