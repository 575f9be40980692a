"""The report stands alone in one file, says what is an oracle's word, takes names for text, and judges honestly."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fedseal.simulation import figures
from fedseal.simulation.report import comparison_rows, number, render, verdict
from fedseal.simulation.result import Result, Scores
from fedseal.simulation.simulate import Finished

SITES = [f"hospital-{i}" for i in range(1, 5)]


def result(finished: Finished) -> Result:
    return Result.model_validate_json((finished.folder / "result.json").read_text(encoding="utf-8"))


def report(finished: Finished) -> str:
    return (finished.folder / "report.html").read_text(encoding="utf-8")


class References(HTMLParser):
    """Collects everything a browser might fetch, and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        fetched = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
        self.targets += [value or "" for name, value in attrs if name in fetched]


@pytest.mark.quick("plain_run")
@pytest.mark.parametrize("kind", ["private_run", "plain_run"])
def test_the_report_is_one_file_that_fetches_nothing_and_runs_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    page = report(request.getfixturevalue(kind))
    found = References()
    found.feed(page)
    assert "svg" in found.tags
    assert found.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "img", "base"})
    # What a reader may follow is in the run's own folder.
    assert [t for t in found.targets if not t.startswith("#")] == ["log/checkpoint"]
    assert (request.getfixturevalue(kind).folder / "log" / "checkpoint").is_file()
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page)
    assert "default-src 'none'" in page


def test_the_report_says_what_matters(private_run: Finished) -> None:
    page, found = report(private_run), result(private_run)
    assert "Oracle values of a simulation" in page
    assert "<h1>Two blobs</h1>" in page
    for name in SITES:
        assert f"<td>{name}</td>" in page
    assert number(found.privacy.sites["hospital-1"].epsilon, 2) in page
    assert "epsilon spent of 8 promised, delta 1e-05" in page
    assert verdict(found) in page
    assert found.digest in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower()


def test_a_report_without_privacy_says_that_nothing_bounds_it(plain_run: Finished) -> None:
    page = report(plain_run)
    assert "no privacy plan ran" in page
    assert "unbounded" in page
    assert "Nothing was compared." in page
    assert "promised" not in page


def test_names_of_a_study_are_text_and_no_markup(private_run: Finished) -> None:
    title = "<script>alert('x')</script> & co"
    page = render(result(private_run).model_copy(update={"title": title}), private_run.findings.contract)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", ["St. Mary's <b>", "a & b", "Zürich", "pay: $0 to $50k", "$_$", "_hidden"])
def test_any_name_of_a_class_can_be_drawn(name: str, private_run: Finished) -> None:
    """Names come from a table's header and values: they are text, neither markup nor a formula."""
    found = result(private_run)
    sites = {n: s.model_copy(update={"classes": {name: 3, "other": 4}}) for n, s in found.sites.items()}
    page = render(found.model_copy(update={"sites": sites}), private_run.findings.contract)
    assert "<b>" not in name or name not in page
    texts = re.findall(r"<text[^>]*>(.*?)</text>", page, flags=re.DOTALL)
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert escaped in texts


@pytest.mark.parametrize("name", ["pay: $0 to $50k", "$\\frac$", "_hidden", "a $ b"])
def test_any_name_of_a_site_can_be_drawn(name: str, private_run: Finished) -> None:
    found = result(private_run)
    sites = {name if n == "hospital-1" else n: s for n, s in found.sites.items()}
    page = figures.site_classes(list(sites), {"one": [1, 2, 3, 4]}, "Persons")
    assert name in re.findall(r"<text[^>]*>(.*?)</text>", page, flags=re.DOTALL)


def test_an_auc_that_nobody_has_is_a_dash_and_no_tile(private_run: Finished) -> None:
    """As if all test persons had one label."""
    found = result(private_run)
    everyone = found.final.global_.model_copy(update={"auc": None})
    final = found.final.model_copy(update={"global_": everyone})
    rounds = [r.model_copy(update={"oracle": r.oracle.model_copy(update={"auc": None})}) for r in found.rounds]
    page = render(found.model_copy(update={"final": final, "rounds": rounds}), private_run.findings.contract)
    own = re.search(r'<tr class="own">(.*?)</tr>', page, flags=re.DOTALL)
    assert own is not None
    assert "<td>-</td>" in own.group(1)
    assert "<span>AUC</span>" not in page
    assert "<span>AUC</span>" in report(private_run)


