"""Two implementations that share no code send the same bytes: tests/vectors/sa1/, the second one, and fedseal."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import sa1
from reference.cases import CASES, Case
from reference.make import FOLDER, Transcript, drawing, dump, header, play, record, roster, signing_key, values
from reference.wire import encode as plain_encode

from fedseal.privacy.quantize import BoundedUpdate
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg import client, server
from fedseal.privacy.secagg.client_states import Idle, MaskedUpdate, Ready, State, Vector
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.masks import ring_dtype
from fedseal.privacy.secagg.server_states import Aborted, Finished, MaskedReply
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode

HERE = Path(__file__).resolve().parent
BY_NAME = {case.name: case for case in CASES}
# Of the five cases on a ring of 257 sites one; the others cost seconds each.
SLOW = {case.name for case in CASES if case.slow or case.name.startswith("ring257")} - {"ring257-ends-advertise"}
MARKED = [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.name in SLOW else []) for case in CASES]


def stored(case: Case) -> str:
    return (FOLDER / f"{case.name}.json").read_text(encoding="utf-8")


def play_fedseal(case: Case) -> Transcript:
    """The round, by fedseal's state machines on both sides, from the same draws."""
    listed = decode(plain_encode(roster(case)), Roster)
    head = decode(plain_encode(header(case)), Header)
    found, inputs, states = Transcript(), values(case), dict[int, State]()
    sites = {s: client.Site(s, secret_key(case, s), listed, {}, drawing(case, s)) for s in case.cohort}
    step = server.open_round(head, listed, secret_key(case, 0))
    while not isinstance(step.state, Finished | Aborted):
        state: Any = step.state
        stage = server.stage_of(state)
        for s, request in step.requests.items():
            found.requests[stage][s] = encode(request)
            if case.is_silent(stage.label, s):
                continue
            answer = client.step(sites[s], states.get(s, Idle(0)), request)
            if isinstance(answer.state, Ready):
                answer = client.step(sites[s], answer.state, vector_of(head, inputs[s]))
            states[s], reply = answer.state, sent(answer.reply)
            if isinstance(reply, MaskedReply):
                found.vectors[s] = [int(word) for word in reply.vector]
            found.replies[stage][s] = encode(getattr(reply, "message", reply))
            if s not in case.lost.get(stage.label, ()):
                state = server.receive(state, s, reply)
        if server.stage_of(state).label == "share":
            found.result["graph"] = graph_of(state, case)
        step = server.close(state)
    end = step.state
    if isinstance(end, Aborted):
        found.result["ended"] = {"stage": end.stage.label, "left": end.remaining}
    else:
        total = end.total.vector
        total = total.view("<i4" if total.dtype.itemsize == 4 else "<i8")
        found.result |= {"survivors": list(end.survivors), "sum": [int(v) for v in total]}
    return found


def sent(reply: Any) -> Any:
    """A site's reply as the server gets it."""
    return MaskedReply(reply.message, reply.vector) if isinstance(reply, MaskedUpdate) else reply


def secret_key(case: Case, site: int) -> SigningKey:
    return SigningKey(Secret(signing_key(case, site)))


def vector_of(head: Header, numbers: list[int]) -> Vector:
    words: Any = np.array(numbers, dtype=np.int64).astype(ring_dtype(head.layout.ring_bits))
    return Vector(BoundedUpdate(head.layout, words), Receipt(head.digest(), head.plan, 1))


def graph_of(state: Any, case: Case) -> dict[str, Any]:
    graph = state.graph
    degree = len(graph.neighbours(state.members[0]))
    out = {"session": state.session.hex(), "degree": degree, "threshold": graph.threshold}
    return out if case.dropouts is None else out | {"ring": list(graph.order)}


def content(case: Case, found: Transcript) -> dict[str, Any]:
    """As it would be read back from a file."""
    read: dict[str, Any] = json.loads(dump(record(case, found)))
    return read


@pytest.mark.parametrize("case", MARKED)
def test_the_second_implementation_makes_the_file(case: Case) -> None:
    assert dump(record(case, play(case))) == stored(case)


