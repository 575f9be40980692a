"""A site's rules by its own clock, and by the dates of its charges; and that a store has one node."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete
from support.flower import PRIVATE, Federation, Nodes, Script, flower_task, header_for, make_federation, ordinary_app

from fedseal.client.permission import Permission
from fedseal.client.running import alone, is_running
from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.policy import read_policy
from fedseal.compliance.site_rules.period import PeriodRule
from fedseal.compliance.site_rules.refused import Refused
from fedseal.errors import ConfigError
from fedseal.privacy.dates import charges_since
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.tables import DATES

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
BASE = 'version = 2\n[cohort]\nminimum = 2\n[releases]\nupdate = ["local"]\n'


@dataclass
class Clock:
    """Says what it is told."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3, order=100.0)


def opening(federation: Federation, text: str, clock: Clock, header: Header) -> RefusedRule | None:
    """By which rule site 1 refuses a round that begins; None if it does not."""
    store = federation.site(1)
    permission = Permission(store, read_policy(BASE + text), None, {}, clock)
    try:
        with store.transaction() as transaction:
            permission.check_opening(transaction, header, None)
            permission.check_use(transaction, header, None)
    except Refused as refusal:
        return refusal.rule
    return None


def test_hours_are_those_at_which_a_round_begins(federation: Federation) -> None:
    store, clock, header = federation.site(1), Clock(), header_for(federation, PRIVATE)
    hours = "[hours]\nbegin = 08:00:00\nend = 13:00:00\n"
    assert opening(federation, hours, clock, header) is None
    clock.now = NOON + timedelta(hours=2)
    assert opening(federation, hours, clock, header) is RefusedRule.HOURS
    permission = Permission(store, read_policy(BASE + hours), None, {}, clock)
    with store.transaction() as transaction:
        permission.check_use(transaction, header, None)


def spent(federation: Federation) -> None:
    """Two private rounds, now by the machine's clock."""
    running = Nodes(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)))
    for number in (1, 2):
        running.run(header_for(federation, PRIVATE, release_seq=number))


def test_a_charge_counts_for_so_many_days_and_is_then_forgotten(federation: Federation) -> None:
    spent(federation)
    header, now = header_for(federation, PRIVATE, release_seq=3), datetime.now(UTC)
    with federation.site(1).transaction() as transaction:
        ((plan, count),) = charges_since(transaction.connection, "train", int(now.timestamp()) - 3600)
        assert (plan, count) == (PRIVATE, 2)
        assert charges_since(transaction.connection, "train", int(now.timestamp()) + 3600) == ()
        assert charges_since(transaction.connection, "test", 0) == ()
    wide, narrow = PeriodRule(epsilon=5, days=30), PeriodRule(epsilon=0.01, days=30)
    assert wide.spent([(PRIVATE, 3)], 1e-5) < wide.budget(1e-5)
    assert narrow.spent([(PRIVATE, 1)], 1e-5) > narrow.budget(1e-5)
    text = "[periods.train]\nepsilon = {}\ndays = 30\n"
    assert opening(federation, text.format("5"), Clock(now), header) is None
    assert opening(federation, text.format("0.01"), Clock(now), header) is RefusedRule.PERIOD


def test_a_charge_without_a_date_and_one_of_the_future_count_as_recent(federation: Federation) -> None:
    spent(federation)
    long_after = int((datetime.now(UTC) + timedelta(days=400)).timestamp())
    with federation.site(1).transaction() as transaction:
        assert charges_since(transaction.connection, "train", long_after) == ()
        transaction.connection.execute(delete(DATES).where(DATES.c.counter == 3))
        assert charges_since(transaction.connection, "train", long_after) == ((PRIVATE, 1),)
    # The clock was put back by years: what was charged is not forgotten.
    with federation.site(1).transaction() as transaction:
        assert charges_since(transaction.connection, "train", 0) == ((PRIVATE, 2),)


HOLDS = """
import sys
from pathlib import Path
from fedseal.client.running import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_store_has_one_node_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    store = tmp_path / "site.sqlite"
    assert not is_running(store)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_running(store)
        with pytest.raises(ConfigError, match="another node runs"), alone(store):
            pass
        other.kill()
    assert not is_running(store)
    with alone(store):
        pass
