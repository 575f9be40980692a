"""One window at a site: its persons counted, compared with the site's past, tested for the site's own eyes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord
from torch import nn

from fedseal.client.counting import numbers_of
from fedseal.client.monitoring.reference import joined, kept_reference, reference_key, window_of
from fedseal.client.monitoring.report import chart_before, site_report, write_report
from fedseal.client.normalise import Normalisation, normalised
from fedseal.client.task import Persons, SiteData, Split, Task, size
from fedseal.privacy.counts import Axis, Real, Whole
from fedseal.privacy.randomness import Stream
from fedseal.privacy.store import SiteStore
from fedseal.privacy.watch import site_vector

# Where a node keeps the tables of its windows: a folder, in it one folder for each window by its number.
WINDOWS_KEY = "fedseal-windows"


def window_answer(
    records: Mapping[str, ArrayRecord | ConfigRecord],
    settings: ConfigRecord,
    task: Task,
    split: Split,
    module: nn.Module | None,
    normalisation: Normalisation | None,
    store: SiteStore,
    windows: Path | None,
    reports: Path,
    stream: Stream,
) -> Whole:
    """What this site adds to a window's sum, before its share of the noise, shape (watch.length,).

    A site that has no table for this window has nobody in it. Its own report is written before anything is handed on.

    Args:
        records: the request's task.
        settings: its settings.
        task: the study's.
        split: the site's persons: its training persons are its past.
        module: the model that is watched, with the received parameters.
        normalisation: how the model wants features.
        store: the site's.
        windows: the folder of windows, if the node names one.
        reports: where the site's own reports go.
        stream: where the noise of a new reference comes from.

    Raises:
        ConfigError: the watch asks for numbers that the task does not have.
    """
    watch, number = window_of(settings)
    past = _numbers(task, split.train, module, normalisation)
    folder = None if windows is None else windows / str(number)
    groups = _groups(task, store.identity.name, folder)
    persons = sum(size(group) for group in groups)
    now = joined(tuple(_numbers(task, group, module, normalisation) for group in groups)) if persons else _nobody
    reference = kept_reference(store, reference_key(records), watch, past, stream)
    vector = site_vector(watch, reference, now, persons)
    write_report(reports, site_report(watch, number, past, now, persons, chart_before(reports, number)))
    return vector


def _groups(task: Task, name: str, folder: Path | None) -> tuple[Persons, ...]:
    """Everyone in a window's table: a task splits what it reads, and here all parts are one."""
    if folder is None or not folder.is_dir():
        return ()
    found = task.data(SiteData(name, folder))
    return tuple(group for group in (found.train, found.validation, found.test) if size(group))


def _numbers(
    task: Task, persons: Persons, module: nn.Module | None, normalisation: Normalisation | None
) -> Callable[[Axis], Real]:
    model = None if module is None else (module, normalised(persons, normalisation))
    return numbers_of(task, persons, model, {})


def _nobody(axis: Axis) -> Real:
    return np.zeros(0)
