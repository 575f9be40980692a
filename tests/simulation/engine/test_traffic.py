"""The bytes of a round by formula against those of a round that was played."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rounds import make_cohort

from fedseal import merkle
from fedseal.privacy.npy import to_npy
from fedseal.privacy.secagg.messages import Refusal, Stage
from fedseal.privacy.secagg.parameters import GraphRules
from fedseal.privacy.secagg.server_states import Aborted, Finished, MaskedReply
from fedseal.simulation.engine import traffic
from fedseal.simulation.engine.traffic import Turnout, attempt_traffic, path_length, paths_length
from fedseal.wire import encode

TASK = 1000


class Counted:
    """The bytes that pass in a round, and who answered."""

    def __init__(self) -> None:
        self.down = dict.fromkeys(Stage, 0)
        self.up = dict.fromkeys(Stage, 0)
        self.answered: dict[Stage, list[int]] = {stage: [] for stage in Stage}
        self.reached = Stage.ADVERTISE

    def request(self, stage: Stage, site: int, request: Any) -> Any:
        self.reached = max(self.reached, stage)
        self.down[stage] += len(encode(request)) + (TASK if stage is Stage.MASK else 0)
        return request

    def reply(self, stage: Stage, site: int, reply: Any) -> Any:
        assert not isinstance(reply, Refusal)
        masked = isinstance(reply, MaskedReply)
        self.up[stage] += len(encode(reply.message)) + len(to_npy(reply.vector)) if masked else len(encode(reply))
        self.answered[stage].append(site)
        return reply

    def turnout(self, cohort: tuple[int, ...]) -> Turnout:
        first, second, third, fourth, fifth = (tuple(sorted(self.answered[stage])) for stage in Stage)
        return Turnout(cohort, first, second, third, fourth, fifth, self.reached)


def played(n: int, **script: Any) -> tuple[Counted, Any, Finished | Aborted]:
    counted = Counted()
    cohort = make_cohort(n, 37, request_hook=counted.request, reply_hook=counted.reply, **script)
    return counted, cohort.header, cohort.run()


def compare(counted: Counted, header: Any) -> dict[Stage, tuple[int, int, int, int]]:
    found = attempt_traffic(header, counted.turnout(header.cohort), TASK)
    return {s: (found[s].down, counted.down[s], found[s].up, counted.up[s]) for s in Stage}


@pytest.mark.parametrize("n", [3, 4, 7, 11])
@pytest.mark.parametrize("ring_bits", [16, 32, 64])
def test_a_round_on_the_complete_graph_has_the_formulas_bytes(n: int, ring_bits: int) -> None:
    counted, header, outcome = played(n, ring_bits=ring_bits)
    assert isinstance(outcome, Finished)
    for down, real_down, up, real_up in compare(counted, header).values():
        assert (down, up) == (real_down, real_up)


@pytest.mark.parametrize("stage", list(Stage), ids=lambda s: s.label)
@pytest.mark.parametrize("lost", [{3}, {1, 8}])
def test_with_sites_that_drop_out_too(stage: Stage, lost: set[int]) -> None:
    counted, header, outcome = played(9, silent={stage: lost})
    assert isinstance(outcome, Finished)
    for down, real_down, up, real_up in compare(counted, header).values():
        assert (down, up) == (real_down, real_up)


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.MASK])
def test_a_round_that_stops_has_no_bytes_of_later_stages(stage: Stage) -> None:
    counted, header, outcome = played(5, silent={stage: {1, 2, 3}})
    assert isinstance(outcome, Aborted)
    for at, (down, real_down, up, real_up) in compare(counted, header).items():
        assert (down, up) == (real_down, real_up)
        assert at <= stage or not down


def test_one_byte_more_would_be_noticed() -> None:
    """The twin."""
    counted, header, _ = played(5)
    counted.up[Stage.UNMASK] += 1
    rows = compare(counted, header)
    assert rows[Stage.UNMASK][2] != rows[Stage.UNMASK][3]


RULES = GraphRules(complete_up_to=20, sigma=20, eta=10)


def test_a_round_on_the_sparse_graph_has_them_where_nobody_drops_out() -> None:
    counted, header, outcome = played(40, rules=RULES)
    assert isinstance(outcome, Finished)
    assert header.sparse is not None
    for down, real_down, up, real_up in compare(counted, header).values():
        assert (down, up) == (real_down, real_up)


def test_and_nearly_where_some_do() -> None:
    counted, header, outcome = played(40, rules=RULES, silent={Stage.MASK: {5, 17}})
    assert isinstance(outcome, Finished)
    for down, real_down, up, real_up in compare(counted, header).values():
        assert down == pytest.approx(real_down, rel=0.03)
        assert up == pytest.approx(real_up, rel=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300))
def test_paths_are_as_long_as_they_are(size: int) -> None:
    paths = merkle.inclusion_paths([bytes(32)] * size)
    assert [path_length(place, size) for place in range(size)] == [len(path) for path in paths]
    assert paths_length(size) == sum(len(path) for path in paths)


def test_the_formula_takes_no_longer_for_many_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    """It encodes as many messages for all sites as for some of them."""
    _, header, _ = played(40, rules=RULES)

    def encoded(sites: tuple[int, ...]) -> int:
        count = 0

        def counting(message: Any) -> bytes:
            nonlocal count
            count += 1
            return encode(message)

        monkeypatch.setattr(traffic, "encode", counting)
        attempt_traffic(header, Turnout(header.cohort, sites, sites, sites, sites, sites, Stage.UNMASK), TASK)
        return count

    few = encoded(header.cohort[:24])
    assert few > 0
    assert encoded(header.cohort) == few
