"""`simulate`: a study from its folder to a finished run folder with results, model and report."""

import io
import math
import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from fedseal.client.normalise import unlike_records
from fedseal.client.split import person_text
from fedseal.client.task import Persons, SiteData, Split, Task, build_model, size
from fedseal.config import allowed_range
from fedseal.errors import ConfigError, DataError
from fedseal.simulation.baselines import local_baseline, majority_baseline, pooled_baseline
from fedseal.simulation.checked import CheckedTask, check_start
from fedseal.simulation.engine.processes import Processes
from fedseal.simulation.folders import run_folder
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.output import Findings, write_run
from fedseal.simulation.population import Population, gather
from fedseal.simulation.proof import FOLDER as LOG_FOLDER
from fedseal.simulation.proof import prove
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, RoundView, Trained, train
from fedseal.study import Contract, Evaluation, Privacy, SimulationDefaults, Strategy, Study, Training, private_by
from fedseal.study_code import load_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be changed from the command line; None keeps the study's own value."""

    sites: int | None = None
    rounds: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    plan: Literal["none", "local", "distributed", "client"] | None = None
    seed: int | None = None
    data: Path | None = None
    strategy: Strategy | None = None
    baselines: bool = True
    other_epsilons: tuple[float, ...] = ()
    workers: int = 1
    ray: bool = False


class Progress(Protocol):
    """Who watches a simulation."""

    def begin(self, contract: Contract, population: Population, run: str) -> None:
        """The persons are spread; the first round is about to begin."""

    def phase(self, title: str) -> None:
        """Something else begins: a comparison, the report."""

    def round(self, view: RoundView) -> None:
        """A round of the main training is over."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run and its folder."""

    folder: Path
    findings: Findings


def resolve(contract: Contract, options: Options) -> Contract:
    """The contract with the options applied; ConfigError if the outcome is not allowed."""
    changes: dict[str, dict[str, object]] = {
        "privacy": {
            "epsilon": options.epsilon,
            "delta": options.delta,
            "plan": options.plan or private_by(contract, options.epsilon),
        },
        "training": {"rounds": options.rounds, "strategy": options.strategy},
        "simulation": {"sites": options.sites, "seed": options.seed},
    }
    tables = contract.model_dump()
    for table, values in changes.items():
        tables[table] |= {key: value for key, value in values.items() if value is not None}
    try:
        return Contract.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"]
    if not place:
        raise ConfigError(f"the options do not go with the study: {first['msg'].removeprefix('Value error, ')}")
    raise _not_allowed(str(place[0]), str(place[-1]))


def _not_allowed(table: str, key: str) -> ConfigError:
    """An option's value is not what the contract allows for its key; options are called like their keys."""
    models: dict[str, type[BaseModel]] = {"privacy": Privacy, "training": Training, "simulation": SimulationDefaults}
    advice = 'Set plan = "none" in the study to train without a promise.' if key == "epsilon" else ""
    return ConfigError(f"--{key} has to be {allowed_range(models[table], key)}", next_step=advice)


def simulate(study: Study, options: Options, out: Path, progress: Progress) -> Finished:
    """Simulate a study and write its run folder.

    Args:
        study: the study.
        options: changes to its contract.
        out: the folder that holds runs; the run's own folder appears in it when everything is written, and not before.
        progress: told what happens.

    Raises:
        FedsealError: says whose fault it is; nothing is left behind.
    """
    started = time.monotonic()
    contract = resolve(study.contract, options)
    seed = contract.simulation.seed
    population = gather(Study(study.folder, contract), data=options.data, sites=options.sites, seed=seed)
    check_cohort(contract, len(population.sites))
    with run_folder(out, contract.name) as (folder, run), one_thread():
        gathered = prepared_material(Study(study.folder, contract), population, folder / "data", seed)
        material = replace(gathered, processes=Processes(options.workers, options.ray))
        check_material(contract, material)
        progress.begin(contract, population, run)
        main = train(material, contract, folder / "federation", progress.round, on_record=True)
        findings = Findings(
            run=run,
            created=datetime.now(UTC).replace(microsecond=0).isoformat(),
            contract=contract,
            options=options_record(options),
            population=population,
            sizes={n: (size(s.train), size(s.validation), size(s.test)) for n, s in material.splits.items()},
            main=main,
            notes=_notes(contract, material) + _frozen(material.task),
        )
        if options.baselines:
            _compare(material, contract, main, findings, folder, progress)
        for epsilon in options.other_epsilons:
            progress.phase(f"the same with epsilon {epsilon:g}")
            other = _without_evaluation(resolve(contract, Options(epsilon=epsilon)))
            findings.other_epsilons[epsilon] = train(material, other, folder / f"epsilon-{epsilon:g}")
        progress.phase("checking the log")
        if main.federation is not None:
            findings.proof = prove(main.federation, folder / LOG_FOLDER)
        progress.phase("writing the report")
        findings.seconds = time.monotonic() - started
        # The sites' tables were copies for this run only; the stores with their ledgers stay.
        shutil.rmtree(folder / "data")
        write_run(folder, findings)
    return Finished(out / run, findings)


