"""SealedGrid over an ordinary Flower app: the clear weighted mean, within the error that the quantiser states."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
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
    train_messages,
)

from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.quantize import Rounding, mean_error
from fedseal.privacy.releases import VALUES, MetricRange
from fedseal.server.grid import UNPLANNED, SealedGrid
from fedseal.server.means import clipped_share
from fedseal.server.sealing import CohortRules

EXAMPLES = {1: 10, 2: 40, 3: 5, 4: 100, 5: 1}
CHANGE = {1: 0.5, 2: -1.5, 3: 3.0, 4: 0.25, 5: -4.0}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 5)


def sealed(federation: Federation, script: Script, strategy: FedAvg | None = None, **options: Any) -> SealedGrid:
    settings: dict[str, Any] = {
        "store": federation.server,
        "max_examples": 100,
        "cohort": CohortRules(minimum=3, colluders=1),
    }
    return SealedGrid(local_grid(federation, ordinary_app(script)), strategy or FedAvg(), **{**settings, **options})


def clear_mean(script: Script, arrays: ArrayRecord, sites: list[int]) -> dict[str, NDArray[np.float64]]:
    """The weighted mean of the sites' arrays in doubles."""
    total = sum(script.examples[s] for s in sites)
    out = {}
    for name, start in numpy_of(arrays).items():
        pattern = np.linspace(-1, 1, start.size).reshape(start.shape).astype(start.dtype)
        trained = {s: (start + np.float32(script.change[s]) * pattern).astype(start.dtype) for s in sites}
        out[name] = sum((script.examples[s] * trained[s].astype(np.float64) for s in sites), np.zeros(1)) / total
    return out


def one_reply(grid: SealedGrid, arrays: ArrayRecord) -> RecordDict:
    replies = list(grid.send_and_receive(train_messages(grid, arrays)))
    assert len(replies) == 1
    return replies[0].content


@pytest.mark.parametrize("rounding", list(Rounding))
def test_the_mean_is_the_clear_mean_within_the_stated_error(federation: Federation, rounding: Rounding) -> None:
    script = Script(CHANGE, EXAMPLES)
    grid = sealed(federation, script, rounding=rounding)
    content = one_reply(grid, model())
    expected = clear_mean(script, model(), [1, 2, 3, 4, 5])
    total = grid.last_sum
    assert total is not None
    error = mean_error(total.layout.segment(VALUES), rounding, 5, sum(EXAMPLES.values()) / 100)
    assert error < 1e-5
    for name, array in numpy_of(content["arrays"]).items():
        # One unit in the last place of float32 on top: that is the arrays' own precision.
        slack = error + np.spacing(np.abs(expected[name]).max().astype(np.float32))
        assert np.abs(array - expected[name]).max() <= slack
    assert list(content["arrays"]) == list(model())
    assert content["metrics"]["num-examples"] == sum(EXAMPLES.values())


def test_the_error_is_not_zero_so_the_bound_is_about_something(federation: Federation) -> None:
    """With a range a million times too wide the same sum is visibly coarser, and still within its own stated error."""
    script = Script(CHANGE, EXAMPLES)
    grid = sealed(federation, script, update_range=1e8, rounding=Rounding.NEAREST)
    found = numpy_of(one_reply(grid, model())["arrays"])
    expected = clear_mean(script, model(), [1, 2, 3, 4, 5])
    worst = max(float(np.abs(found[n] - expected[n]).max()) for n in expected)
    assert grid.last_sum is not None
    error = mean_error(grid.last_sum.layout.segment(VALUES), Rounding.NEAREST, 5, sum(EXAMPLES.values()) / 100)
    assert 1e-4 < worst <= error