def test_numbers_for_people() -> None:
    assert [number(0.12345), number(None), number(2.0, 1)] == ["0.123", "-", "2.0"]


# Metrics of the study's own.


def with_own_metrics(finished: Finished, *, classes: bool, nowhere: str = "") -> Result:
    """The result of a study with two metrics of its own; without ``classes`` it has no accuracy and no AUC."""
    found = result(finished)

    def scores(before: Scores, wait: float = 12.25) -> Scores:
        own = {"days <of> error": wait, "c_index": None if nowhere == "c_index" else 0.7125}
        return Scores(loss=before.loss, further=own) if not classes else before.model_copy(update={"further": own})

    def judgement(before: Any, wait: float = 12.25) -> Any:
        sites = {name: scores(s) for name, s in before.sites.items()}
        return before.model_copy(update={"global_": scores(before.global_, wait), "sites": sites})

    assert found.baselines is not None
    names = ("majority", "local", "federated_plain", "pooled")
    changed = {name: judgement(getattr(found.baselines, name), 20.5) for name in names}
    others = [o.model_copy(update={"judgement": judgement(o.judgement, 31.0)}) for o in found.other_epsilons]
    return found.model_copy(
        update={
            "final": judgement(found.final),
            "baselines": found.baselines.model_copy(update=changed),
            "other_epsilons": others,
            "rounds": [r.model_copy(update={"oracle": scores(r.oracle, 40.0 - r.number)}) for r in found.rounds],
        }
    )


def header(page: str) -> list[str]:
    """The header of the comparison."""
    found = re.search(r"<tr><th>model</th>(.*?)<th class=\"text\">", page)
    assert found is not None
    return re.findall(r"<th>(.*?)</th>", found.group(1))


def texts(page: str) -> str:
    """What stands in the pictures."""
    return " ".join(re.findall(r"<text[^>]*>(.*?)</text>", page, flags=re.DOTALL))


def test_a_studys_own_metrics_stand_beside_the_others(private_run: Finished) -> None:
    contract = private_run.findings.contract
    page = render(with_own_metrics(private_run, classes=True), contract)
    assert header(page) == ["loss", "accuracy", "AUC", "days &lt;of&gt; error", "c_index"]
    own = re.search(r'<tr class="own">(.*?)</tr>', page, flags=re.DOTALL)
    assert own is not None
    assert re.findall(r"<td>(.*?)</td>", own.group(1))[4:] == ["12.250", "0.713"]
    assert page.count("<td>20.500</td>") == 4
    assert page.count("<td>31.000</td>") == 1
    # By round, each on a scale of its own, under the study's own names.
    assert "days &lt;of&gt; error 37.000" in texts(page)
    assert "c_index 0.713" in texts(page)
    assert header(report(private_run)) == ["loss", "accuracy", "AUC"]


def test_a_study_of_a_number_has_no_column_of_dashes(private_run: Finished) -> None:
    page = render(with_own_metrics(private_run, classes=False), private_run.findings.contract)
    assert header(page) == ["loss", "days &lt;of&gt; error", "c_index"]
    assert "<b>12.250</b><span>days &lt;of&gt; error</span>" in page
    assert "<th>alone, loss</th>" in page
    assert "loss on the common test persons" in texts(page)
    assert "accuracy" not in texts(page)
    loss = result(private_run).rounds[-1].oracle.loss
    assert f"loss {figures.score(loss)}" in texts(page)


def test_a_metric_that_is_undefined_everywhere_is_a_dash(private_run: Finished) -> None:
    page = render(with_own_metrics(private_run, classes=True, nowhere="c_index"), private_run.findings.contract)
    assert header(page)[-1] == "c_index"
    assert "c_index -" in texts(page)


