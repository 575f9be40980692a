"""Releases of counts over real sites: what is counted, what is refused, what is charged, and in which order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from support.doors import Walker
from support.flower import Federation, flower_task, make_federation
from support.studies import TINY, material, tiny
from torch.utils.data import TensorDataset

from fedseal.client.app import client_app
from fedseal.client.counting import count_persons
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.client.records import control_bytes
from fedseal.client.task import Task, build_model, size
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.scale import Level, Scale
from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.counts import Axis, Source, Table, Tables, Whole, agreement, codes, labels
from fedseal.privacy.inference.tally import Tally
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import NoPrivacy, SharedGeometric
from fedseal.privacy.releases import COUNTS, REGISTRY
from fedseal.privacy.secagg.messages import MaskRequest
from fedseal.server.agreement import agreement_over_sites, pairs_of_labels
from fedseal.server.counts import Asked, federated_counts, plan_counts, private_evaluation
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import Deliver, LocalGrid
from fedseal.simulation.training import Material
from fedseal.wire import DecodeError, decode

SITES = 4
POLICY = """
version = 1
[cohort]
minimum = 2
[releases]
counts = {counts}
evaluation = {evaluation}
"""
BINS = Axis(int(Source.FEATURE), (-1.0, 0.0, 1.0, 2.0), outside=True, number=1)
ONE = Tables((Table((labels(2), BINS)),))
THREE = Tables((Table((labels(2),)), Table((BINS,)), agreement("first", "second", 2)))
RUN_CONFIG = {"fedseal-task": "task:Blobs"}
NONE = NoPrivacy(releases=1, retries=0)


class Site:
    """A federation of the tiny study, with a policy of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        counts: str = '["none", "histogram"]',
        evaluation: str = '["histogram"]',
        epsilon: float = 4.0,
        deliver: Deliver | None = None,
        colluders: int = 1,
    ) -> None:
        folder.mkdir(exist_ok=True)
        policy = POLICY.format(counts=counts, evaluation=evaluation)
        self.material: Material = material(tiny(), folder / "data")
        self.federation: Federation = make_federation(folder, SITES, policy=policy, epsilon=epsilon, order=256.0)
        nodes = self.federation.nodes(**{STUDY_KEY: str(TINY)})
        for config, data in zip(nodes.values(), self.material.data.values(), strict=True):
            config[DATA_KEY] = str(data)
        self.grid = SealedGrid(
            LocalGrid(client_app(), nodes, run_config=RUN_CONFIG, deliver=deliver),
            FedAvg(),
            store=self.federation.server,
            max_examples=500,
            cohort=CohortRules(minimum=3, colluders=colluders, retries=1, stage_timeout=0.0),
            run_config=RUN_CONFIG,
        )

    def exact(self, tables: Tables, part: str = "train", model: Any = None) -> Whole:
        """The counts of all sites, in the clear."""
        total = np.zeros(tables.length, dtype=np.int64)
        for split in self.material.splits.values():
            persons = getattr(split, part)
            columns = split.columns if part == "train" else {}
            chosen = None if model is None else (model, persons)
            total += count_persons(tables, self.material.task, persons, chosen, columns)
        return total


def counts(site: Site, tables: Tables, plan: NoPrivacy | SharedGeometric) -> Tally:
    with flower_task():
        return federated_counts(site.grid, Asked(tables, most=500), plan)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def module_of(site: Site) -> tuple[Any, dict[str, Any]]:
    """A model that knows something, and its arrays."""
    module = build_model(site.material.task)
    arrays = {"weight": np.full((1, 3), 0.8, np.float32), "bias": np.array([-1.4], np.float32)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))
    return module, arrays


# What is counted


@pytest.mark.parametrize("tables", [ONE, THREE], ids=["one table", "three"])
def test_without_noise_the_sum_is_exact_to_the_last_person(site: Site, tables: Tables) -> None:
    found = counts(site, tables, NONE)
    assert found.counts.tolist() == site.exact(tables).tolist()
    assert found.noise is None
    persons = sum(size(s.train) for s in site.material.splits.values())
    # Everyone is in one cell of each table: features outside their edges too.
    assert [int(t.sum()) for t in found.split] == [persons] * len(tables.tables)