@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_the_strategy_gives_the_same_as_with_every_reply_equal_to_that_mean(
    federation: Federation, kind: type[FedAvg]
) -> None:
    grid = sealed(federation, Script(CHANGE, EXAMPLES), kind())
    one, many = kind(), kind()
    for strategy in (one, many):
        list(strategy.configure_train(1, model(), ConfigRecord(), grid))
    content = one_reply(grid, model())
    request = train_messages(grid, model())[0]
    sealed_out, _ = one.aggregate_train(1, [Message(content, reply_to=request)])
    copies = []
    for examples in EXAMPLES.values():
        record = RecordDict({"arrays": content["arrays"], "metrics": MetricRecord({"num-examples": examples})})
        copies.append(Message(record, reply_to=request))
    clear_out, _ = many.aggregate_train(1, copies)
    assert sealed_out is not None
    assert clear_out is not None
    for name, array in numpy_of(sealed_out).items():
        np.testing.assert_allclose(array, clear_out[name].numpy(), rtol=2e-6)


@pytest.mark.quick("FedAvg")
@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
def test_a_whole_flower_run_is_close_to_the_unsealed_one(federation: Federation, kind: type[FedAvg]) -> None:
    """`strategy.start` with two lines changed: three rounds, the same model but for quantisation."""
    script = Script({s: c / 10 for s, c in CHANGE.items()}, EXAMPLES)
    options = {"initial_arrays": model(), "num_rounds": 3}
    clear_strategy, sealed_strategy = kind(fraction_evaluate=0.0), kind(fraction_evaluate=0.0)
    clear = clear_strategy.start(grid=local_grid(federation, ordinary_app(script, sealed=False)), **options)  # type: ignore[arg-type]
    result = sealed_strategy.start(grid=sealed(federation, script, sealed_strategy), **options)  # type: ignore[arg-type]
    for name, array in numpy_of(clear.arrays).items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array, atol=2e-5)


def test_declared_metrics_are_averaged_and_others_dropped(federation: Federation) -> None:
    losses = {1: 0.5, 2: 1.5, 3: 2.0, 4: 0.125, 5: 3.0}
    rows = {s: [float(s), 0.0] for s in EXAMPLES}
    script = Script(CHANGE, EXAMPLES, {"loss": losses, "row": rows, "secret": losses})
    metrics = {"loss": (0.0, 5.0), "row": MetricRange(0.0, 5.0, 2)}
    record: Any = one_reply(sealed(federation, script, metrics=metrics), model())["metrics"]
    weight = sum(EXAMPLES.values())
    assert record["loss"] == pytest.approx(sum(EXAMPLES[s] * losses[s] for s in EXAMPLES) / weight, abs=1e-6)
    assert record["row"][0] == pytest.approx(sum(EXAMPLES[s] * s for s in EXAMPLES) / weight, abs=1e-6)
    assert "secret" not in record


