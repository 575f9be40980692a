"""A whole run with planted values, keys and exceptions: none of them is in any log, in either form."""

import base64
import io
import logging
from pathlib import Path

import pytest
from support.flower import Script, make_federation
from support.keys import SERVER, key
from support.watched import Watched

from fedseal.operation.logs import log_to

# What a study's code sees and says; a float that nothing else prints.
PERSON, VALUE = "patient-4711-has-HIV", 0.7251943


def canaries() -> dict[str, str]:
    """What must not be found, by name."""
    seeds = {name: key(name).seed.reveal() for name in ("site-1", "site-2", "site-3")} | {
        "server": SERVER.seed.reveal()
    }
    found = {"person": PERSON, "value": str(VALUE)}
    for name, seed in seeds.items():
        found |= {f"{name}, hex": seed.hex(), f"{name}, base64": base64.b64encode(seed).decode()}
    return found


def said_in_a_run(folder: Path, form: str) -> str:
    """All that is logged by a server and its sites over a run in which one site's code fails."""
    script = Script(
        {1: VALUE, 2: VALUE, 3: VALUE},
        metrics={"score": {1: VALUE, 2: VALUE, 3: VALUE}},
        done=True,
        error={1: ValueError(f"{PERSON}: {VALUE}")},
    )
    federation = make_federation(folder, 3, epsilon=50.0)
    stream = io.StringIO()
    log_to(stream, form)  # type: ignore[arg-type]
    Watched(federation, script).train(rounds=2)
    # The text is kept where it belongs.
    assert any(PERSON in text for _, text in federation.incidents(1))
    return stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_value_key_or_exception_is_in_the_logs_of_a_run(tmp_path: Path, form: str) -> None:
    said = said_in_a_run(tmp_path, form)
    assert said.count("message.answered" if form == "json" else "answered a message") > 20
    assert "task" in said
    assert [name for name, canary in canaries().items() if canary in said] == []


def test_the_same_search_finds_what_a_node_logs_that_says_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedseal.client import mod
    from fedseal.operation.events import ConnectionLost
    from fedseal.operation.logs import say

    before = mod.refusal_for

    def talkative(error: BaseException) -> object:
        say(logging.getLogger("fedseal.node"), ConnectionLost(str(error)))
        return before(error)

    monkeypatch.setattr(mod, "refusal_for", talkative)
    said = said_in_a_run(tmp_path, "json")
    assert {name for name, canary in canaries().items() if canary in said} == {"person", "value"}
