"""A folder becomes a version; what is registered, what is refused, and whose budget it has."""

import dataclasses
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.datasets import CODE, TODAY, contract, people, registered, sites, write
from support.flower import PRIVATE, Federation

from fedseal.client.datasets.recheck import check_registered, recheck
from fedseal.client.datasets.register import measure, register
from fedseal.client.datasets.table import read_typed
from fedseal.compliance.data.facts import SharedDatasetFacts, Status
from fedseal.compliance.data.keys import population_pseudonym, version_id
from fedseal.compliance.data.occurrences import Registered, Superseded, announced
from fedseal.compliance.data.registry import add_version, compare, keys_of, report_of, version, versions
from fedseal.compliance.data.sealed import unseal
from fedseal.errors import ConfigError, DataError, LocalError, PolicyRefused
from fedseal.privacy.ledger import Release, epsilon_spent


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    (tmp_path / "stores").mkdir()
    return sites(tmp_path / "stores")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(people(), tmp_path / "data")
    return tmp_path / "data"


def test_a_version_has_the_facts_of_its_contract_and_content(federation: Federation, folder: Path) -> None:
    rules = contract(dataset={"split": {"study": "heart"}})
    done = registered(federation, folder, rules)
    facts = done.version.facts
    assert done.new
    assert (done.version.number, done.version.status) == (1, Status.CURRENT)
    assert (facts.rows, facts.subjects, facts.population, facts.parents) == (5, 4, "train", ())
    assert facts.schema_digest == rules.schema_of_rows.digest().hex()
    assert facts.source.query_digest == hashlib.sha256(rules.dataset.source.query.encode()).hexdigest()
    assert facts.preprocessing_digest == CODE.hex()
    assert facts.split is not None
    with federation.site(1).transaction() as transaction:
        connection = transaction.connection
        keys = keys_of(connection)
        assert facts.dsv_id == version_id(keys.commit, bytes.fromhex(facts.content_root)).hex()
        assert version(connection, 1) == done.version
        assert report_of(connection, 1) == done.report
        assert unseal(connection, keys, 1) == {"query": rules.dataset.source.query}
        assert measure(folder, rules, keys, TODAY).content.root.hex() == facts.content_root


def test_the_shared_facts_hold_no_count_and_nothing_that_could_be_guessed(federation: Federation, folder: Path) -> None:
    """Two sites with the same data share nothing that says so, and every field of the record is of a closed kind."""
    for site in (1, 2):
        registered(federation, folder, site=site)
    found: list[SharedDatasetFacts] = []
    for site in (1, 2):
        with federation.site(site).transaction() as transaction:
            ((_, occurrence),) = announced(transaction.connection)
            assert isinstance(occurrence, Registered)
            found.append(occurrence.shared)
            keys = keys_of(transaction.connection)
            assert occurrence.shared.population == population_pseudonym(keys.population, "train").hex()
    one, other = found
    assert one.dsv_id != other.dsv_id
    assert one.population != other.population
    assert one.schema_digest is None
    assert {f.name for f in dataclasses.fields(one)} == {
        "dsv_id",
        "population",
        "schema_digest",
        "preprocessing_digest",
        "legal_basis",
        "purpose",
        "retention_until",
        "parents",
    }
    text = json.dumps(dataclasses.asdict(one), default=str)
    guessable = [people().to_csv(index=False), "heart", "train", contract().dataset.source.query, "007"]
    for guess in guessable:
        assert guess not in text
        assert hashlib.sha256(guess.encode()).hexdigest() not in text


def test_an_agreed_schema_is_shared(federation: Federation, folder: Path) -> None:
    registered(federation, folder, contract(dataset={"shared_schema": True}))
    with federation.site(1).transaction() as transaction:
        ((_, occurrence),) = announced(transaction.connection)
    assert isinstance(occurrence, Registered)
    assert occurrence.shared.schema_digest == contract().schema_of_rows.digest().hex()


