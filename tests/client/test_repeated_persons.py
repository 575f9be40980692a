"""One item is one person, and the ledger is theirs: an id that occurs twice is an error on every way that leads to
items, and a changed file is the same persons' file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from support.flower import Federation, Nodes, flower_task, header_for, make_federation
from support.studies import TINY, tiny

from fedseal.client.app import client_app
from fedseal.client.items import person_items
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.client.split import by_hash
from fedseal.client.task import SiteData
from fedseal.errors import DataError
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.privacy.secagg.server_states import Finished
from fedseal.simulation.population import gather
from fedseal.study_code import load_task

CANARY = "canary-4711"
RUN_CONFIG = {"fedseal-task": "task:Blobs"}
# A third of the budget each time.
PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=1.2, sample_rate=1.0, steps=1, releases=1, retries=0)
ARRAYS = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}


def table(persons: list[object]) -> pd.DataFrame:
    """Rows that the tiny study reads."""
    rng = np.random.default_rng(1)
    count = len(persons)
    made = pd.DataFrame({name: rng.normal(size=count) for name in ("a", "b", "c")})
    return made.assign(label=np.arange(count) % 2, person=pd.Series(persons, dtype=object))


def refused(error: DataError) -> None:
    assert "column 'person'" in error.message
    assert CANARY not in error.explain()
    assert error.next_step


REPEATED: list[list[object]] = [
    [CANARY, "b", CANARY],
    [7, "x", "7"],
    [7.0, "y", 7],
]


@pytest.mark.parametrize("persons", REPEATED, ids=str)
def test_two_items_of_a_person_are_refused_where_items_are_split(persons: list[object]) -> None:
    """At a deployed site too: every task makes its parts by this function."""
    with pytest.raises(DataError) as caught:
        by_hash(table(persons)["person"], study="s")
    refused(caught.value)
    with pytest.raises(DataError, match="the ids of persons: a person occurs more than once"):
        by_hash(persons, study="s")
    # The twin: records of a person may be many, and stay together; different persons are no repetition.
    parts = by_hash(table(persons)["person"], study="s", records=True)
    assert any({0, 2} <= set(part.tolist()) or {0, 2} & set(part.tolist()) == set() for part in parts)
    assert sum(map(len, by_hash(["a", "b", "c"], study="s"))) == 3


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_person_without_an_id_is_refused(missing: object) -> None:
    with pytest.raises(DataError, match="column 'person': a person has no id"):
        by_hash(table(["a", missing])["person"], study="s")


@pytest.mark.parametrize("persons", REPEATED, ids=str)
def test_grouped_records_are_one_item_each_however_the_id_is_written(persons: list[object]) -> None:
    items = person_items(table(persons), person="person", features=["a"], most_records=3)
    assert len(items.ids) == 2
    assert sum(map(len, by_hash(items.ids, study="s"))) == 2


@pytest.mark.parametrize("persons", REPEATED[:2], ids=str)
def test_a_studys_own_data_is_refused(tmp_path: Path, persons: list[object]) -> None:
    table(persons).to_csv(tmp_path / "persons.csv", index=False)
    task = load_task("task:Blobs", TINY)
    with pytest.raises(DataError) as caught:
        task.data(SiteData("site", tmp_path))  # type: ignore[attr-defined]
    refused(caught.value)


@pytest.mark.parametrize("persons", REPEATED[:2], ids=str)
def test_a_simulation_refuses_before_it_spreads(tmp_path: Path, persons: list[object]) -> None:
    path = tmp_path / "persons.csv"
    table(persons).to_csv(path, index=False)
    with pytest.raises(DataError) as caught:
        gather(tiny(), data=path, sites=2, seed=1)
    refused(caught.value)


# A site


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Three sites with thirty persons each."""
    made = make_federation(tmp_path, 3, epsilon=10.0, order=7.25)
    for site in made.sites:
        (tmp_path / f"data-{site}").mkdir()
        write(made, site, [f"{site}-{n}" for n in range(30)])
    return made


def write(federation: Federation, site: int, persons: list[object]) -> None:
    table(persons).to_csv(federation.folder / f"data-{site}" / "persons.csv", index=False)


def nodes(federation: Federation) -> Nodes:
    """The sites in a process of their own: nothing is warm."""
    config = {s: {DATA_KEY: str(federation.folder / f"data-{s}"), STUDY_KEY: str(TINY)} for s in federation.sites}
    return Nodes(federation, client_app(), run_config=RUN_CONFIG, config=config)


def train(running: Nodes, run: bytes, until: Stage | None = None) -> tuple[object, object]:
    settings = ConfigRecord({"learning-rate": 0.1, "sample-rate": 1.0, "local-steps": 1})
    records: dict[str, ArrayRecord | ConfigRecord] = {
        "arrays": ArrayRecord({n: Array(a) for n, a in ARRAYS.items()}),
        "config": settings,
    }
    header = header_for(running.federation, PLAN, task=records, run_config=RUN_CONFIG, run=run)
    return running.run(header, until, task=records)


def test_a_site_whose_file_names_a_person_twice_releases_nothing(federation: Federation) -> None:
    write(federation, 2, [*(f"2-{n}" for n in range(29)), CANARY, CANARY])
    running = nodes(federation)
    state, _ = train(running, b"A" * 16, Stage.MASK)
    assert [(r.site, RefusalCode(r.refusal.code)) for r in state.refused] == [(2, RefusalCode.TASK)]  # type: ignore[attr-defined]
    assert "column 'person': a person occurs more than once" in running.incident(2)
    assert CANARY not in running.incident(2)
    # The twin: once the file is mended, a new run finishes.
    write(federation, 2, [f"2-{n}" for n in range(30)])
    assert isinstance(train(nodes(federation), b"B" * 16)[0], Finished)


def test_a_changed_file_is_the_same_persons_and_the_same_ledger(federation: Federation) -> None:
    """Every run sees another version of the files, in a new process; all of it is charged to one ledger, until it is
    spent.
    """
    spent = []
    for number, run in enumerate((b"A" * 16, b"B" * 16, b"C" * 16)):
        for site in federation.sites:
            write(federation, site, [f"{site}-{number}-{n}" for n in range(30 + number)])
        assert isinstance(train(nodes(federation), run)[0], Finished)
        with federation.site(1).transaction() as transaction:
            assert transaction.populations() == ["monitor", "test", "train"]
            spent.append(transaction.ledger("train", run, b"").last.charged)
    assert spent == [spent[0], 2 * spent[0], 3 * spent[0]]
    write(federation, 1, ["entirely", "new", "persons"])
    running = nodes(federation)
    header = header_for(federation, PLAN, run=b"D" * 16)
    assert running.refusal(1, running.opening(header)) is RefusalCode.BUDGET
    with federation.site(1).transaction() as transaction:
        assert transaction.ledger("train", b"D" * 16, b"").last.charged == spent[-1]