def _compare(
    material: Material, contract: Contract, main: Trained, findings: Findings, folder: Path, progress: Progress
) -> None:
    normalise = contract.normalisation.kind == "federated"
    progress.phase("majority class, every site alone, all data pooled")
    findings.majority = majority_baseline(material)
    if findings.majority is None:
        findings.notes.append(
            "There is no best constant to compare with: this study's loss or metrics ask the model for something else "
            "than one answer to model(inputs), which a constant cannot give."
        )
    findings.local = local_baseline(material, contract.training, normalise=normalise)
    findings.pooled = pooled_baseline(material, contract.training, normalise=normalise)
    if contract.privacy.plan == "none":
        findings.plain = main
        return
    progress.phase("federated without privacy")
    plain = _without_evaluation(
        contract.model_copy(update={"privacy": contract.privacy.model_copy(update={"plan": "none"})})
    )
    findings.plain = train(material, plain, folder / "plain")


def _without_evaluation(contract: Contract) -> Contract:
    """For what a run is compared with: the promise to test persons is for the run's own model."""
    return contract.model_copy(update={"evaluation": Evaluation()})


def check_cohort(contract: Contract, sites: int) -> None:
    needed = max(contract.cohort.minimum, contract.cohort.colluders + 2)
    if sites < needed:
        raise ConfigError(
            f"{sites} sites, but the study's cohorts need at least {needed}",
            next_step="Use more sites, or lower [tool.fedseal.cohort] minimum and colluders.",
        )


def write_tables(population: Population, folder: Path) -> dict[str, Path]:
    """Write each site's table to a folder of its own, as CSV or, where that would change a column of any site's, as
    parquet; the folders by site.

    In a CSV the text 007 becomes the number 7, and a date a text.
    """
    tables = {site.name: (folder / site.name, site.table) for site in population.sites}
    as_csv = all(_survives_csv(table) for _, table in tables.values())
    for where, table in tables.values():
        where.mkdir(parents=True)
        if as_csv:
            table.to_csv(where / "persons.csv", index=False)
        else:
            _write_parquet(table, where / "persons.parquet")
    return {name: where for name, (where, _) in tables.items()}


def _survives_csv(table: pd.DataFrame) -> bool:
    """Whether a table read from its CSV has the same columns: their types, and all values but the last bits of
    floats.
    """
    back = pd.read_csv(io.StringIO(table.to_csv(index=False))) if len(table.columns) else table
    if not back.dtypes.equals(table.dtypes):
        return False
    others = [name for name in table.columns if not pd.api.types.is_float_dtype(table[name])]
    return back[others].equals(table[others].reset_index(drop=True))


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    """A table as parquet. A column that mixes texts and numbers becomes text: parquet has one type a column.

    Raises:
        DataError: a column holds something else than numbers, texts, dates and truth values.
    """
    try:
        mixed = [name for name in table.columns if pd.api.types.infer_dtype(table[name]).startswith("mixed")]
        as_text = {name: table[name].map(person_text, na_action="ignore") for name in mixed}
        table.assign(**as_text).to_parquet(path, index=False)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"the table of {path.parent.name} cannot be written ({type(error).__name__})",
            next_step="A column may hold numbers, texts, dates or truth values, and each needs a name of its own.",
        ) from None


