"""SealedGrid in a ring of fewer than 32 bits: the mean within its stated error, in fewer bytes."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from support.doors import Walker
from support.flower import Federation, Script, flower_task, local_grid, make_federation, model, numpy_of, ordinary_app
from support.flower import train_messages as messages

from fedseal.client.records import vector_array
from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.quantize import Rounding, mean_error
from fedseal.privacy.releases import VALUES
from fedseal.server.exchange import control_of, vector_of
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

SITES = (1, 2, 3, 4, 5)
SCRIPT = Script({1: 0.5, 2: -1.5, 3: 3.0, 4: 0.25, 5: -4.0}, dict.fromkeys(SITES, 100))


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, len(SITES))


def sealed(federation: Federation, deliver: Walker | None = None, **options: Any) -> SealedGrid:
    rules = CohortRules(minimum=3, colluders=1)
    grid = local_grid(federation, ordinary_app(SCRIPT), deliver=deliver or Walker())
    return SealedGrid(grid, FedAvg(), store=federation.server, max_examples=100, cohort=rules, **options)


@pytest.mark.quick("14-1-0", "20-2-1")
@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize(("bits", "workers"), [(14, 1), (20, 2), (31, 1)])
def test_the_mean_is_within_the_stated_error(
    federation: Federation, bits: int, workers: int, rounding: Rounding
) -> None:
    grid = sealed(federation, ring_bits=bits, rounding=rounding, update_range=20.0, workers=workers)
    (reply,) = grid.send_and_receive(messages(grid, model()))
    total = grid.last_sum
    assert total is not None
    assert total.layout.ring_bits == bits
    error = mean_error(total.layout.segment(VALUES), rounding, 5, 5.0)
    change, worst = np.mean(list(SCRIPT.change.values())), 0.0
    for name, start in numpy_of(model()).items():
        pattern = np.linspace(-1, 1, start.size).reshape(start.shape)
        found = numpy_of(reply.content["arrays"])[name]
        worst = max(worst, float(np.abs(found - (start + change * pattern)).max()))
    # The arrays are float32, which rounds at the sites and at the end.
    assert worst <= error + 1e-5
    # At 14 bits the error is visible, so the bound is about something.
    assert worst > 1e-3 or bits > 14
    assert reply.content["metrics"]["num-examples"] == 500


def test_fewer_bits_are_fewer_bytes(federation: Federation) -> None:
    up = {}
    for bits in (20, 32):
        walker = Walker()
        grid = sealed(federation, walker, ring_bits=bits)
        list(grid.send_and_receive(messages(grid, model())))
        # The vectors; control bytes are the same on both sides, and what is said of the log is another matter.
        up[bits] = sum(len(raw) for raw in walker.bytes if raw[:2] != b"FS")
    length = sum(a.size for a in numpy_of(model()).values()) + 2
    assert up[32] - up[20] == len(SITES) * 4 * (length - -(-length // 32) * 20)


@pytest.mark.parametrize("bits", [0, 11, 33, 48])
def test_no_other_ring_is_taken(federation: Federation, bits: int) -> None:
    with pytest.raises(ConfigError, match="12 to 32, or 64"):
        sealed(federation, ring_bits=bits)


def test_a_site_may_insist_on_finer_sums(tmp_path: Path) -> None:
    policy = '[cohort]\nminimum = 3\n[releases]\nupdate = ["none"]\n[limits]\nring_bits = 24\n'
    federation = make_federation(tmp_path, len(SITES), policy=policy)
    coarse = sealed(federation, ring_bits=20)
    with pytest.raises(RoundAborted) as refused:
        list(coarse.send_and_receive(messages(coarse, model())))
    assert "policy (5)" in refused.value.next_step
    fine = sealed(federation, ring_bits=24)
    assert list(fine.send_and_receive(messages(fine, model())))


def still_there(*, by_views: bool) -> bool:
    """Whether a reply that was read and let go is in memory still, with Python not looking for circles."""
    array = vector_array(np.zeros(5, dtype=np.uint32))
    content = RecordDict({"vector": ArrayRecord({"vector": array}), "fedseal": ConfigRecord({"message": b"x"})})
    del array
    message: Any = SimpleNamespace(content=content)
    left = weakref.ref(content["vector"])
    gc.collect()
    gc.disable()
    try:
        read = control_of(message), vector_of(message)
        if by_views:
            content.array_records.get("vector")
        del content, message
        return left() is not None and read[0] is not None
    finally:
        gc.enable()


def test_a_reply_is_gone_once_it_was_read() -> None:
    """Or a server would hold a whole round's vectors. The twin reads it by Flower's views, which make a circle."""
    assert not still_there(by_views=False)
    assert still_there(by_views=True)
