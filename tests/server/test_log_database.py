"""A federation's log in a database of its own, and what the server's program takes from its environment."""

from pathlib import Path

import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import Script, flower_task, local_grid, make_federation, model, ordinary_app, train_messages
from support.keys import SERVER, make_roster, signed

from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log.database import LOG_VARIABLE, open_database
from fedseal.server.app import log_database
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.server.store import ServerStore


def test_the_log_may_be_kept_elsewhere(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 3)
    rules, place = CohortRules(retries=0), tmp_path / "log.sqlite"
    with flower_task():
        grid = local_grid(federation, ordinary_app(Script()))
        sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, cohort=rules, log=place)
        list(sealed.send_and_receive(train_messages(grid, model())))
        sealed.close(rounds=1)
    assert sealed.journal.final_size() == sealed.journal.size > 10
    again = open_database(place, reading=True)
    with again.connect() as connection:
        assert connection.exec_driver_sql("SELECT max(size) FROM log_checkpoints").scalar() == sealed.journal.size
    again.dispose()
    here: FederationJournal = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10).journal
    assert here.size == 1


def test_a_real_server_takes_it_from_the_environment_and_a_simulated_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "postgresql+psycopg://fedseal@localhost/log")
    found = {}
    for simulated in (True, False):
        roster, path = make_roster(3, simulated=simulated), tmp_path / f"{simulated}.sqlite"
        ServerStore.create(path, key=SERVER, roster=signed(roster), pinned=roster.digest())
        found[simulated] = log_database(path)
    assert found == {True: None, False: "postgresql+psycopg://fedseal@localhost/log"}
    monkeypatch.delenv(LOG_VARIABLE)
    assert log_database(tmp_path / "False.sqlite") is None
