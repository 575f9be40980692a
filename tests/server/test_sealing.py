"""Dropouts, retries, impostors and crashes between server and sites: the right sum or a clean abort."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg
from sqlalchemy import select
from support.flower import (
    Federation,
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    numpy_of,
    ordinary_app,
    train_messages,
)

from fedseal.client.mod import STORE_KEY
from fedseal.compliance.events.bodies import RunCreated, RunFinished
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.journal.tables import TYPES
from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import encode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.secagg.messages import Stage
from fedseal.server.grid import UNPLANNED, SealedGrid
from fedseal.server.rounds import Plan, RoundRecord, run_rounds
from fedseal.server.sealing import CohortRules, Sealing
from fedseal.simulation.grid import LocalGrid

CHANGE = {1: 0.5, 2: -1.5, 3: 3.0, 4: 0.25, 5: -4.0}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 5)


class Faults:
    """Delivers messages, except where a node is silent; knows at which exchange of a round a message is."""

    def __init__(self, silent: Callable[[int, Stage, int], bool]) -> None:
        self._silent = silent
        self._exchanges: dict[int, int] = {}

    def __call__(self, app: ClientApp, message: Message, context: Context) -> Message | None:
        number = int(context.node_config["number"])
        # The first message of a run is HELLO; then five a round.
        count = self._exchanges.get(number, -1)
        self._exchanges[number] = count + 1
        if count >= 0 and self._silent(number, Stage(count % 5), count // 5):
            return None
        return app(message, context)


def sealed(federation: Federation, script: Script, deliver: Any = None, **options: Any) -> SealedGrid:
    rules = CohortRules(minimum=3, colluders=1, retries=options.pop("retries", 0), stage_timeout=0.0)
    grid = local_grid(federation, ordinary_app(script), deliver=deliver)
    return SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules, **options)


def mean_change(grid: SealedGrid) -> float:
    """The change of the last coordinate of the bias, which is the mean of the sites' scripted changes."""
    (reply,) = grid.send_and_receive(train_messages(grid, model()), timeout=0.001)
    return float(numpy_of(reply.content["arrays"])["bias"][-1] - numpy_of(model())["bias"][-1])


@pytest.mark.quick("0", "2", "4")
@pytest.mark.parametrize("stage", list(Stage))
def test_a_site_that_drops_out_is_left_out_or_rebuilt(federation: Federation, stage: Stage) -> None:
    grid = sealed(federation, Script(CHANGE), Faults(lambda site, at, _: site == 3 and at >= stage))
    left = [1, 2, 4, 5] if stage <= Stage.MASK else [1, 2, 3, 4, 5]
    assert mean_change(grid) == pytest.approx(np.mean([CHANGE[s] for s in left]), abs=1e-5)


@pytest.mark.parametrize("stage", list(Stage))
def test_below_the_threshold_nothing_is_released(federation: Federation, stage: Stage) -> None:
    grid = sealed(federation, Script(CHANGE), Faults(lambda site, at, _: site in (3, 4) and at >= stage))
    with pytest.raises(RoundAborted):
        mean_change(grid)
    assert grid.last_sum is None
    assert [status for _, _, status, _ in grid.store.attempts(grid.run_id)] == ["aborted"]


def test_a_failed_attempt_is_repeated_as_a_new_release_that_is_charged_again(federation: Federation) -> None:
    grid = sealed(
        federation, Script(CHANGE), Faults(lambda site, at, r: site in (3, 4) and at == 3 and r == 0), retries=1
    )
    assert mean_change(grid) == pytest.approx(np.mean(list(CHANGE.values())), abs=1e-5)
    attempts = grid.store.attempts(grid.run_id)
    assert [(seq, attempt, status) for seq, attempt, status, _ in attempts] == [(1, 0, "aborted"), (1, 1, "finished")]
    assert charges(federation, 1) == 2


def charges(federation: Federation, site: int) -> int:
    with federation.site(site).transaction() as transaction:
        return sum(e.kind == EntryKind.CHARGE for e in transaction.entries("train"))


