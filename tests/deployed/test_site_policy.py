"""A resident site that goes by the policy in its own file: its run waits for a person, and comes to its end."""

import time
from pathlib import Path

import pytest
from support.launched import launch
from support.residents import outcome, residents

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.events.bodies import PolicySet, RunRefused
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.site_rules.held import Waiting, waiting
from fedseal.privacy.store import SiteStore

pytestmark = pytest.mark.slow

POLICY = """
[policy]
version = 2
[policy.cohort]
minimum = 2
[policy.releases]
update = ["none"]
moments = ["none"]
[policy.outbox]
otherwise = "hold"
"""


def held(store: Path) -> list[Waiting]:
    with SiteStore.open(store, reading=True).transaction() as transaction:
        return waiting(transaction.connection)


def test_a_run_waits_for_a_person_at_one_site_and_ends_once_it_is_approved(tmp_path: Path) -> None:
    with residents(tmp_path / "federation") as made:
        file, store = made.files.nodes["hospital-1"], made.files.enrolled.site_stores["hospital-1"]
        file.write_text(file.read_text(encoding="utf-8") + POLICY, encoding="utf-8")
        made.start_all()
        order = made.order()
        end = time.monotonic() + 300
        while not held(store):
            assert time.monotonic() < end
            time.sleep(0.2)
        (found,) = held(store)
        assert not order.over
        process = launch("site", "outbox", "approve", "--run", found.asked.run, "--config", file)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "is approved" in out
        events = outcome(order)
        assert events[-1]["event"] == "finished", events
        assert set(made.stop().values()) == {0}
    with open_log(made.files.enrolled.server_store) as copy:
        bodies = [read_event(leaf).body for leaf in copy.leaves()]
    assert [b.rule.value for b in bodies if isinstance(b, RunRefused)] == ["waiting"]
    assert sum(isinstance(b, PolicySet) for b in bodies) == 1