def test_the_same_content_in_another_file_is_the_same_version(federation: Federation, folder: Path) -> None:
    first = registered(federation, folder)
    write(people().sort_values("person", kind="stable"), folder, "parquet")
    with pytest.raises(DataError, match=r"has changed|is missing"):
        recheck(federation.site(1), folder)
    again = registered(federation, folder)
    assert (again.new, again.version.number) == (False, first.version.number)
    assert recheck(federation.site(1), folder) == again.version


def test_a_new_version_supersedes_the_one_before_and_names_it(federation: Federation, folder: Path) -> None:
    first = registered(federation, folder).version
    write(people().iloc[[0, 1, 3, 4]].assign(age=[1, 2, 3, 4]).replace({"person": {"d": "e"}}), folder)
    second = registered(federation, folder).version
    assert second.facts.parents == (first.facts.dsv_id,)
    with federation.site(1).transaction() as transaction:
        connection = transaction.connection
        assert [v.status for v in versions(connection)] == [Status.SUPERSEDED, Status.CURRENT]
        assert announced(connection, after=2)[0][1] == Superseded(first.facts.dsv_id, second.facts.dsv_id)
        found = compare(connection, 1, 2)
    assert (found.added, found.removed, found.changed, found.facts) == (1, 1, 3, ())


def test_other_facts_of_the_same_content_are_another_version_with_the_same_id(
    federation: Federation, folder: Path
) -> None:
    first = registered(federation, folder).version
    second = registered(federation, folder, contract(dataset={"purpose": "care-quality"})).version
    assert (second.number, second.facts.dsv_id) == (2, first.facts.dsv_id)
    assert second.facts.parents == ()
    with federation.site(1).transaction() as transaction:
        assert compare(transaction.connection, 1, 2).facts == ("contract_digest", "purpose")


def charge(federation: Federation, run: bytes) -> tuple[float, int]:
    """One private release of the training persons; epsilon and charged units after it."""
    with federation.site(1).transaction() as transaction:
        ledger = transaction.ledger("train", run, b"")
        ledger, entry = ledger.reserve(run, PRIVATE)
        transaction.append("train", entry)
        ledger, entry, _ = ledger.charge(Release(run, "update", 1, 0, run + run), PRIVATE)
        transaction.append("train", entry)
        entries = transaction.entries("train")
        return epsilon_spent(transaction.terms("train"), entries), entries[-1].charged


def test_a_new_version_of_the_same_persons_keeps_their_ledger(federation: Federation, folder: Path) -> None:
    registered(federation, folder)
    epsilon, charged = charge(federation, b"a" * 16)
    assert charged > 0
    write(people().assign(age=[1, 2, 3, 4, 5]), folder)
    assert registered(federation, folder).version.number == 2
    with federation.site(1).transaction() as transaction:
        entries = transaction.entries("train")
        assert epsilon_spent(transaction.terms("train"), entries) == epsilon
    later, total = charge(federation, b"b" * 16)
    assert total == 2 * charged
    assert later > epsilon


