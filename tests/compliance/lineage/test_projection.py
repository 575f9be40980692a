"""The tables follow from the log: the same from any copy, in any steps, and what they say is what the entries say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from support.histories import NOISY, Story, chapters, digest, memory, secret
from support.keys import SERVER

from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.fields import DropReason, DropStage, ReleaseName
from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.lineage.tables import EDGES, METADATA, NODES, PARTICIPATION
from fedseal.compliance.log.export import export
from fedseal.compliance.log.exported import ExportedLog
from fedseal.compliance.log.store import Log
from fedseal.errors import DataError, PeerError


@pytest.fixture
def tables() -> Iterator[Connection]:
    with memory().begin() as connection:
        yield connection


@pytest.fixture
def story() -> Iterator[Story]:
    with memory().begin() as connection:
        yield Story(connection, 3)


def asked(tables: Connection, story: Story) -> Questions:
    Projection(tables).update(story.log)
    return Questions(tables)


def three_rounds(story: Story) -> None:
    """Site 3 takes part in the second round alone."""
    story.begin("a", "m0", plan=NOISY, rounds=3)
    for number in (1, 2, 3):
        story.accept("a", number, f"data {number}")
    story.round("a", "m0", {1: "data 1", 2: "data 2"})
    story.round("a", "m1", {1: "data 1", 2: "data 2", 3: "data 3"})
    story.round("a", "m2", {1: "data 1", 2: "data 2"})
    story.finish("a", "m3", rounds=3)


def models(questions: Questions, cause: str) -> dict[str, tuple[int, bool, bool]]:
    """Digest by direct rounds, inherited, chosen."""
    found = questions.impact(cause, bounded=False).models
    return {one.model.digest: (one.direct_rounds, one.inherited, one.chosen) for one in found}


def test_a_thing_has_reached_the_models_after_the_round_it_went_into(tables: Connection, story: Story) -> None:
    three_rounds(story)
    questions = asked(tables, story)
    assert models(questions, secret("data 3")) == {digest("m2"): (1, False, False), digest("m3"): (1, False, False)}
    first = models(questions, secret("data 1"))
    assert {d: n for d, (n, _, _) in first.items()} == {digest("m1"): 1, digest("m2"): 2, digest("m3"): 3}
    found = questions.impact(secret("data 3"), bounded=False).models
    clean = {one.model.digest: one.clean.digest for one in found if one.clean}
    assert clean == {digest("m2"): digest("m1"), digest("m3"): digest("m1")}


def test_every_edge_names_an_entry_that_says_so(tables: Connection, story: Story) -> None:
    three_rounds(story)
    asked(tables, story)
    names = {row.id: row.digest for row in tables.execute(select(NODES))}
    for edge in tables.execute(select(EDGES)):
        said = story.log.leaf(edge.idx).decode()
        # The further end of an edge may be a round or a sum, whose id is made of what the entry says.
        assert names[edge.src] in said or names[edge.dst] in said or ":" in names[edge.src] + names[edge.dst]


def test_a_repeated_round_takes_the_place_of_the_earlier(tables: Connection, story: Story) -> None:
    """Round 2 ran, with site 3; the server crashed and ran it again, without."""
    story.begin("a", "m0")
    story.round("a", "m0", {1: "data 1", 2: "data 2"}, at=1)
    story.round("a", "m1", {1: "data 1", 2: "data 2", 3: "data 3"}, at=2)
    story.round("a", "m1", {1: "data 1", 2: "data 2"}, at=2)
    story.round("a", "m2", {1: "data 1", 2: "data 2"}, at=3)
    story.finish("a", "m3")
    questions = asked(tables, story)
    assert models(questions, secret("data 3")) == {}
    assert models(questions, secret("data 1"))[digest("m3")] == (3, False, False)
    # m1 was there before: the sum of the first try at round 2 did not lead to it.
    assert models(questions, secret("data 1"))[digest("m1")] == (1, False, False)


def test_a_run_that_goes_back_two_rounds_leaves_both(tables: Connection, story: Story) -> None:
    story.begin("a", "m0")
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.round("a", "m1", {3: "data 3"}, at=2)
    story.round("a", "lost 2", {3: "data 3"}, at=3)
    story.round("a", "m1", {1: "data 1"}, at=2)
    story.round("a", "m2", {1: "data 1"}, at=3)
    story.finish("a", "m3")
    questions = asked(tables, story)
    assert set(models(questions, secret("data 3"))) == {digest("lost 2")}
    assert set(models(questions, secret("data 1"))) == {digest(f"m{i}") for i in (1, 2, 3)} | {digest("lost 2")}


def test_a_round_that_changes_nothing_is_no_repetition(tables: Connection, story: Story) -> None:
    story.begin("a", "m0")
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.round("a", "m0", {2: "data 2"}, at=2)
    story.finish("a", "m1")
    assert digest("m1") in models(asked(tables, story), secret("data 1"))


def test_statistics_influence_every_later_round(tables: Connection, story: Story) -> None:
    story.begin("a", "m0")
    story.round("a", None, {3: "data 3"}, release=ReleaseName.MOMENTS, at=1)
    story.round("a", "m0", {1: "data 1"})
    story.round("a", "m1", {1: "data 1"})
    story.finish("a", "m2")
    found = models(asked(tables, story), secret("data 3"))
    assert found == {digest("m1"): (1, False, False), digest("m2"): (1, False, False)}


def test_what_guided_a_choice_has_influence_and_is_marked(tables: Connection, story: Story) -> None:
    story.begin("a", "m0", selected=(secret("tuning data"),))
    story.round("a", "m0", {1: "data 1"})
    story.finish("a", "m1")
    found = models(asked(tables, story), secret("tuning data"))
    assert found == {digest("m1"): (0, True, True)}


def test_a_choice_beside_a_direct_way_is_not_only_a_choice(tables: Connection, story: Story) -> None:
    story.begin("a", "m0", selected=(secret("data 1"),))
    story.round("a", "m0", {1: "data 1"})
    story.finish("a", "m1")
    assert models(asked(tables, story), secret("data 1")) == {digest("m1"): (1, False, False)}


def test_an_evaluation_may_have_decided_what_came_after_it(tables: Connection, story: Story) -> None:
    story.begin("a", "m0", rounds=2)
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.round("a", None, {2: "test data"}, release=ReleaseName.EVALUATION, at=1)
    story.round("a", "m1", {1: "data 1"}, at=2)
    story.round("a", None, {2: "last test data"}, release=ReleaseName.EVALUATION, at=2)
    story.finish("a", "m2", rounds=2)
    questions = asked(tables, story)
    assert models(questions, secret("test data")) == {digest("m2"): (0, True, True)}
    # All planned rounds ran and the last model is the last sum's: its own evaluation decided nothing.
    assert models(questions, secret("last test data")) == {}


def test_an_evaluation_decides_where_a_run_stops_early(tables: Connection, story: Story) -> None:
    story.begin("a", "m0", rounds=9)
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.round("a", None, {2: "test data"}, release=ReleaseName.EVALUATION, at=1)
    story.finish("a", "m1", rounds=1)
    assert models(asked(tables, story), secret("test data")) == {digest("m1"): (0, True, True)}


def test_a_chosen_earlier_model_does_not_descend_from_later_sums(tables: Connection, story: Story) -> None:
    story.begin("a", "m0", rounds=2)
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.round("a", "m1", {3: "data 3"}, at=2)
    story.round("a", None, {2: "test data"}, release=ReleaseName.EVALUATION, at=2)
    story.finish("a", "m1", rounds=2)
    questions = asked(tables, story)
    assert models(questions, secret("data 3")) == {}
    assert models(questions, secret("test data")) == {digest("m1"): (0, True, True)}


def test_a_site_without_a_registered_dataset_counts_by_its_population(tables: Connection, story: Story) -> None:
    story.begin("a", "m0")
    story.accept("a", 1, None)
    story.contribute("a", 1, 1, 1, None)
    story.sum("a", 1, 1, "m0", (1,))
    story.finish("a", "m1")
    questions = asked(tables, story)
    assert digest("m1") in models(questions, secret("population 1"))
    assert digest("m1") in models(questions, "site-1")


def test_a_vector_that_is_in_no_sum_has_no_influence(tables: Connection, story: Story) -> None:
    """Site 3 sent its vector at the first attempt, which failed, and was silent at the second."""
    story.begin("a", "m0")
    for number in (1, 2, 3):
        story.contribute("a", number, 1, 1, f"data {number}", attempt=0)
    for number in (1, 2):
        story.contribute("a", number, 1, 1, f"data {number}", attempt=1)
    story.sum("a", 1, 1, "m0", (1, 2), attempt=1)
    story.finish("a", "m1")
    questions = asked(tables, story)
    assert digest("m1") in models(questions, secret("data 1"))
    assert secret("data 3") not in {part.thing.digest for part in questions.show(digest("m1")).parts}
    statuses = {(row.site, row.attempt): row.status for row in tables.execute(select(PARTICIPATION))}
    assert statuses["site-3", 0] == statuses["site-1", 0] == "contributed"
    assert statuses["site-1", 1] == "summed"


def test_a_sites_word_that_comes_late_still_counts(tables: Connection, story: Story) -> None:
    """The server counts site 1 in, and its entry comes after the sum: until then as it accepted the run."""
    story.begin("a", "m0")
    story.accept("a", 1, "accepted data")
    story.sum("a", 1, 1, "m0", (1,))
    story.finish("a", "m1")
    questions = asked(tables, story)
    assert questions.show(digest("m1")).unsigned == 1
    assert digest("m1") in models(questions, secret("accepted data"))
    story.contribute("a", 1, 1, 1, "data 1")
    questions = asked(tables, story)
    assert questions.show(digest("m1")).unsigned == 0
    assert digest("m1") in models(questions, secret("data 1"))
    assert [row.status for row in tables.execute(select(PARTICIPATION))] == ["summed"]


@pytest.mark.parametrize("order", ["contributed first", "dropped first", "summed first"])
def test_a_site_that_falls_silent_after_its_vector_arrived_is_in_the_sum(
    tables: Connection, story: Story, order: str
) -> None:
    story.begin("a", "m0")
    gone = bodies.Dropped(
        release=ReleaseName.UPDATE,
        round=1,
        sequence=1,
        attempt=0,
        site=3,
        stage=DropStage.UNMASK,
        reason=DropReason.SILENT,
    )
    steps = {
        "contributed": lambda: story.contribute("a", 3, 1, 1, "data 3"),
        "dropped": lambda: story.server(gone, "a"),
        "summed": lambda: story.sum("a", 1, 1, "m0", (3,)),
    }
    first = order.partition(" ")[0]
    for name in sorted(steps, key=lambda name: (name != first, name)):
        steps[name]()
    story.finish("a", "m1")
    assert digest("m1") in models(asked(tables, story), secret("data 3"))
    (row,) = tables.execute(select(PARTICIPATION))
    assert (row.status, row.dataset, row.reason) == ("summed", secret("data 3"), "unmask: silent")
    assert "round.contributed/v1" in story.log.leaf(row.idx).decode()


def test_a_site_that_was_dropped_and_sent_nothing_has_no_influence(tables: Connection, story: Story) -> None:
    story.begin("a", "m0")
    story.accept("a", 3, "data 3")
    gone = {"round": 1, "sequence": 1, "attempt": 0, "site": 3, "stage": "mask", "reason": "silent"}
    story.server(bodies.Dropped.model_validate({"release": "update", **gone}), "a")
    story.round("a", "m0", {1: "data 1", 2: "data 2"}, at=1)
    story.finish("a", "m1")
    assert models(asked(tables, story), secret("data 3")) == {}


def test_a_version_that_takes_anothers_place_is_clean_of_it(tables: Connection, story: Story) -> None:
    story.site(1, subjects.DatasetSuperseded(dataset=secret("old"), by=secret("new")))
    story.begin("a", "m0")
    story.round("a", "m0", {1: "new"})
    story.finish("a", "m1")
    questions = asked(tables, story)
    assert models(questions, secret("old")) == {}
    (notice,) = questions.impact(secret("old"), bounded=False).notices
    assert (notice.notice, notice.reason, notice.by) == ("superseded", None, secret("new"))


# The same from everywhere


@pytest.mark.parametrize("stride", [1, 3, 4096])
def test_the_tables_are_the_same_however_they_were_made(tables: Connection, story: Story, stride: int) -> None:
    growing = Projection(tables)
    for _ in chapters(story):
        growing.update(story.log, stride=stride)
    growing.update(story.log, stride=stride)
    with memory().begin() as other:
        fresh = Projection(other)
        assert fresh.update(story.log) == story.log.size == growing.size
        assert growing.digest() == fresh.digest()
        before = fresh.digest()
        fresh.rebuild(story.log)
        assert fresh.digest() == before
        # The twin: one row more and the digest is another.
        other.execute(EDGES.insert().values(src=1, dst=2, kind=77, idx=0))
        assert fresh.digest() != before


def test_tables_of_another_history_are_made_anew(tables: Connection) -> None:
    with memory().begin() as one, memory().begin() as other:
        first, second = Story(one, 2), Story(other, 2)
        first.register("m0")
        second.register("another")
        projection = Projection(tables)
        projection.update(first.log)
        second.begin("a", "m0")
        projection.update(second.log)
        again = tables.execute(select(NODES.c.digest)).scalars().all()
        assert digest("another") in again
        with memory().begin() as fresh:
            clean = Projection(fresh)
            clean.update(second.log)
            assert clean.digest() == projection.digest()


def test_an_entry_that_cannot_be_read_leaves_the_tables_as_they_were(tables: Connection, story: Story) -> None:
    story.register("m0")
    projection = Projection(tables)
    projection.update(story.log)
    before = projection.digest()
    Log.append(story.log, [b'{"v":1}'])
    with pytest.raises(PeerError), tables.begin_nested():
        projection.update(story.log)
    assert projection.digest() == before


def test_entries_that_are_not_those_of_the_root_are_refused(tables: Connection, story: Story, tmp_path: Path) -> None:
    for _ in chapters(story):
        pass
    story.log.sign_checkpoint(SERVER)
    export(story.log, tmp_path)
    Projection(tables).update(ExportedLog(tmp_path))
    before = Projection(tables).digest()
    (bundle,) = (path for path in (tmp_path / "tile" / "entries").rglob("*") if path.is_file())
    whole = bundle.read_bytes()
    # Still an entry that can be read, of another site's data.
    changed = whole.replace(secret("data 1").encode(), secret("data 2").encode())
    assert changed != whole
    bundle.write_bytes(changed)
    with pytest.raises(DataError, match="not those of its root"), memory().begin() as fresh:
        Projection(fresh).update(ExportedLog(tmp_path))
    bundle.write_bytes(whole)
    with memory().begin() as fresh:
        Projection(fresh).update(ExportedLog(tmp_path))
        assert Projection(fresh).digest() == before


def test_every_table_has_the_index_of_an_entry(tables: Connection) -> None:
    for table in METADATA.sorted_tables:
        assert {"idx", "first_idx", "size"} & {column.name for column in table.columns}, table.name