@pytest.mark.parametrize("case", MARKED)
def test_fedseal_sends_the_same_bytes(case: Case) -> None:
    expected, found = json.loads(stored(case)), content(case, play_fedseal(case))
    differing = [key for key in expected | found if expected.get(key) != found.get(key)]
    assert not differing


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_a_file_is_whole(case: Case) -> None:
    """What can be seen without an implementation: the sum is that of the survivors, what is shown has its digest."""
    found = json.loads(stored(case))
    assert found["name"] == case.name
    assert found["header_hash"] == sa1.sha(plain_encode(header(case))).hex()
    if "sum" in found:
        chosen = [found["values"][str(s)] for s in found["survivors"]]
        assert found["sum"] == [sum(column) for column in zip(*chosen, strict=True)]
    for stage in sa1.STAGES:
        for site in case.shown:
            for direction, way in (("request", "requests"), ("reply", "replies")):
                shown = found.get(f"{stage}, site {site}", {}).get(direction)
                listed = found[f"{way} at {stage}"].get(str(site))
                assert (shown is None) == (listed is None)
                assert shown is None or sa1.sha(bytes.fromhex(shown)).hex().startswith(listed)


def test_there_are_enough_and_no_others() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BY_NAME)
    assert len(CASES) >= 20
    assert sum(not case.slow for case in CASES) >= 16
    assert {len(case.cohort) for case in CASES} >= {2, 3, 5, 10, 20, 50, 100, 256, 257, 300}
    assert {stage for case in CASES for stage in case.silent} == set(sa1.STAGES)
    assert {case.ring_bits for case in CASES} >= {32, 64}
    ends = [json.loads(stored(case)).get("ended", {}).get("stage") for case in CASES]
    assert set(ends) - {None} == set(sa1.STAGES)


def test_the_second_implementation_is_short_and_alone() -> None:
    """Under 400 lines that are not blank, and none that imports anything but the standard library and cryptography."""
    sources = [(HERE / name).read_text(encoding="utf-8") for name in ("sa1.py", "wire.py")]
    assert sum(bool(line.strip()) for source in sources for line in source.splitlines()) < 400
    for source in [*sources, (HERE / "make.py").read_text(encoding="utf-8"), (HERE / "cases.py").read_text("utf-8")]:
        assert not imported(source) & {"fedseal", "numpy", "support", "importlib"}
    assert imported("".join(sources)) <= {"reference", "cryptography", *ALLOWED}


ALLOWED = {"collections", "fractions", "hashlib", "hmac", "io", "math", "struct", "typing"}


def imported(source: str) -> set[str]:
    """The first parts of the names of all modules that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_an_import_would_be_noticed() -> None:
    assert imported("if 1:\n    from fedseal.wire import encode\nimport numpy as np\n") == {"fedseal", "numpy"}


@pytest.mark.parametrize("key", ["values", "requests at mask", "replies at share", "replies at unmask", "sum", "graph"])
def test_a_flipped_bit_in_a_file_is_noticed(key: str) -> None:
    case = BY_NAME["n5-share"]
    expected, found = json.loads(stored(case)), content(case, play_fedseal(case))
    assert expected == found
    text = json.dumps(expected[key])
    at = max(i for i, letter in enumerate(text) if letter in "02468")
    expected[key] = json.loads(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
    assert expected != found
    assert [k for k in found if expected[k] != found[k]] == [key]


def bent_derive(label: str) -> Callable[..., bytes]:
    real = sa1.derive
    return lambda secret, salt, name, *sites: real(secret, salt, name + "'" * (name == label), *sites)


def bent_labelled(label: str) -> Callable[..., bytes]:
    real = sa1.labelled
    return lambda name, data: real(name + "'" * (name == label), data)


@pytest.mark.parametrize(
    ("function", "label", "stage"),
    [
        ("derive", "maskkey", "advertise"),
        ("labelled", "com-b", "advertise"),
        ("labelled", "sid", "share"),
        ("derive", "share", "share"),
        ("labelled", "share-commitment", "share"),
        ("derive", "pair", "mask"),
        ("derive", "self", "mask"),
        ("labelled", "survivors", "consistency"),
    ],
)
def test_a_changed_label_is_noticed(monkeypatch: pytest.MonkeyPatch, function: str, label: str, stage: str) -> None:
    """Two sides that make the same mistake still find the sum, but the first message it touches gives them away."""
    case = BY_NAME["n3-mask"]
    monkeypatch.setattr(sa1, function, (bent_derive if function == "derive" else bent_labelled)(label))
    expected, found = json.loads(stored(case)), content(case, play(case))
    assert found["sum"] == expected["sum"]
    differing = [s for s in sa1.STAGES if expected[f"replies at {s}"] != found[f"replies at {s}"]]
    assert differing[0] == stage