def refused(federation: Federation, folder: Path, message: str, **changes: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        registered(federation, folder, contract(dataset=changes))
    with federation.site(1).transaction() as transaction:
        assert len(versions(transaction.connection)) == 1


def test_the_same_persons_get_no_second_budget(federation: Federation, folder: Path, tmp_path: Path) -> None:
    """Neither as another population of the dataset, nor as another dataset of which one of them is part."""
    registered(federation, folder)
    refused(federation, folder, "another budget", population="test")
    write(people().iloc[[4]], tmp_path / "other")
    refused(federation, tmp_path / "other", "a subject of it was registered", name="other", population="test")
    write(people().iloc[[4]].assign(person="new"), tmp_path / "strangers")
    strangers = contract(dataset={"name": "strangers", "population": "test"})
    assert registered(federation, tmp_path / "strangers", strangers).version.number == 2


def test_what_breaks_its_contract_is_not_registered(federation: Federation, folder: Path) -> None:
    with pytest.raises(DataError, match="column 'person': unique") as caught:
        registered(federation, folder, contract(columns={"person": {"type": "text", "unique": True}}))
    assert "007" not in caught.value.explain()
    assert recheck(federation.site(1), folder) is None


def test_data_whose_time_is_over_is_not_registered(federation: Federation, folder: Path) -> None:
    with pytest.raises(ConfigError, match="retention_until is over"):
        registered(federation, folder, contract(dataset={"retention_until": date(2026, 2, 28)}))


def test_a_folder_that_changes_while_it_is_read_is_not_registered(
    federation: Federation, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_meanwhile(where: Path, rules: Any) -> Any:
        table = read_typed(where, rules)
        write(people().assign(pressure=1.0), where)
        return table

    monkeypatch.setattr("fedseal.client.datasets.register.read_typed", and_meanwhile)
    with pytest.raises(DataError, match="changed while it was read"):
        registered(federation, folder)


def test_facts_that_contradict_the_content_are_refused(federation: Federation, folder: Path) -> None:
    done = registered(federation, folder)
    with federation.site(1).transaction() as transaction:
        keys = keys_of(transaction.connection)
    write(people().head(4), folder)
    measured = measure(folder, contract(), keys, TODAY)
    with federation.site(1).transaction() as transaction, pytest.raises(LocalError, match="not those of this content"):
        add_version(transaction, done.version.facts, measured.content, measured.report)


# Before a round


def test_a_site_that_registered_nothing_is_asked_nothing(federation: Federation, folder: Path) -> None:
    with federation.site(1).transaction() as transaction:
        assert check_registered(transaction, folder) is None
        assert check_registered(transaction, None) is None


def test_an_untouched_folder_is_its_version(federation: Federation, folder: Path) -> None:
    done = registered(federation, folder)
    assert recheck(federation.site(1), folder) == done.version
    with federation.site(1).transaction() as transaction:
        assert check_registered(transaction, folder) == done.version


def test_a_changed_file_stops_the_site_until_it_is_put_back(federation: Federation, folder: Path) -> None:
    done = registered(federation, folder)
    path = next(folder.iterdir())
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b"007", b"008"))
    with pytest.raises(DataError, match=r"version 1 of dataset 'heart'.*persons\.csv has changed") as caught:
        recheck(federation.site(1), folder)
    assert "fedseal data register" in caught.value.next_step
    assert "008" not in caught.value.explain()
    path.write_bytes(kept)
    assert recheck(federation.site(1), folder) == done.version


def test_another_folder_is_no_way_around(federation: Federation, folder: Path, tmp_path: Path) -> None:
    registered(federation, folder)
    write(people(), tmp_path / "copy")
    with pytest.raises(DataError, match="none of it"):
        recheck(federation.site(1), tmp_path / "copy")
    with pytest.raises(DataError, match="names no data folder"):
        recheck(federation.site(1), None)
    (tmp_path / "link").symlink_to(folder)
    assert recheck(federation.site(1), tmp_path / "link") is not None


def test_a_superseded_version_is_refused(federation: Federation, folder: Path, tmp_path: Path) -> None:
    registered(federation, folder)
    write(people().head(4), tmp_path / "next")
    registered(federation, tmp_path / "next")
    with pytest.raises(PolicyRefused, match="superseded"):
        recheck(federation.site(1), folder)


def test_a_population_without_a_ledger_is_refused_before_anything_is_made(
    federation: Federation, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = federation.site(1)
    with store.transaction() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM terms WHERE population = 'train'")
    with pytest.raises(ConfigError, match="no ledger"):
        register(store, folder, contract(), preprocessing=CODE, as_of=TODAY)
    with store.transaction() as transaction:
        tables = transaction.connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    assert not [name for name in tables if name.startswith("data_")]
