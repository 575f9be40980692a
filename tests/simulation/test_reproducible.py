"""The same seed gives the same bytes: whatever the keys, the order of messages, the process and what runs beside it."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Message
from support.studies import TINY, tiny

from fedseal.privacy.store import SiteStore
from fedseal.simulation.grid import LocalGrid
from fedseal.simulation.result import Result
from fedseal.simulation.simulate import Finished, Options, Progress, simulate
from fedseal.simulation.training import Trained
from fedseal.study import Study

COMMAND = [sys.executable, "-c", "from fedseal.cli.main import main; main()"]


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def result(folder: Path) -> Result:
    return Result.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))


def metrics(folder: Path) -> pd.DataFrame:
    """All scores of the run's own model."""
    table = pd.read_parquet(folder / "metrics.parquet")
    return table[table["model"] == "federated"].drop(columns=["run"]).reset_index(drop=True)


def run_of(folder: Path, progress: Progress, **options: Any) -> Finished:
    return simulate(tiny(), Options(baselines=False, **options), folder, progress)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Finished:
    """The study once more, with nothing compared."""
    return run_of(tmp_path_factory.mktemp("again"), progress)


# The seed fixes it all.


def test_the_same_seed_gives_the_same_model_scores_and_digest(private_run: Finished, again: Finished) -> None:
    """Also if only one of the two is compared with anything."""
    assert model_bytes(private_run.folder) == model_bytes(again.folder)
    one, two = result(private_run.folder), result(again.folder)
    assert one.digest == two.digest
    assert one.final == two.final
    assert [r.oracle for r in one.rounds] == [r.oracle for r in two.rounds]
    assert one.sites == two.sites
    assert one.privacy == two.privacy
    pd.testing.assert_frame_equal(metrics(private_run.folder), metrics(again.folder), check_exact=True)


def test_two_runs_have_names_of_their_own(private_run: Finished, again: Finished) -> None:
    assert private_run.folder.name != again.folder.name
    assert result(private_run.folder).run == private_run.folder.name


@pytest.mark.slow
def test_another_seed_gives_another_federation(again: Finished, tmp_path: Path, progress: Progress) -> None:
    other = run_of(tmp_path, progress, seed=6)
    assert model_bytes(other.folder) != model_bytes(again.folder)
    one, two = result(again.folder), result(other.folder)
    assert one.digest != two.digest
    assert one.sites != two.sites
    assert (one.seed, two.seed) == (5, 6)


def test_keys_come_from_the_operating_system_and_change_nothing(private_run: Finished, again: Finished) -> None:
    for name in result(again.folder).sites:
        one, two = (SiteStore.open(run.folder / "federation" / f"{name}.sqlite") for run in (private_run, again))
        assert one.identity.key.public != two.identity.key.public
        assert one.identity.roster.root_key != two.identity.roster.root_key
        assert one.identity.seed == two.identity.seed == 5
    assert model_bytes(private_run.folder) == model_bytes(again.folder)


def test_noise_is_in_the_model(private_run: Finished) -> None:
    """The same seed and persons without a plan give another model: the private one is not the plain one."""
    plain = private_run.findings.plain
    assert plain is not None
    for name, array in private_run.findings.main.model.items():
        assert not np.array_equal(array, plain.model[name])
    assert private_run.findings.main.rounds[-1].epsilon is not None
    assert plain.rounds[-1].epsilon is None


def test_a_smaller_promise_means_more_noise(private_run: Finished) -> None:
    """Distance to the model without noise, at epsilon 8 and at epsilon 2; the draws are the same."""
    plain, near = private_run.findings.plain, private_run.findings.main
    far = private_run.findings.other_epsilons[2.0]
    assert plain is not None

    def distance(trained: Trained, to: Trained) -> float:
        return sum(float(np.square(a - to.model[n]).sum()) for n, a in trained.model.items())

    assert distance(far, plain) > distance(near, plain)


# What must not matter.


class Shuffled(LocalGrid):
    """Delivers each batch of messages in another order."""

    order = random.Random(77)
    moved = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        before = [m.metadata.dst_node_id for m in batch]
        self.order.shuffle(batch)
        type(self).moved += before != [m.metadata.dst_node_id for m in batch]
        return super().push_messages(batch)


@pytest.mark.slow
def test_the_order_in_which_sites_are_asked_changes_nothing(
    again: Finished, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedseal.simulation.engine.processes.LocalGrid", Shuffled)
    other = run_of(tmp_path, progress)
    assert Shuffled.moved > 5
    assert model_bytes(other.folder) == model_bytes(again.folder)
    assert result(other.folder).digest == result(again.folder).digest


@pytest.mark.slow
def test_global_generators_change_nothing(again: Finished, tmp_path: Path, progress: Progress) -> None:
    random.seed(123)
    torch.manual_seed(123)
    before, threads = random.getstate(), torch.get_num_threads()
    other = run_of(tmp_path, progress)
    assert model_bytes(other.folder) == model_bytes(again.folder)
    assert (random.getstate(), torch.get_num_threads()) == (before, threads)


FROZEN = """
    def model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        model[0].requires_grad_(False)
        return model
"""


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["none", "local"])
def test_a_frozen_layer_that_model_draws_is_fixed_by_the_seed_too(
    plan: str, tmp_path: Path, progress: Progress
) -> None:
    """It is no trainable parameter, so nobody sends it: every module that model() makes has to draw the same one."""
    (tmp_path / "pyproject.toml").write_text((TINY / "pyproject.toml").read_text())
    text = (TINY / "task.py").read_text()
    before = "    def model(self) -> nn.Module:\n        return nn.Linear(3, 1)\n"
    assert before in text
    (tmp_path / "task.py").write_text(text.replace(before, FROZEN))
    study = Study(tmp_path, tiny(privacy={"plan": plan}).contract)
    digests = []
    for generator_seed in (1, 2):
        torch.manual_seed(generator_seed)
        finished = simulate(study, Options(baselines=False), tmp_path / "out", progress)
        digests.append(result(finished.folder).digest)
    assert digests[0] == digests[1]


def started(out: Path, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "simulate", str(TINY), "--no-baselines", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_two_processes_at_once_do_not_disturb_each_other(again: Finished, tmp_path: Path) -> None:
    """One folder for runs, two hash seeds, two numbers of threads."""
    both = [started(tmp_path, {"PYTHONHASHSEED": str(i), "OMP_NUM_THREADS": str(i)}) for i in (1, 2)]
    ended = [(process.communicate(timeout=120), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 2
    assert not any(folder.name.startswith(".") for folder in folders)
    assert model_bytes(folders[0]) == model_bytes(folders[1]) == model_bytes(again.folder)
    assert {result(f).digest for f in folders} == {result(again.folder).digest}
    assert {result(f).model_sha256 for f in folders} == {hashlib.sha256(model_bytes(again.folder)).hexdigest()}
