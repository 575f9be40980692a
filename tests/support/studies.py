"""The tests' own study, and federations that run it with torch and Opacus."""

from pathlib import Path
from typing import cast

from fedseal.client.task import SiteData, Task
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.population import gather
from fedseal.simulation.training import Material
from fedseal.study import Contract, Study, load_study, load_task

TINY = Path(__file__).resolve().parents[1] / "studies" / "tiny"


def tiny(**changes: object) -> Study:
    """The study of two blobs, with parts of its contract changed, e.g. ``privacy={"plan": "none"}``."""
    study = load_study(TINY)
    tables = study.contract.model_dump()
    for table, values in changes.items():
        tables[table] = {**tables[table], **cast(dict[str, object], values)}
    return Study(study.folder, Contract.model_validate(tables))


def material(study: Study, folder: Path, *, seed: int = 5) -> Material:
    """The study's persons, written to site folders."""
    population = gather(study, data=None, sites=None, seed=seed)
    task = cast(Task, load_task(study.contract.task, study.folder))
    data, splits = {}, {}
    for site in population.sites:
        data[site.name] = folder / site.name
        data[site.name].mkdir(parents=True)
        site.table.to_csv(data[site.name] / "persons.csv", index=False)
        splits[site.name] = task.data(SiteData(site.name, data[site.name]))
    return Material(study, task, splits, data, Oracle(task, splits), seed)
