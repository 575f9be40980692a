"""Faults in the real grid: sealed apps, stores and the round loop as they are deployed, each fault with what it costs.

A slice of the matrix; the sums are recomputed from what the sites' own code bounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from support.flower import (
    PRIVATE,
    Federation,
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    numpy_of,
    ordinary_app,
)

from fedseal.client import release as release_module
from fedseal.client import session as session_module
from fedseal.errors import ConfigError, ExitCode, RoundAborted
from fedseal.privacy.quantize import signed
from fedseal.privacy.releases import VALUES
from fedseal.privacy.secagg.header import Header
from fedseal.server.grid import SealedGrid
from fedseal.server.rounds import Plan, RoundRecord, run_rounds
from fedseal.server.sealing import CohortRules
from fedseal.simulation.faults.crash import ServerCrashed, served_through_crashes
from fedseal.simulation.faults.delivery import FaultyDelivery, Patience, RealSite
from fedseal.simulation.faults.tables import Fault

SITES, ROUNDS = 5, 2
NAMES = tuple(f"site-{n}" for n in range(1, SITES + 1))


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@dataclass
class Seen:
    """What sites bounded, by header and site, and of which round; what each finished round came to."""

    vectors: dict[tuple[bytes, int], NDArray[np.int64]] = field(default_factory=dict)
    headers: list[Header] = field(default_factory=list)
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    sums: dict[int, tuple[bytes, list[int]]] = field(default_factory=dict)
    wrong: list[int] = field(default_factory=list)
    crashes: int = 0
    error: RoundAborted | None = None

    def vectors_of(self, number: int) -> dict[int, NDArray[np.int64]]:
        """By site, of a round's last attempt."""
        last = [h for h in self.headers if h.fl_round == number][-1].digest()
        return {site: vector for (digest, site), vector in self.vectors.items() if digest == last}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found, real = Seen(), session_module.Session._compute

    def compute(self: Any, header: Header, *rest: Any) -> Any:
        computed = real(self, header, *rest)
        found.vectors[header.digest(), self._identity.number] = signed(computed.update.vector).astype(np.int64)
        if header not in found.headers:
            found.headers.append(header)
        return computed

    monkeypatch.setattr(session_module.Session, "_compute", compute)
    return found


def trained(folder: Path, seen: Seen, *tables: dict[str, Any], rounds: int = ROUNDS, retries: int = 1) -> Federation:
    """A run under faults, to its end or to its abort. Every finished sum is held against what was bounded."""
    federation = make_federation(folder, SITES, epsilon=50.0)
    sites = [RealSite(NAMES[n - 1], 100 + n, path) for n, path in federation.sites.items()]
    app = ordinary_app(Script({n: 0.001 * n for n in federation.sites}, done=True))
    plain = ordinary_app(Script({n: 0.001 * n for n in federation.sites}, done=True), sealed=False)
    faults = [Fault.model_validate(table) for table in tables]
    delivery = FaultyDelivery(
        faults, sites, 1, backups=folder / "backups", ordinary=plain, patience=Patience(10.0, 60.0)
    )
    initial = numpy_of(model())

    def serve(run: bytes | None) -> None:
        strategy = FedAvg(fraction_evaluate=0.0)
        sealed = SealedGrid(
            local_grid(federation, app, deliver=delivery),
            strategy,
            store=federation.server,
            max_examples=100,
            plan=PRIVATE,
            update_range=0.05,
            cohort=CohortRules(minimum=2, retries=retries),
            run=run,
        )

        def observe(record: RoundRecord) -> None:
            seen.rounds[record.number] = record
            (attempt,) = [a for a in sealed.store.attempts(sealed.run_id) if a[2] == "finished"][-1:]
            survivors, total = attempt[3], sealed.last_sum
            assert total is not None
            vectors = seen.vectors_of(record.number)
            expected = np.sum([vectors[site] for site in survivors], axis=0)
            seen.sums[record.number] = total.vector.tobytes(), survivors
            if not np.array_equal(signed(total.vector).astype(np.int64), expected):
                seen.wrong.append(record.number)

        run_rounds(sealed, strategy, initial, Plan(rounds, {"lr": 0.1}), observe)

    try:
        seen.crashes = served_through_crashes(serve)
    except RoundAborted as error:
        seen.error = error
    for number in federation.sites:
        federation.site(number).verify_ledgers()
    return federation


def survivors(seen: Seen) -> list[list[int]]:
    return [seen.sums[number][1] for number in sorted(seen.sums)]


