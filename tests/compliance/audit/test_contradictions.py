"""A server that shows a site another history: evidence that convinces a third party, and going on in spite of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.federated import run
from support.flower import Federation
from support.keys import SERVER

from fedseal.compliance.audit.contradictions import Written, settle_all, write_evidence
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.subjects import Incident
from fedseal.compliance.journal.attachment import LogRequest
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.witness import encode_request
from fedseal.errors import LogContradicted
from fedseal.server.store import ServerStore
from fedseal_verify.cli import main as verify_main

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@contextmanager
def journal(federation: Federation, site: int = 1) -> Iterator[SiteJournal]:
    store = federation.site(site)
    with store.transaction() as transaction:
        yield SiteJournal(transaction.connection, store.identity, NOW)


@pytest.fixture
def forked(federation: Federation, twice: Federation) -> Federation:
    """Site 1 has seen the server's log, and is then shown a longer one of another beginning, signed by the server."""
    with journal(federation) as site, ServerStore.open(twice.server).engine.begin() as connection:
        log = Log(connection, "test/server")
        note = log.checkpoint()
        assert note is not None
        old = site.mirror.witness_state().size
        body = encode_request(old, log.consistency(old, log.size), note)
        assert site.hear(LogRequest(body, tuple(log.leaves(old, log.size)))).status == 422
        assert site.halted is not None
    return federation


def written(federation: Federation, folder: Path) -> list[Written]:
    store = federation.site(1)
    with store.transaction() as transaction:
        return write_evidence(transaction.connection, store.identity, folder)


def test_an_honest_site_has_no_evidence(federation: Federation, tmp_path: Path) -> None:
    assert written(federation, tmp_path / "evidence") == []
    assert not (tmp_path / "evidence").exists()


def test_the_evidence_convinces_a_program_that_knows_nothing_of_fedseal(
    forked: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "evidence"
    (one,) = written(forked, folder)
    assert one.settled is None
    names = ["fork", str(folder / one.known), str(folder / one.offered), "--policy", str(folder / "policy.txt")]
    # The mirror reaches as far as the smaller note only: the larger one's own tree is the liar's to show.
    assert verify_main(["log", str(folder / "mirror")]) in (0, 3)
    assert verify_main([*names, "--dir", str(folder / "mirror")]) in (1, 2)
    assert (folder / "1-request.txt").read_bytes()
    capsys.readouterr()


def test_two_notes_of_one_size_are_a_proof_by_themselves(
    federation: Federation, twice: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with journal(federation) as site, ServerStore.open(twice.server).engine.begin() as connection:
        log = Log(connection, "test/server")
        size = site.mirror.size
        note = log.checkpoint(size)
        assert note is not None
        assert site.hear(LogRequest(encode_request(size, (), note), ())).status == 422
    evidence = tmp_path / "evidence"
    (one,) = written(federation, evidence)
    arguments = [
        "fork",
        str(evidence / one.known),
        str(evidence / one.offered),
        "--policy",
        str(evidence / "policy.txt"),
    ]
    assert verify_main(arguments) == 1
    assert "FORK PROVEN" in capsys.readouterr().out


def test_settling_is_written_into_both_logs_and_lets_the_site_go_on(forked: Federation, tmp_path: Path) -> None:
    with journal(forked) as site:
        before = site.own.size
        assert settle_all(site) == 1
        assert site.halted is None
        recorded = [read_event(leaf).body for leaf in site.own.leaves(before, site.own.size)]
        assert any(isinstance(body, Incident) for body in recorded)
        assert any(b"incident.recorded" in leaf for leaf in site.pending())
        assert settle_all(site) == 0
    (one,) = written(forked, tmp_path / "evidence")
    assert one.settled is not None
    run(forked)
    with ServerStore.open(forked.server).engine.begin() as connection:
        log = Log(connection, "test/server")
        assert sum(b"incident.recorded/v1" in leaf for leaf in log.leaves(0, log.size)) == 1


def test_an_unsettled_site_answers_nothing(forked: Federation) -> None:
    run(forked)
    with journal(forked) as site:
        assert site.halted is not None
        assert not any(b'"round":3' in leaf for leaf in site.pending())
    assert LogContradicted.__name__ in str(forked.incidents(1))


def test_the_keys_are_the_tests_own(forked: Federation) -> None:
    assert forked.roster.server_key == SERVER.public
