"""`fedseal labels`: from a file to a registered set, what it says, and what it refuses."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.commands import told
from support.labels import make_site

from fedseal.cli import labelling
from fedseal.compliance.labels.sets import LabelSet, make_label_set
from fedseal.errors import ExitCode

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WIDE = "item,Anna,Bert,Cleo\n" + "".join(
    f"x{i},{a},{b},{c}\n"
    for i, (a, b, c) in enumerate(
        [
            ("low", "low", "low"),
            ("mid", "mid", "high"),
            ("high", "high", ""),
            ("low", "mid", "high"),
            ("low", "low", "mid"),
        ]
        * 6
    )
)


@pytest.fixture
def store(tmp_path: Path, fedseal: Run) -> Path:
    """A site with a guideline and thirty items."""
    path = make_site(tmp_path / "site.sqlite").path
    (tmp_path / "guide.md").write_text("Label what you see.", encoding="utf-8")
    (tmp_path / "schema.toml").write_text('level = "ordinal"\nlabels = ["low", "mid", "high"]\n', encoding="utf-8")
    (tmp_path / "wide.csv").write_text(WIDE, encoding="utf-8")
    done = fedseal("labels", "guideline", "1", *of(path, tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "1"
    done = brought(fedseal, path, tmp_path / "wide.csv")
    assert (done.returncode, done.stdout) == (0, "84 annotations added, 0 corrected, 0 known before.\n")
    return path


def of(store: Path, folder: Path) -> list[str]:
    documents = ["--document", str(folder / "guide.md"), "--schema", str(folder / "schema.toml")]
    return ["--store", str(store), *documents]


def brought(fedseal: Run, store: Path, file: Path, layout: str = "csv-wide") -> "subprocess.CompletedProcess[str]":
    return fedseal(
        "labels", "import", file, "--store", store, "--format", layout, "--guideline", "1", "--dataset", "d1"
    )


def dump(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return list(connection.iterdump())


def test_from_a_file_to_a_registered_set(fedseal: Run, store: Path, tmp_path: Path) -> None:
    at = ("--store", store, "--dataset", "d1")
    found = json.loads(fedseal("labels", "agreement", *at, "--json").stdout)
    assert (found["coefficient"], found["level"], found["items"]) == ("krippendorff-alpha", "ordinal", 30)
    assert float(found["ci"][0]) <= float(found["value"]) <= float(found["ci"][1])
    assert all(a["annotator"].startswith("act_") and a["accuracy"] is None for a in found["annotators"])
    (tmp_path / "gold.csv").write_text("item,label\nx0,low\nx1,mid\nx2,low\n", encoding="utf-8")
    assert fedseal("labels", "gold", tmp_path / "gold.csv", *at, "--guideline", "1").returncode == 0
    named = json.loads(fedseal("labels", "agreement", *at, "--names", "--json").stdout)["annotators"]
    assert {a["annotator"]: a["accuracy"] for a in named} == {
        "Anna": "0.666667",
        "Bert": "0.666667",
        "Cleo": "0.500000",
    }
    asked = ("labels", "consensus", *at, "--method", "majority", "--out", tmp_path / "out.csv", "--json")
    before = dump(store)
    tried = json.loads(fedseal(*asked).stdout)
    assert (tried["registered"], dump(store)) == (False, before)
    made = json.loads(fedseal(*asked, "--register").stdout)
    assert (made["registered"], made["undecided"], made["n_items"]) == (True, 6, 24)
    assert made["id"] == tried["id"]
    late = ("--store", store, "--format", "csv-wide", "--guideline", "1", "--dataset", "d2")
    assert fedseal("labels", "import", tmp_path / "wide.csv", *late).returncode == 0
    # The same set once more is the one on record, not a child of itself.
    assert json.loads(fedseal(*asked, "--register").stdout) == {**made, "registered": False}
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 25
    shown = json.loads(fedseal("labels", "show", made["id"][:14], "--store", store, "--json").stdout)
    assert shown["n_items"] == 24
    assert shown["shared"] == made["shared"]
    listed = json.loads(fedseal("labels", "list", "--store", store, "--json").stdout)
    assert [len(listed[k]) for k in ("guidelines", "batches", "label_sets")] == [1, 2, 1]


def test_corrections_and_a_reviewer_make_a_new_version(fedseal: Run, store: Path, tmp_path: Path) -> None:
    at = ("--store", store, "--dataset", "d1")
    asked = ("labels", "consensus", *at, "--method", "reviewer", "--register", "--json")
    first = json.loads(fedseal(*asked).stdout)
    corrected = fedseal(
        "labels", "correct", *at, "--item", "x3", "--annotator", "Anna", "--label", "mid", "--reason", "mistake"
    )
    assert (corrected.returncode, "stays on record" in corrected.stdout) == (0, True)
    withdrawn = ("labels", "correct", *at, "--item", "x3", "--annotator", "Cleo", "--withdraw", "--reason", "withdrawn")
    assert fedseal(*withdrawn).returncode == 0
    (tmp_path / "review.csv").write_text("item,label\nx8,high\n", encoding="utf-8")
    second = json.loads(fedseal(*asked, "--decisions", tmp_path / "review.csv", "--reviewer", "Rita").stdout)
    assert second["parents"] == [first["id"]]
    assert second["corrections"] == [{"count": 1, "reason_code": "mistake"}, {"count": 1, "reason_code": "withdrawn"}]
    assert second["n_items"] == first["n_items"] + 2
    assert second["adjudication"] == second["shared"]["adjudication"] == "reviewer"
    text = fedseal("labels", "show", second["id"], "--store", store).stdout
    assert "What others may know" in text
    assert "1 mistake; 1 withdrawn" in text
    assert "reviewer" in fedseal("labels", "list", "--store", store).stdout


def test_tables_say_it_in_words(fedseal: Run, store: Path) -> None:
    at = ("--store", store, "--dataset", "d1")
    text = fedseal(
        "labels", "agreement", *at, "--coefficient", "cohen-kappa", "--annotator", "Anna", "--annotator", "Bert"
    )
    assert "cohen-kappa (nominal) over 30 items: 0." in text.stdout
    assert "good: the labels can be used" in text.stdout or "moderate: usable with care" in text.stdout
    text = fedseal("labels", "consensus", *at, "--method", "dawid-skene")
    assert "Not registered: that takes --register." in text.stdout


def test_a_refused_file_changes_nothing_and_is_not_quoted(fedseal: Run, store: Path, tmp_path: Path) -> None:
    before = dump(store)
    bad = tmp_path / "bad.csv"
    bad.write_text("item,Dora\nnew,low\nx1,Planted\n", encoding="utf-8")
    done = brought(fedseal, store, bad)
    told(done, ExitCode.DATA, "bad.csv: line 3: a label that the guideline's label schema does not have")
    assert "Planted" not in done.stderr
    told(brought(fedseal, store, tmp_path / "missing.csv"), ExitCode.CONFIG, "is not a file")
    told(brought(fedseal, store, bad, "label-studio"), ExitCode.DATA, "is not JSON")
    assert dump(store) == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("agreement", "--dataset", "none"), ExitCode.DATA, "no annotations of that kind"),
        (("agreement", "--dataset", "d1", "--guideline", "9"), ExitCode.CONFIG, "no guideline version '9'"),
        (
            ("agreement", "--dataset", "d1", "--coefficient", "fleiss-kappa"),
            ExitCode.DATA,
            "same number of annotations",
        ),
        (("agreement", "--dataset", "d1", "--coefficient", "cohen-kappa"), ExitCode.DATA, "there are 3"),
        (("consensus", "--dataset", "d1", "--method", "single"), ExitCode.DATA, "have several annotations"),
        (("consensus", "--dataset", "d1", "--method", "guess"), ExitCode.USAGE, ""),
        (("consensus", "--dataset", "d1", "--method", "majority", "--reviewer", "R"), ExitCode.CONFIG, "go together"),
        (
            ("consensus", "--dataset", "d1", "--method", "majority", "--out", "/no/such/folder/out.csv"),
            ExitCode.CONFIG,
            "cannot be written",
        ),
        (("show", "sha256:"), ExitCode.CONFIG, "no label set begins"),
        (("show", "abc"), ExitCode.CONFIG, "no label set begins"),
        (
            ("correct", "--dataset", "d1", "--item", "x1", "--annotator", "Anna", "--reason", "mistake"),
            ExitCode.CONFIG,
            "either --label or --withdraw",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    fedseal: Run, store: Path, arguments: tuple[str, ...], code: ExitCode, says: str
) -> None:
    before = dump(store)
    done = fedseal("labels", *arguments, "--store", store)
    if says:
        told(done, code, says)
    assert done.returncode == code
    assert dump(store) == before


def test_decisions_on_unknown_items_are_refused(fedseal: Run, store: Path, tmp_path: Path) -> None:
    before = dump(store)
    file = tmp_path / "review.csv"
    file.write_text("item,label\nPlanted,high\n", encoding="utf-8")
    arguments = ("--store", store, "--dataset", "d1", "--method", "reviewer", "--decisions", file, "--reviewer", "Rita")
    done = fedseal("labels", "consensus", *arguments)
    told(done, ExitCode.CONFIG, "1 decisions on items that have no annotation")
    assert "Planted" not in done.stderr
    assert dump(store) == before


def test_a_store_without_labels_and_no_store_are_named(fedseal: Run, tmp_path: Path) -> None:
    path = make_site(tmp_path / "new.sqlite").path
    told(fedseal("labels", "list", "--store", path), ExitCode.CONFIG, "no labels yet", "fedseal labels guideline")
    told(fedseal("labels", "list", "--store", tmp_path / "none"), ExitCode.CONFIG, "no site store at")


def test_labels_that_change_while_a_set_is_computed_are_not_registered(
    fedseal: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_label_set

    def slowly(*arguments: Any) -> LabelSet:
        monkeypatch.setattr(labelling, "make_label_set", made)
        late = ("--item", "x3", "--annotator", "Anna", "--label", "mid", "--reason", "mistake")
        assert fedseal("labels", "correct", "--store", store, "--dataset", "d1", *late).returncode == 0
        return made(*arguments)

    monkeypatch.setattr(labelling, "make_label_set", slowly)
    asked = ("labels", "consensus", "--store", store, "--dataset", "d1", "--method", "majority", "--register")
    told(fedseal(*asked), ExitCode.CONFIG, "labels changed while the set was computed", "Try again")
    assert fedseal(*asked).returncode == 0
