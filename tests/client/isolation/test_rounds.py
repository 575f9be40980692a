"""Real rounds in which one site's study means no good: that site answers a fixed code, its incident stays with it, the
others go on, and so does the site, with a new process.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from support.flower import Nodes, Script, flower_task, header_for, make_federation, model, ordinary_app, refused_with
from support.strangers import landlocked, with_strangers

from fedseal.client.isolation.settings import IsolationPart
from fedseal.client.isolation.work import IsolatedWork
from fedseal.client.mod import DATA_KEY, STUDY_KEY, sealed_mod
from fedseal.client.site_config import Site
from fedseal.privacy.secagg.messages import RefusalCode, Stage
from fedseal.server.exchange import control_of

pytestmark = pytest.mark.skipif(not landlocked(), reason="needs a Linux with namespaces, Landlock and seccomp")

CONFIG = {"fedseal-task": "task:Task"}


@dataclass
class Site1:
    """A federation, and what its first site computes with."""

    nodes: Nodes
    work: IsolatedWork


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Site1]:
    """Site 1 has its study apart; sites 2 and 3 run an ordinary app."""
    for name in ("keys", "study", "data"):
        (tmp_path / name).mkdir()
    federation = make_federation(tmp_path / "keys", 3)
    site = SimpleNamespace(
        store=federation.sites[1],
        key_file=federation.sites[1],
        data=tmp_path / "data",
        study=SimpleNamespace(folder=tmp_path / "study", contract=SimpleNamespace(task="task:Task")),
        threads=1,
        isolation=IsolationPart(seconds=2),
        check_code=lambda: None,
    )
    ordinary = ordinary_app(Script(change={2: 1.0, 3: 2.0}))
    apart = ClientApp(mods=[sealed_mod])
    config = {1: {DATA_KEY: str(tmp_path / "data"), STUDY_KEY: str(tmp_path / "study")}}

    def app(message: Message, context: Context) -> Message:
        return (apart if context.node_config["number"] == 1 else ordinary)(message, context)

    with with_strangers(), flower_task():
        work = IsolatedWork(cast(Site, site))
        apart.train()(work.train)
        yield Site1(Nodes(federation, cast(ClientApp, app), run_config=CONFIG, config=config), work)
        work.close()


def masked(site: Site1, number: int, do: str) -> Any:
    """A round up to its vectors, and what site 1 answered there."""
    task: dict[str, ArrayRecord | ConfigRecord] = {"arrays": model(), "config": ConfigRecord({"do": do})}
    header = header_for(site.nodes.federation, task=task, run_config=CONFIG, release_seq=number)
    state, seen = site.nodes.run(header, Stage.MASK, task=task)
    return state, seen[Stage.MASK, 1][1]


def test_each_misdeed_is_a_fixed_code_and_the_site_goes_on(running: Site1) -> None:
    misdeeds = {
        "hang": "longer than 2 s",
        "crash": "ended with signal",
        "answer": "other arrays than it received",
        "object": "closed list",
        "memory": "where nothing is",
        "raise": "the study's code raised ValueError: a person's name",
    }
    for number, (deed, why) in enumerate(misdeeds.items(), start=1):
        state, reply = masked(running, number, deed)
        assert refused_with(state) == {1: RefusalCode.TASK}, deed
        assert list(reply.content) == ["fedseal"]
        assert b"person" not in (control_of(reply) or b"")
        assert why in running.nodes.incident(1), deed
    state, _ = masked(running, len(misdeeds) + 1, "behave")
    assert refused_with(state) == {}


def test_a_study_that_is_killed_from_outside_is_started_again_and_nobody_notices(running: Site1) -> None:
    numbers = []
    for number in (1, 2):
        state, _ = masked(running, number, "behave")
        assert refused_with(state) == {}
        numbers.append(running.work._study.start().number)
        (study,) = Path(f"/proc/{numbers[-1]}/task/{numbers[-1]}/children").read_text().split()
        os.kill(int(study), signal.SIGKILL)
    assert len(set(numbers)) == 2
    assert running.nodes.federation.incidents(1) == []
