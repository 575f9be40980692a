"""fedseal's part of the comparison: whole rounds in memory, kept where one site's or the server's step is timed."""

import copy
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from timing import Stopwatch, Task

from fedseal.client.records import BYTES, CONTROL, VECTOR, vector_array
from fedseal.privacy import quantize
from fedseal.privacy.quantize import BoundedUpdate, Layout, Rounding
from fedseal.privacy.randomness import SystemRandomness
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg import client, server
from fedseal.privacy.secagg.client_states import Idle, MaskedUpdate, Ready, Vector
from fedseal.privacy.secagg.header import COMPLETE_GRAPH, HARARY_GRAPH, sparse_for
from fedseal.privacy.secagg.messages import MaskRequest, Stage
from fedseal.privacy.secagg.server_states import Finished, MaskedReply, SiteReply
from fedseal.wire import encode

# The driver of a whole round is the tests' own: what is timed is what is tested.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.keys import SERVER, Bytes, make_roster
from support.rounds import Cohort, make_header

# As Flower's defaults; every site has 100 examples.
CLIPPING, MAX_WEIGHT, EXAMPLES = 8.0, 1000, 100

Floats = NDArray[np.float32]
Mean = NDArray[np.float64]


def site_vector(number: int, length: int) -> Floats:
    """A site's update, inside the clipping range: one vector of normal numbers, turned by a place for each site."""
    return np.roll(_normal(length), number)


@lru_cache(maxsize=1)
def _normal(length: int) -> Floats:
    values = np.random.default_rng(length).standard_normal(length, dtype=np.float32)
    return np.clip(values, -CLIPPING, CLIPPING, out=values)


def mean_of(survivors: list[int], length: int) -> Mean:
    """The clear mean of the survivors' updates, all of one weight."""
    total = np.zeros(length)
    for site in survivors:
        total += site_vector(site, length)
    total /= len(survivors)
    return total


def colluders(n: int) -> int:
    """The m that brings fedseal's threshold to Flower's, which is 2n/3."""
    return max(0, 2 * (round(2 * n / 3) - 1) - n)


def check_mean(mean: NDArray[Any], expected: Mean, tolerance: float = 1e-3) -> None:
    """A server that unmasks to something else has not done the job that was timed."""
    if not float(np.abs(mean - expected).max()) < tolerance:
        raise RuntimeError("the mean of a timed round is wrong")


class FloatCohort(Cohort):
    """The tests' cohort, with float32 values that are weighted and quantised as a site does it."""

    def vector(self, number: int) -> BoundedUpdate:
        """What `client.step` masks."""
        layout, weight = self.header.layout, np.array([float(EXAMPLES)])
        values = np.multiply(site_vector(number, layout.length - 1), EXAMPLES / MAX_WEIGHT, dtype=np.float64)
        return quantize.bound({"values": values, layout.weight.name: weight}, layout, SystemRandomness().stream())

    def answer(self, number: int, request: Any) -> SiteReply:
        """At MASK without the masks that cancel in the sum: only the site that is timed needs them all."""
        if not isinstance(request, MaskRequest):
            return super().answer(number, request)
        ready = client.step(self.sites[number], self.states[number], request).state
        if not isinstance(ready, Ready):
            raise TypeError("a site that is not ready for its vector")
        receipt = Receipt(self.header.digest(), self.header.plan, 1)
        update = Vector(self.vector(number), receipt)
        step = client.step(self.sites[number], self._thinned(number, ready), update)
        self.states[number] = step.state
        if not isinstance(step.reply, MaskedUpdate):
            raise TypeError("a site that sends no vector")
        return MaskedReply(step.reply.message, step.reply.vector)

    def _thinned(self, number: int, ready: Ready) -> Ready:
        gone = self.silent[Stage.MASK]
        # Of those it shares a mask with, by increasing number: all whose shares it holds but itself.
        neighbours = [h.dealer for h in ready.held if h.dealer != number]
        after = [v for v in neighbours if v > number]
        before = [v for v in neighbours if v < number]
        own, *pairs = ready.add
        add = [key for v, key in zip(after, pairs, strict=True) if v in gone]
        subtract = [key for v, key in zip(before, ready.subtract, strict=True) if v in gone]
        return replace(ready, add=(own, *add), subtract=tuple(subtract))


