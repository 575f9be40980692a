"""A real federation in simulation: a byte of one site's file changes between two rounds, and that site stops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.datasets import CODE, TODAY
from support.studies import material, tiny

from fedseal.client.datasets.register import register
from fedseal.compliance.data.contract import DataContract
from fedseal.errors import RoundAborted
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.store import SiteStore
from fedseal.simulation.federation import Federation, enrol
from fedseal.simulation.training import RoundView, Trained, train
from fedseal.study import Study

CONTRACT = DataContract.model_validate(
    {
        "dataset": {
            "name": "tiny",
            "subject": "person",
            "purpose": "research",
            "legal_basis": ["6-1-e"],
            "retention_until": "2036-01-01",
            "source": {"system": "registry", "extracted_at": "2026-01-31"},
        },
        "columns": {
            "person": {"type": "integer", "unique": True},
            "label": {"type": "integer", "allowed": [0, 1]},
            **{name: {"type": "real", "low": -10, "high": 10} for name in "abc"},
        },
    }
)


def study(minimum: int, **privacy: Any) -> Study:
    return tiny(
        privacy={"plan": "none", **privacy},
        cohort={"minimum": minimum},
        simulation={"sites": 4},
        training={"rounds": 2, "local_steps": 2},
        normalisation={"kind": "task", "low": [], "high": []},
    )


def trained(
    folder: Path,
    found: Study,
    monkeypatch: pytest.MonkeyPatch,
    between: Callable[[Path], object] | None,
    *,
    register_all: bool = True,
) -> tuple[Trained, list[list[tuple[str, str]]]]:
    """A training whose sites register their data at enrolment; after round 1 ``between`` is done to the first site's
    file. The training, and what every site wrote down.
    """
    gathered = material(found, folder / "data")
    stores: list[Path] = []

    def and_register(*arguments: Any) -> Federation:
        federation = enrol(*arguments)
        for name, path in federation.site_stores.items():
            stores.append(path)
            if register_all:
                register(SiteStore.open(path), gathered.data[name], CONTRACT, preprocessing=CODE, as_of=TODAY)
        return federation

    def after(view: RoundView) -> None:
        if between is not None and view.record.number == 1:
            between(next(iter(gathered.data.values())) / "persons.csv")

    monkeypatch.setattr("fedseal.simulation.training.enrol", and_register)
    done = train(gathered, found.contract, folder / "federation", after)
    return done, [incidents(path) for path in stores]


def incidents(path: Path) -> list[tuple[str, str]]:
    with SiteStore.open(path).transaction() as transaction:
        return transaction.incidents()


def change_one_byte(path: Path) -> None:
    text = path.read_bytes()
    at = text.index(b"0.")
    path.write_bytes(text[:at] + b"1" + text[at + 1 :])


def survivors(done: Trained) -> list[int]:
    return [view.record.sites for view in done.rounds]


def test_a_site_whose_file_changed_stops_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, written = trained(tmp_path, study(minimum=3), monkeypatch, change_one_byte)
    assert survivors(done) == [4, 3]
    assert [len(w) > 0 for w in written] == [True, False, False, False]
    code, text = written[0][0]
    assert code == "TASK"
    assert "persons.csv has changed" in text
    assert "fedseal data register" in text


def test_a_site_that_stops_is_charged_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = study(minimum=3, plan="local", epsilon=8.0)
    done, _ = trained(tmp_path, found, monkeypatch, change_one_byte)
    assert survivors(done) == [4, 3]
    charged = []
    for path in sorted((tmp_path / "federation").glob("*.sqlite")):
        with SiteStore.open(path).transaction() as transaction:
            charged.append([EntryKind(e.kind) for e in transaction.entries("train")].count(EntryKind.CHARGE))
    assert charged == [1, 2, 2, 2]


def test_with_too_few_others_the_run_ends_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RoundAborted) as caught:
        trained(tmp_path, study(minimum=4), monkeypatch, change_one_byte)
    assert "persons.csv has changed" in caught.value.explain()


@pytest.mark.slow
def test_a_version_registered_between_two_rounds_is_what_the_next_one_trains_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept warm belongs to a version: the site goes on, on the new data and not on what it has in memory."""

    def renew(path: Path) -> None:
        table = pd.read_csv(path)
        table.assign(label=1 - table["label"]).to_csv(path, index=False)
        (store,) = tmp_path.glob(f"*/federation/{path.parent.name}.sqlite")
        register(SiteStore.open(store), path.parent, CONTRACT, preprocessing=CODE, as_of=TODAY)

    done, written = trained(tmp_path / "a", study(minimum=4), monkeypatch, renew)
    assert survivors(done) == [4, 4]
    assert written == [[]] * 4
    monkeypatch.undo()
    plain, _ = trained(tmp_path / "b", study(minimum=4), monkeypatch, None)
    first, second = ([view.record.model for view in t.rounds] for t in (done, plain))
    assert all((first[0][name] == second[0][name]).all() for name in first[0])
    assert any((first[1][name] != second[1][name]).any() for name in first[1])


@pytest.mark.slow
def test_untouched_data_is_trained_on_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: registered data, also touched without a change, changes nothing; nor does a site without registration
    notice a change, as before.
    """
    done, written = trained(tmp_path / "a", study(minimum=4), monkeypatch, lambda path: path.touch())
    assert survivors(done) == [4, 4]
    assert written == [[]] * 4
    monkeypatch.undo()
    plain, _ = trained(tmp_path / "b", study(minimum=4), monkeypatch, change_one_byte, register_all=False)
    assert survivors(plain) == [4, 4]
    for name, array in plain.model.items():
        assert (done.model[name] == array).all()
