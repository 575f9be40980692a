"""The ClientApp of a study: fedseal's trainer behind `sealed_mod`.

`app` is what a study's pyproject.toml names as its clientapp. It keeps a site's model and data warm between messages
where the process lives on (a resident node, a simulation); a stock SuperNode starts a new process for each message
and simply builds them again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedseal.client.clusters import membership
from fedseal.client.counting import count_persons
from fedseal.client.datasets.recheck import recheck
from fedseal.client.facts import (
    Participant,
    ReleaseStreams,
    done,
    reports_folder,
    setting,
    settings_of,
    task_of,
    task_reference,
    windows_folder,
)
from fedseal.client.metrics import Measured, measure
from fedseal.client.mod import DATA_KEY, STUDY_KEY, data_folder, open_store, sealed_mod
from fedseal.client.monitoring.reference import kept_reference, reference_key, window_of
from fedseal.client.monitoring.report import chart_before, write_report
from fedseal.client.monitoring.window import Watched, compared, past_counts
from fedseal.client.noise import clipped_sum, noisy_mean
from fedseal.client.normalise import moment_rows, normalised
from fedseal.client.personal import MEMORY_NAME
from fedseal.client.records import CONTROL, arrays_of, tables_in
from fedseal.client.release import DONE, DONE_UNCLIPPED, MEMORY
from fedseal.client.remembered import FINETUNE_STEPS, last_counted, memory_name
from fedseal.client.site_round import (
    WEIGHT,
    Assignment,
    Contribution,
    contribute,
    fine_tune,
    personal_model,
)
from fedseal.client.task import Persons, SiteData, Task, build_model
from fedseal.client.trainer import load
from fedseal.client.work import SiteWork, normalisation_of
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, PlanKind, SharedSkellam, Unit, decode_plan
from fedseal.privacy.releases import COUNTS, DRIFT, MEMBERS, MOMENTS, REGISTRY
from fedseal.privacy.store import SiteStore
from fedseal.study_code import load_task

# A laptop simulates dozens of sites in one process; a real site is one.
WARM_SITES = 64


class Remembered(Protocol):
    """What an app may ask a site's store in one transaction; `Transaction` says what it means."""

    def recall(self, run: bytes, name: str, *, counted: int) -> bytes | None: ...


class SiteMemory(Protocol):
    """Who a site is and what it remembers: its store, or what stands for it in a simulation."""

    @property
    def identity(self) -> Participant: ...

    def transaction(self) -> AbstractContextManager[Remembered]: ...


