"""A study in a process of its own answers what it answers in the node's, and the node knows no torch."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from support.flower import flower_task, make_federation
from support.strangers import landlocked
from support.studies import TINY
from support.windows import persons, watch

from fedseal.client.app import Warm
from fedseal.client.facts import WINDOWS_KEY
from fedseal.client.isolation.settings import Barrier, IsolationPart
from fedseal.client.isolation.work import IsolatedWork
from fedseal.client.mod import DATA_KEY, STORE_KEY, STUDY_KEY
from fedseal.client.records import CONTROL, TABLES, WATCH, WINDOW, views_of
from fedseal.client.release import DONE, MEMORY
from fedseal.client.site_config import Site
from fedseal.errors import ConfigError
from fedseal.privacy.counts import Axis, Source, Table, Tables
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.releases import COUNTS, DRIFT, EVALUATION, MOMENTS, UPDATE
from fedseal.privacy.watch import encode_watch
from fedseal.wire import encode

pytestmark = pytest.mark.skipif(not landlocked(), reason="needs a Linux with namespaces, Landlock and seccomp")

NONE = NoPrivacy(releases=9, retries=0)
SETTINGS = {"learning-rate": 0.1, "sample-rate": 1.0, "local-steps": 2}
REST = {"low": [-6.0, -6.0, -6.0], "high": [8.0, 8.0, 8.0]}


@dataclass
class Pair:
    """The same site twice: with its study apart, and without."""

    site: Site
    apart: IsolatedWork
    within: Warm
    context: Context

    def both(self, message: Message, kind: str = "train") -> tuple[Message, Message]:
        apart = getattr(self.apart, kind)(message, self.context)
        return apart, getattr(self.within, kind)(message, self.context)


@pytest.fixture(scope="module", autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("site")
    for name in ("keys", "data", "windows/3"):
        (folder / name).mkdir(parents=True)
    federation = make_federation(folder / "keys", 4)
    persons(np.random.default_rng(1), 300).to_csv(folder / "data" / "persons.csv", index=False)
    persons(np.random.default_rng(2), 90, wrong=0.4).to_csv(folder / "windows" / "3" / "p.csv", index=False)
    site = cast(
        Site,
        SimpleNamespace(
            store=federation.sites[1],
            key_file=federation.sites[1],
            data=folder / "data",
            study=SimpleNamespace(folder=TINY, contract=SimpleNamespace(task="task:Blobs")),
            threads=1,
            isolation=IsolationPart(require=tuple(Barrier), seconds=120),
            check_code=lambda: None,
        ),
    )
    config: dict[str, bool | int | float | str] = {
        STORE_KEY: str(site.store),
        DATA_KEY: str(site.data),
        STUDY_KEY: str(TINY),
        WINDOWS_KEY: str(folder / "windows"),
    }
    context = Context(1, 101, config, RecordDict(), {"fedseal-task": "task:Blobs"})
    work = IsolatedWork(site, folder / "windows")
    work.read_data()
    yield Pair(site, work, Warm(), context)
    work.close()


def request(
    release: str,
    settings: Mapping[str, Any],
    arrays: Mapping[str, Any] | None,
    *,
    plan: Any = NONE,
    run: bytes = bytes(16),
) -> Message:
    facts: dict[str, Any] = {
        "run": run,
        "release": release,
        "sequence": 1,
        "attempt": 0,
        "plan": encode_plan(plan),
        "ranges": [100.0],
    }
    content = RecordDict({CONTROL: ConfigRecord(facts)})
    if arrays is not None:
        content["arrays"] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    content["config"] = ConfigRecord(dict(settings))
    return Message(content, dst_node_id=101, message_type="train")


def linear(**beside: Any) -> dict[str, Any]:
    return {"weight": np.array([[0.3, -0.2, 0.1]], np.float32), "bias": np.zeros(1, np.float32), **beside}


def same(first: Message, second: Message) -> None:
    """The same records, to the last bit."""
    assert list(first.content) == list(second.content) or sorted(first.content) == sorted(second.content)
    for name, record in second.content.items():
        other = first.content[name]
        if isinstance(record, ArrayRecord):
            assert isinstance(other, ArrayRecord)
            ours, theirs = views_of(other), views_of(record)
            assert list(ours) == list(theirs)
            for array in ours:
                assert ours[array].tobytes() == theirs[array].tobytes()
                assert ours[array].dtype == theirs[array].dtype
        else:
            assert dict(cast(Any, other)) == dict(cast(Any, record))


DITTO = {**SETTINGS, "ditto-lambda": 0.5, "ditto-steps": 1, "ditto-rate": 0.1}
COUNTED = {"control-sites": [1], "control-rounds": [0]}
CONTROLS = {"control/weight": np.ones((1, 3), np.float32), "control/bias": np.ones(1, np.float32)}
HALVES = {TABLES: encode(Tables((Table((Axis(int(Source.LABEL), (0.0, 0.5, 1.0)),)),)))}
ASKED: dict[str, tuple[str, str, Mapping[str, Any], Mapping[str, Any] | None]] = {
    "update": ("train", UPDATE, SETTINGS, linear()),
    "ditto": ("train", UPDATE, DITTO | COUNTED, linear()),
    "scaffold": ("train", UPDATE, SETTINGS | COUNTED, linear(**CONTROLS)),
    "moments": ("train", MOMENTS, REST, None),
    "counts": ("train", COUNTS, HALVES, None),
    "evaluation": ("evaluate", EVALUATION, {}, linear()),
    "finetune": ("evaluate", EVALUATION, {**SETTINGS, "finetune-steps": 2, "finetune-rate": 0.1}, linear()),
}


@pytest.mark.parametrize("name", ASKED)
def test_it_answers_what_the_same_code_answers_in_the_nodes_process(pair: Pair, name: str) -> None:
    kind, release, settings, arrays = ASKED[name]
    apart, within = pair.both(request(release, settings, arrays), kind)
    assert list(within.content)
    same(apart, within)


def test_what_a_site_remembers_goes_there_and_comes_back(pair: Pair) -> None:
    run = b"remembered" + bytes(6)
    first = request(UPDATE, DITTO | COUNTED, linear(), run=run)
    second = request(UPDATE, {**DITTO, "control-sites": [1], "control-rounds": [1]}, linear(), run=run)
    from fedseal.privacy.store import SiteStore

    kept = []
    for work in (pair.apart, pair.within):
        reply = work.train(first, pair.context)
        (value,) = dict(reply.content.config_records[MEMORY]).values()
        with SiteStore.open(pair.site.store).transaction() as transaction:
            transaction.remember(run, "personal/model", cast(bytes, value), 1)
        kept.append(dict(work.train(second, pair.context).content.config_records[MEMORY]))
    assert kept[0] == kept[1]
    assert kept[0]["personal/model"] != value


def test_a_window_is_compared_with_a_past_that_the_node_has_noised(pair: Pair) -> None:
    settings = {WATCH: encode_watch(watch()), WINDOW: 3}
    message = request(DRIFT, settings, linear())
    apart = pair.apart.train(message, pair.context)
    report = pair.site.store.with_name(f"{pair.site.store.stem}-windows") / "window-000003.json"
    written = report.read_bytes()
    report.unlink()
    within = pair.within.train(message, pair.context)
    same(apart, within)
    assert report.read_bytes() == written
    # Another watch has another reference, made by the study's process, and noised here.
    assert apart.content.config_records[DONE]


@pytest.mark.slow
def test_a_killed_study_is_started_again_and_answers_the_same(pair: Pair) -> None:
    message = request(UPDATE, SETTINGS, linear())
    before = pair.apart.train(message, pair.context)
    first = pair.apart._study.start().number
    (study,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    os.kill(int(study), signal.SIGKILL)
    same(pair.apart.train(message, pair.context), before)
    assert pair.apart._study.start().number != first


def test_what_the_study_raises_is_the_studys_fault(pair: Pair) -> None:
    with pytest.raises(ConfigError, match="not this model's") as caught:
        pair.apart.train(request(UPDATE, SETTINGS, {"weight": np.zeros((1, 3), np.float32)}), pair.context)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_a_barrier_that_does_not_hold_keeps_the_node_from_starting(pair: Pair) -> None:
    from fedseal.client.isolation.messages import Hold
    from fedseal.client.isolation.supervision import check_required

    holds = (Hold("network", "namespace", ""), Hold("files", "", "no Landlock"))
    check_required(holds, (Barrier.NETWORK,))
    with pytest.raises(ConfigError, match="files: no Landlock") as caught:
        check_required(holds, (Barrier.NETWORK, Barrier.FILES))
    assert 'require = ["network"]' in caught.value.next_step


def test_a_secret_where_the_study_may_read_keeps_the_node_from_starting(pair: Pair) -> None:
    site = SimpleNamespace(**{**vars(pair.site), "key_file": pair.site.data / "persons.csv"})
    with pytest.raises(ConfigError, match="lies in"):
        IsolatedWork(cast(Site, site)).start()


def test_the_node_needs_no_torch() -> None:
    code = "import sys, fedseal.client.isolation.work as w; print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
