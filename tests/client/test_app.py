"""fedseal's own app behind the mod: a server that chooses models, settings and references learns nothing it is not
charged for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from support.flower import (
    Federation,
    Nodes,
    flower_task,
    header_for,
    make_federation,
    refused_with,
)
from support.keys import make_roster
from support.studies import TINY, material, tiny
from torch import nn

from fedseal.client.app import Warm, client_app
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.client.task import batch_of, size
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, encode_plan
from fedseal.privacy.quantize import CLIPPED
from fedseal.privacy.releases import MOMENTS, REGISTRY, VALUES
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.privacy.store import Identity, SiteStore
from fedseal.server.exchange import control_of, vector_of
from fedseal.simulation.training import Material

RUN_CONFIG = {"fedseal-task": "task:Blobs"}
SITES = (1, 2, 3, 4)
LARGEST = float(np.finfo(np.float32).max)
PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=1000.0, sample_rate=1.0, steps=1, releases=50, retries=0)


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material(tiny(), tmp_path_factory.mktemp("data"))


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 4)


def nodes(federation: Federation, study: Material, **run_config: str) -> Nodes:
    """Sites with the study's data."""
    config = {
        site: {DATA_KEY: str(folder), STUDY_KEY: str(TINY)}
        for site, folder in zip(SITES, study.data.values(), strict=True)
    }
    return Nodes(federation, client_app(), run_config={**RUN_CONFIG, **run_config}, config=config)


def linear(weight: list[float], bias: float = 0.0) -> dict[str, ArrayRecord | ConfigRecord]:
    """A task: train from this model."""
    arrays = {"weight": np.array([weight], np.float32), "bias": np.array([bias], np.float32)}
    settings = ConfigRecord({"learning-rate": 0.1, "sample-rate": 1.0, "local-steps": 1})
    return {
        "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        "config": settings,
    }


def features(study: Material, site: int) -> Any:
    """A site's training persons."""
    split = list(study.splits.values())[site - 1].train
    return batch_of(split, np.arange(size(split)))[0].numpy()


def train(running: Nodes, records: Mapping[str, Any], **header: Any) -> Any:
    """One private round on a task."""
    made = header_for(running.federation, PLAN, task=dict(records), run_config=RUN_CONFIG, **header)
    return running.run(made, task=records)


def form(seen: Any, site: int) -> list[tuple[Any, ...]]:
    """A site's replies but the bytes that are random anyway."""
    found = []
    for (stage, number), (_, reply) in seen.items():
        if number == site:
            vector = vector_of(reply)
            found.append((stage, len(control_of(reply) or b""), None if vector is None else vector.shape))
    return found


def test_it_makes_the_release_and_says_so(federation: Federation, study: Material) -> None:
    state, _ = train(nodes(federation, study), linear([0.3, -0.2, 0.1]))
    assert state.survivors == SITES
    assert state.total.weight == 400
    assert federation.charges(1) == 1


def test_a_model_that_overflows_for_some_persons_tells_nothing(federation: Federation, study: Material) -> None:
    """The reviewer's search: weights (w, -w, 0) are no number for a person whose a and b both exceed a threshold.

    With thresholds below and above what site 1 has, all its replies have the same form, and each was charged.
    """
    running = nodes(federation, study)
    largest = float(np.minimum(*features(study, 1)[:, :2].T).max())
    forms, clipped = [], []
    for number, threshold in enumerate((largest / 2, largest * 0.999, largest * 1.001, largest * 2), start=1):
        weight = LARGEST / threshold
        state, seen = train(running, linear([weight, -weight, 0.0]), release_seq=number)
        assert state.survivors == SITES
        forms.append(form(seen, 1))
        clipped.append(round(float(state.total.real(CLIPPED)[0])))
    assert all(found == forms[0] for found in forms)
    assert clipped == [0, 0, 0, 0]
    assert federation.charges(1) == 4
    assert federation.incidents(1) == []


def test_a_step_that_overflows_is_charged_and_looks_like_any_other(federation: Federation, study: Material) -> None:
    """A bias near the end of float32 makes the noisy step overflow or not: one noisy bit, paid for like the rest."""
    running = nodes(federation, study)
    gap = LARGEST * 0.01
    records = linear([0.0, 0.0, 0.0], LARGEST - gap)
    records["config"] = ConfigRecord({"learning-rate": gap, "sample-rate": 1.0, "local-steps": 1})
    forms, refusals = [], []
    for number in range(1, 5):
        state, seen = train(running, records, release_seq=number)
        assert state.survivors == SITES
        forms.append(form(seen, 1))
        refusals += list(refused_with(state))
        # Whether or not a step overflowed, it is far beyond the range: nobody's is inside.
        assert round(float(state.total.real(CLIPPED)[0])) == 4
        assert np.isfinite(state.total.real(VALUES)).all()
    assert all(found == forms[0] for found in forms)
    assert refusals == []
    assert federation.charges(1) == 4


def moments_header(federation: Federation, settings: ConfigRecord, **changes: Any) -> Any:
    """A private round of statistics: the means of three features and of their squares."""
    task = {"config": settings}
    return header_for(
        federation,
        PLAN,
        kind=REGISTRY[MOMENTS],
        task=task,
        shapes=[(MOMENTS, (6,))],
        run_config=RUN_CONFIG,
        **changes,
    )


