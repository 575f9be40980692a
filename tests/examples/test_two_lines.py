"""`examples/two-lines`: an ordinary Flower app, sealed by exactly two changed lines, learns the same.

The diff is applied here; the sealed run is the program that docs/seal-your-app.md shows.
"""

import ast
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from support.flower import code_of, flower_task, numpy_of, train_messages

from fedseal.client.mod import STORE_KEY
from fedseal.errors import RoundAborted
from fedseal.privacy.quantize import Layout, Rounding, bound, mean_error
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import METRIC_PREFIX, VALUES
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.simulation import grid as simulated
from fedseal.simulation.grid import LocalGrid
from fedseal.wire import DecodeError, decode

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "examples" / "two-lines"
PAGE = ROOT / "docs" / "seal-your-app.md"
MODULES = ("model", "client_app", "server_app")
SITES, ROUNDS, MOST = 5, 5, 500
RUN_CONFIG = {"num-server-rounds": ROUNDS, "learning-rate": 0.1}
# By how much a round of training may magnify a difference between the models it starts from. An assumption about this
# app, with room: measured, it is about 1.
GROWTH = 2.0
Arrays = dict[str, NDArray[Any]]


# The diff


def apply(diff: str, folder: Path) -> None:
    """Apply a unified diff as `patch -p1` does, but to the letter: every line of context has to be where it says."""
    for name, hunks in re.findall(r"^--- a/\S+\n\+\+\+ b/(\S+)\n((?:[@ +-].*\n)+?)(?=--- |\Z)", diff, re.MULTILINE):
        old = (folder / name).read_text(encoding="utf-8").splitlines()
        new: list[str] = []
        position = 0
        for start, body in re.findall(r"^@@ -(\d+)\S* \+\S+ @@.*\n((?:[ +-].*\n)+)", hunks, re.MULTILINE):
            new += old[position : int(start) - 1]
            position = int(start) - 1
            for line in body.splitlines():
                if line[0] != "+":
                    assert old[position] == line[1:], f"{name}: line {position + 1} is not what the diff says"
                    position += 1
                if line[0] != "-":
                    new.append(line[1:])
        (folder / name).write_text("\n".join(new + old[position:]) + "\n", encoding="utf-8")


def copy(folder: Path, *, sealed: bool) -> Path:
    """The app in a new folder, with the diff applied or not."""
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__", "*.pt", "*.db*"))
    if sealed:
        apply((APP / "seal.diff").read_text(encoding="utf-8"), folder)
    return folder


def changed(sign: str) -> list[str]:
    """The lines of the diff that begin with a sign, file names aside."""
    lines = (APP / "seal.diff").read_text(encoding="utf-8").splitlines()
    return [line[1:] for line in lines if line.startswith(sign) and not line.startswith(sign * 3)]


def is_import(line: str) -> bool:
    return line.startswith(("import ", "from "))


# Running the app


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: the net is so small that more of them wait for one another. Put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def working_in(folder: Path) -> Iterator[dict[str, ModuleType]]:
    """The app's modules, imported from a folder, which is also the working directory; forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        try:
            yield {name: importlib.import_module(name) for name in MODULES}
        finally:
            for name in MODULES:
                sys.modules.pop(name, None)


@dataclass(frozen=True)
class Exchange:
    """One message and its answer, as the server's machine sees them."""

    kind: str
    node: int
    fl_round: int | None
    arrays: Arrays
    control: bytes | None
    reply: RecordDict