def test_evaluation_messages_are_sealed_too(federation: Federation) -> None:
    accuracies = {1: 0.5, 2: 0.75, 3: 1.0, 4: 0.25, 5: 0.0}
    script = Script(CHANGE, EXAMPLES, {"accuracy": accuracies})
    grid = sealed(federation, script, metrics={"accuracy": (0.0, 1.0)})
    (reply,) = grid.send_and_receive(train_messages(grid, model(), "evaluate"))
    weight = sum(EXAMPLES.values())
    expected = sum(EXAMPLES[s] * accuracies[s] for s in EXAMPLES) / weight
    assert reply.content["metrics"]["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert "arrays" not in reply.content


def test_a_metric_is_averaged_over_the_sites_that_report_it(federation: Federation) -> None:
    """A metric of evaluation is absent from training messages; one that nobody reports is absent from the reply."""
    losses = {1: 0.5, 4: 2.0}
    script = Script(CHANGE, EXAMPLES, {"loss": losses})
    grid = sealed(federation, script, metrics={"loss": (0.0, 5.0), "accuracy": (0.0, 1.0)})
    record: Any = one_reply(grid, model())["metrics"]
    expected = sum(EXAMPLES[s] * losses[s] for s in losses) / sum(EXAMPLES[s] for s in losses)
    assert record["loss"] == pytest.approx(expected, abs=1e-6)
    assert "accuracy" not in record
    assert record["num-examples"] == sum(EXAMPLES.values())
    assert grid.last_sum is not None
    assert clipped_share(grid.last_sum) == 0


def test_a_metric_outside_its_range_is_bounded_at_the_site_and_counted(federation: Federation) -> None:
    losses = {1: 0.5, 2: 7.0, 3: 2.0, 4: 0.125, 5: -3.0}
    script = Script(CHANGE, EXAMPLES, {"loss": losses})
    grid = sealed(federation, script, metrics={"loss": (0.0, 5.0)})
    record = one_reply(grid, model())["metrics"]
    bounded = {**losses, 2: 5.0, 5: 0.0}
    expected = sum(EXAMPLES[s] * bounded[s] for s in bounded) / sum(EXAMPLES.values())
    assert record["loss"] == pytest.approx(expected, abs=1e-6)
    assert grid.last_sum is not None
    assert clipped_share(grid.last_sum) == pytest.approx(0.4, abs=1e-6)
    assert all(federation.incidents(site) == [] for site in EXAMPLES)


@pytest.mark.parametrize("strange", [{"change": {**CHANGE, 5: float("nan")}}, {"examples": {**EXAMPLES, 5: -3}}])
def test_a_site_with_nothing_sensible_to_say_counts_as_none(federation: Federation, strange: dict[str, Any]) -> None:
    script = Script(**{"change": CHANGE, "examples": EXAMPLES, **strange})
    grid = sealed(federation, script)
    content = one_reply(grid, model())
    expected = clear_mean(Script(CHANGE, EXAMPLES), model(), [1, 2, 3, 4])
    for name, array in numpy_of(content["arrays"]).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)
    assert content["metrics"]["num-examples"] == sum(EXAMPLES.values()) - EXAMPLES[5]
    assert grid.last_sum is not None
    assert clipped_share(grid.last_sum) == pytest.approx(0.2, abs=1e-6)


def test_more_examples_than_the_public_bound_count_as_the_bound(federation: Federation) -> None:
    script = Script(CHANGE, {**EXAMPLES, 4: 10_000})
    grid = sealed(federation, script)
    content = one_reply(grid, model())
    assert content["metrics"]["num-examples"] == sum(EXAMPLES.values())
    assert grid.last_sum is not None
    assert clipped_share(grid.last_sum) == pytest.approx(0.2, abs=1e-6)


def test_an_update_beyond_the_range_is_scaled_down_and_counted(federation: Federation) -> None:
    script = Script({**CHANGE, 5: 400.0}, dict.fromkeys(EXAMPLES, 10))
    grid = sealed(federation, script, update_range=20.0, max_examples=10)
    one_reply(grid, model())
    assert grid.last_sum is not None
    assert clipped_share(grid.last_sum) == pytest.approx(0.2, abs=1e-6)


def test_the_run_config_is_bound_or_hidden(federation: Federation) -> None:
    """Given to the grid, every site's app sees it; left out, none does."""
    config: dict[str, bool | int | float | str] = {"lr": 0.5, "task": "task:Study"}
    for given, shown in ((config, config), (None, {})):
        script = Script(CHANGE, EXAMPLES)
        grid = SealedGrid(
            local_grid(federation, ordinary_app(script), run_config=config),
            FedAvg(),
            store=federation.server,
            max_examples=100,
            run_config=given,
            cohort=CohortRules(minimum=3),
        )
        one_reply(grid, model())
        assert [seen for _, seen in script.seen.values()] == [shown] * 5


