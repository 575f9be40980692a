"""One window at a site: its persons counted, compared with the site's past, tested for the site's own eyes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord
from torch import nn

from fedseal.client.counting import numbers_of
from fedseal.client.monitoring.reference import joined, window_of
from fedseal.client.monitoring.report import SiteReport, site_report
from fedseal.client.normalise import Normalisation, normalised
from fedseal.client.task import Persons, SiteData, Split, Task, size
from fedseal.privacy.counts import Axis, Real, Whole, counted
from fedseal.privacy.inference.drift.cusum import CusumState
from fedseal.privacy.watch import Reference, Watch, reference_tables, site_vector


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched at a site.

    Args:
        task: the study's.
        split: the site's persons: its training persons are its past.
        module: the model that is watched, with the received parameters, if one is.
        normalisation: how the model wants features.
    """

    task: Task
    split: Split
    module: nn.Module | None
    normalisation: Normalisation | None

    def numbers(self, persons: Persons) -> Callable[[Axis], Real]:
        """What an axis says of each of these persons."""
        model = None if self.module is None else (self.module, normalised(persons, self.normalisation))
        return numbers_of(self.task, persons, model, {})


@dataclass(frozen=True, slots=True)
class Compared:
    """A window beside the site's past.

    Attributes:
        vector: what this site adds to the window's sum, before its share of the noise, shape (watch.length,).
        report: exact tests, for the site's own eyes.
    """

    vector: Whole
    report: SiteReport


def past_counts(watch: Watch, watched: Watched) -> Whole:
    """A site's training persons by the cells of a watch, flat: what a reference is made of.

    Raises:
        ConfigError: the watch asks for numbers that the task does not have.
    """
    return counted(reference_tables(watch), watched.numbers(watched.split.train))


def compared(
    settings: ConfigRecord,
    watched: Watched,
    name: str,
    windows: Path | None,
    reference: Reference,
    errors: CusumState | None,
) -> Compared:
    """One window. A site that has no table for it has nobody in it.

    Args:
        settings: the request's.
        watched: what is watched.
        name: the site's.
        windows: the folder of windows, if the node names one.
        reference: the site's past, as it is kept.
        errors: the chart of errors before this window.

    Raises:
        ConfigError: the watch asks for numbers that the task does not have.
    """
    watch, number = window_of(settings)
    folder = None if windows is None else windows / str(number)
    groups = _groups(watched.task, name, folder)
    persons = sum(size(group) for group in groups)
    now = joined(tuple(watched.numbers(group) for group in groups)) if persons else _nobody
    past = watched.numbers(watched.split.train)
    return Compared(site_vector(watch, reference, now, persons), site_report(watch, number, past, now, persons, errors))


def _groups(task: Task, name: str, folder: Path | None) -> tuple[Persons, ...]:
    """Everyone in a window's table: a task splits what it reads, and here all parts are one."""
    if folder is None or not folder.is_dir():
        return ()
    found = task.data(SiteData(name, folder))
    return tuple(group for group in (found.train, found.validation, found.test) if size(group))


def _nobody(axis: Axis) -> Real:
    return np.zeros(0)
