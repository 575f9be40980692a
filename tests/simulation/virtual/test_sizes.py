"""The formula's bytes are those of the messages that a round really sends."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from support.rounds import Cohort, make_cohort

from fedseal.privacy.npy import to_npy
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.parameters import GraphRules
from fedseal.privacy.secagg.server_states import Finished, MaskedReply
from fedseal.simulation.virtual.sizes import ByFormula, sizes_for
from fedseal.wire import encode


@dataclass
class Counted:
    """What crosses the wire of a cohort, by stage."""

    down: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    up: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    asked: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))
    answered: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 0))

    def request(self, stage: Stage, _: int, request: Any) -> Any:
        self.down[stage] += len(encode(request))
        self.asked[stage] += 1
        return request

    def reply(self, stage: Stage, _: int, reply: Any) -> Any:
        masked = isinstance(reply, MaskedReply)
        self.up[stage] += len(encode(reply.message)) + len(to_npy(reply.vector)) if masked else len(encode(reply))
        self.answered[stage] += 1
        return reply


def counted(cohort: Cohort) -> tuple[Counted, Finished]:
    count = Counted()
    cohort.request_hook, cohort.reply_hook = count.request, count.reply
    finished = cohort.run()
    assert isinstance(finished, Finished)
    return count, finished


def left_at(count: Counted, n: int) -> dict[Stage, tuple[int, ...]]:
    answered = [count.answered[stage] for stage in Stage]
    return {stage: (n, *answered[: int(stage)]) for stage in Stage}


@pytest.mark.parametrize("ring_bits", [32, 64, 20])
@pytest.mark.parametrize("n", [3, 5, 8])
def test_all_of_a_complete_graph(n: int, ring_bits: int) -> None:
    cohort = make_cohort(n, 7, ring_bits=ring_bits)
    count, _ = counted(cohort)
    sizes, left = ByFormula(cohort.header, task=0), left_at(count, n)
    for stage in Stage:
        down, up = sizes.exchange(stage, left[stage])
        assert n * down == pytest.approx(count.down[stage], abs=1e-6)
        assert n * up == pytest.approx(count.up[stage], abs=1e-6)


@pytest.mark.parametrize("stage", list(Stage)[:4])
def test_fewer_who_are_left_send_less(stage: Stage) -> None:
    """Within a hash a share: whose paths are shorter depends on who fell silent."""
    cohort = make_cohort(8, 7, silent={stage: {3, 7}})
    count, _ = counted(cohort)
    sizes, left = ByFormula(cohort.header, task=0), left_at(count, 8)
    for at in Stage:
        down, up = sizes.exchange(at, left[at])
        assert count.asked[at] * down == pytest.approx(count.down[at], rel=0.02)
        assert count.answered[at] * up == pytest.approx(count.up[at], rel=0.02)
    full = ByFormula(cohort.header, task=0).exchange(Stage.UNMASK, (8,) * 5)
    assert sizes.exchange(Stage.UNMASK, left[Stage.UNMASK]) < full


def test_the_sparse_graph() -> None:
    rules = GraphRules(complete_up_to=12, sigma=20, eta=5)
    cohort = make_cohort(40, 7, m=1, rules=rules)
    assert cohort.header.sparse is not None
    count, _ = counted(cohort)
    sizes, left = ByFormula(cohort.header, task=0), left_at(count, 40)
    for stage in Stage:
        down, up = sizes.exchange(stage, left[stage])
        assert 40 * down == pytest.approx(count.down[stage], rel=0.005)
        assert 40 * up == pytest.approx(count.up[stage], rel=0.001)


def test_a_cohort_that_is_only_imagined() -> None:
    sizes = sizes_for(1000, 10_000, colluders=3)
    assert sizes.exchange(Stage.MASK, (1000, 1000, 1000))[0] > 40_000
    assert sizes.exchange(Stage.MASK, (1000, 1000, 1000))[1] > 40_000