def make_float_cohort(
    n: int, length: int, dropouts: int, *, bits: int = 32, m: int | None = None, silent: set[int] | None = None
) -> FloatCohort:
    """Sites 1 to n, the first of which drop out instead of sending their vectors, or those in ``silent``.

    On the graph that a cohort of this size has; ``m`` colluders, or as many as bring the threshold to Flower's.
    """
    assumed = colluders(n) if m is None else m
    values = quantize.ranged_segment("values", length, -CLIPPING, CLIPPING, sites=n, ring_bits=bits, weighted=True)
    weight = quantize.weight_segment("examples", min(MAX_WEIGHT, levels(n, bits)), sites=n, ring_bits=bits)
    layout, roster = Layout(bits, int(Rounding.STOCHASTIC), (values, weight)), make_roster(n)
    sparse = sparse_for(n, assumed, 0.1)
    graph = COMPLETE_GRAPH if sparse is None else HARARY_GRAPH
    header = make_header(roster, list(range(1, n + 1)), layout, colluders=assumed, graph=graph, sparse=sparse)
    gone = set(range(1, dropouts + 1)) if silent is None else silent
    return FloatCohort(header, roster, {}, {Stage.MASK: gone})


def levels(n: int, bits: int) -> int:
    """How many levels each of n sites has."""
    return quantize.levels_for(n, bits)


@dataclass
class OurRound:
    """A round that has been run up to its last step.

    ``before`` and ``after`` are the server's states before and after the shares were opened.
    """

    cohort: FloatCohort
    requests: dict[tuple[Stage, int], Any]
    openings: dict[int, SiteReply]
    before: Any
    after: Any

    def site(self, number: int, watch: Stopwatch) -> list[Any]:
        """One site's whole round, once more; returns its five replies.

        Its source of randomness repeats itself, so its keys are the same and what the others sent it still fits.
        """
        header, step = self.cohort.header, client.Step(Idle(1), None)
        site = client.Site(number, self.cohort.sites[number].key, self.cohort.roster, {}, Bytes(f"site-{number}"))
        receipt = Receipt(header.digest(), header.plan, 1)
        replies: list[Any] = []
        for stage in Stage:
            with watch.running():
                step = client.step(site, step.state, self.requests[stage, number])
                if stage is Stage.MASK:
                    step = client.step(site, step.state, Vector(self.cohort.vector(number), receipt))
                    # Flower's function hands out bytes, so ours has to as well.
                    replies.append((step.reply, vector_array(step.reply.vector)))  # type: ignore[union-attr]
                else:
                    replies.append(step.reply)
        return replies

    def unmasking(self, expected: Mean, *, receiving: bool, workers: int = 1) -> Task:
        """The server's last step, up to the mean; with ``receiving`` from the moment the opened shares come in, all
        of which it then verifies. ``workers`` threads take the masks off.
        """

        def task(watch: Stopwatch) -> None:
            masking = self.after.masking
            # A state is used once: unmasking empties the sum.
            shared = replace(masking.round, workers=workers)
            fresh = replace(masking, round=shared, total=copy.deepcopy(masking.total))
            state = replace(self.before if receiving else self.after, masking=fresh)
            with watch.running():
                for site, reply in self.openings.items() if receiving else ():
                    state = server.receive(state, site, reply)
                mean = our_mean(server.close(state).state)
            check_mean(mean, expected)

        return task


def run_to_unmasking(cohort: FloatCohort) -> OurRound:
    """All of a round but its last step, with what every site was asked and what it opened."""
    found = OurRound(cohort, {}, {}, None, None)

    def on_request(stage: Stage, site: int, request: Any) -> Any:
        found.requests[stage, site] = request
        return request

    def on_reply(stage: Stage, site: int, reply: SiteReply) -> SiteReply:
        if stage is Stage.UNMASK:
            found.openings[site] = reply
        return reply

    cohort.request_hook, cohort.reply_hook = on_request, on_reply
    step = server.open_round(cohort.header, cohort.roster, SERVER)
    for _ in range(4):
        step = server.close(cohort.collect(step))
    found.before, found.after = step.state, cohort.collect(step)
    return found


def our_mean(end: Any) -> Mean:
    """The weighted mean over the survivors."""
    if not isinstance(end, Finished):
        raise TypeError(f"fedseal's round ended as {end}")
    mean: Mean = end.total.real("values")
    mean /= end.total.weight / MAX_WEIGHT
    return mean


def our_records(replies: list[Any]) -> list[RecordDict]:
    """A site's replies as they go into Flower's messages."""
    records = []
    for reply in replies:
        message, array = reply if isinstance(reply, tuple) else (reply, None)
        control = encode(message.message if isinstance(message, MaskedUpdate) else message)
        record = RecordDict({CONTROL: ConfigRecord({BYTES: control})})
        if array is not None:
            record[VECTOR] = ArrayRecord({VECTOR: array})
        records.append(record)
    return records
