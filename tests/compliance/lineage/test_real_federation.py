"""The lineage of a run that really ran: sites' stores, sealed rounds, a log that the sites witnessed."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from sqlalchemy import func, select
from support.flower import PRIVATE, Federation, Script, flower_task, local_grid, make_federation, model, ordinary_app
from support.histories import memory

from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.lineage.sources import prove
from fedseal.compliance.lineage.tables import BUDGETS, DP_LEDGER
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.database import open_database
from fedseal.compliance.log.export import export
from fedseal.compliance.log.exported import ExportedLog
from fedseal.compliance.log.proof import check_proof
from fedseal.compliance.log.store import Log
from fedseal.server.console.spending import read_spending
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules

ROUNDS = 3


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Two runs: the second begins with what the first ended with."""
    made = make_federation(tmp_path_factory.mktemp("federation"), 4, epsilon=50.0)
    arrays = model()
    with flower_task():
        for _ in range(2):
            strategy = FedAvg(fraction_evaluate=0.0)
            script = Script({n: float(n) for n in range(1, 5)}, done=True)
            grid = local_grid(made, ordinary_app(script))
            sealed = SealedGrid(
                grid, strategy, store=made.server, max_examples=100, plan=PRIVATE, cohort=CohortRules(minimum=3)
            )
            result = strategy.start(sealed, arrays, num_rounds=ROUNDS, train_config=ConfigRecord())
            arrays = ArrayRecord(dict(result.arrays))
            sealed.close(rounds=ROUNDS, model={name: np.asarray(a.numpy()) for name, a in arrays.items()})
    return made


def test_a_real_log_becomes_a_lineage(federation: Federation, tmp_path: Path) -> None:
    with open_database(federation.server, reading=True).connect() as source, memory().begin() as tables:
        log = Log(source, server_origin(federation.roster.federation))
        projection = Projection(tables)
        assert projection.update(log) == log.size
        questions = Questions(tables)
        impact = questions.impact("site-2")
        finished = [one for one in impact.models if one.registered == "global"]
        assert [one.direct_rounds for one in finished] == [ROUNDS, ROUNDS]
        assert len(impact.models) == 2 * ROUNDS
        shown = questions.show(finished[-1].model.digest)
        assert [(run.rounds, run.plan, len(run.sites)) for run in shown.runs] == [(ROUNDS, "local", 4)] * 2
        assert shown.unsigned == 0
        assert [thing.label for thing in shown.models] == ["initial", "global"]
        assert finished[0].clean == finished[1].clean == shown.models[0]
        kinds = {part.thing.kind for part in shown.parts}
        assert kinds == {"site", "population", "environment", "config"}
        # What the log says was charged is what the site's ledger charged, and the bound follows it.
        charges = [row for row in tables.execute(select(DP_LEDGER)) if row.site == "site-2"]
        assert len(charges) == federation.charges(2) == 2 * ROUNDS
        first, second = (one.bounds[0] for one in finished)
        assert (first.charges, second.charges) == (ROUNDS, 2 * ROUNDS)
        assert 0 < first.epsilon < second.epsilon
        (spent,) = questions.epsilon("site-2").populations
        assert spent.epsilon == second.epsilon
        assert spent.second is not None
        assert spent.epsilon <= spent.second


def test_mirror_and_export_give_the_same_lineage_and_proofs(federation: Federation, tmp_path: Path) -> None:
    origin = server_origin(federation.roster.federation)
    with open_database(federation.server, reading=True).connect() as source:
        log = Log(source, origin)
        policy_note = log.checkpoint()
        assert policy_note is not None
        export(log, tmp_path / "export")
        exported = ExportedLog(tmp_path / "export")
        with memory().begin() as one, memory().begin() as two:
            first, second = Projection(one), Projection(two)
            first.update(log)
            second.update(exported)
            assert first.digest() == second.digest()
        for index in (0, log.size // 2, log.size - 1):
            proof = prove(exported, index)
            assert str(proof) == str(prove(log, index))
            assert exported.leaves(index, index + 1) == [log.leaf(index)]
    with federation.site(1).transaction() as transaction:
        mirror = Log(transaction.connection, origin)
        assert 0 < mirror.size <= exported.size
        with memory().begin() as three, memory().begin() as four:
            seen, fresh = Projection(three), Projection(four)
            seen.update(mirror)
            size = mirror.size
            assert exported.root(size) == mirror.root(size)
            # A mirror is a beginning of the log: continuing it with the whole log is the whole log's lineage.
            seen.update(exported)
            fresh.update(exported)
            assert seen.digest() == fresh.digest()


def test_a_proof_of_a_row_holds_for_whoever_has_the_policy(federation: Federation) -> None:
    from fedseal.compliance.journal.witnesses import policy_of

    policy = policy_of(federation.roster, 0)
    with open_database(federation.server, reading=True).connect() as source:
        log = Log(source, server_origin(federation.roster.federation))
        with memory().begin() as tables:
            Projection(tables).update(log)
            found = Questions(tables).impact("site-1", bounded=False).models
        for one in found:
            proof = prove(log, one.model.idx)
            assert check_proof(proof, log.leaf(one.model.idx), policy).checkpoint.size == log.size


def test_what_was_promised_stands_before_the_first_charge_and_once(federation: Federation) -> None:
    with open_database(federation.server, reading=True).connect() as source, memory().begin() as tables:
        Projection(tables).update(Log(source, server_origin(federation.roster.federation)))
        promises = {row.population: row for row in tables.execute(select(BUDGETS)).all()}
        assert len(promises) == tables.execute(select(func.count()).select_from(BUDGETS)).scalar() == 4
        firsts = dict(
            tables.execute(
                select(DP_LEDGER.c.population, func.min(DP_LEDGER.c.idx)).group_by(DP_LEDGER.c.population)
            ).all()
        )
        assert set(firsts) == set(promises)
        for population, promise in promises.items():
            assert promise.idx < firsts[population]
            assert (float(promise.epsilon), promise.until) == (50.0, None)
        # What a page shows beside what was spent.
        assert {one.promised for one in read_spending(tables)} == {50.0}