def test_with_noise_the_sum_is_that_far_off_and_charged(site: Site) -> None:
    plan = plan_counts(THREE, 3.0, releases=1)
    found = counts(site, THREE, plan)
    noise = found.counts - site.exact(THREE)
    assert found.noise is not None
    assert (found.noise.shares, found.noise.honest) == (4, 2)
    assert noise.any()
    # Of two-sided geometric noise so far out is nothing that is ever seen.
    assert float(np.square(noise).sum()) < 20 * len(noise) * found.noise.variance
    kinds = [EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE]
    for number in site.federation.sites:
        assert site.federation.kinds(number, "train") == kinds
        assert site.federation.kinds(number, "test") == [EntryKind.OPEN]


def test_an_evaluation_is_about_test_persons_and_on_their_ledger(site: Site) -> None:
    module, arrays = module_of(site)
    scores = Axis(int(Source.SCORE), tuple(i / 8 for i in range(9)))
    tables = Tables((Table((labels(2), scores)), Table((codes(Source.RIGHT, 2), labels(2)))))
    # So little noise that it is zero but once in 10^12.
    plan = plan_counts(tables, 60.0)
    rich = Site(site.federation.folder / "rich", epsilon=100.0)
    with flower_task():
        found = private_evaluation(rich.grid, Asked(tables, most=500, model=arrays), plan)
    assert found.counts.tolist() == rich.exact(tables, "test", module).tolist()
    right = found.split[1][1].sum() / found.split[1].sum()
    judged = rich.material.oracle.judge(module, None)
    assert float(right) == pytest.approx(judged.everyone["accuracy"])
    for number in rich.federation.sites:
        assert rich.federation.kinds(number, "train") == [EntryKind.OPEN]
        assert rich.federation.kinds(number, "test") == [EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE]


def test_losses_are_counted_as_the_task_has_them(site: Site) -> None:
    module, _ = module_of(site)
    edges = tuple(i / 10 for i in range(31))
    tables = Tables((Table((Axis(int(Source.LOSS), edges),)),))
    found = site.exact(tables, "test", module)
    mean = float(found @ (np.array(edges[1:]) - 0.05) / found.sum())
    assert mean == pytest.approx(site.material.oracle.judge(module, None).everyone["loss"], abs=0.05)


# What is refused


def refused(site: Site, tables: Tables, plan: NoPrivacy | SharedGeometric, code: str, population: str = "train") -> str:
    """That nothing was released nor charged; what a site wrote down."""
    with pytest.raises(RoundAborted):
        counts(site, tables, plan)
    for number in site.federation.sites:
        assert EntryKind.CHARGE not in site.federation.kinds(number, population)
    found = site.federation.incidents(1)
    assert found[0][0] == code
    return found[0][1]


def test_a_policy_without_a_line_allows_no_counts(tmp_path: Path) -> None:
    assert "releases.counts" in refused(Site(tmp_path, counts="[]"), ONE, plan_counts(ONE, 1.0), "POLICY")


def test_a_policy_for_noisy_counts_allows_no_exact_ones(tmp_path: Path) -> None:
    site = Site(tmp_path, counts='["histogram"]')
    assert "under plan 'none'" in refused(site, ONE, NONE, "POLICY")
    assert counts(Site(tmp_path / "new", counts='["histogram"]'), ONE, plan_counts(ONE, 1.0)).sites == SITES


def test_a_ledger_that_cannot_pay_refuses(tmp_path: Path) -> None:
    site = Site(tmp_path, epsilon=1.0)
    assert "of the budget of population 'train'" in refused(site, ONE, plan_counts(ONE, 1.5), "BUDGET")
    assert counts(site, ONE, plan_counts(ONE, 0.9)).noise is not None


def test_a_run_counts_no_more_often_than_it_planned(site: Site) -> None:
    plan = plan_counts(ONE, 1.0, releases=2)
    for _ in range(2):
        counts(site, ONE, plan)
    with pytest.raises(RoundAborted, match="budget"):
        counts(site, ONE, plan)


def test_tables_beyond_the_plan_are_refused_before_anyone_is_charged(site: Site) -> None:
    """A server that lies about how many cells a person is in: three tables, noise for one."""
    plan = SharedGeometric(epsilon=1.0, cells=1, length=THREE.length, releases=1, retries=0)
    with pytest.raises(ConfigError, match="plan for counts of other tables"):
        counts(site, THREE, plan)
    with flower_task(), pytest.raises(RoundAborted):
        site.grid.release(
            REGISTRY[COUNTS],
            list(site.grid.get_node_ids()),
            task=Asked(THREE, most=500).task(),
            shapes={COUNTS: np.zeros(THREE.length)},
            plan=plan,
            fl_round=0,
            timeout=None,
            value_range=500.0,
        )
    for number in site.federation.sites:
        assert EntryKind.CHARGE not in site.federation.kinds(number)
        assert any("more cells than the plan" in text for _, text in site.federation.incidents(number))


