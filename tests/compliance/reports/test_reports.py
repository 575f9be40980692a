"""Reports: every fact leads to an entry that says it, every gap is named, and nothing else is stated."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.recorded import ANN, FIRST, LAST, MIDDLE, OTHER, PLAN, POLICY, REPORT, RUNS, digest, secret, whole

from fedseal.compliance.audit.verify import Verdict, verify
from fedseal.compliance.events.registry import EVENTS
from fedseal.compliance.reports import page
from fedseal.compliance.reports.derived import DERIVED
from fedseal.compliance.reports.documents import Document, Documents, read_documents
from fedseal.compliance.reports.history import History, read_history
from fedseal.compliance.reports.report import Answer, Report, State, document_keys, make_report
from fedseal.compliance.reports.template import ANNEX_IV, MODEL_CARD, Fact, Template, read_template
from fedseal.errors import ConfigError
from fedseal.privacy.ledger import epsilon_shown

TEMPLATES = {path.stem: read_template(path) for path in (ANNEX_IV, MODEL_CARD)}
LEAVES = whole().leaves


@pytest.fixture(scope="module")
def history() -> History:
    return read_history(LEAVES, LAST)


def verdict() -> Verdict:
    return Verdict(origin="test/server", size=len(LEAVES), root=bytes(32), cosigned=("a",), witnesses=1, final=True)


def made(name: str, history: History, documents: Documents | None = None) -> Report:
    return make_report(TEMPLATES[name], history, documents or Documents())


def answer(report: Report, number: str, label: str) -> Answer:
    (item,) = [one for one in report.items if one.item.number == number]
    (found,) = [one for one in item.answers if one.label == label]
    return found


def test_the_log_of_this_test_holds() -> None:
    found = verify(LEAVES, None, POLICY)
    assert [f.what for f in found.findings] == ["there is no checkpoint"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_asks_for_what_there_is(name: str) -> None:
    template = TEMPLATES[name]
    numbers = [item.number for item in template.item]
    assert len(set(numbers)) == len(numbers)
    for item in template.item:
        for fact in item.fact:
            if fact.event:
                body = EVENTS[f"{fact.event}/v1"].body
                for field in fact.fields:
                    first = field.partition(":")[0].split(".")[0]
                    assert first in body.model_fields or first in ("@org", "@actor", "@time"), (item.number, field)
            if fact.derive:
                assert fact.derive in DERIVED


def test_every_item_of_annex_iv_is_there() -> None:
    """1(a) to (h), 2(a) to (h), 3 to 9: as Annex IV of Regulation (EU) 2024/1689 numbers them."""
    numbers = [item.number for item in TEMPLATES["annex_iv"].item]
    assert numbers == [*(f"1({c})" for c in "abcdefgh"), *(f"2({c})" for c in "abcdefgh"), *map(str, range(3, 10))]
    assert "no legal advice" in TEMPLATES["annex_iv"].status


def test_the_entries_of_a_model_are_those_of_all_runs_that_led_to_it(history: History) -> None:
    assert history.models == [LAST, MIDDLE, FIRST]
    assert set(history.runs) == set(RUNS)
    assert history.datasets == {secret(f"data {n}") for n in (1, 2, 3)}
    assert history.labels == {secret(f"labels {n}") for n in (1, 2, 3)}
    assert history.guidelines == {digest("guideline")}
    assert history.code == {digest("code"), digest("env")}
    earlier = read_history(LEAVES, MIDDLE)
    assert (earlier.models, earlier.runs) == ([MIDDLE, FIRST], [RUNS[0]])
    assert read_history(LEAVES, FIRST).runs == []
    # A model between two rounds is its run's.
    between = read_history(LEAVES, digest(f"between {RUNS[1]}"))
    assert between.runs == [RUNS[1], RUNS[0]]


def test_a_model_is_named_by_its_digest_or_a_beginning_of_it() -> None:
    assert read_history(LEAVES, LAST.removeprefix("sha256:")[:12].upper()).model == LAST
    for name in ("", "sha256:", "a", 64 * "0", "../model"):
        with pytest.raises(ConfigError):
            read_history(LEAVES, name)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_statement_rests_on_entries_that_say_it(name: str, history: History) -> None:
    """The slow twin: each statement of an event is found again, field by field, in every entry it names."""
    report = made(name, history)
    facts = [(fact, a) for one in report.items for fact, a in zip(one.item.fact, one.answers, strict=True)]
    assert len(facts) > 30
    for fact, given in facts:
        for value in given.values:
            assert value.entries, (fact.label, value)
            for index in value.entries:
                text = LEAVES[index].decode()
                if fact.event:
                    assert f'"type":"{fact.event}/v1"' in text
                for found in re.findall(r"(?:sha256|hmac):[0-9a-f]{64}|act_[0-9a-f]{32}", value.text):
                    # A digest that a statement derives from several entries stands in at least one of them.
                    assert found in (text if fact.event else "".join(LEAVES[i].decode() for i in value.entries))
    assert {entry.index for entry in report.entries} == {i for _, a in facts for v in a.values for i in v.entries}


def test_what_the_log_holds_is_stated(history: History) -> None:
    report = made("annex_iv", history)
    assert [v.text for v in answer(report, "2(g)", "Figures").values] == ["auc 0.91 ± 0.01, loss 0.3"]
    (gate,) = answer(report, "2(g)", "Gates").values
    assert gate.text == "metric, auc, limit 0.8, found 0.91, passed yes"
    (approved,) = answer(report, "2(e)", "Who approved, and what the signature means").values
    assert approved.text == f"site-1: {ANN}, approved, approver, production, 2026-11-20 22:04:05 UTC"
    legal = answer(report, "2(d)", "Purpose and legal basis").values
    assert legal[0].text == "site-1: research, GDPR 6(1)(e), GDPR 9(2)(j)"
    (withdrawn,) = answer(report, "2(d)", "Data withdrawn since").values
    assert secret("data 2") in withdrawn.text
    assert answer(report, "6", "Rolled back").state is State.NONE


def test_epsilon_is_recomputed_from_every_charge_of_a_population(history: History) -> None:
    values = answer(made("annex_iv", history), "2(h)", "Privacy spent, by population").values
    expected = epsilon_shown(((PLAN, 4),), 1e-5)
    assert [v.text for v in values] == [
        f"site-{n}: epsilon {expected:.3f} at delta 0.00001, from 4 charges" for n in (1, 2, 3)
    ]
    # Also of a model that only the first run made: these persons have paid for both.
    earlier = made("annex_iv", read_history(LEAVES, MIDDLE))
    assert answer(earlier, "2(h)", "Privacy spent, by population").values == values


def test_a_gap_is_named_and_absence_is_stated_only_where_something_is_known() -> None:
    report = made("annex_iv", read_history(LEAVES, OTHER))
    assert answer(report, "2(d)", "Data withdrawn since").state is State.MISSING
    assert answer(report, "2(h)", "Drop-outs").state is State.MISSING
    assert not report.complete
    assert report.percent < 30


def test_items_are_whole_in_part_or_missing(history: History) -> None:
    report = made("annex_iv", history)
    states = {one.item.number: one.state for one in report.items}
    assert (states["6"], states["2(g)"], states["4"]) == (State.RECORDED, State.PARTLY, State.MISSING)
    # Every item is answered or says that it is not: none is left out.
    assert len(states) == 23
    assert report.count(State.MISSING) == sum(one.state is State.MISSING for one in report.answers)


def all_documents(template: Template) -> Documents:
    return Documents(document={key: Document(title=key, sha256=64 * "5") for key in document_keys(template)})


def test_documents_fill_gaps_and_are_marked(history: History) -> None:
    report = made("annex_iv", history, all_documents(TEMPLATES["annex_iv"]))
    assert answer(report, "5", "Risk management file").state is State.DOCUMENT
    assert (report.complete, report.percent) == (True, 100)
    logged = Documents(document={"test-protocol": Document(title="Protocol", sha256=REPORT.removeprefix("sha256:"))})
    found = answer(made("annex_iv", history, logged), "2(g)", "Test protocol")
    assert found.state is State.RECORDED
    assert all(REPORT.encode() in LEAVES[i] for value in found.values for i in value.entries)


def test_the_operators_file_is_checked(tmp_path: Path) -> None:
    path, known = tmp_path / "docs.toml", frozenset({"risk-file"})
    path.write_text(f'[document.risk-file]\ntitle = "Risk file 3"\nsha256 = "{64 * "a"}"\n', encoding="utf-8")
    assert read_documents(path, known).document["risk-file"].title == "Risk file 3"
    for wrong in ("[document.other]\n", "[document.risk-file]\n", "nonsense", "[x]\n"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError):
            read_documents(path, known)
    path.write_text(f'[document.other]\ntitle = "x"\nsha256 = "{64 * "a"}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="no item asks"):
        read_documents(path, known)
    with pytest.raises(ConfigError):
        read_documents(tmp_path / "missing", known)


def test_a_fact_has_one_source() -> None:
    with pytest.raises(ValueError, match="one of"):
        Fact(label="x")
    with pytest.raises(ValueError, match="one of"):
        Fact(label="x", derive="epsilon", document="y")
    with pytest.raises(ValueError, match="names its fields"):
        Fact(label="x", event="log.genesis")


class Anchors(HTMLParser):
    """What a page links to, what it defines, and everything it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "href" and value is not None:
                self.links.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)
            if name == "src" or name.startswith("on"):
                self.loads.append(f"{tag} {name}")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_page_is_self_contained_and_every_reference_leads_to_an_entry(name: str, history: History) -> None:
    report = made(name, history)
    text = page.render(report, verdict(), made="today")
    found = Anchors(text)
    assert found.loads == []
    assert not found.tags & {"script", "link", "iframe", "img", "object", "form"}
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert len(found.ids) == len(set(found.ids))
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    # Each gap is printed as one: by its fact, and once more for items of which nothing is known.
    assert text.count('<span class="missing">NOT RECORDED</span>') == report.count(State.MISSING)
    for entry in report.entries:
        assert f'id="entry-{entry.index}"' in text
        assert entry.leaf_hash.hex() in text
    values = sum(len(a.values) for a in report.answers)
    assert len([link for link in found.links if link.startswith("#entry-")]) >= values


