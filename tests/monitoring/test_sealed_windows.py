"""Windows over real sites with the real protocol: drift in two of five, budgets, windows that say nothing, doors."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.doors import Walker
from support.flower import flower_task
from support.windows import MODEL, NONE, SITES, TABLE, Watching, gone, persons, released, shares, watch

from fedseal.compliance.audit.reconcile import reconcile
from fedseal.compliance.audit.site_side import site_side
from fedseal.compliance.events.fields import MonitorAction
from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.inference.drift.classify import DriftKind, Obstacle
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import SharedGeometric
from fedseal.privacy.watch import Watch, reference_plan
from fedseal.server.monitoring.outcome import Shares, WindowSum, measure_window
from fedseal.server.monitoring.policy import plan_of, watch_of
from fedseal.server.monitoring.release import Watched, release_window
from fedseal.server.monitoring.trigger import Decision, Models, TriggerState, step


def test_drift_at_two_of_five_sites_is_an_alarm_and_is_paid_for(tmp_path: Path) -> None:
    site = Watching(tmp_path)
    for number in range(3):
        site.window(number, sites=(2, 4) if number else (), wrong=0.35)
    plan = plan_of(TABLE, watch(), windows=3)
    public = shares(site)
    state, decisions = TriggerState(), []
    for number in range(3):
        measured = measure_window(TABLE, watch(), released(site, number, plan), public)
        assert measured.sites == SITES
        assert measured.rows == pytest.approx(SITES * (400 - TABLE.k_min), abs=150)
        state, decision = step(TABLE, state, measured, Models("in-use"))
        decisions.append(decision)
    first, second, third = decisions
    assert (first.alert, first.action) == (Alert.NONE, MonitorAction.NOTHING)
    assert (second.alert, second.action) == (Alert.ALARM, MonitorAction.PROPOSE_RETRAINING)
    assert second.kinds == {DriftKind.CONCEPT}
    assert (third.alert, third.action) == (Alert.ALARM, MonitorAction.WAIT)
    for number in site.federation.sites:
        windows = [EntryKind.OPEN, EntryKind.RESERVE, *[EntryKind.CHARGE] * 3]
        assert site.federation.kinds(number, "monitor") == windows
        # The federation's reference, and the site's own: once, whatever windows come.
        once = [EntryKind.RESERVE, EntryKind.CHARGE]
        assert site.federation.kinds(number, "train") == [EntryKind.OPEN, *once, *once]
        assert site.federation.kinds(number, "test") == [EntryKind.OPEN]
    # What the sum shows is at two sites: they see it themselves, exactly, and the others see nothing.
    drifting = {n: set(site.report(n, 1)["alarms"]) for n in site.federation.sites}
    assert {n for n, alarms in drifting.items() if "error" in alarms} == {2, 4}


def test_the_log_and_every_ledger_tell_the_same_charges(tmp_path: Path) -> None:
    site = Watching(tmp_path)
    site.window(0)
    released(site, 0, plan_of(TABLE, watch(), windows=1))
    with flower_task():
        site.grid.close()
    journal = site.grid.journal
    with journal._transaction() as (_, entries):
        leaves = entries.leaves(0, entries.size)
    for number in site.federation.sites:
        store = site.federation.site(number)
        with store.transaction() as transaction:
            side = site_side(transaction, store.identity)
        assert len(side.charges) == 2
        assert [d.dispute for d in reconcile(leaves, side).found] == []


def exact(site: Watching, number: int) -> WindowSum:
    return released(site, number, NONE, watch(private=False))


@pytest.mark.slow
def test_a_site_with_too_few_persons_adds_nothing_but_noise(tmp_path: Path) -> None:
    """The twin of the sum: with a site below k_min it is that of the others, to the last person."""
    both = '["none", "histogram"]'
    small, without = Watching(tmp_path / "small", drift=both), Watching(tmp_path / "without", drift=both)
    for each in (small, without):
        each.window(0)
    table = persons(np.random.default_rng(9), TABLE.k_min, wrong=1.0)
    (small.folder / "windows/3/0/persons.csv").unlink()
    table.to_csv(small.folder / "windows/3/0/persons.csv", index=False)
    (without.folder / "windows/3/0/persons.csv").unlink()
    (without.folder / "windows/3/0").rmdir()
    first, second = exact(small, 0), exact(without, 0)
    assert first.sites == second.sites == SITES
    assert first.counts.tolist() == second.counts.tolist()
    assert first.counts.any()
    assert (small.report(3, 0)["persons"], small.report(3, 0)["contributed"]) == (TABLE.k_min, False)
    # One person more, and there is something of it.
    table = persons(np.random.default_rng(9), TABLE.k_min + 1, wrong=1.0)
    small.write("windows", 3, table, 1)
    for number in (1, 2, 4, 5):
        source = small.folder / "windows" / str(number) / "0" / "persons.csv"
        small.write("windows", number, pd.read_csv(source), 1)
    assert exact(small, 1).counts.tolist() != first.counts.tolist()


def test_noise_is_that_far_off_the_exact_sum(tmp_path: Path) -> None:
    site = Watching(tmp_path / "noisy")
    site.window(0)
    plan = plan_of(TABLE, watch(), windows=1)
    found = released(site, 0, plan)
    assert found.noise is not None
    assert found.noise.decay == pytest.approx(4.0 / watch().sensitivity)
    # Everyone is in a cell of the scores: what noise and hold-back leave of 5 x 400.
    assert sum(watch().split(found.counts).rows[:1]) == pytest.approx(SITES * (400 - TABLE.k_min), abs=200)


def test_a_window_over_too_few_sites_is_not_evaluable(tmp_path: Path) -> None:
    site = Watching(tmp_path, deliver=gone(1, 2))
    site.window(0, sites=(3, 4, 5), wrong=0.5)
    public = Shares(tuple(tuple(1 / s.cells for _ in range(s.cells)) for s in watch().strata))
    window = released(site, 0, plan_of(TABLE, watch(), windows=1))
    assert window.sites == 3
    measured = measure_window(TABLE, watch(), window, public)
    state, decision = step(TABLE, TriggerState(), measured, Models("in-use"))
    assert (decision.obstacle, decision.action, decision.alert) == (
        Obstacle.TOO_FEW_SITES,
        MonitorAction.NOTHING,
        Alert.NONE,
    )
    assert state == TriggerState()
    # The twin: with a policy for three sites the same window is an alarm.
    fewer = TABLE.model_copy(update={"min_sites": 3})
    _, alarmed = step(fewer, TriggerState(), measured, Models("in-use"))
    assert alarmed.alert is Alert.ALARM


def test_everything_that_leaves_has_its_door_and_reports_stay(tmp_path: Path) -> None:
    walker = Walker()
    site = Watching(tmp_path, deliver=walker)
    site.window(0, sites=(1,), wrong=0.5)
    released(site, 0, plan_of(TABLE, watch(), windows=1))
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    assert set(walker.events) == {
        "party.joined/v1",
        "run.accepted/v1",
        "dp.budget_set/v1",
        "dp.spent/v1",
        "round.contributed/v1",
    }
    # Two charges of every site: window and reference.
    assert walker.events.count("dp.spent/v1") == 2 * SITES
    # HELLO and five exchanges.
    assert sum(1 for raw in walker.bytes if raw[:2] == b"FS") == SITES * 6
    report = site.report(1, 0)
    assert report["alarms"]
    for word in (b"alarms", b"errors-chart", b"label-given", json.dumps(report["tests"][0]["p"]).encode()):
        assert not walker.holds(word)


# What is refused


def refused(site: Watching, plan: SharedGeometric, asked: Watch | None = None) -> str:
    site.window(0)
    with pytest.raises(RoundAborted):
        released(site, 0, plan, asked)
    for number in site.federation.sites:
        assert EntryKind.CHARGE not in site.federation.kinds(number, "monitor")
        assert EntryKind.CHARGE not in site.federation.kinds(number, "train")
    return site.federation.incidents(1)[0][1]


def test_a_policy_without_a_line_allows_no_windows(tmp_path: Path) -> None:
    assert "releases.drift" in refused(Watching(tmp_path, drift="[]"), plan_of(TABLE, watch(), windows=1))


def test_persons_of_windows_have_a_budget_of_their_own(tmp_path: Path) -> None:
    site = Watching(tmp_path, epsilon=3.0)
    assert "of the budget of population 'monitor'" in refused(site, plan_of(TABLE, watch(), windows=1))


def test_training_persons_pay_for_the_reference_or_there_is_no_window(tmp_path: Path) -> None:
    """The window alone would be affordable: the transaction that charges both charges neither."""
    small = TABLE.model_copy(update={"epsilon": 1.0, "reference_epsilon": 50.0})
    asked = watch_of(small, classes=2)
    site = Watching(tmp_path, epsilon=3.0)
    assert "of the budget of population 'train'" in refused(site, plan_of(small, asked, windows=1), asked)


@pytest.mark.parametrize("lie", ["sensitivity", "reference"])
def test_a_server_that_lies_about_what_a_person_moves_is_refused(
    tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, asked = Watching(tmp_path), watch()
    site.window(0)
    plan = plan_of(TABLE, asked, windows=1)
    if lie == "reference":
        # Exact references under a private plan.
        asked = watch(private=False)
    else:
        plan = SharedGeometric(epsilon=4.0, cells=asked.sensitivity - 1, length=asked.length, releases=1, retries=0)
        with pytest.raises(ConfigError, match="another watch"):
            released(site, 0, plan)
        monkeypatch.setattr("fedseal.server.monitoring.release.isinstance", lambda *_: False, raising=False)
    with pytest.raises(RoundAborted):
        released(site, 0, plan, asked)
    for number in site.federation.sites:
        assert EntryKind.CHARGE not in site.federation.kinds(number, "monitor")
        texts = " ".join(text for _, text in site.federation.incidents(number))
        assert ("by more than the plan" if lie == "sensitivity" else "an exact past") in texts


@pytest.mark.slow
def test_a_reference_is_noised_once_and_another_model_has_another(tmp_path: Path) -> None:
    site = Watching(tmp_path)
    for number in range(3):
        site.window(number)
    plan = plan_of(TABLE, watch(), windows=3)
    released(site, 0, plan)
    released(site, 1, plan)
    assert site.federation.kinds(1, "train").count(EntryKind.CHARGE) == 1
    with flower_task():
        other = Watched(watch(), {**MODEL, "bias": MODEL["bias"] + 1}, most=2000)
        release_window(site.grid, other, plan, number=2)
    assert site.federation.kinds(1, "train").count(EntryKind.CHARGE) == 2
    assert reference_plan(watch()) is not None


def test_a_decision_says_which_model_it_is_about() -> None:
    assert Decision(0, MonitorAction.NOTHING, Alert.NONE, None, frozenset(), (), "m").model == "m"
