"""The picture is a well-formed SVG in which nothing overlaps; PROV-JSON is read by somebody else's program."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest
from support.histories import NOISY, Story, digest, memory, run_of, secret

from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.fields import Alias, CodeKind, Meaning, Role
from fedseal.compliance.lineage.graph import LineageGraph
from fedseal.compliance.lineage.kinds import NodeKind
from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.prov import prov_json
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.lineage.svg import draw

SVG = "{http://www.w3.org/2000/svg}"


def register(story: Story, number: int, data: str, parents: tuple[str, ...] = ()) -> None:
    story.site(
        number,
        subjects.DatasetRegistered.model_validate(
            {
                "dataset": secret(data),
                "data_schema": digest("schema"),
                "population": secret(f"population {number}"),
                "unit": "person",
                "special_categories": (),
                "purpose": "research",
                "legal_basis": ("6-1-e",),
                "retention_until": "2027-01-01",
                "preprocessing": digest("preprocessing"),
                "parents": tuple(secret(name) for name in parents),
            }
        ),
    )


def two_runs(story: Story) -> None:
    """All sites train a; sites 1 and 2 go on from there with b, site 1 with new data."""
    story.server(bodies.CodeRegistered(code=digest("code"), kind=CodeKind.STUDY))
    for number in story.sites:
        register(story, number, f"data {number}")
    story.register("m0")
    story.begin("a", "m0", plan=NOISY)
    for number, start in ((1, "m0"), (2, "a1"), (3, "a2")):
        story.round("a", start, {site: f"data {site}" for site in story.sites}, at=number)
    story.finish("a", "a3")
    register(story, 1, "data 1b", ("data 1",))
    story.begin("b", "a3", plan=NOISY, selected=(secret("tuning"),))
    story.round("b", "a3", {1: "data 1b", 2: "data 2"})
    story.finish("b", "b1")
    yes = subjects.Signature(model=digest("b1"), alias=Alias.CANDIDATE, meaning=Meaning.APPROVED, role=Role.APPROVER)
    story.person("anna", yes)


@pytest.fixture(params=[3, 12])
def questions(request: pytest.FixtureRequest) -> Iterator[Questions]:
    with memory().begin() as connection, memory().begin() as tables:
        story = Story(connection, request.param)
        two_runs(story)
        Projection(tables).update(story.log)
        yield Questions(tables)


def named(graph: LineageGraph) -> set[tuple[str, str, bool]]:
    """Edges by the ids at their ends."""
    return {(graph.nodes[e.source].digest, graph.nodes[e.target].digest, e.chosen) for e in graph.edges}


def test_a_run_is_one_node_with_all_that_happened_in_it(questions: Questions) -> None:
    graph = questions.graph(digest("b1"))
    models = [node.digest for node in graph.nodes if node.kind == NodeKind.MODEL]
    # Neither a1 nor a2.
    assert models == [digest("m0"), digest("a3"), digest("b1")]
    edges = named(graph)
    runs = run_of("a"), run_of("b")
    assert {(digest("m0"), runs[0], False), (runs[0], digest("a3"), False), (digest("a3"), runs[1], False)} <= edges
    assert {(runs[1], digest("b1"), False), (secret("tuning"), runs[1], True)} <= edges
    assert {(secret("data 1"), secret("data 1b"), False), (secret("data 1b"), runs[1], False)} <= edges
    # What goes through a run does not also go beside it.
    assert (digest("m0"), digest("a3"), False) not in edges
    assert (secret("data 1"), runs[1], False) not in edges
    notes = {node.digest: node.note for node in graph.nodes}
    assert notes[runs[0]] == "study-a, 3 rounds, plan local"


def test_boxes_of_the_picture_do_not_overlap_and_lines_end_at_them(questions: Questions) -> None:
    graph = questions.graph(digest("b1"))
    root = ET.fromstring(draw(graph))  # noqa: S314
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    sides = ("x", "y", "width", "height")
    boxes = [tuple(int(rect.attrib[name]) for name in sides) for rect in root.iter(f"{SVG}rect") if "x" in rect.attrib]
    for number, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        for other_x, other_y, _, _ in boxes[number + 1 :]:
            assert abs(x - other_x) >= w or abs(y - other_y) >= h
    left, right = {(x, y + h // 2) for x, y, _, h in boxes}, {(x + w, y + h // 2) for x, y, w, h in boxes}
    paths = [path for path in root.iter(f"{SVG}path") if "edge" in path.attrib["class"].split()]
    for path in paths:
        numbers = [int(n) for n in re.findall(r"-?\d+", path.attrib["d"])]
        assert (numbers[0], numbers[1]) in right
        assert (numbers[-2], numbers[-1]) in left
    assert sum("choice" in path.attrib["class"] for path in paths) == 1
    texts = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert run_of("a")[:12] in texts
    # Twelve sites' data does not become twelve boxes.
    assert len(boxes) < 20
    whole = "".join(root.itertext())
    assert all(node.digest in whole for node in graph.nodes if node.kind not in ("site", "population"))


def test_the_picture_is_the_same_every_time(questions: Questions) -> None:
    assert draw(questions.graph(digest("b1"))) == draw(questions.graph(digest("b1")))


def test_a_model_without_a_past_has_a_picture(questions: Questions) -> None:
    root = ET.fromstring(draw(questions.graph(digest("m0"))))  # noqa: S314
    assert len(list(root.iter(f"{SVG}rect"))) == 2


def test_prov_json_is_read_by_the_package_prov(questions: Questions) -> None:
    model = pytest.importorskip("prov.model")
    graph = questions.graph(digest("b1"))
    text = prov_json(graph, questions.approvals(digest("b1")))
    document = model.ProvDocument.deserialize(content=text, format="json")
    entities = {str(record.identifier) for record in document.get_records(model.ProvEntity)}
    assert len(entities) == sum(node.kind not in ("run", "site") for node in graph.nodes)
    activities = list(document.get_records(model.ProvActivity))
    assert len(activities) == 2 + 1
    made = list(document.get_records(model.ProvGeneration))
    assert len(made) == 2
    assert len(list(document.get_records(model.ProvDelegation))) == 1
    # Written out again and read again it is the same document.
    again = io.StringIO()
    document.serialize(again, format="json")
    assert model.ProvDocument.deserialize(content=again.getvalue(), format="json") == document
    # No relation names what the document does not describe.
    known = {str(record.identifier) for record in document.get_records(model.ProvElement)}
    for record in document.get_records(model.ProvRelation):
        assert {str(value) for _, value in record.formal_attributes[:2] if value is not None} <= known