def test_a_page_of_a_log_without_a_quorum_says_so(history: History) -> None:
    weak = verdict()
    weak.final, weak.beyond = False, 3
    text = page.render(made("model_card", history), weak, made="today", own_word=True)
    assert "NO QUORUM" in text
    assert "compare its keys" in text
    assert "3 newer entries" in text


def test_names_cannot_put_markup_into_a_page(history: History) -> None:
    nasty = "<script>alert(1)</script>"
    documents = Documents(document={"licence": Document(title=nasty, sha256=64 * "0")})
    text = page.render(made("model_card", history, documents), verdict(), made="today")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_json_says_the_same(history: History) -> None:
    report = made("annex_iv", history)
    value = json.loads(json.dumps(page.as_json(report, verdict(), made="today")))
    assert value["model"] == LAST
    assert [one["number"] for one in value["items"]] == [one.item.number for one in report.items]
    states = [fact["state"] for one in value["items"] for fact in one["facts"]]
    assert states.count("NOT RECORDED") == report.count(State.MISSING)
    indices = {i for one in value["items"] for f in one["facts"] for v in f["values"] for i in v["entries"]}
    assert indices == {entry["index"] for entry in value["entries"]}
    assert (value["complete"], 0 < value["completeness"] < 1) == (False, True)
