"""The server's part in the federation's log: what it shows to whom, what it takes from answers, what it writes.

A release is written when it is over: what the sites signed while it ran, who dropped out where, and which sum came of
it. The checkpoint over that rides on the next messages.
"""

import hashlib
import logging
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import safetensors.numpy
from flwr.app import Message
from numpy.typing import NDArray

from fedseal.compliance.events.bodies import (
    Aggregated,
    CodeRegistered,
    Dropped,
    EnvironmentRecorded,
    Package,
    RunCreated,
    RunFinished,
)
from fedseal.compliance.events.fields import CodeKind, DropReason, DropStage, ModelKind, ReleaseName, sha256
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.events.subjects import ModelRegistered
from fedseal.compliance.journal.attachment import read_reply
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.log.canonical import encode as canonical
from fedseal.config import Frozen
from fedseal.errors import PeerError
from fedseal.operation.events import LogWordRefused
from fedseal.operation.logs import say
from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Stage
from fedseal.privacy.secagg.server_states import Finished
from fedseal.server.exchange import log_of
from fedseal.wire import encode

log = logging.getLogger("fedseal.log")

PACKAGES = ("fedseal", "flwr", "numpy", "cryptography", "dp-accounting", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is said of a run before its first release. All public.

    ``contract``, ``code`` and ``model`` (the first one) are digests; ``rounds`` is 0, the others None where nobody
    knows.
    """

    study: str
    contract: str
    strategy: str
    code: str | None = None
    model: str | None = None
    rounds: int = 0


@dataclass(slots=True)
class Losses:
    """Who was asked at each stage of an attempt and did not answer, or refused."""

    silent: dict[int, Stage]
    refused: dict[int, tuple[Stage, RefusalCode]]

    def answered(self, site: int, stage: Stage, answer: object) -> None:
        """A site has answered at a stage, if only with a refusal."""
        self.silent.pop(site, None)
        if isinstance(answer, Refusal):
            self.refused[site] = (stage, RefusalCode(answer.code))

    def facts(self, header: Header, run: bytes) -> list[Fact]:
        """The events that say so, by site."""
        found: dict[int, tuple[Stage, DropReason]] = {s: (t, DropReason.SILENT) for s, t in self.silent.items()}
        found |= {s: (t, DropReason(c.name.lower())) for s, (t, c) in self.refused.items()}
        return [
            Fact(
                Dropped(
                    release=ReleaseName(header.release_name),
                    round=header.fl_round,
                    sequence=header.release_seq,
                    attempt=header.attempt,
                    site=site,
                    stage=DropStage(stage.label),
                    reason=reason,
                ),
                run,
            )
            for site, (stage, reason) in sorted(found.items())
        ]


class ServerLogbook:
    """One run's view of the federation's log.

    Args:
        journal: the federation's log.
        run: the run's id.
        facts: what is said of the run once its first sites have introduced themselves.
        plan: the plan of its updates.
    """

    def __init__(self, journal: FederationJournal, run: bytes, facts: RunFacts, plan: PrivacyPlan) -> None:
        self.journal = journal
        self._run = run
        self._facts = facts
        self._plan = plan
        self._created: bool | None = None
        self._postponed: set[tuple[int, int, DropReason]] = set()

    # What rides on messages

    def greeting(self) -> bytes:
        """For a node that has not introduced itself."""
        return encode(self.journal.greeting())

    def shown(self, site: int) -> bytes:
        """For a site: everything since what it cosigned last."""
        return encode(self.journal.request_for(site))

    def take(self, site: int, reply: Message) -> None:
        """Keep what an answer says of the log. A site that answers nonsense loses nothing but its say.

        Raises:
            LocalError: this log is behind what the site has cosigned.
        """
        raw = log_of(reply)
        if raw is None:
            return
        try:
            self.journal.take(site, read_reply(raw, site))
        except PeerError as error:
            say(log, LogWordRefused(error.peer, error.message))

    # What is written

    def introduced(self, sites: Iterable[int], model: Mapping[str, NDArray[Any]]) -> None:
        """Write who has joined, and once for each run what will run, from which model."""
        if self._created is None:
            self._created = self.journal.has(type_of_form(RunCreated).name, self._run)
        if self._created:
            self.journal.commit()
            return
        environment = _environment()
        facts = self._facts
        created = RunCreated(
            study=facts.study,
            contract=facts.contract,
            code=facts.code,
            environment=environment.environment,
            model_in=facts.model or (model_digest(model) if model else None),
            strategy=facts.strategy,
            rounds=facts.rounds,
            sites=tuple(sorted(sites)),
            plan=plan_facts(self._plan),
        )
        told = [] if facts.code is None else [Fact(CodeRegistered(code=facts.code, kind=CodeKind.STUDY))]
        if created.model_in is not None:
            first = ModelRegistered(model=created.model_in, parent=None, kind=ModelKind.INITIAL, round=0, bundle=None)
            told.append(Fact(first))
        self.journal.commit([*told, Fact(environment), Fact(created, self._run)])
        self._created = True

    def attempted(self, header: Header, losses: Losses, finished: Finished | None, model: Mapping[str, Any]) -> None:
        """Write what came of an attempt."""
        facts = [fact for fact in losses.facts(header, self._run) if self._is_news(fact.body)]
        if finished is not None:
            aggregated = Aggregated(
                release=ReleaseName(header.release_name),
                round=header.fl_round,
                sequence=header.release_seq,
                attempt=header.attempt,
                header="sha256:" + header.digest().hex(),
                sites=finished.survivors,
                threshold=header.threshold,
                colluders=header.colluders,
                aggregate="sha256:" + hashlib.sha256(finished.total.vector.tobytes()).hexdigest(),
                model_in=model_digest(model) if model else None,
            )
            facts.append(Fact(aggregated, self._run))
        self.journal.commit(facts)

    def _is_news(self, body: Frozen) -> bool:
        """Not that a site asked, once more, to be asked later: a release may wait for it for hours."""
        if not isinstance(body, Dropped) or body.reason not in (DropReason.LATER, DropReason.WAITING):
            return True
        said = (body.sequence, body.site, body.reason)
        new = said not in self._postponed
        self._postponed.add(said)
        return new

    def finished(self, rounds: int, model: Mapping[str, NDArray[Any]] | None) -> None:
        """Write that the run is over, and which model came of it: once, whoever closes it again after a crash."""
        if self.journal.has(type_of_form(RunFinished).name, self._run):
            return
        digest = None if model is None else model_digest(model)
        facts = [Fact(RunFinished(rounds=rounds, model=digest), self._run)]
        if digest is not None:
            registered = ModelRegistered(model=digest, parent=None, kind=ModelKind.GLOBAL, round=rounds, bundle=None)
            facts.append(Fact(registered, self._run))
        self.journal.commit(facts)


def model_digest(model: Mapping[str, NDArray[Any]]) -> str:
    """How a log names a model: SHA-256 of its safetensors file, as `sha256sum model.safetensors` gives it."""
    return sha256(safetensors.numpy.save(dict(model)))


def _environment() -> EnvironmentRecorded:
    packages = tuple(Package(name=name, version=metadata.version(name)) for name in PACKAGES)
    python = platform.python_version()
    listed = canonical({"python": python, "packages": [p.model_dump() for p in packages]})
    return EnvironmentRecorded(environment=sha256(listed), python=python, packages=packages)