@dataclass
class Run:
    """What a run showed: on the wire, to the strategy, and at its end."""

    exchanges: list[Exchange] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    models: list[Arrays] = field(default_factory=list)
    metrics: list[Mapping[str, Any]] = field(default_factory=list)
    nodes: dict[int, dict[str, Any]] = field(default_factory=dict)
    saved: Arrays = field(default_factory=dict)

    def deliver(self, app: ClientApp, message: Message, context: Context) -> Message:
        """A node's answer, kept."""
        self.nodes[context.node_id] = dict(context.node_config)
        content = message.content
        config, control = content.config_records.get("config"), content.config_records.get("fedseal")
        arrays = {n: a.copy() for r in content.array_records.values() for n, a in numpy_of(r).items()}
        fl_round: Any = None if config is None else config["server-round"]
        raw: Any = None if control is None else control["message"]
        reply = app(message, context)
        kind, node = message.metadata.message_type, message.metadata.dst_node_id
        self.exchanges.append(Exchange(kind, node, fl_round, arrays, raw, reply.content))
        return reply

    def headers(self, kind: str) -> list[Header]:
        """The headers of all rounds, in order."""
        found: dict[bytes, Header] = {}
        for exchange in self.exchanges:
            if exchange.kind == kind and exchange.control is not None:
                try:
                    header = decode(decode(exchange.control, AdvertiseRequest).header, Header)
                except DecodeError:
                    continue
                found[header.digest()] = header
        return list(found.values())

    def trained_from(self, fl_round: int) -> Arrays:
        """The model that a round's sites were sent to train."""
        return next(e.arrays for e in self.exchanges if e.kind == "train" and e.fl_round == fl_round)


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Flower's strategy and the simulation's grid write down what they see."""
    aggregate_train, aggregate_evaluate = FedAvg.aggregate_train, FedAvg.aggregate_evaluate

    def train(self: FedAvg, server_round: int, replies: Any) -> Any:
        replies = list(replies)
        run.replies.append(len(replies))
        arrays, metrics = aggregate_train(self, server_round, replies)
        run.models.append({n: a.copy() for n, a in numpy_of(arrays).items()})
        return arrays, metrics

    def evaluate(self: FedAvg, server_round: int, replies: Any) -> Any:
        metrics = aggregate_evaluate(self, server_round, replies)
        run.metrics.append(dict(metrics or {}))
        return metrics

    class WatchedGrid(LocalGrid):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options, deliver=run.deliver)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FedAvg, "aggregate_train", train)
        patch.setattr(FedAvg, "aggregate_evaluate", evaluate)
        patch.setattr(simulated, "LocalGrid", WatchedGrid)
        yield


def partitions() -> dict[int, dict[str, Any]]:
    """The nodes as Flower's own simulation configures them."""
    return {1001 + i: {"partition-id": i, "num-partitions": SITES} for i in range(SITES)}


def program() -> str:
    """The one Python program of the page."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(code)


def saved(folder: Path) -> Arrays:
    return {name: tensor.numpy() for name, tensor in torch.load(folder / "model.pt").items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The app as it is."""
    run, folder = Run(), copy(tmp_path_factory.mktemp("two-lines") / "plain", sealed=False)
    with working_in(folder) as modules, watched(run):
        grid = simulated.LocalGrid(modules["client_app"].app, partitions(), run_config=RUN_CONFIG)
        grid.serve(modules["server_app"].app, seed=1)
    run.saved = saved(folder)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sealed app."""
    return copy(tmp_path_factory.mktemp("two-lines") / "sealed", sealed=True)


@pytest.fixture(scope="module")
def sealed(folder: Path) -> Run:
    """The sealed app, run by the page's program."""
    run = Run()
    (folder / "simulate.py").write_text(program(), encoding="utf-8")
    with working_in(folder), watched(run):
        runpy.run_path(str(folder / "simulate.py"))
    run.saved = saved(folder)
    return run


@dataclass(frozen=True)
class Site:
    """What one site computes in one round: recomputed by the app without fedseal."""

    node: int
    fl_round: int
    examples: int
    trained: Arrays
    update: NDArray[np.float64]


def flat(arrays: Arrays) -> NDArray[np.float64]:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def recompute(run: Run, modules: dict[str, ModuleType]) -> list[Site]:
    """Every site of every round, from the models that were sent in a run."""
    found = []
    grid = LocalGrid(modules["client_app"].app, partitions(), run_config={})
    with flower_task():
        for fl_round in range(1, ROUNDS + 1):
            received = run.trained_from(fl_round)
            config = ConfigRecord({"lr": RUN_CONFIG["learning-rate"], "server-round": fl_round})
            arrays = ArrayRecord({n: Array(a) for n, a in received.items()})
            content = RecordDict({"arrays": arrays, "config": config})
            messages = [Message(content, dst_node_id=n, message_type="train") for n in grid.get_node_ids()]
            for node, reply in zip(grid.get_node_ids(), grid.send_and_receive(messages), strict=True):
                trained: Any = numpy_of(reply.content["arrays"])
                examples: Any = reply.content["metrics"]
                update = flat(trained) - flat(received)
                found.append(Site(node, fl_round, int(examples["num-examples"]), trained, update))
    return found


