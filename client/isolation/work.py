"""The site's own functions for messages that compute something, with the study's code in a process of its own.

The node keeps the store, the keys, the ledger, the check of the data, the noise of references, and everything that
comes after the app's function: bounding, noise shares, masks. The process gets what a round asks and what the site
remembers, and gives back arrays, metrics and memory, which are read as a stranger's.
"""

import math
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from pydantic import TypeAdapter, ValidationError

from fedseal.client.datasets.recheck import recheck
from fedseal.client.facts import (
    ReleaseStreams,
    done,
    reports_folder,
    settings_of,
    task_of,
    task_reference,
    windows_folder,
)
from fedseal.client.isolation.messages import Answered, Compare, Errors, Load
from fedseal.client.isolation.pieces import Call
from fedseal.client.isolation.records import array_record, arrays_in, asked_of, metric_record
from fedseal.client.isolation.supervision import Loading, Supervised
from fedseal.client.mod import open_store
from fedseal.client.monitoring.reference import kept_reference, reference_key, window_of
from fedseal.client.monitoring.report import SiteReport, chart_before, write_report
from fedseal.client.records import CONTROL
from fedseal.client.release import DONE, DONE_UNCLIPPED, MEMORY, TaskError
from fedseal.client.remembered import FINETUNE_STEPS, last_counted, memory_name
from fedseal.client.site_config import Site
from fedseal.privacy.counts import Whole
from fedseal.privacy.releases import COUNTS, DRIFT, MEMBERS, MOMENTS
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import PERSONAL_MODEL
from fedseal.privacy.watch import encode_reference, reference_tables
from fedseal.wire import DecodeError, encode

# Bytes that an answer may have beside its arrays, and for each number of the arrays that came: it in doubles, and what
# the site keeps, twice over.
BESIDE, PER_NUMBER = 1 << 26, 32
# Persons in one cell.
MOST_PERSONS = 1 << 40
_REPORT = TypeAdapter(SiteReport)
# Of these releases a site keeps nothing for later rounds.
_WITHOUT_MEMORY = (MOMENTS, MEMBERS, COUNTS)


