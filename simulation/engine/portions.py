"""What some sites of a cohort compute for one attempt: each its bounded vector, of which only the sum is kept."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedseal.client.app import evaluate_answer, train_answer
from fedseal.client.mod import refusal_for
from fedseal.client.records import arrays_of, for_the_app
from fedseal.client.release import Computed, bounded_release, memories
from fedseal.client.trainer import Arrays
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.releases import REGISTRY, MessageKind
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.masks import RingVector, ring_dtype
from fedseal.simulation.engine.sites import Memory, Sites
from fedseal.simulation.grid import NodeList


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt as its sites see it: the header, the task's records, who computes, and what they remember."""

    header: Header
    records: Mapping[str, Any]
    sites: tuple[int, ...]
    memories: Mapping[int, Memory] = field(default_factory=dict)

    def part(self, sites: tuple[int, ...]) -> "Job":
        """The same for some of its sites."""
        kept = {site: self.memories[site] for site in sites if site in self.memories}
        return Job(self.header, self.records, sites, kept)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a site has no vector: the code it would have answered, and what it would have written down."""

    site: int
    code: int
    text: str


@dataclass(slots=True)
class Portion:
    """The sum of some sites' vectors in the ring, who is in it, who is not, and what they remember now."""

    total: RingVector
    survivors: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    memories: dict[int, Memory] = field(default_factory=dict)

    @classmethod
    def empty(cls, header: Header) -> "Portion":
        """Nobody's."""
        return cls(np.zeros(header.layout.length, dtype=ring_dtype(header.layout.ring_bits)))

    def add(self, other: "Portion") -> None:
        """Add another one, modulo the ring: in whatever order, the same comes out."""
        np.add(self.total, other.total, out=self.total)
        self.survivors += other.survivors
        self.failures += other.failures
        self.memories |= other.memories


@dataclass(frozen=True, slots=True)
class Request:
    """What sites are asked: Flower's message, and the arrays in it."""

    message: Any
    received: Arrays


class OneByOne:
    """Sites that compute one after the other, each with the code that a real one runs.

    Args:
        sites: the federation's.
        nodes: makes the message that sites' code expects.
    """

    def __init__(self, sites: Sites, nodes: NodeList) -> None:
        self._sites = sites
        self._nodes = nodes

    def portion(self, job: Job) -> Portion:
        """What the job's sites come to. What a site's code raises is that site's failure."""
        found = Portion.empty(job.header)
        if not job.sites:
            return found
        request = self.asked(job)
        for number in job.sites:
            memory = job.memories.get(number) or Memory()
            try:
                computed = self.computed(job.header, request, number, memory)
            # A study's own code may raise anything, and one site's failure is not the federation's.
            except Exception as error:  # noqa: BLE001
                text = "".join(traceback.format_exception(error))
                found.failures.append(Failure(number, refusal_for(error).code, text))
                continue
            np.add(found.total, computed.update.vector, out=found.total)
            found.survivors.append(number)
            for name, value in computed.memories.items():
                memory.remember(job.header.run, name, value, job.header.fl_round)
            if memory.kept:
                found.memories[number] = memory
        return found

    def asked(self, job: Job) -> Request:
        """The request as the sites' code gets it, the same for all of them."""
        header = job.header
        kind = REGISTRY[header.release_name]
        request = self._nodes.request(job.records, kind.message.value, str(header.fl_round))
        message = for_the_app(request, header, dict(job.records))
        records = list(message.content.array_records.values())
        return Request(message, {name: array for record in records for name, array in arrays_of(record).items()})

    def computed(self, header: Header, request: Request, number: int, memory: Memory) -> Computed:
        """What one site would have masked, from its own streams."""
        kind, plan = REGISTRY[header.release_name], decode_plan(header.plan)
        site, work = self._sites.site(number, memory), self._sites.work(number)
        if kind.message is MessageKind.TRAIN:
            reply = train_answer(request.message, site, work)
        else:
            reply = evaluate_answer(request.message, site, work)
        randomness, release = site.identity.randomness(), (header.release_seq, header.attempt)
        update = bounded_release(
            header,
            kind,
            plan,
            request.received,
            reply,
            public_persons=self._sites.public_persons(number),
            stream=randomness.stream("rounding", *release),
            noise=randomness.stream("noise-share", *release),
        )
        return Computed(update, memories(reply))