class Warm:
    """The most recently used sites of this process."""

    def __init__(self) -> None:
        self._sites: OrderedDict[tuple[object, ...], SiteWork] = OrderedDict()

    def work(self, context: Context, store: SiteStore) -> SiteWork:
        """The work of the site that a context belongs to, built at its first message, and anew for every version of its
        data.

        Raises:
            DataError: the data is not the registered version, or stopped being it while it was read.
        """
        identity, version = store.identity, recheck(store, data_folder(context))
        folder, reference = setting(context, DATA_KEY), task_reference(context)
        study = context.node_config.get(STUDY_KEY)
        # With the federation: its roster says what the site is called and by how many persons noisy sums are divided.
        number = None if version is None else version.number
        key = (folder, reference, study, identity.roster.digest(), identity.number, number)
        if key not in self._sites:
            task = cast(Task, load_task(reference, study))
            split = task.data(SiteData(identity.name, Path(folder)))
            recheck(store, Path(folder))
            entry = identity.roster.entry(identity.number)
            self._sites[key] = SiteWork(task, split, entry.persons if entry else 0)
            if len(self._sites) > WARM_SITES:
                self._sites.popitem(last=False)
        self._sites.move_to_end(key)
        return self._sites[key]

    def train(self, message: Message, context: Context) -> Message:
        """Answer a TRAIN message that the mod has let through."""
        store = open_store(context)
        work = self.work(context, store)
        if message.content.config_records[CONTROL]["release"] == DRIFT:
            # Not a site's memory but its store: the reference of a watched model is kept there.
            return _window(message, message.content.config_records[CONTROL], store, work, context)
        return train_answer(message, store, work)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Answer an EVALUATE message that the mod has let through."""
        store = open_store(context)
        return evaluate_answer(message, store, self.work(context, store))


def train_answer(message: Message, store: SiteMemory, work: SiteWork) -> Message:
    """What a site computes for a TRAIN message: moments, counts, or an update."""
    facts = message.content.config_records[CONTROL]
    if facts["release"] == MOMENTS:
        return _moments(message, facts, store.identity, work)
    if facts["release"] == MEMBERS:
        return _members(message, facts, work)
    if facts["release"] == COUNTS:
        return _counts(message, facts, work, work.split.train, work.split.columns)
    return _train(message, facts, store, work)


def evaluate_answer(message: Message, store: SiteMemory, work: SiteWork) -> Message:
    """What a site computes for an EVALUATE message: counts, metrics, or metrics of a model that it fine-tunes first."""
    facts = message.content.config_records[CONTROL]
    if REGISTRY[cast(str, facts["release"])].counted(decode_plan(cast(bytes, facts["plan"])).kind):
        return _counts(message, facts, work, work.split.test, work.split.test_columns)
    settings, received = settings_of(message), arrays_of(next(iter(message.content.array_records.values())))
    if FINETUNE_STEPS in settings:
        tuned = fine_tune(work, received, settings, ReleaseStreams.of(store.identity, facts))
        kept = ConfigRecord({MEMORY_NAME: tuned.memory})
        content = RecordDict({"metrics": _metric_record(tuned.measured), MEMORY: kept})
        return Message(content, reply_to=message)
    module = build_model(work.task)
    load(module, received)
    persons = normalised(work.split.test, normalisation_of(settings))
    measured = measure(work.task, module, persons)
    return Message(RecordDict({"metrics": _metric_record(measured)}), reply_to=message)


def client_app() -> ClientApp:
    """A sealed ClientApp with a memory of its own."""
    flower_app, warm = ClientApp(mods=[sealed_mod]), Warm()
    flower_app.train()(warm.train)
    flower_app.evaluate()(warm.evaluate)
    return flower_app


def _train(message: Message, facts: ConfigRecord, store: SiteMemory, work: SiteWork) -> Message:
    """Train from the received model, with what the site kept of earlier rounds; keep what it says for the next."""
    (received,) = (arrays_of(record) for record in message.content.array_records.values())
    # Of the signed header: the update range, a plan's clip norm, or where it adapts the round's.
    (limit,) = cast(list[float], facts["ranges"])
    plan = decode_plan(cast(bytes, facts["plan"]))
    assignment = Assignment(received, settings_of(message), plan, limit)
    streams, name = ReleaseStreams.of(store.identity, facts), memory_name(received, assignment.settings)
    kept = None if name is None else _recalled(store, facts, assignment, name)
    made = done(facts)
    if plan.kind is PlanKind.DISTRIBUTED:
        summed = work.gradient_sum(normalisation_of(assignment.settings)).counted(received, limit, streams("torch"))
        made[DONE_UNCLIPPED] = summed.unclipped
        memory = personal_model(work, assignment, streams, kept)
        contribution = Contribution(summed.arrays, None, memory)
    else:
        contribution = contribute(work, assignment, streams, kept)
    arrays = ArrayRecord({name: Array(array) for name, array in contribution.arrays.items()})
    content = RecordDict({DONE: made, "arrays": arrays})
    if contribution.metrics is not None:
        content["metrics"] = MetricRecord(dict(contribution.metrics))
    if name is not None and contribution.memory is not None:
        content[MEMORY] = ConfigRecord({name: contribution.memory})
    return Message(content, reply_to=message)


def _recalled(store: SiteMemory, facts: ConfigRecord, assignment: Assignment, name: str) -> bytes | None:
    """What this site kept in the last round whose sum it was in."""
    counted = last_counted(assignment.settings, store.identity.number)
    with store.transaction() as transaction:
        return transaction.recall(cast(bytes, facts["run"]), name, counted=counted)


def _moments(message: Message, facts: ConfigRecord, identity: Participant, work: SiteWork) -> Message:
    """The mean of (u, u^2) over this site's training persons, under the plan of the round."""
    settings, plan = settings_of(message), decode_plan(cast(bytes, facts["plan"]))
    rows = moment_rows(work.split.train, cast(list[float], settings["low"]), cast(list[float], settings["high"]))
    if isinstance(plan, LocalGaussian):
        if plan.sample_rate != 1.0 or plan.steps != 1:
            raise ConfigError("statistics need a plan with sample_rate 1 and one step")
        persons = max(work.public_persons, 1)
        mean = noisy_mean(rows, plan, persons=persons, stream=ReleaseStreams.of(identity, facts)("noise"))
    elif isinstance(plan, SharedSkellam) and plan.unit == Unit.PERSON:
        # Under this plan not the mean leaves but the sum, with noise to come.
        mean = clipped_sum(rows, plan.clip_norm)
    else:
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
    content = RecordDict(
        {
            DONE: done(facts),
            "arrays": ArrayRecord({MOMENTS: Array(mean)}),
            "metrics": MetricRecord({WEIGHT: len(rows)}),
        }
    )
    return Message(content, reply_to=message)