def test_scores_that_are_no_numbers_or_far_apart_can_be_drawn() -> None:
    rows = [("a", 0.5, True), ("b", 1e9, False), ("c", float("inf"), False), ("d", None, False)]
    assert "1e+09" in figures.comparison(rows, {"a": [0.4, float("nan"), 700.0]}, "Compared", loss=True)
    assert "0.500" in figures.comparison(rows[::2], {"a": [0.4, float("nan")]}, "Compared", loss=False)
    for few in (rows[:1], rows[2:], [("a", 0.0, True)], [("a", -3.0, True), ("b", -2.0, False)]):
        assert "<svg" in figures.comparison(few, {}, "Compared", loss=True)
    assert "<svg" in figures.panels([1, 2], {"x": [None, float("inf")], "y": [-1.0, 1e12]}, "By round")


def test_scores_for_people() -> None:
    numbers = [0.12345, -2.0, 123.4567, 54321.4, 0.00021, 0.0, 3e9, float("nan"), None]
    assert [figures.score(v) for v in numbers] == [
        "0.123", "-2.000", "123.457", "54321", "0.00021", "0.000", "3e+09", "nan", "-",
    ]  # fmt: skip


def test_promises_are_in_the_order_of_their_numbers(private_run: Finished, plain_run: Finished) -> None:
    """By name, 10 would stand before 2 and 8."""
    found = result(private_run)
    others = [found.other_epsilons[0].model_copy(update={"epsilon": e}) for e in (100.0, 10.0, 0.5, 2.0)]
    names = [row.name for row in comparison_rows(found.model_copy(update={"other_epsilons": others}))]
    private = [f"sealed, private (epsilon {e})" for e in ("0.5", "2", "8", "10", "100")]
    assert names == [
        "majority class", "each site alone", *private, "sealed, without privacy", "all data pooled",
    ]  # fmt: skip
    plain = result(plain_run).model_copy(update={"other_epsilons": others})
    assert [row.name for row in comparison_rows(plain)][-1] == "sealed, without privacy"


def test_what_is_to_be_known_stands_on_the_page(private_run: Finished) -> None:
    found = result(private_run).model_copy(update={"notes": ["delta 0.05 is <large>"]})
    assert "<li>delta 0.05 is &lt;large&gt;</li>" in render(found, private_run.findings.contract)
    assert "To know" not in report(private_run)


def test_without_a_best_constant_the_rest_is_compared(private_run: Finished) -> None:
    found = compared(private_run, 0.85, 0.80, [0.7, 0.75, 0.85, 0.9], 0.95)
    assert "does not beat the majority class" in verdict(found)
    assert found.baselines is not None
    without = found.model_copy(update={"baselines": found.baselines.model_copy(update={"majority": None})})
    assert verdict(without).startswith("The federated model beats the median site alone by 5.0 percentage points")
    behind = compared(private_run, 0.75, 0.80, [0.7, 0.78, 0.82, 0.9], 0.95)
    assert behind.baselines is not None
    behind = behind.model_copy(update={"baselines": behind.baselines.model_copy(update={"majority": None})})
    assert verdict(behind).endswith("It beats 1 of the 4 sites alone.")
    page = render(without, private_run.findings.contract)
    assert "<td>majority class</td>" not in page
    assert "<td>each site alone</td>" in page


# The verdict.


def compared(finished: Finished, own: float | None, median: float | None, sites: list[float], most: float) -> Result:
    """The result with other accuracies: its own, the sites' alone and their median, and the majority's."""
    found = result(finished)
    assert found.baselines is not None

    def judgement(before: Any, accuracy: float | None, alone: list[float] | None = None) -> Any:
        changes = {"global_": before.global_.model_copy(update={"accuracy": accuracy})}
        if alone is not None:
            pairs = zip(before.sites.items(), alone, strict=True)
            changes["sites"] = {n: s.model_copy(update={"accuracy": a}) for (n, s), a in pairs}
        return before.model_copy(update=changes)

    baselines = found.baselines.model_copy(
        update={
            "local": judgement(found.baselines.local, median, sites),
            "majority": judgement(found.baselines.majority, most),
        }
    )
    return found.model_copy(update={"final": judgement(found.final, own), "baselines": baselines})