def test_ranges_of_no_width_are_refused_by_everyone(federation: Federation, study: Material) -> None:
    """The reviewer's question: has a person exactly this value? The answer is the same, whoever has."""
    for number, value in enumerate((float(features(study, 1)[7, 0]), 0.123456), start=1):
        settings = ConfigRecord({"low": [value, -9.0, -9.0], "high": [value, 9.0, 9.0]})
        header = moments_header(federation, settings, run=bytes([number]) * 16)
        state, _ = nodes(federation, study).run(header, until=Stage.MASK, task={"config": settings})
        assert refused_with(state) == dict.fromkeys(SITES, RefusalCode.TASK)
        # Paid for, and the run is over.
        assert federation.charges(1) == number
        again = moments_header(federation, settings, run=header.run, attempt=1)
        state, _ = nodes(federation, study).run(again, task={"config": settings})
        assert set(refused_with(state).values()) == {RefusalCode.PROTOCOL}


def test_the_narrowest_ranges_are_answered_by_everyone(federation: Federation, study: Material) -> None:
    value = float(features(study, 1)[7, 0])
    settings = ConfigRecord({"low": [value, -9.0, -9.0], "high": [float(np.nextafter(value, 9)), 9.0, 9.0]})
    state, _ = nodes(federation, study).run(moments_header(federation, settings), task={"config": settings})
    assert state.survivors == SITES


# The study's code and what is kept of it


def test_a_reference_that_leads_out_of_the_study_runs_nothing(
    federation: Federation, study: Material, tmp_path: Path
) -> None:
    """A dot becomes a slash, so a leading one would be the root of the file system."""
    planted, trace = tmp_path / "planted.py", tmp_path / "it-ran"
    planted.write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n", encoding="utf-8")
    references = (
        f"{str(planted.with_suffix('')).replace('/', '.')}:Task",
        f"{planted.with_suffix('')}:Task",
        f"..{tmp_path.name}.planted:Task",
        "../planted:Task",
    )
    for number, reference in enumerate(references):
        config = {"fedseal-task": reference}
        running = nodes(federation, study, **config)
        records = linear([0.0, 0.0, 0.0])
        header = header_for(federation, task=records, run_config=config, run=bytes([number]) * 16)
        state, _ = running.run(header, until=Stage.MASK, task=records)
        assert refused_with(state) == dict.fromkeys(SITES, RefusalCode.TASK)
        assert "not of the form module:Name" in running.incident(1)
    assert not trace.exists()


def test_without_a_bound_run_config_there_is_no_task(federation: Federation, study: Material) -> None:
    """An unbound one is not shown to the app, so it cannot name other code to each site."""
    records = linear([0.0, 0.0, 0.0])
    running = nodes(federation, study)
    state, _ = running.run(header_for(federation, task=records), until=Stage.MASK, task=records)
    assert refused_with(state) == dict.fromkeys(SITES, RefusalCode.TASK)
    assert "no 'fedseal-task'" in running.incident(1)


OTHER = """
from task import *
import task as tiny_task


class Wide(tiny_task.Blobs):
    def model(self):
        return nn.Linear(3, 7)


class Narrow(tiny_task.Blobs):
    pass
"""


def context(federation: Federation, study: Material, *, folder: Path, reference: str, data: int = 1) -> Context:
    node = {
        **federation.nodes()[101],
        DATA_KEY: str(list(study.data.values())[data - 1]),
        STUDY_KEY: str(folder),
    }
    return Context(1, 101, node, RecordDict(), {"fedseal-task": reference})


def test_what_is_kept_warm_belongs_to_one_study_task_and_data(
    federation: Federation, study: Material, tmp_path: Path
) -> None:
    """Another task, folder or study is not answered with the first one's model or persons."""
    copy = tmp_path / "other-study"
    copy.mkdir()
    for name in ("task.py", "other.py"):
        text = OTHER if name == "other.py" else (TINY / name).read_text(encoding="utf-8")
        (copy / name).write_text(text, encoding="utf-8")
    warm, store = Warm(), federation.site(1)

    def work(**changes: Any) -> Any:
        options: dict[str, Any] = {"folder": copy, "reference": "other:Narrow", **changes}
        return warm.work(context(federation, study, **options), store)

    first = work()
    assert work() is first
    wide, elsewhere, persons = work(reference="other:Wide"), work(folder=TINY, reference="task:Blobs"), work(data=2)
    assert len({id(w) for w in (first, wide, elsewhere, persons)}) == 4
    model = wide.task.model()
    assert isinstance(model, nn.Linear)
    assert model.out_features == 7
    assert size(persons.split.train) != size(first.split.train)
    with pytest.raises(ConfigError, match="module:Name"):
        work(reference=".tmp.planted:Task")


def test_what_is_kept_warm_belongs_to_one_federation(federation: Federation, study: Material) -> None:
    """The roster says by how many persons noisy sums are divided: two federations may say different numbers."""
    warm, store = Warm(), federation.site(1)
    identity = store.identity
    other = Identity(1, "site-1", identity.key, make_roster(4, persons=70), identity.policy, identity.seed)
    where = context(federation, study, folder=TINY, reference="task:Blobs")
    first, second = warm.work(where, store), warm.work(where, SiteStore(store.path, store._engine, other))
    assert (first.public_persons, second.public_persons) == (100, 70)


def test_its_own_words_are_those_the_mod_asks_for(federation: Federation, study: Material) -> None:
    """Nothing is hidden from the ledger: what was said to be done is what was charged."""
    running = nodes(federation, study)
    train(running, linear([0.0, 0.0, 0.0]))
    with federation.site(1).transaction() as transaction:
        charged = [e for e in transaction.entries("train") if e.session != bytes(32)]
    assert [e.plan for e in charged] == [encode_plan(PLAN)]
