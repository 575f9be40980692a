"""What the pages of evidence show: read from a whole log, checked by another program, and wrong where the log is."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from support.evidence import BARRED, FIRST, RULES, SECOND, USED, WAITING, WEAK, evidence_at
from support.histories import secret
from support.keys import SERVER, make_roster, signed
from support.registry import rules as rules_of
from support.stores import backup_of

from fedseal.compliance.events.registry import EVENTS
from fedseal.errors import ConfigError
from fedseal.server.console.evidence.drift import read_drift
from fedseal.server.console.evidence.lineages import read_impact, read_lineage
from fedseal.server.console.evidence.logs import PAGE, Wanted, leaf_and_proof, list_entries, read_entry
from fedseal.server.console.evidence.models import read_bundle_page, read_models
from fedseal.server.console.evidence.place import Evidence, NotBegun, View
from fedseal.server.console.evidence.timeline import Point, timeline
from fedseal.server.console.evidence.witnessed import copy_of, extends, policy_text, read_checkpoint_page
from fedseal.server.console.evidence.words import MEANINGS
from fedseal.server.store import ServerStore
from fedseal_verify.cli import main as verify


@pytest.fixture(scope="module")
def view(chronicle: Path) -> Iterator[View]:
    with evidence_at(chronicle).opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def evidence(chronicle: Path) -> Evidence:
    return evidence_at(chronicle)


def test_every_type_has_words() -> None:
    assert {name.partition("/")[0] for name in EVENTS} == set(MEANINGS)


def test_pages_of_the_list_are_the_whole_log_once(view: View) -> None:
    seen: list[int] = []
    before: int | None = None
    while True:
        page = list_entries(view, Wanted(), before)
        assert len(page.lines) <= PAGE
        seen += [line.index for line in page.lines]
        if page.older is None:
            break
        before = page.older
    assert seen == list(range(view.log.size - 1, -1, -1))
    assert list_entries(view, Wanted(), PAGE).newer == min(2 * PAGE, view.log.size)


def test_a_narrowed_list_has_what_was_asked_for_and_all_of_it(view: View) -> None:
    everything = list_entries(view, Wanted(), None).lines + list_entries(view, Wanted(), view.log.size - PAGE).lines
    for wanted in (
        Wanted(type="dp.spent"),
        Wanted(org="site-2"),
        Wanted(run=SECOND),
        Wanted("dp.spent", "site-1", FIRST),
    ):
        found = list_entries(view, wanted)
        assert found.older is None
        assert found.lines
        assert found.lines == tuple(
            one
            for one in everything
            if wanted.type in ("", one.type) and wanted.org in ("", one.org) and wanted.run in ("", one.run)
        )
    assert list_entries(view, Wanted(org="nobody")).lines == ()


def test_every_entry_is_signed_and_proven(view: View) -> None:
    pages = [read_entry(view, index) for index in range(view.log.size)]
    assert all(page.holds and page.fields and not page.wrong for page in pages)
    proven = [page.proven for page in pages]
    assert all(one is not None and one.holds for one in proven)
    final = view.final_size()
    assert [one is not None and one.final for one in proven] == [index < final for index in range(view.log.size)]
    assert {page.entry.org for page in pages} == {"server", "site-1", "site-2", "site-3"}
    with pytest.raises(ConfigError, match="none with the index"):
        read_entry(view, view.log.size)


@pytest.mark.parametrize("index", [0, 44, 96])
def test_another_program_takes_a_proof(view: View, tmp_path: Path, index: int) -> None:
    leaf, proof = leaf_and_proof(view, index)
    files = {"x.json": leaf, "x.tlog-proof": str(proof).encode(), "policy.txt": policy_text(view).encode()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = [
        str(tmp_path / "x.tlog-proof"),
        "--leaf",
        str(tmp_path / "x.json"),
        "--policy",
        str(tmp_path / "policy.txt"),
    ]
    assert verify(["proof", *command]) == 0
    (tmp_path / "x.json").write_bytes(leaf.replace(b"server", b"sorver", 1).replace(b"site-", b"cite-", 1))
    assert verify(["proof", *command]) == 1


def test_another_program_takes_the_copy(view: View, tmp_path: Path) -> None:
    raw = b"".join(copy_of(view))
    assert raw == b"".join(copy_of(view))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert all(name.startswith("log/") and ".." not in name for name in archive.namelist())
        archive.extractall(tmp_path)
    note = read_checkpoint_page(view, view.final_size()).note
    (tmp_path / "kept.note").write_text(note, encoding="utf-8")
    # The newest entry is not cosigned yet: 3 says that the quorum is missing, and nothing worse.
    assert verify(["log", str(tmp_path / "log"), "--against", str(tmp_path / "kept.note")]) == 3


def test_a_checkpoint_says_who_has_cosigned(view: View) -> None:
    newest, final = read_checkpoint_page(view), read_checkpoint_page(view, view.final_size())
    assert (newest.final, newest.cosigned, newest.needed) == (False, 0, 2)
    assert [(one.site, one.cosigned, bool(one.time)) for one in final.witnesses] == [
        ("site-1", True, True),
        ("site-2", True, True),
        ("site-3", False, False),
    ]
    assert final.final
    assert [line.final for line in newest.earlier[:2]] == [False, True]
    with pytest.raises(ConfigError, match="no such checkpoint"):
        read_checkpoint_page(view, 10**6)


def test_the_log_extends_what_was_seen_and_nothing_else(view: View) -> None:
    for size in (0, 1, 7, 64, view.log.size):
        found = extends(view, f" {size} ", "sha256:" + view.log.root(size).hex())
        assert found.holds
        assert not extends(view, str(size), view.log.root(size + 1 if size < 60 else 3).hex()).holds
    for wrong, root in (("1", "00"), ("x", 64 * "0"), ("-1", 64 * "0"), ("1", 64 * "g"), (str(10**6), 64 * "0")):
        with pytest.raises(ConfigError):
            extends(view, wrong, root)


def test_a_changed_database_shows(chronicle: Path, tmp_path: Path) -> None:
    """An entry that is none, and one that says something else: each is told where it stands, and the rest is there."""
    store = tmp_path / "server.sqlite"
    store.write_bytes(backup_of(chronicle / "server.sqlite"))
    engine = create_engine(f"sqlite:///{store}")
    with engine.begin() as connection:
        leaves = connection.execute(text("SELECT position, leaf FROM log_leaves ORDER BY position")).all()
        broken, other = leaves[96], leaves[86]
        put = text("UPDATE log_leaves SET leaf = :leaf WHERE position = :at")
        connection.execute(put, {"leaf": b'{"<script>": "\\u0000"}', "at": broken.position})
        changed = bytes(other.leaf).replace(b'"rounds":2', b'"rounds":3')
        assert changed != other.leaf
        connection.execute(put, {"leaf": changed, "at": other.position})
    engine.dispose()
    with evidence_at(tmp_path).opened() as view:
        lines = {line.index: line for line in list_entries(view, Wanted(type="run.finished")).lines}
        assert lines[96].wrong
        page, forged = read_entry(view, 96), read_entry(view, 86)
        assert page.wrong
        assert page.proven is not None
        assert not page.proven.holds
        assert not forged.holds
        assert "DOES NOT HOLD" in forged.author
        assert forged.proven is not None
        assert not forged.proven.holds


def test_models_are_a_replay_of_the_log(evidence: Evidence, view: View) -> None:
    page = read_models(view, evidence.asked())
    assert {one.alias: one.bundle for one in page.aliases} == {
        "candidate": USED.digest,
        "validated": None,
        "canary": None,
        "production": USED.digest,
    }
    assert {one.bundle: one.status for one in page.bundles} == {
        USED.digest: "active",
        BARRED.digest: "suspended",
        WAITING.digest: "active",
        WEAK.digest: "active",
    }
    assert [one.open for one in page.aliases] == [True, False, False, True]


def test_a_bundles_gates_are_computed_again(evidence: Evidence, view: View) -> None:
    rules, names = evidence.asked(), evidence.names()
    used = read_bundle_page(evidence, view, USED.digest, rules, names)
    assert [(m.name, m.low, m.high) for m in used.measures][:2] == [
        ("auc", "0.898", "0.922"),
        ("auc~women", "0.85", "0.89"),
    ]
    assert all(not way.reasons for way in used.ways)
    assert [(move.said, move.problems) for move in used.moves] == [("became candidate", ()), ("became production", ())]
    assert {one.person for one in used.signatures if one.org == "server"} == {"Ana <b>Muster</b>", "Ben <b>Muster</b>"}
    stricter = rules_of(RULES.replace("at_least = 0.8", "at_least = 0.95"))
    moves = read_bundle_page(evidence, view, USED.digest, stricter, {}).moves
    assert [(move.promotion, move.problems) for move in moves] == [(False, ())] * 2
    assert all(move.said.endswith("by other rules than today's") for move in moves)
    weak = read_bundle_page(evidence, view, WEAK.digest[7:20], rules, {})
    production = next(way for way in weak.ways if way.alias == "production")
    assert any("auc is 0.69" in reason for reason in production.reasons)
    for name in ("", "abc", "zzzzzzzz", USED.model_digest):
        with pytest.raises(ConfigError, match="no such bundle"):
            read_bundle_page(evidence, view, name, rules, {})


def test_a_bundle_whose_files_are_gone_says_so_without_a_path(chronicle: Path, view: View, tmp_path: Path) -> None:
    elsewhere = Evidence(chronicle / "server.sqlite", tmp_path / "nowhere", tmp_path / "none.toml")
    page = read_bundle_page(elsewhere, view, USED.digest, elsewhere.asked(), {})
    assert (page.files, page.ways, page.rules) == ((), (), False)
    assert "not kept" in page.wanting
    assert str(tmp_path) not in page.wanting


def test_a_models_lineage_and_what_data_reached(evidence: Evidence, view: View) -> None:
    with evidence.questions() as questions:
        page = read_lineage(questions, view, "production", run=FIRST)
        assert page.opened is not None
        assert [(one.round, one.sites, one.dropped) for one in page.opened.rounds] == [
            (1, 3, ()),
            (2, 2, ("site-3: mask, silent",)),
            (3, 3, ()),
        ]
        hrefs = [box.href for box in page.picture.boxes]
        assert all(href.startswith(("/log/", "/lineage/model?model=sha256%3A")) for href in hrefs)
        assert sum(box.last for box in page.picture.boxes) == 1
        assert len(page.arrows) >= len(page.picture.lines)
        assert read_lineage(questions, view, "production", run=SECOND).opened is None
        found = read_impact(questions, secret("data 3"))
        reached = {line.model.model.digest: line.how for line in found.reached}
        assert reached[USED.model_digest] == "in 2 rounds of its run"
        assert reached[BARRED.model_digest] == "inherited"
        assert all(line.model.clean is not None for line in found.reached)
        with pytest.raises(ConfigError):
            read_impact(questions, "<script>")


def test_windows_and_what_they_led_to(view: View) -> None:
    page = read_drift(view)
    (watched,) = page.watched
    assert (page.faults, page.windows, watched.current, watched.alarms) == ((), 8, True, 1)
    found = [(line.window, line.alert, line.obstacle, line.action) for line in watched.windows]
    assert found[3] == (4, "alarm", "", "propose-retraining")
    assert found[1] == (6, "none", "too few sites", "nothing")
    assert found[5][:2] == (2, "warning")
    assert [mark.alert for mark in watched.timeline.marks][4] == "alarm"


def test_a_picture_of_windows_stays_within_its_frame() -> None:
    points = [Point(n, None if n % 7 == 0 else 10.0 ** -(n % 30), "none", "", n) for n in range(300)]
    for drawn in (timeline(points, None), timeline([], None), timeline(points[:1], None)):
        assert all(drawn.left <= mark.x <= drawn.right and 0 <= mark.y <= drawn.floor for mark in drawn.marks)
        assert all(0 <= tick.at <= drawn.floor for tick in drawn.powers)
    assert timeline(points, None).left_out == 180


def test_a_log_that_has_not_begun(tmp_path: Path) -> None:
    roster = make_roster(2)
    ServerStore.create(tmp_path / "server.sqlite", key=SERVER, roster=signed(roster), pinned=roster.digest())
    with pytest.raises(NotBegun), evidence_at(tmp_path).opened():
        pass
    assert evidence_at(tmp_path).names() == {}