def test_a_model_that_beats_the_median_site_says_by_how_much(private_run: Finished) -> None:
    text = verdict(compared(private_run, 0.85, 0.80, [0.7, 0.75, 0.85, 0.9], 0.6))
    assert text.startswith("The federated model beats the median site alone by 5.0 percentage points")
    assert "2 of the 4 sites alone" in text


@pytest.mark.parametrize("own", [0.75, 0.80])
def test_a_model_behind_or_level_with_the_median_site_does_not_beat_it(private_run: Finished, own: float) -> None:
    text = verdict(compared(private_run, own, 0.80, [0.7, 0.78, 0.82, 0.9], 0.6))
    assert "does not beat the median site alone" in text
    assert "1 of the 4 sites alone, and the majority class" in text if own == 0.75 else "2 of the 4" in text


@pytest.mark.parametrize(("own", "median"), [(0.6, 0.8), (0.55, 0.8), (0.6, 0.5)])
def test_a_model_no_better_than_a_constant_is_called_that(private_run: Finished, own: float, median: float) -> None:
    text = verdict(compared(private_run, own, median, [median] * 4, 0.6))
    assert text.startswith("The federated model does not beat the majority class.")
    assert "not worth it" in text


def by_loss(finished: Finished, own: float, median: float, sites: list[float], constant: float) -> Result:
    """The result of a study that predicts a number: losses and nothing else."""
    found = result(finished)
    assert found.baselines is not None

    def judgement(before: Any, loss: float, alone: list[float] | None = None) -> Any:
        names = list(before.sites)
        losses = dict(zip(names, alone or [loss] * len(names), strict=True))
        scores = {name: Scores(loss=value) for name, value in losses.items()}
        return before.model_copy(update={"global_": Scores(loss=loss), "sites": scores})

    baselines = found.baselines.model_copy(
        update={
            "local": judgement(found.baselines.local, median, sites),
            "majority": judgement(found.baselines.majority, constant),
            "federated_plain": judgement(found.baselines.federated_plain, own),
            "pooled": judgement(found.baselines.pooled, own),
        }
    )
    rounds = [r.model_copy(update={"oracle": Scores(loss=own)}) for r in found.rounds]
    update = {"final": judgement(found.final, own), "baselines": baselines, "rounds": rounds, "other_epsilons": []}
    return found.model_copy(update=update)


@pytest.mark.parametrize(
    ("own", "texts"),
    [
        (0.4, ["beats the median site alone with a loss of 0.4 against 0.6, lower is better, and 3 of the 4 sites"]),
        (
            0.6,
            ["does not beat the median site alone, which trained without noise: it is level", "and the best constant"],
        ),
        (0.7, ["it is behind with a loss of 0.7 against 0.6", "It beats 1 of the 4 sites alone"]),
        (0.9, ["does not beat the best constant answer. At this promise, this federation is not worth it."]),
        (1.2, ["does not beat the best constant answer."]),
    ],
)
def test_a_study_without_classes_is_judged_by_its_loss(private_run: Finished, own: float, texts: list[str]) -> None:
    found = by_loss(private_run, own, 0.6, [0.3, 0.5, 0.65, 0.8], 0.9)
    for text in texts:
        assert text in verdict(found)
    page = render(found, private_run.findings.contract)
    assert f"<b>{own:.3f}</b><span>loss of the sealed, private model" in page
    assert "majority" not in page
    assert "accuracy on the common" not in page


def test_a_promise_is_named_only_where_one_was_made(plain_run: Finished, private_run: Finished) -> None:
    found = by_loss(private_run, 0.9, 0.6, [0.6] * 4, 0.8)
    plain = found.model_copy(update={"privacy": result(plain_run).privacy})
    assert verdict(plain).endswith("This federation is not worth it.")


def test_where_nothing_was_compared_nothing_is_claimed(private_run: Finished, plain_run: Finished) -> None:
    assert verdict(result(plain_run)) == "Nothing was compared."
    assert verdict(compared(private_run, None, 0.8, [0.8] * 4, 0.6)) == "Nothing was compared."
    assert verdict(compared(private_run, 0.9, None, [0.8] * 4, 0.6)) == "Nothing was compared."