ALL = [1, 2, 3, 4, 5]


def fast_and_slow(first: str, *others: str) -> list[Any]:
    """All run by `make test-all`, the first one always."""
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


@pytest.mark.parametrize(
    ("stage", "kept", "charged"),
    [
        ("masked_input", [3, 4, 5], 2),
        pytest.param("before_round", [3, 4, 5], 2, marks=pytest.mark.slow),
        pytest.param("share_keys", [3, 4, 5], 2, marks=pytest.mark.slow),
        pytest.param("after_train", [3, 4, 5], 3, marks=pytest.mark.slow),
        pytest.param("consistency", ALL, 3, marks=pytest.mark.slow),
        pytest.param("unmask", ALL, 3, marks=pytest.mark.slow),
    ],
)
def test_two_of_five_fall_silent(stage: str, kept: list[int], charged: int, tmp_path: Path, seen: Seen) -> None:
    federation = trained(tmp_path, seen, {"where": NAMES[:2], "stage": stage, "at": "round:2"}, rounds=3)
    assert seen.error is None and seen.wrong == []
    assert survivors(seen) == [ALL, kept, ALL]
    assert [federation.charges(n) for n in federation.sites] == [charged, charged, 3, 3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["share_keys", "after_train", "unmask"])
def test_three_of_five_end_the_run_and_release_nothing(stage: str, tmp_path: Path, seen: Seen) -> None:
    trained(tmp_path, seen, {"where": NAMES[:3], "stage": stage, "at": "round:2"})
    assert seen.error is not None and "round 2" in seen.error.message
    assert survivors(seen) == [ALL] and seen.wrong == []


def test_lost_and_slow_answers_cost_a_place_in_the_sum(tmp_path: Path, seen: Seen) -> None:
    trained(
        tmp_path,
        seen,
        {"kind": "lost", "where": ["site-1"], "stage": "masked_input", "at": "round:1"},
        {"kind": "slow", "where": ["site-2"], "stage": "masked_input", "seconds": 61.0, "at": "round:2"},
        {"kind": "slow", "where": ["site-3"], "stage": "masked_input", "seconds": 59.0, "at": "round:2"},
        {"kind": "lost", "where": ["site-4"], "stage": "consistency", "at": "round:3"},
        rounds=3,
    )
    assert survivors(seen) == [[2, 3, 4, 5], [1, 3, 4, 5], ALL] and seen.wrong == []


@pytest.mark.slow
def test_a_lost_answer_is_lost_once_so_a_retry_has_everyone(tmp_path: Path, seen: Seen) -> None:
    trained(tmp_path, seen, {"kind": "lost", "count": 3, "stage": "share_keys", "at": "round:1"}, rounds=1)
    assert survivors(seen) == [ALL] and seen.rounds[1].attempts == 2


@pytest.mark.parametrize("stage", fast_and_slow("unmask", "before_round", "share_keys", "masked_input", "after_train"))
def test_a_crashed_server_goes_on_with_the_run(stage: str, tmp_path: Path, seen: Seen) -> None:
    federation = trained(tmp_path, seen, {"kind": "server_crash", "at": "rounds:2-3", "stage": stage}, rounds=3)
    assert seen.crashes == 2 and seen.error is None and seen.wrong == []
    assert survivors(seen) == [ALL] * 3
    twice = {"before_round": 0, "share_keys": 0, "masked_input": 2}
    charges = [federation.charges(n) for n in federation.sites]
    # Charged for every update that was made, also for those that the crash made nothing of.
    assert min(charges) == 3 + (2 if stage not in twice else 0)
    assert max(charges) == 3 + twice.get(stage, 2)


def test_a_crash_says_what_to_do(tmp_path: Path) -> None:
    crash = ServerCrashed(b"r" * 16, 3)
    assert crash.exit_code == ExitCode.INTERRUPTED and "round 3" in crash.message and "same run" in crash.next_step


def values(seen: Seen, number: int, site: int) -> NDArray[np.float64]:
    """A site's update of a round, in its own units."""
    header = next(h for h in reversed(seen.headers) if h.fl_round == number)
    segment, places = header.layout.segment(VALUES), header.layout.offsets()
    found: NDArray[np.float64] = seen.vectors_of(number)[site][places[VALUES]] / segment.scale
    return found