def test_a_round_that_trusts_everyone_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, colluders=0)
    with pytest.raises(ConfigError, match="trust every site"):
        counts(site, ONE, plan_counts(ONE, 1.0))


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (Axis(int(Source.FEATURE), (0.0, 1.0), number=3), "no feature 3"),
        (codes(Source.COLUMN, 2, name="third"), "no column 'third'"),
    ],
)
def test_what_the_task_does_not_have_is_not_counted(site: Site, axis: Axis, message: str) -> None:
    """The site was charged: that it failed may be a fact about its persons."""
    tables = Tables((Table((axis,)),))
    with pytest.raises(RoundAborted):
        counts(site, tables, plan_counts(tables, 1.0))
    assert site.federation.charges(1) == 1
    assert message in site.federation.incidents(1)[0][1]


def test_counts_about_a_model_need_one(site: Site) -> None:
    tables = Tables((Table((codes(Source.RIGHT, 2),)),))
    with pytest.raises(ConfigError, match="there is none"):
        counts(site, tables, plan_counts(tables, 1.0))


def test_a_column_has_one_number_for_each_person(site: Site) -> None:
    split = next(iter(site.material.splits.values()))
    with pytest.raises(ConfigError, match="has 1 numbers for"):
        count_persons(THREE, site.material.task, split.train, None, {"first": np.zeros(1), "second": np.zeros(1)})


def test_a_site_without_persons_counts_nobody(site: Site) -> None:
    nobody = TensorDataset(torch.zeros(0, 3), torch.zeros(0))
    task: Task = site.material.task
    assert not count_persons(ONE, task, nobody, (build_model(task), nobody), {}).any()


# Doors, order, losses


def at_mask(message: Message) -> bool:
    try:
        decode(control_bytes(message), MaskRequest)
    except DecodeError:
        return False
    return True


def test_everything_that_leaves_has_its_door(tmp_path: Path) -> None:
    walker = Walker()
    site = Site(tmp_path, deliver=walker)
    counts(site, THREE, plan_counts(THREE, 1.0))
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    # Four sites; HELLO and five exchanges.
    assert sum(1 for raw in walker.bytes if raw[:2] == b"FS") == SITES * 6


def test_a_site_is_charged_before_its_persons_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    seen: list[int] = []

    def look(*arguments: Any) -> Any:
        seen.append(max(site.federation.charges(n) for n in site.federation.sites))
        return count_persons(*arguments)

    monkeypatch.setattr("fedseal.client.app.count_persons", look)
    counts(site, ONE, plan_counts(ONE, 1.0))
    assert seen == [1] * SITES
    assert [site.federation.charges(n) for n in site.federation.sites] == [1] * SITES


def without(lost: int) -> Callable[[ClientApp, Message, Context], Message | None]:
    """Sites from this number on are never heard of again after they were asked for their vectors."""

    def deliver(app: ClientApp, message: Message, context: Context) -> Message | None:
        gone = int(str(context.node_config["number"])) > SITES - lost and at_mask(message)
        return None if gone else app(message, context)

    return deliver


def test_a_lost_site_leaves_enough_noise_and_two_lost_leave_no_sum(tmp_path: Path) -> None:
    plan = plan_counts(ONE, 1.0)
    found = counts(Site(tmp_path / "one", deliver=without(1)), ONE, plan)
    assert found.noise is not None
    # Three are left, one of which may collude: what two add is the whole noise.
    assert (found.sites, found.noise.shares, found.noise.honest) == (3, 3, 2)
    with pytest.raises(RoundAborted):
        counts(Site(tmp_path / "two", deliver=without(2)), ONE, plan)


def test_annotators_agreement_over_sites_is_that_of_the_pooled_labels(site: Site) -> None:
    tables, scale = pairs_of_labels("first", "second", 2), Scale(Level.NOMINAL, (0.0, 1.0))
    found = agreement_over_sites(counts(site, tables, NONE), Coefficient.COHEN, scale)
    columns = [split.columns for split in site.material.splits.values()]
    first, second = (np.concatenate([c[name] for c in columns]) for name in ("first", "second"))
    judged = ~(np.isnan(first) | np.isnan(second))
    table = np.histogram2d(first[judged], second[judged], bins=2)[0] / judged.sum()
    chance = float(table.sum(axis=0) @ table.sum(axis=1))
    assert found.value == pytest.approx((np.trace(table) - chance) / (1 - chance))