class IsolatedWork:
    """What a resident node's app runs.

    Args:
        site: whose code and data.
        windows: the folder of windows, if the node has one.
    """

    def __init__(self, site: Site, windows: Path | None = None) -> None:
        self._site = site
        self._study = Supervised(site, windows)

    def start(self) -> None:
        """Start the study's process; ConfigError if it cannot be kept apart as the site's file requires."""
        self._study.start()

    def close(self) -> None:
        """End it."""
        self._study.close()

    def read_data(self) -> None:
        """Load the code and read the site's data, so that the first message finds them; DataError as for a message."""
        store = SiteStore.open(self._site.store)
        self._study.load(self._loading(self._site.study.contract.task, store), lambda: recheck(store, self._site.data))

    def train(self, message: Message, context: Context) -> Message:
        """Answer a TRAIN message that the mod has let through."""
        store, facts, settings = open_store(context), message.content.config_records[CONTROL], settings_of(message)
        task = task_reference(context)
        if facts["release"] == DRIFT:
            return self._window(message, context, store)
        name = None
        if facts["release"] not in _WITHOUT_MEMORY:
            received = [name for record in message.content.array_records.values() for name in record]
            name = memory_name(received, settings)
        kept = None
        if name is not None:
            counted = last_counted(settings, store.identity.number)
            with store.transaction() as transaction:
                kept = transaction.recall(_run(facts), name, counted=counted)
        asked = encode(asked_of(message, kept))
        answered = self._ask(store, task, Call.TRAIN, asked, most(message))
        return reply_to(message, answered, name)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Answer an EVALUATE message that the mod has let through."""
        store, task = open_store(context), task_reference(context)
        name = PERSONAL_MODEL if FINETUNE_STEPS in settings_of(message) else None
        asked = encode(asked_of(message, None))
        return reply_to(message, self._ask(store, task, Call.EVALUATE, asked, most(message)), name)

    def _window(self, message: Message, context: Context, store: SiteStore) -> Message:
        """A window beside this site's past. The past's counts get their noise here, out of reach of the study's code.

        The site's own report is written before anything is handed on.
        """
        settings, facts = settings_of(message), message.content.config_records[CONTROL]
        watch, number = window_of(settings)
        task, reports, windows = task_reference(context), reports_folder(context), windows_folder(context)
        asked, limit = encode(asked_of(message, None)), most(message)

        def count() -> Whole:
            answered = self._ask(store, task, Call.PAST, asked, limit)
            return counts_in(answered, reference_tables(watch).length)

        stream = ReleaseStreams.of(store.identity, facts)("reference")
        reference = kept_reference(store, reference_key(task_of(message)), watch, count, stream)
        before = chart_before(reports, number)
        errors = None if before is None else Errors(before.rise + 0.0, before.fall + 0.0, before.windows)
        compare = Compare(asked, encode_reference(reference), errors, None if windows is None else str(windows))
        answered = self._ask(store, task, Call.COMPARE, encode(compare), limit)
        write_report(reports, report_in(answered, number))
        return reply_to(message, answered, None)

    def _ask(self, store: SiteStore, task: str, call: Call, asked: bytes, limit: int) -> Answered:
        loading = self._loading(task, store)
        return self._study.ask(loading, lambda: recheck(store, self._site.data), call, asked, limit)

    def _loading(self, task: str, store: SiteStore) -> Loading:
        """What the process has to have loaded; DataError if the data is not the registered version."""
        identity, version = store.identity, recheck(store, self._site.data)
        entry = identity.roster.entry(identity.number)
        load = Load(
            task=task,
            study=str(self._site.study.folder),
            data=str(self._site.data),
            site=identity.name,
            number=identity.number,
            persons=entry.persons if entry else 0,
        )
        return Loading(load, None if version is None else version.number, identity.roster.digest())


def most(message: Message) -> int:
    """Bytes that an answer to a request can need."""
    records = message.content.array_records.values()
    return BESIDE + PER_NUMBER * sum(math.prod(array.shape) for record in records for array in record.values())


def reply_to(message: Message, answered: Answered, memory: str | None) -> Message:
    """An answer of the study's process as a reply of the app: of its form, and with values that the mod will bound.

    Args:
        message: the request.
        answered: what came.
        memory: under which name something may be kept; None if nothing may.

    Raises:
        TaskError: it is not of that form, or wants something kept that nobody asked for.
    """
    content = RecordDict()
    try:
        if answered.made:
            content[DONE] = done(message.content.config_records[CONTROL])
            if answered.unclipped is not None:
                content.config_records[DONE][DONE_UNCLIPPED] = answered.unclipped
        if answered.arrays:
            content["arrays"] = array_record(arrays_in(answered.arrays))
        if answered.metrics is not None:
            content["metrics"] = metric_record(answered.metrics)
    except (DecodeError, TypeError, ValueError) as error:
        why = error.message if isinstance(error, DecodeError) else "something that no record holds"
        raise TaskError(f"the study's code returned {why}") from None
    if answered.memory is not None:
        if memory is None:
            raise TaskError("the study's code wants something kept where nothing is")
        content[MEMORY] = ConfigRecord({memory: answered.memory})
    return Message(content, reply_to=message)


def counts_in(answered: Answered, length: int) -> Whole:
    """Counts of persons, shape (length,); TaskError if they are none."""
    try:
        counts = arrays_in(answered.arrays).get(COUNTS)
    except DecodeError as error:
        raise TaskError(f"the study's code returned {error.message}") from None
    if counts is None or counts.dtype != np.dtype("<i8") or counts.shape != (length,):
        raise TaskError("the study's code counted other cells than were asked for")
    if counts.size and not (counts.min() >= 0 and counts.max() <= MOST_PERSONS):
        raise TaskError("the study's code counted fewer persons than none, or more than there are")
    return counts


def report_in(answered: Answered, number: int) -> SiteReport:
    """A site's own report of its window; TaskError if it is none."""
    try:
        report: SiteReport = _REPORT.validate_json(answered.report or b"")
    except ValidationError:
        raise TaskError("the study's code made no report of the window") from None
    chart = report.errors
    finite = chart is None or (math.isfinite(chart.rise) and math.isfinite(chart.fall) and chart.windows >= 0)
    if report.window != number or not finite:
        raise TaskError("the study's code made a report of another window")
    return report


def _run(facts: ConfigRecord) -> bytes:
    run = facts["run"]
    if not isinstance(run, bytes):
        raise TaskError("a request without a run")
    return run