def test_the_survivor_set_is_on_disk_before_anyone_is_asked_to_sign_it(federation: Federation) -> None:
    seen: list[list[int]] = []

    def watch(site: int, at: Stage, _: int) -> bool:
        if at is Stage.CONSISTENCY:
            seen.append(grid.store.attempts(grid.run_id)[-1][3])
        return site == 2 and at is Stage.MASK

    grid = sealed(federation, Script(CHANGE), Faults(watch))
    mean_change(grid)
    assert seen
    assert all(survivors == [1, 3, 4, 5] for survivors in seen)


def test_a_node_that_claims_another_site_takes_no_part(tmp_path: Path) -> None:
    """Node 105 runs with the store of site 1: one node can speak for a site, and the second is not asked."""
    federation = make_federation(tmp_path, 5)
    nodes = federation.nodes()
    nodes[105][STORE_KEY] = str(federation.sites[1])
    grid = LocalGrid(ordinary_app(Script(CHANGE)), nodes, run_config={})
    rules = CohortRules(minimum=3, colluders=1)
    both = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules)
    assert mean_change(both) == pytest.approx(np.mean([CHANGE[s] for s in (1, 2, 3, 4)]), abs=1e-5)


def test_a_forged_introduction_is_not_believed(tmp_path: Path) -> None:
    """Node 105 holds keys that are not in the roster: it is left out, and nothing it says is used."""
    federation = make_federation(tmp_path, 5)
    stranger = make_federation(_folder(tmp_path / "other"), 6)
    nodes = federation.nodes()
    nodes[105][STORE_KEY] = str(stranger.sites[6])
    grid = LocalGrid(ordinary_app(Script(CHANGE)), nodes, run_config={})
    rules = CohortRules(minimum=3, colluders=1)
    without = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules)
    assert mean_change(without) == pytest.approx(np.mean([CHANGE[s] for s in (1, 2, 3, 4)]), abs=1e-5)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