@pytest.fixture(scope="module")
def recomputed(plain: Run, sealed: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Site]]:
    """Every site's own training in both runs, by the app without fedseal."""
    with working_in(copy(tmp_path_factory.mktemp("two-lines") / "again", sealed=False)) as modules:
        return {"plain": recompute(plain, modules), "sealed": recompute(sealed, modules)}


def one_round_error(run: Run, sites: list[Site]) -> float:
    """How far a coordinate of one sealed round may be from the clear weighted mean.

    What the quantiser states, and half a unit in the last place of the arrays' own float32, for which one is taken.
    """
    layout = run.headers("train")[0].layout
    fraction = sum(s.examples for s in sites) / MOST
    stated = mean_error(layout.segment(VALUES), Rounding(layout.rounding), SITES, fraction)
    return stated + float(np.spacing(np.float32(max(np.abs(flat(m)).max() for m in run.models))))


# The app and the diff


def test_the_app_is_short_and_knows_nothing_of_fedseal() -> None:
    lines = 0
    for name in MODULES:
        source = (APP / f"{name}.py").read_text(encoding="utf-8")
        assert "fedseal" not in source
        nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Module | ast.FunctionDef | ast.ClassDef)]
        documented = sum(len((ast.get_docstring(n) or "").splitlines()) for n in nodes)
        lines += sum(1 for line in source.splitlines() if line.strip()) - documented
    assert lines <= 65
    project = (APP / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^dependencies.*fedseal", project, re.MULTILINE)


def test_the_diff_changes_two_lines_imports_aside() -> None:
    assert len(changed("-")) == 2
    assert not any(is_import(line) for line in changed("-"))
    assert len([line for line in changed("+") if not is_import(line)]) == 2
    assert [line.split()[1] for line in changed("+") if is_import(line)] == [
        "fedseal.client.mod",
        "fedseal.server.grid",
    ]
    assert max(len(line) for line in changed("+")) <= 120


def test_the_diff_applies_and_the_files_differ_in_these_lines_only(tmp_path: Path) -> None:
    before, after = copy(tmp_path / "before", sealed=False), copy(tmp_path / "after", sealed=True)
    gone, new = [], []
    for path in sorted(p for p in before.rglob("*") if p.is_file()):
        old = path.read_text(encoding="utf-8").splitlines()
        now = (after / path.relative_to(before)).read_text(encoding="utf-8").splitlines()
        gone += [line for line in old if line not in now]
        new += [line for line in now if line not in old]
    assert sorted(gone) == sorted(changed("-"))
    assert sorted(new) == sorted(changed("+"))


def test_a_diff_that_does_not_fit_is_not_applied(tmp_path: Path) -> None:
    folder = copy(tmp_path / "app", sealed=True)
    with pytest.raises(AssertionError, match="is not what the diff says"):
        apply((APP / "seal.diff").read_text(encoding="utf-8"), folder)


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_patch_does_the_same(tmp_path: Path) -> None:
    ours, theirs = copy(tmp_path / "ours", sealed=True), copy(tmp_path / "theirs", sealed=False)
    with (theirs / "seal.diff").open(encoding="utf-8") as diff:
        subprocess.run([str(shutil.which("patch")), "-p1"], cwd=theirs, stdin=diff, check=True, capture_output=True)
    for name in MODULES:
        assert (ours / f"{name}.py").read_bytes() == (theirs / f"{name}.py").read_bytes()
    assert not list(theirs.glob("*.orig"))


def test_the_page_shows_the_diff() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = "".join(re.findall(r"^```diff\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).splitlines()
    assert sorted(line for line in shown if line[0] in "+-") == sorted(
        [f"-{line}" for line in changed("-")] + [f"+{line}" for line in changed("+")]
    )


# The same model


def test_every_round_is_the_clear_weighted_mean_within_the_stated_error(
    sealed: Run, recomputed: dict[str, list[Site]]
) -> None:
    worst = 0.0
    for fl_round, model in enumerate(sealed.models, start=1):
        sites = [s for s in recomputed["sealed"] if s.fl_round == fl_round]
        total = sum(s.examples for s in sites)
        clear = sum((s.examples / total * flat(s.trained) for s in sites), np.zeros(1))
        worst = max(worst, float(np.abs(flat(model) - clear).max()))
        assert worst <= one_round_error(sealed, sites)
    assert len(sealed.models) == ROUNDS
    # The bound is about something: it is neither empty nor far away.
    assert worst > one_round_error(sealed, sites) / 100


def test_the_sealed_run_stays_at_the_plain_one(plain: Run, sealed: Run, recomputed: dict[str, list[Site]]) -> None:
    """A round adds its own error to what training made of the difference there was."""
    sites = [s for s in recomputed["sealed"] if s.fl_round == 1]
    error, allowed = one_round_error(sealed, sites), 0.0
    for fl_round, (one, other) in enumerate(zip(plain.models, sealed.models, strict=True), start=1):
        allowed = GROWTH * allowed + error
        difference = float(np.abs(flat(one) - flat(other)).max())
        moved = float(np.abs(flat(other) - flat(sealed.trained_from(fl_round))).max())
        assert difference <= allowed
        # What is compared is not the model they both began with.
        assert moved > 100 * allowed
    for name, array in plain.saved.items():
        assert np.array_equal(array, plain.models[-1][name])
        assert np.array_equal(sealed.saved[name], sealed.models[-1][name])


def test_loss_and_accuracy_are_the_same(plain: Run, sealed: Run) -> None:
    assert len(sealed.metrics) == len(plain.metrics) == ROUNDS
    segment = sealed.headers("evaluate")[0].layout.segment(METRIC_PREFIX + "acc")
    images = 360  # Every fifth of 1797, rounded up at each site.
    for clear, found in zip(plain.metrics, sealed.metrics, strict=True):
        assert found["acc"] == pytest.approx(
            clear["acc"], abs=mean_error(segment, Rounding.STOCHASTIC, SITES, images / MOST)
        )
        assert found["loss"] == pytest.approx(clear["loss"], abs=1e-4)
    assert plain.metrics[-1]["acc"] > 0.85


# What the server saw


def numbers(reply: RecordDict) -> list[NDArray[np.float64]]:
    """Every flat vector a curious server can make of a reply: ring elements are read as signed numbers."""
    found = []
    for record in reply.array_records.values():
        arrays = numpy_of(record)
        signed = {n: a.view(f"<i{a.dtype.itemsize}") if a.dtype.kind == "u" else a for n, a in arrays.items()}
        found.append(flat(signed))
    return found


def shows(reply: RecordDict, received: Arrays, site: Site) -> bool:
    """Whether a reply says something about what one site did: a vector of it, or its difference from the model that was
    sent, points where the site's update does.
    """
    length = len(site.update)
    vectors = [v[:length] for v in numbers(reply) if len(v) >= length]
    return any(abs(np.corrcoef(w, site.update)[0, 1]) > 0.3 for v in vectors for w in (v, v - flat(received)))


def answers(run: Run, site: Site) -> list[Exchange]:
    """All answers of a node that carry arrays, of the round's training."""
    found = [e for e in run.exchanges if e.kind == "train" and e.node == site.node and e.reply.array_records]
    return [e for e in found if e.fl_round == site.fl_round]


def test_the_server_sees_every_site_of_the_plain_run(plain: Run, recomputed: dict[str, list[Site]]) -> None:
    """The twin: the check notices."""
    assert plain.replies == [SITES] * ROUNDS
    for site in recomputed["plain"]:
        (answer,) = answers(plain, site)
        assert shows(answer.reply, answer.arrays, site)
        assert np.array_equal(flat(numpy_of(answer.reply["arrays"])), flat(site.trained))
        assert dict(answer.reply.metric_records["metrics"])["num-examples"] == site.examples


def test_the_server_sees_no_single_site_of_the_sealed_run(sealed: Run, recomputed: dict[str, list[Site]]) -> None:
    assert sealed.replies == [1] * ROUNDS
    for site in recomputed["sealed"]:
        (answer,) = answers(sealed, site)
        assert not shows(answer.reply, answer.arrays, site)


def test_the_check_would_notice_a_vector_without_its_mask(sealed: Run, recomputed: dict[str, list[Site]]) -> None:
    site = recomputed["sealed"][0]
    layout = sealed.headers("train")[0].layout
    (answer,) = answers(sealed, site)
    unmasked = quantised(site, layout)
    assert unmasked.shape == numpy_of(answer.reply["vector"])["vector"].shape
    assert shows(RecordDict({"vector": ArrayRecord({"vector": Array(unmasked)})}), answer.arrays, site)


def quantised(site: Site, layout: Layout) -> NDArray[Any]:
    """What the site would have sent without masks, metrics aside."""
    values = {segment.name: np.zeros(segment.length) for segment in layout.segments}
    values[VALUES] = site.examples / MOST * site.update
    values[layout.weight.name] = np.array([float(site.examples)])
    return bound(values, layout, KeyedRandomness(1, "test").stream("rounding")).vector


def test_sealed_replies_hold_control_bytes_and_at_most_one_flat_vector(plain: Run, sealed: Run) -> None:
    def form(reply: RecordDict) -> tuple[Any, ...]:
        controls = [sorted((k, type(v).__name__) for k, v in r.items()) for r in reply.config_records.values()]
        arrays = [(a.dtype, len(a.shape)) for r in reply.array_records.values() for a in r.values()]
        return sorted(reply), controls, arrays, len(reply.metric_records)

    control, logged = [("message", "bytes")], [("log", "bytes"), ("message", "bytes")]
    bare: list[tuple[Any, ...]] = [(["fedseal"], [c], [], 0) for c in (control, logged)]
    # Whoever sends a vector says so in the log.
    vector: tuple[Any, ...] = (["fedseal", "vector"], [logged], [("uint32", 1)], 0)
    allowed = [*bare, vector]
    assert all(form(e.reply) in allowed for e in sealed.exchanges)
    assert not any(form(e.reply) in allowed for e in plain.exchanges)
    # One vector a site in each round of training and of evaluation.
    assert sum(1 for e in sealed.exchanges if form(e.reply) == vector) == SITES * ROUNDS * 2


# One of the two lines alone


def test_a_sealed_site_refuses_unsealed_messages(sealed: Run, folder: Path) -> None:
    run = Run()
    with working_in(folder) as modules, flower_task():
        grid = LocalGrid(modules["client_app"].app, sealed.nodes, run_config=RUN_CONFIG, deliver=run.deliver)
        arrays = ArrayRecord(modules["model"].Net().state_dict())
        for kind in ("train", "evaluate"):
            replies = list(grid.send_and_receive(train_messages(grid, arrays, kind)))
            assert [code_of(reply) for reply in replies] == [RefusalCode.PROTOCOL] * SITES
            assert all(list(reply.content) == ["fedseal"] for reply in replies)


def test_an_unsealed_server_gets_no_model_from_sealed_sites(sealed: Run, folder: Path, tmp_path: Path) -> None:
    unsealed = copy(tmp_path / "app", sealed=False)
    with working_in(folder) as modules:
        client_app = modules["client_app"].app
        stores = {n: {**config, STORE_KEY: str(folder / config[STORE_KEY])} for n, config in sealed.nodes.items()}
    with working_in(unsealed) as modules, pytest.raises(InconsistentMessageReplies):
        LocalGrid(client_app, stores, run_config=RUN_CONFIG).serve(modules["server_app"].app)
    assert not (unsealed / "model.pt").exists()


def test_a_sealed_server_gets_no_model_from_unsealed_sites(sealed: Run, folder: Path, tmp_path: Path) -> None:
    with working_in(copy(tmp_path / "app", sealed=False)) as modules:
        client_app = modules["client_app"].app

    def deliver(app: ClientApp, message: Message, context: Context) -> Message:
        try:
            return app(message, context)
        except KeyError as error:  # It looks for arrays where the protocol says hello.
            return Message(Error(2, str(error)), reply_to=message)

    with working_in(folder) as modules, pytest.raises(RoundAborted, match="0 sites can take part"):
        LocalGrid(client_app, sealed.nodes, run_config=RUN_CONFIG, deliver=deliver).serve(modules["server_app"].app)


def test_without_a_store_every_node_refuses(sealed: Run, folder: Path) -> None:
    """As in Flower's own simulation, which configures partitions and nothing else."""
    run = Run()
    with working_in(folder) as modules, pytest.raises(RoundAborted):
        grid = LocalGrid(modules["client_app"].app, partitions(), run_config=RUN_CONFIG, deliver=run.deliver)
        grid.serve(modules["server_app"].app)
    with flower_task():
        codes = {code_of(Message(e.reply, dst_node_id=1, message_type="train")) for e in run.exchanges}
    assert codes == {RefusalCode.NOT_ENROLLED}