def test_a_run_config_that_sites_were_not_given_is_an_abort(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE, EXAMPLES), run_config={"lr": 0.5})
    with pytest.raises(RoundAborted) as caught:
        list(grid.send_and_receive(train_messages(grid, model())))
    # Five sites, and the retry.
    assert "protocol (10)" in caught.value.next_step
    assert "not the one in the signed header" in federation.incidents(1)[-1][1]


def test_a_run_without_a_plan_has_room_for_many_rounds_and_says_so(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE, EXAMPLES))
    for _ in range(3):
        one_reply(grid, model())
    with federation.site(1).transaction() as transaction:
        ledger = transaction.ledger("train", grid.run_id, encode_plan(UNPLANNED))
    assert NoPrivacy(releases=10_000, retries=10_000) == UNPLANNED
    assert ledger.reservations == {(grid.run_id, encode_plan(UNPLANNED)): 20_000 - 3}


def test_a_plan_is_for_as_many_rounds_as_it_says(federation: Federation) -> None:
    """Also one without privacy: the third round of two has nothing left to be charged."""
    grid = sealed(federation, Script(CHANGE, EXAMPLES), plan=NoPrivacy(releases=1, retries=1))
    for _ in range(2):
        one_reply(grid, model())
    with pytest.raises(RoundAborted) as caught:
        list(grid.send_and_receive(train_messages(grid, model())))
    assert "budget (5)" in caught.value.next_step
    assert federation.charges(1) == 2


def test_a_private_plan_drops_metrics_and_weighs_by_the_roster(federation: Federation) -> None:
    script = Script(CHANGE, EXAMPLES, {"loss": dict.fromkeys(EXAMPLES, 1.0)}, done=True)
    grid = sealed(federation, script, plan=PRIVATE, metrics={"loss": (0.0, 5.0)})
    content = one_reply(grid, model())
    assert dict(content["metrics"]) == {"num-examples": 500.0}
    change = numpy_of(content["arrays"])["bias"][-1] - numpy_of(model())["bias"][-1]
    assert change == pytest.approx(np.mean(list(CHANGE.values())), abs=1e-5)


def test_an_app_that_does_not_make_private_releases_is_an_abort(federation: Federation) -> None:
    grid = sealed(federation, Script(CHANGE, EXAMPLES), plan=PRIVATE)
    with pytest.raises(RoundAborted) as caught:
        list(grid.send_and_receive(train_messages(grid, model())))
    assert "task (5)" in caught.value.next_step


def test_integer_arrays_keep_their_type(federation: Federation) -> None:
    arrays = ArrayRecord({"count": Array(np.array([3, 4], dtype=np.int64)), "w": Array(np.zeros(2, dtype=np.float32))})
    script = Script(dict.fromkeys(EXAMPLES, 2.0), EXAMPLES)
    found = numpy_of(one_reply(sealed(federation, script), arrays)["arrays"])
    assert found["count"].dtype == np.int64
    assert found["count"].tolist() == [1, 6]


def test_what_cannot_be_sealed_is_refused_before_anything_is_sent(federation: Federation) -> None:
    script = Script(CHANGE, EXAMPLES)
    grid = sealed(federation, script)
    messages = train_messages(grid, model())
    messages[1].content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(1))})})
    with pytest.raises(ConfigError, match="different contents"):
        grid.send_and_receive(messages)
    with pytest.raises(ConfigError, match="cannot be sealed"):
        grid.send_and_receive(train_messages(grid, model(), "query"))
    with pytest.raises(ConfigError, match="not single messages"):
        grid.push_messages(train_messages(grid, model()))
    assert list(grid.send_and_receive([])) == []
    assert script.calls == []


def test_too_few_sites_is_an_abort_that_says_why(tmp_path: Path) -> None:
    closed = make_federation(tmp_path, 3, policy="version = 1\n")
    grid = sealed(closed, Script(CHANGE, EXAMPLES))
    with pytest.raises(RoundAborted) as caught:
        list(grid.send_and_receive(train_messages(grid, model())))
    assert "policy (3)" in caught.value.next_step
