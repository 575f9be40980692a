"""Every rule of a site's policy: what it refuses, the event that says so in both logs, and a twin that passes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    PRIVATE,
    Federation,
    Script,
    flower_task,
    local_grid,
    make_federation,
    model,
    ordinary_app,
    train_messages,
)
from support.keys import key
from support.studies import TINY

from fedseal.client.mod import STUDY_KEY
from fedseal.compliance.audit.reconcile import reconcile
from fedseal.compliance.audit.site_side import site_side
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.data.code import code_digest
from fedseal.compliance.events.bodies import RunRefused
from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.log.checkpoint import site_origin
from fedseal.compliance.site_rules.approval import approve
from fedseal.compliance.site_rules.hours import WEEK
from fedseal.errors import RoundAborted
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import LocalGrid
from fedseal.study import load_study

PLENTY = NoPrivacy(releases=90, retries=10)
TODAY = datetime.now(UTC).weekday()
# Neither today, by any clock, nor an evening before that.
CLOSED = ", ".join(f'"{WEEK[(TODAY + days) % 7]}"' for days in (3, 4))
NEVER = "sha256:" + "0" * 64
OPEN = """
version = 2
[cohort]
minimum = {minimum}
colluders = {colluders}
threshold = {threshold}
[releases]
update = {update}
[limits]
ring_bits = {ring_bits}
"""
DEFAULTS = {
    "minimum": 2,
    "colluders": 0,
    "threshold": 2,
    "update": '["none", "local"]',
    "ring_bits": 12,
}


@dataclass(frozen=True)
class Case:
    """What site 1's policy says besides, and what it says in the twin."""

    rule: RefusedRule
    refuses: str = ""
    allows: str = ""
    code: RefusalCode = RefusalCode.POLICY
    plan: PrivacyPlan = PLENTY
    instead: dict[str, object] = field(default_factory=dict)


