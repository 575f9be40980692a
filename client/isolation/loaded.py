"""In the study's process: the task, the site's persons, and what is computed with them, by the functions of
`client.app`.

It has no store. What of the store a request needs came with it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from flwr.app import Message

from fedseal.client.app import evaluate_answer, train_answer, watched_in
from fedseal.client.facts import settings_of
from fedseal.client.isolation.messages import Answered, Asked, Compare, Load
from fedseal.client.isolation.records import answered_by, message_of, parts_of
from fedseal.client.monitoring.reference import window_of
from fedseal.client.monitoring.window import compared, past_counts
from fedseal.client.task import SiteData, Task
from fedseal.client.work import SiteWork
from fedseal.privacy.inference.drift.cusum import CusumState
from fedseal.privacy.randomness import Randomness, SystemRandomness
from fedseal.privacy.releases import COUNTS
from fedseal.privacy.watch import decode_reference
from fedseal.study_code import load_task
from fedseal.wire import decode


@dataclass(frozen=True, slots=True)
class Stranger:
    """All that this process knows of its site. Its randomness is the operating system's."""

    number: int

    def randomness(self) -> Randomness:
        """The operating system's: a simulated site has no node, and so no such process."""
        return SystemRandomness()


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the site keeps under the one name that is asked for: the node has looked it up."""

    memory: bytes | None

    def recall(self, run: bytes, name: str, *, counted: int) -> bytes | None:
        """What came with the request."""
        return self.memory


@dataclass(frozen=True, slots=True)
class Carried:
    """What `client.app` asks of a site's store, from the request alone."""

    identity: Stranger
    memory: bytes | None

    @contextmanager
    def transaction(self) -> Iterator[Recalled]:
        """Nothing is written: what is to be kept goes back with the answer."""
        yield Recalled(self.memory)


class LoadedStudy:
    """A study's task with a site's persons.

    Args:
        load: what is loaded.
        threads: how many training may use.

    Raises:
        ConfigError, DataError, or whatever the study's code raises.
    """

    def __init__(self, load: Load, threads: int) -> None:
        torch.set_num_threads(threads)
        self._site = Stranger(load.number)
        self._name = load.site
        task = cast(Task, load_task(load.task, load.study))
        self._work = SiteWork(task, task.data(SiteData(load.site, Path(load.data))), load.persons)

    def train(self, asked: Asked) -> Answered:
        """What `client.app` answers to a TRAIN message."""
        return answered_by(train_answer(message_of(asked), Carried(self._site, asked.memory), self._work))

    def evaluate(self, asked: Asked) -> Answered:
        """What `client.app` answers to an EVALUATE message."""
        return answered_by(evaluate_answer(message_of(asked), Carried(self._site, asked.memory), self._work))

    def past(self, asked: Asked) -> Answered:
        """The training persons by the cells of a watch, without noise: the node adds it."""
        message = message_of(asked)
        watch, _ = window_of(settings_of(message))
        return _counts(past_counts(watch, watched_in(message, self._work)))

    def compare(self, compare: Compare) -> Answered:
        """A window beside the site's past."""
        message: Message = message_of(decode(compare.asked, Asked))
        errors = compare.errors
        found = compared(
            settings_of(message),
            watched_in(message, self._work),
            self._name,
            None if compare.windows is None else Path(compare.windows),
            decode_reference(compare.reference),
            None if errors is None else CusumState(errors.rise, errors.fall, errors.windows),
        )
        return _counts(found.vector, json.dumps(asdict(found.report)).encode())


def _counts(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], report: bytes | None = None) -> Answered:
    return Answered(parts_of({COUNTS: counts}), None, None, True, None, report)
