"""Article 17 at a site: found, shredded, withdrawn, kept out, and proven to be gone."""

from datetime import date
from pathlib import Path

import pytest
from support.datasets import contract, people, registered, sites, write
from support.flower import Federation

from fedseal.client.datasets.encoding import content_of
from fedseal.client.datasets.recheck import recheck
from fedseal.client.datasets.table import read_typed
from fedseal.compliance.data.content import Membership, NonMembership, subject_tag
from fedseal.compliance.data.erasure import ErasurePlan, execute, overwrite, plan, prove, verified
from fedseal.compliance.data.facts import Status
from fedseal.compliance.data.occurrences import ErasureReason, Redacted, Withdrawn, announced
from fedseal.compliance.data.registry import compare, content_of_version, keys_of, version, versions
from fedseal.compliance.data.sealed import seal
from fedseal.compliance.data.tables import VERSIONS
from fedseal.errors import ConfigError, DataError, PolicyRefused

TODAY = date(2026, 3, 2)
REASON = ErasureReason.CONSENT_WITHDRAWN


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    (tmp_path / "stores").mkdir()
    return sites(tmp_path / "stores")


@pytest.fixture
def folder(tmp_path: Path, federation: Federation) -> Path:
    write(people(), tmp_path / "data")
    registered(federation, tmp_path / "data")
    return tmp_path / "data"


def erase(federation: Federation, *subjects: str) -> ErasurePlan:
    with federation.site(1).transaction() as transaction:
        planned = plan(transaction.connection, subjects)
        execute(transaction.connection, planned, REASON, TODAY)
    overwrite(federation.sites[1])
    return planned


def proof_of(federation: Federation, number: int, subject: str) -> Membership | NonMembership:
    with federation.site(1).transaction() as transaction:
        return prove(transaction.connection, number, subject_tag(keys_of(transaction.connection).subject, subject))


def test_a_plan_finds_the_versions_and_changes_nothing(federation: Federation, folder: Path) -> None:
    write(people().iloc[[0, 1, 2]], folder)
    registered(federation, folder)
    before = federation.sites[1].read_bytes()
    with federation.site(1).transaction() as transaction:
        planned = plan(transaction.connection, ["d", "007", "nobody", "d"])
    assert [(f.version.number, f.subjects) for f in planned.found] == [(1, 2), (2, 1)]
    assert (len(planned.tags), planned.unknown, planned.sealed) == (3, 1, 0)
    assert [v.number for v in planned.withdrawn] == [2]
    assert federation.sites[1].read_bytes() == before


def test_from_the_request_to_the_proof(federation: Federation, folder: Path) -> None:
    with federation.site(1).transaction() as transaction:
        keys = keys_of(transaction.connection)
        kept = seal(transaction.connection, keys, subject_tag(keys.subject, "b"), {"note": "planted"})
    erase(federation, "b")
    with pytest.raises(PolicyRefused, match="withdrawn"):
        recheck(federation.site(1), folder)
    with pytest.raises(DataError, match="holds 1 subject that this site has erased") as caught:
        registered(federation, folder)
    assert "'b'" not in caught.value.explain()
    write(people()[people()["person"] != "b"], folder)
    done = registered(federation, folder)
    assert recheck(federation.site(1), folder) == done.version
    with federation.site(1).transaction() as transaction:
        connection = transaction.connection
        assert [v.status for v in versions(connection)] == [Status.WITHDRAWN, Status.CURRENT]
        old, new = versions(connection)
        assert new.facts.parents == (old.facts.dsv_id,)
        said = [occurrence for _, occurrence in announced(connection, after=1)]
        assert said[:2] == [
            Withdrawn(old.facts.dsv_id, REASON),
            Redacted((kept.commitment.hex(),), REASON, TODAY),
        ]
        assert compare(connection, 1, 2).changed is None
    was, now = proof_of(federation, 1, "b"), proof_of(federation, 2, "b")
    assert isinstance(was, Membership)
    assert isinstance(now, NonMembership)
    tag = subject_tag(keys.subject, "b")
    assert verified(was, bytes.fromhex(old.facts.content_root), tag)
    assert verified(now, bytes.fromhex(new.facts.content_root), tag)
    assert not verified(now, bytes.fromhex(old.facts.content_root), tag)
    assert isinstance(proof_of(federation, 2, "d"), Membership)


def test_after_erasure_no_row_of_the_old_version_can_be_guessed(federation: Federation, folder: Path) -> None:
    """Whoever knows the very rows and has all keys that are left cannot confirm them; before, it took one guess."""
    table, columns = read_typed(folder, contract()), contract().schema_of_rows
    with federation.site(1).transaction() as transaction:
        stored = content_of_version(transaction.connection, 1).leaves
        assert content_of(table, columns, keys_of(transaction.connection)).leaves == stored
    erase(federation, "b")
    with federation.site(1).transaction() as transaction:
        again = content_of(table, columns, keys_of(transaction.connection))
        assert content_of_version(transaction.connection, 1).leaves == stored
    assert list(again.tags) == [stored[i : i + 32] for i in range(0, len(stored), 64)]
    assert not set(again.whole) & {stored[i : i + 64] for i in range(0, len(stored), 64)}


def test_unknown_subjects_are_not_put_on_a_list(federation: Federation, folder: Path) -> None:
    planned = erase(federation, "nobody")
    assert planned.unknown == 1
    write(people().replace({"person": {"d": "nobody"}}), folder)
    assert registered(federation, folder).version.number == 2


def test_twice_does_no_harm(federation: Federation, folder: Path) -> None:
    erase(federation, "b")
    again = erase(federation, "b")
    assert again.withdrawn == ()
    assert isinstance(proof_of(federation, 1, "b"), Membership)


def test_leaves_that_were_changed_are_noticed(federation: Federation, folder: Path) -> None:
    """Whoever takes a subject out of the stored leaves cannot prove that it was never there."""
    with federation.site(1).transaction() as transaction:
        leaves = content_of_version(transaction.connection, 1).leaves
        transaction.connection.execute(VERSIONS.update().values(leaves=leaves[64:]))
    with pytest.raises(ConfigError, match="not those of its content root"):
        proof_of(federation, 1, "nobody")


def test_an_erasure_is_of_somebody_at_a_site_with_data(federation: Federation, tmp_path: Path) -> None:
    with federation.site(1).transaction() as transaction, pytest.raises(ConfigError, match="registered no data"):
        plan(transaction.connection, ["b"])
    write(people(), tmp_path / "data")
    registered(federation, tmp_path / "data")
    with federation.site(1).transaction() as transaction:
        with pytest.raises(ConfigError, match="no subject"):
            plan(transaction.connection, [])
        with pytest.raises(ConfigError, match="no version 7"):
            version(transaction.connection, 7)