def prepared_material(study: Study, population: Population, folder: Path, seed: int) -> Material:
    """Write each site's table to a folder of its own and let the task read it there, as it would at the site."""
    defaults = study.contract.simulation
    task = CheckedTask(
        cast(Task, load_task(study.contract.task, study.folder)),
        batch_level=study.contract.training.batch_level,
        person=defaults.person if defaults.grouped else None,
    )
    data = write_tables(population, folder)
    splits = {name: task.data(SiteData(name, where)) for name, where in data.items()}
    for name, split in splits.items():
        if not size(split.train):
            raise DataError(f"{name} has no training persons", next_step="Use fewer sites or a larger smallest_site.")
    oracle = Oracle(task, splits)
    if not oracle.persons:
        raise DataError("no site has a test person", next_step="Let data() keep some persons for testing.")
    return Material(study, task, splits, data, oracle, seed)


def check_material(contract: Contract, material: Material) -> None:
    """What every site would refuse or silently bound is said once, before anything is trained."""
    largest = contract.cohort.largest_site
    for name, split in material.splits.items():
        if size(split.train) > largest:
            raise ConfigError(
                f"{name} has {size(split.train)} training persons, more than the study's largest_site, {largest}",
                next_step="Raise [tool.fedseal.cohort] largest_site: a public bound that no site exceeds.",
            )
        if contract.normalisation.kind == "federated":
            _check_records(contract, split.train, name)
        _check_groups(contract, split, name)
    check_start(material.task, material.splits, contract)


def _check_groups(contract: Contract, split: Split, name: str) -> None:
    """That every test person has a code of the evaluation's groups, or none."""
    column, groups = contract.evaluation.subgroup, len(contract.evaluation.groups)
    if contract.evaluation.epsilon is None or column is None:
        return
    codes = split.test_columns.get(column)
    if codes is None or len(codes) != size(split.test):
        raise ConfigError(
            f"data() hands out no column {column!r} of the test persons, whose groups the evaluation counts",
            next_step="Return it: Split(..., test_columns={...}), one code for each test person.",
        )
    known = codes[~np.isnan(codes)]
    if not np.isin(known, np.arange(groups)).all():
        raise DataError(
            f"column {column!r} of {name} has codes that are none of 0 to {groups - 1}",
            next_step="Name a group for each code in [tool.fedseal.evaluation] groups; NaN is counted nowhere.",
        )


def _check_records(contract: Contract, persons: Persons, name: str) -> None:
    """That the federation can normalise a site's features: their layout, and the mask of several records a person."""
    try:
        found = unlike_records(persons, len(contract.normalisation.low))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", next_step=error.next_step) from None
    if found:
        raise DataError(
            f"the second tensor that data() returns is no mask for {found} of {size(persons)} training persons of "
            f"{name}: normalisation of several records a person needs 1 where there is a record, 0 where there is none",
            next_step="Return the records and the mask of person_items() as the first two tensors; records are zero "
            'where there is none. Or scale features in data() and say kind = "task".',
        )


def _notes(contract: Contract, material: Material) -> list[str]:
    """What is allowed and yet worth a word: a delta that is large for so many persons."""
    delta, persons = contract.privacy.delta, max(size(split.train) for split in material.splits.values())
    if contract.privacy.plan == "none" or delta * 10 * persons <= 1:
        return []
    enough = 10.0 ** math.floor(-math.log10(10 * persons))
    note = (
        f"delta {delta:g} is large for a site of {persons} training persons: publishing each of them with that chance "
        f"would keep the promise. Set delta = {enough:g} or less in [tool.fedseal.privacy]."
    )
    return [note]


def _frozen(task: Task) -> list[str]:
    """Where a part of the model is frozen, how much is trained and released."""
    counts = [(p.numel(), p.requires_grad) for p in build_model(task).parameters()]
    everything, trained = sum(n for n, _ in counts), sum(n for n, learns in counts if learns)
    if trained == everything:
        return []
    note = (
        f"{trained:,} of the model's {everything:,} parameters are trained and released, {4 * trained / 1000:,.1f} kB "
        "in float32; the rest is frozen and is not sent."
    )
    return [note]


def options_record(options: Options) -> dict[str, str | int | float | None]:
    """The options as they were given, for the run's configuration file."""
    return {
        "sites": options.sites,
        "rounds": options.rounds,
        "epsilon": options.epsilon,
        "seed": options.seed,
        "data": None if options.data is None else options.data.name,
        "strategy": options.strategy,
    }