class Stop(Exception):  # noqa: N818
    """The server's process dies here."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path: Path, kind: type[FedAvg]) -> None:
    """Killed after round 2 of 4: the resumed run ends with the same bytes as one that was never stopped."""
    plan = Plan(4, {"lr": 0.1})
    script = Script({s: c / 10 for s, c in CHANGE.items()})

    def run(folder: Path, *, stop_after: int | None) -> dict[str, Any]:
        federation = make_federation(_folder(folder), 5)
        seen: list[int] = []

        def observe(record: RoundRecord) -> None:
            seen.append(record.number)
            if record.number == stop_after:
                raise Stop

        grid = sealed(federation, script, rounding=Rounding.NEAREST)
        try:
            return run_rounds(grid, kind(fraction_evaluate=0.0), numpy_of(model()), plan, observe)
        except Stop:
            resumed = sealed(federation, script, rounding=Rounding.NEAREST, run=grid.run_id)
            done = run_rounds(resumed, kind(fraction_evaluate=0.0), numpy_of(model()), plan, observe)
            assert seen == [1, 2, 3, 4]
            return done

    whole, resumed = run(tmp_path / "whole", stop_after=None), run(tmp_path / "resumed", stop_after=2)
    assert list(whole) == list(resumed) == list(model())
    for name in whole:
        assert whole[name].tobytes() == resumed[name].tobytes()
        assert whole[name].dtype == np.float32


def test_a_run_that_stopped_within_a_round_repeats_it_as_another_release(federation: Federation) -> None:
    """The server dies after the sites have masked.

    Resumed, it asks under a new sequence number, and the sites charge again.
    """

    class Dying(Faults):
        def __call__(self, app: ClientApp, message: Message, context: Context) -> Message | None:
            if self._exchanges.get(1, -1) == int(Stage.UNMASK):
                raise Stop
            return super().__call__(app, message, context)

    script, plan = Script(CHANGE), Plan(1, {})
    grid = sealed(federation, script, Dying(lambda *_: False))
    with pytest.raises(Stop):
        run_rounds(grid, FedAvg(fraction_evaluate=0.0), numpy_of(model()), plan, lambda _: None)
    assert charges(federation, 1) == 1
    resumed = sealed(federation, script, run=grid.run_id)
    run_rounds(resumed, FedAvg(fraction_evaluate=0.0), numpy_of(model()), plan, lambda _: None)
    assert charges(federation, 1) == 2
    assert [(seq, status) for seq, _, status, _ in resumed.store.attempts(grid.run_id)] == [
        (1, "confirming"),
        (2, "finished"),
    ]


def test_a_run_whose_server_died_before_it_closed_it_is_closed_at_the_sites_and_once_in_the_log(
    federation: Federation,
) -> None:
    def stop(_: object) -> None:
        raise Stop

    def go_on(finish: Callable[[object], None], run: bytes | None = None) -> SealedGrid:
        grid = sealed(federation, Script(CHANGE), run=run)
        strategy = FedAvg(fraction_evaluate=0.0)
        with contextlib.suppress(Stop):
            run_rounds(grid, strategy, numpy_of(model()), Plan(1, {}), lambda _: None, finish)
        return grid

    # All rounds are done; first the process dies before the run is closed, then after the log says that it is.
    grid = go_on(stop)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Sealing, "close", lambda _, nodes: stop(nodes))
        go_on(lambda _: None, grid.run_id)
    done = go_on(lambda _: None, grid.run_id)
    for number in federation.sites:
        with federation.site(number).transaction() as transaction:
            assert transaction.run(grid.run_id).closed
    with done.store.engine.begin() as connection:
        kinds = list(connection.execute(select(TYPES.c.type)).scalars())
    assert [kinds.count(type_of_form(form).name) for form in (RunCreated, RunFinished)] == [1, 1]


def test_a_closed_run_never_reopens(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE))
    mean_change(grid)
    grid.close()
    with pytest.raises(ConfigError, match="closed"):
        sealed(federation, Script(CHANGE), run=grid.run_id)
    with pytest.raises(RoundAborted):
        mean_change(grid)
    with federation.site(1).transaction() as transaction:
        assert transaction.run(grid.run_id).closed
        assert transaction.ledger("train", grid.run_id, encode_plan(UNPLANNED)).reservations == {}


def test_another_strategy_cannot_take_a_run_over(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE))

    def stop(_: RoundRecord) -> None:
        raise Stop

    with pytest.raises(Stop):
        run_rounds(grid, FedAvg(fraction_evaluate=0.0), numpy_of(model()), Plan(2, {}), stop)
    resumed = sealed(federation, Script(CHANGE), run=grid.run_id)
    with pytest.raises(ConfigError, match="begun with FedAvg"):
        run_rounds(resumed, FedAdam(fraction_evaluate=0.0), numpy_of(model()), Plan(2, {}), lambda _: None)


def test_what_a_round_cost_is_counted(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE))
    mean_change(grid)
    account = grid.last_account
    assert account is not None
    values = 15
    vector_bytes = 4 * (values + 2)  # values, weight, clipped
    assert account.stages[Stage.MASK].up > 5 * vector_bytes
    assert all(traffic.up > 0 and traffic.down > 0 for traffic in account.stages.values())


def test_settings_are_bound_into_the_round(federation: Federation) -> None:
    """A server that sends site 2 another learning rate than the signed header says gets no answer from it."""

    def meddle(app: ClientApp, message: Message, context: Context) -> Message | None:
        if context.node_config["number"] == 2 and "config" in message.content:
            content = RecordDict(dict(message.content.items()))
            content["config"] = ConfigRecord({"server-round": 1, "lr": 99.0})
            message.content = content
        return app(message, context)

    grid = sealed(federation, Script(CHANGE), meddle)
    assert mean_change(grid) == pytest.approx(np.mean([CHANGE[s] for s in (1, 3, 4, 5)]), abs=1e-5)
    with federation.site(2).transaction() as transaction:
        ((code, text),) = transaction.incidents()
    assert code == "PROTOCOL"
    assert "not the one in the signed header" in text