@pytest.mark.parametrize("attack", fast_and_slow("scale:-100", "sign_flip", "nan"))
def test_a_false_update_is_bounded_like_any_other(attack: str, tmp_path: Path, seen: Seen) -> None:
    """What a sum can promise: it is that of bounded vectors. A lie within the bound is in it."""
    trained(tmp_path, seen, {"kind": "byzantine", "where": ["site-1"], "attack": attack, "at": "round:2"})
    assert survivors(seen) == [ALL] * 2 and seen.wrong == []
    honest, false = values(seen, 1, 1), values(seen, 2, 1)
    limit = seen.headers[0].layout.segment(VALUES).high
    assert np.linalg.norm(false) <= limit * (1 + 1e-6)
    match attack:
        case "nan":
            assert not false.any()
        case "sign_flip":
            np.testing.assert_allclose(false, -honest, atol=1e-6)
        case _:
            share = np.linalg.norm(false) / np.linalg.norm(honest)
            np.testing.assert_allclose(false, -share * honest, atol=1e-6)
            assert share > 1


@pytest.mark.parametrize("stage", fast_and_slow("masked_input", "advertise", "consistency", "unmask"))
def test_a_replay_counts_as_no_answer(stage: str, tmp_path: Path, seen: Seen) -> None:
    trained(tmp_path, seen, {"kind": "byzantine", "where": ["site-2"], "attack": "replay", "stage": stage})
    kept = [1, 3, 4, 5] if stage in ("advertise", "masked_input") else ALL
    # In the first round there is nothing to replay.
    assert survivors(seen) == [ALL, kept] and seen.wrong == []


def test_wrong_shares_are_found_and_their_dealer_is_left_out(tmp_path: Path, seen: Seen) -> None:
    dealt = {"kind": "byzantine", "where": ["site-3"], "attack": "wrong_share", "at": "round:2"}
    trained(tmp_path, seen, dealt)
    assert survivors(seen) == [ALL, [1, 2, 4, 5]] and seen.wrong == []
    assert [seen.rounds[n].attempts for n in (1, 2)] == [1, 2]


@pytest.mark.slow
def test_wrong_openings_are_refused(tmp_path: Path, seen: Seen) -> None:
    table = {"kind": "byzantine", "where": ["site-3"], "attack": "wrong_share", "stage": "unmask", "at": "round:2"}
    trained(tmp_path, seen, table)
    assert survivors(seen) == [ALL] * 2 and [seen.rounds[n].attempts for n in (1, 2)] == [1, 1]
    assert seen.wrong == []


@pytest.mark.slow
def test_a_site_restored_from_a_backup_is_left_out_from_then_on(tmp_path: Path, seen: Seen) -> None:
    table = {"kind": "restored_backup", "where": ["site-4"], "backup": 2, "at": "round:3"}
    federation = trained(tmp_path, seen, table, rounds=4, retries=2)
    assert seen.error is None and seen.wrong == []
    assert survivors(seen)[:2] == [ALL, ALL]
    assert survivors(seen)[2:] == [[1, 2, 3, 5]] * 2
    # It had been charged twice, and its backup knew of one; it was charged no more.
    assert federation.charges(4) == 1


# Twins: builds with a defect, for which the checks above would have failed.


@pytest.mark.slow
def test_a_bound_that_is_gone_is_noticed(tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_module, "brought_within", lambda flat, limit: 1.0)
    trained(tmp_path, seen, {"kind": "byzantine", "where": ["site-1"], "attack": "nan", "at": "round:2"})
    # A number that is none cannot be quantised: the site refuses, and is missed.
    assert survivors(seen)[1] == [2, 3, 4, 5]


def test_a_survivor_set_that_lacks_one_is_noticed(tmp_path: Path, seen: Seen) -> None:
    real = seen.vectors_of

    def fewer(number: int) -> dict[int, NDArray[np.int64]]:
        found = real(number)
        return {site: 2 * vector if site == 1 else vector for site, vector in found.items()}

    seen.vectors_of = fewer  # type: ignore[method-assign]
    trained(tmp_path, seen, rounds=1)
    assert seen.wrong == [1]


# What cannot be done is said before anything happens.


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"where": ["nowhere"]}, "does not exist"),
        ({"kind": "byzantine", "count": 1, "attack": "label_flip"}, "flipped labels"),
        ({"kind": "byzantine", "count": 1, "attack": "nan"}, "without their seal"),
    ],
)
def test_faults_that_need_what_is_not_given(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    sites: Sequence[RealSite] = [RealSite(name, i, tmp_path / name) for i, name in enumerate(NAMES)]
    with pytest.raises(ConfigError, match=message):
        FaultyDelivery([Fault.model_validate(table)], sites, 1, backups=tmp_path)