def _counts(
    message: Message, facts: ConfigRecord, work: SiteWork, persons: Persons, columns: Mapping[str, NDArray[np.float64]]
) -> Message:
    """Persons counted into the tables that the round asks for; of the received model, where one came along."""
    tables = tables_in({"config": settings_of(message)})
    model = None
    if tables.needs_model and message.content.array_records:
        module = build_model(work.task)
        load(module, arrays_of(next(iter(message.content.array_records.values()))))
        model = (module, normalised(persons, normalisation_of(settings_of(message))))
    counts = count_persons(tables, work.task, persons, model, columns)
    content = RecordDict({DONE: done(facts), "arrays": ArrayRecord({COUNTS: Array(counts)})})
    return Message(content, reply_to=message)


def _members(message: Message, facts: ConfigRecord, work: SiteWork) -> Message:
    """Which of the received models fits this site's training persons best."""
    (received,) = (arrays_of(record) for record in message.content.array_records.values())
    counts = membership(work, received, settings_of(message))
    content = RecordDict({DONE: done(facts), "arrays": ArrayRecord({MEMBERS: Array(counts)})})
    return Message(content, reply_to=message)


def watched_in(message: Message, work: SiteWork) -> Watched:
    """What a window's request watches at this site."""
    module = None
    if message.content.array_records:
        module = build_model(work.task)
        load(module, arrays_of(next(iter(message.content.array_records.values()))))
    return Watched(work.task, work.split, module, normalisation_of(settings_of(message)))


def _window(message: Message, facts: ConfigRecord, store: SiteStore, work: SiteWork, context: Context) -> Message:
    """By how much a window of new persons differs from this site's past; exact tests of it stay here, and are written
    before anything is handed on.
    """
    settings, watched, reports = settings_of(message), watched_in(message, work), reports_folder(context)
    watch, number = window_of(settings)
    stream = ReleaseStreams.of(store.identity, facts)("reference")
    key = reference_key(task_of(message))
    reference = kept_reference(store, key, watch, lambda: past_counts(watch, watched), stream)
    errors = chart_before(reports, number)
    found = compared(settings, watched, store.identity.name, windows_folder(context), reference, errors)
    write_report(reports, found.report)
    content = RecordDict({DONE: done(facts), "arrays": ArrayRecord({COUNTS: Array(found.vector)})})
    return Message(content, reply_to=message)


def _metric_record(measured: Measured) -> MetricRecord:
    record = MetricRecord({WEIGHT: measured.persons})
    for name, mean in measured.means.items():
        record[name] = float(mean[0]) if len(mean) == 1 else [float(v) for v in mean]
    return record


app = client_app()