CASES = [
    Case(RefusedRule.COHORT, instead={"minimum": 3}),
    Case(RefusedRule.COLLUDERS, instead={"colluders": 1}),
    Case(RefusedRule.THRESHOLD, instead={"threshold": 3}),
    Case(RefusedRule.RELEASE, instead={"update": '["local"]'}),
    Case(RefusedRule.PRECISION, instead={"ring_bits": 33}),
    Case(RefusedRule.RANGE, "[ranges]\nupdate = 99.9\n", "[ranges]\nupdate = 100.0\n"),
    Case(RefusedRule.RANGE, "[ranges]\nupdate = 0.9\n", "[ranges]\nupdate = 1.0\n", plan=PRIVATE),
    Case(RefusedRule.PURPOSE, '[study]\npurposes = ["research"]\n', '[study]\npurposes = ["operations"]\n'),
    Case(RefusedRule.STRATEGY, '[study]\nstrategies = ["fedprox"]\n', '[study]\nstrategies = ["fedavg"]\n'),
    Case(RefusedRule.CODE, f'[study]\ncode = ["{NEVER}"]\n', '[study]\ncode = ["{code}"]\n'),
    Case(RefusedRule.CODE, '[study]\nsigners = ["{stranger}"]\n', '[study]\nsigners = ["{reviewer}"]\n'),
    Case(RefusedRule.DATA, '[data]\ndatasets = ["cohort"]\n'),
    Case(RefusedRule.LABELS, '[data]\nlabels = ["v1"]\n'),
    Case(RefusedRule.HOURS, f"[hours]\ndays = [{CLOSED}]\n", "[hours]\n", RefusalCode.LATER),
    Case(
        RefusedRule.PERIOD,
        "[periods.train]\nepsilon = 0.01\ndays = 30\n",
        "[periods.train]\nepsilon = 5\ndays = 30\n",
        RefusalCode.BUDGET,
        PRIVATE,
    ),
    Case(RefusedRule.PERIOD, "[periods.train]\nepsilon = 1000\ndays = 30\n", code=RefusalCode.BUDGET),
    Case(RefusedRule.WAITING, '[outbox]\notherwise = "hold"\n', '[outbox]\notherwise = "send"\n', RefusalCode.WAITING),
    Case(
        RefusedRule.DENIED,
        '[[outbox.rule]]\nreleases = ["update"]\nthen = "deny"\n',
        '[[outbox.rule]]\nreleases = ["moments"]\nthen = "deny"\n',
    ),
]


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that says what it is for, signed by a reviewer."""
    folder = tmp_path_factory.mktemp("study") / "tiny"
    folder.mkdir()
    for file in ("pyproject.toml", "task.py"):
        text = (TINY / file).read_text(encoding="utf-8")
        text = text.replace("[tool.fedseal]\n", '[tool.fedseal]\npurpose = "operations"\n')
        (folder / file).write_text(text, encoding="utf-8")
    approve(folder, "sha256:" + code_digest(folder).hex(), key("reviewer"))
    return folder


def answers_by(federation: Federation, text: str, study: Path) -> None:
    """Site 1 goes by this policy from now on."""
    names = {"code": "sha256:" + code_digest(study).hex(), "reviewer": key("reviewer").public.hex()}
    for name, value in (names | {"stranger": key("stranger").public.hex()}).items():
        text = text.replace("{" + name + "}", value)
    with federation.site(1).transaction() as transaction:
        transaction.put_policy(text)


def sealed(federation: Federation, study: Path, plan: PrivacyPlan, **rules: Any) -> SealedGrid:
    run_config = {"fedseal-contract": load_study(study).contract.model_dump_json()}
    script = Script({1: 1.0, 2: 2.0, 3: 3.0}, done=plan is not PLENTY)
    nodes = {node: {**own, STUDY_KEY: str(study)} for node, own in federation.nodes().items()}
    grid = LocalGrid(ordinary_app(script), nodes, run_config=run_config)
    cohort = CohortRules(**{"minimum": 2, "retries": 0, **rules})
    return SealedGrid(
        grid, FedAvg(), store=federation.server, max_examples=100, plan=plan, cohort=cohort, run_config=run_config
    )


def refusals(path: Path, *, own: bool = False) -> list[RunRefused]:
    """Those in a log."""
    with open_log(path, own=own) as copy:
        assert verify_copy(copy).code in (AuditCode.OK, AuditCode.QUORUM_MISSING)
        bodies = [read_event(leaf).body for leaf in copy.leaves()]
    return [body for body in bodies if isinstance(body, RunRefused)]


@pytest.mark.quick("cohort", "release", "range0", "code0", "data", "period1", "denied")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule.value)
def test_a_rule_refuses_and_both_logs_say_which(tmp_path: Path, case: Case, study: Path) -> None:
    federation = make_federation(tmp_path, 3, order=100.0)
    answers_by(federation, OPEN.format(**{**DEFAULTS, **case.instead}) + case.refuses, study)
    grid = sealed(federation, study, case.plan)
    list(grid.send_and_receive(train_messages(grid, model())))
    account = grid.last_account
    assert account is not None
    assert {r.site: RefusalCode(r.refusal.code) for r in account.refused} == {1: case.code}
    # Again, as a server would that does not believe it: it is one fact.
    list(grid.send_and_receive(train_messages(grid, model())))
    (there,), (here,) = refusals(federation.server), refusals(federation.sites[1], own=True)
    assert there == here
    assert (there.rule, there.release.value, there.sequence) == (case.rule, "update", 1)
    assert federation.charges(1) == 0
    # The reason in words stays at the site.
    assert RefusalCode[federation.incidents(1)[-1][0]] is case.code
    assert refusals(federation.sites[2], own=True) == []


@pytest.mark.quick("cohort", "release", "range0", "code0", "data", "period1", "denied")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule.value)
def test_the_twin_is_let_through(tmp_path: Path, case: Case, study: Path) -> None:
    federation = make_federation(tmp_path, 3, order=100.0)
    answers_by(federation, OPEN.format(**DEFAULTS) + case.allows, study)
    grid = sealed(federation, study, case.plan)
    list(grid.send_and_receive(train_messages(grid, model())))
    account = grid.last_account
    assert account is not None
    assert (account.refused, federation.charges(1)) == ([], 1)
    assert refusals(federation.server) == []


def test_what_the_ledger_cannot_pay_is_in_both_logs_too(tmp_path: Path, study: Path) -> None:
    federation = make_federation(tmp_path, 3, order=100.0, epsilon=2.0)
    dear = LocalGaussian(clip_norm=1.0, noise_multiplier=0.5, sample_rate=1.0, steps=10, releases=9, retries=0)
    grid = sealed(federation, study, dear)
    with pytest.raises(RoundAborted, match="round"):
        list(grid.send_and_receive(train_messages(grid, model())))
    assert [(r.rule.value, r.release.value) for r in refusals(federation.server)] == 3 * [("ledger", "update")]
    assert [r.rule.value for r in refusals(federation.sites[1], own=True)] == ["ledger"]


def test_a_sites_own_log_and_the_federations_agree_on_refusals(tmp_path: Path, study: Path) -> None:
    federation = make_federation(tmp_path, 3)
    answers_by(federation, OPEN.format(**{**DEFAULTS, "minimum": 3}), study)
    grid = sealed(federation, study, PLENTY)
    list(grid.send_and_receive(train_messages(grid, model())))
    # What is in the log is shown with the next message.
    list(grid.send_and_receive(train_messages(grid, model())))
    store = federation.site(1)
    with open_log(federation.server) as copy, store.transaction() as transaction:
        origin = site_origin(store.identity.roster.federation, store.identity.name)
        side = site_side(transaction, store.identity)
        assert reconcile(copy.leaves(), side, answered=copy.cosigned_by(origin)).found == []


def test_a_run_that_states_a_contract_which_cannot_be_read_is_refused_where_its_purpose_counts(
    tmp_path: Path, study: Path
) -> None:
    federation = make_federation(tmp_path, 3)
    answers_by(federation, OPEN.format(**DEFAULTS) + '[study]\npurposes = ["operations"]\n', study)
    grid = local_grid(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0})), run_config={"fedseal-contract": "{"})
    running = SealedGrid(
        grid, FedAvg(), store=federation.server, max_examples=100, cohort=CohortRules(minimum=2, retries=0)
    )
    list(running.send_and_receive(train_messages(running, model())))
    assert [r.rule for r in refusals(federation.server)] == [RefusedRule.PURPOSE]
