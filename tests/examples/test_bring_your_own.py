"""A stranger's study: the page that leads from a CSV to a federation is run to the letter, several records stay one
person at one site, and a loss of the whole batch trains where it is declared and nowhere else.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.studies import tiny

from fedseal.errors import DataError, ExitCode
from fedseal.simulation.population import gather
from fedseal.simulation.result import Result

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-data-in-15-minutes.md"
PROGRAMS = {"fedseal": Path(sys.executable).with_name("fedseal"), "python": Path(sys.executable)}

Fedseal = Callable[..., "subprocess.CompletedProcess[str]"]


def run(folder: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    program, *arguments = map(str, command)
    return subprocess.run(
        [str(PROGRAMS[program]), *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def fedseal(tmp_path: Path) -> Fedseal:
    """`fedseal` with some arguments, in a folder of the test's own."""
    return lambda *arguments: run(tmp_path, "fedseal", *arguments)


def outcome(folder: Path) -> Result:
    (made,) = (folder / "runs").iterdir()
    return Result.model_validate_json((made / "result.json").read_text(encoding="utf-8"))


# The page.


def page_blocks() -> tuple[dict[str, str], list[str]]:
    """The page's files by name, and its commands in order."""
    text = PAGE.read_text(encoding="utf-8")
    script, task, contract = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^    (\S.*)$", outside, re.MULTILINE)
    return {"make_visits.py": script, "visits/task.py": task, "visits/pyproject.toml": contract}, commands


@pytest.mark.slow
def test_the_page_from_a_csv_to_a_federation_runs_to_the_letter(tmp_path: Path) -> None:
    files, commands = page_blocks()
    assert [shlex.split(c)[:2] for c in commands] == [
        ["python", "make_visits.py"],
        ["fedseal", "new"],
        ["fedseal", "simulate"],
    ]
    (tmp_path / "make_visits.py").write_text(files["make_visits.py"], encoding="utf-8")
    for command in commands:
        words = shlex.split(command)
        # Fewer rounds and no comparisons: the page says what to type, not how long a test may take.
        words += ["--rounds", "8", "--no-baselines"] if words[1] == "simulate" else []
        done = run(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        if words[1] == "new":
            (tmp_path / "visits" / "task.py").write_text(files["visits/task.py"], encoding="utf-8")
            study = tmp_path / "visits" / "pyproject.toml"
            upper, _, _ = study.read_text(encoding="utf-8").partition("[tool.fedseal]\n")
            study.write_text(upper + files["visits/pyproject.toml"], encoding="utf-8")
    found = outcome(tmp_path)
    assert len(found.sites) == 4
    persons = [s.train + s.validation + s.test for s in found.sites.values()]
    assert sum(persons) == pd.read_csv(tmp_path / "visits.csv")["patient"].nunique() == 1500
    assert min(persons) >= 100
    first, last = (found.rounds[i].oracle for i in (0, -1))
    assert last.loss is not None and first.loss is not None and last.loss < first.loss
    further = found.final.global_.further
    assert set(further) == {"mean_absolute_error", "r_squared"}
    assert further["r_squared"] is not None and further["r_squared"] > 0.2
    epsilons = [p.epsilon for p in found.privacy.sites.values()]
    assert all(e is not None and e <= 3.0 for e in epsilons)


# Several records of a person.


def records(seed: int, persons: int = 120) -> pd.DataFrame:
    """Some rows a person in any order, ids as numbers and texts, and a class a person."""
    rng = np.random.default_rng(seed)
    whose = rng.permutation(np.repeat(np.arange(persons), rng.integers(1, 6, persons)))
    texts = [str(i) if rng.random() < 0.5 else int(i) for i in whose]
    table = pd.DataFrame({"person": pd.Series(texts, dtype=object), "label": whose % 2, "row": np.arange(len(whose))})
    return table.assign(a=0.0, b=0.0, c=0.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 100.0]))
def test_a_spread_keeps_every_person_whole(seed: int, skew: float) -> None:
    study = tiny(simulation={"grouped": True, "population": None, "smallest_site": 2, "label_skew": skew})
    table = records(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedseal.simulation.population.read_table", lambda _: table)
        population = gather(study, data=ROOT / "README.md", sites=4, seed=seed)
    sites = [{str(p) for p in site.table["person"]} for site in population.sites]
    assert sum(map(len, sites)) == len(set.union(*sites)) == 120
    assert sorted(r for site in population.sites for r in site.table["row"]) == list(range(len(table)))
    assert population.class_table is not None
    assert population.class_table.sum(axis=1).tolist() == [len(s) for s in sites]
    assert min(map(len, sites)) >= 2


def test_one_row_a_person_is_spread_as_ever() -> None:
    """Grouping rows of which every person has one changes nothing."""
    one, two = (gather(tiny(simulation={"grouped": g}), data=None, sites=None, seed=5) for g in (False, True))
    assert all(a.table.equals(b.table) for a, b in zip(one.sites, two.sites, strict=True))


def natural(folder: Path, **tables: pd.DataFrame) -> Path:
    folder.mkdir()
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_records_of_a_person_may_lie_at_one_site_only(tmp_path: Path) -> None:
    table = records(1)
    north = table["person"].astype(int) < 60
    study = tiny(simulation={"grouped": True})
    population = gather(study, data=natural(tmp_path / "a", n=table[north], s=table[~north]), sites=None, seed=1)
    assert population.class_table is not None
    assert population.class_table.tolist() == [[30, 30], [30, 30]]
    torn = natural(tmp_path / "b", n=table.iloc[:200], s=table.iloc[200:])
    with pytest.raises(DataError, match="at more than one site"):
        gather(study, data=torn, sites=None, seed=1)
    with pytest.raises(DataError, match="more than once") as caught:
        gather(tiny(), data=tmp_path / "a", sites=None, seed=1)
    assert "grouped = true" in caught.value.next_step


def test_a_label_has_to_be_a_persons(tmp_path: Path) -> None:
    table = records(1).assign(label=lambda t: t["row"] % 2)
    table.to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(DataError, match="'label' differs between the records of a person"):
        gather(tiny(simulation={"grouped": True}), data=tmp_path / "all.csv", sites=2, seed=1)


def test_grouped_needs_a_column_of_persons() -> None:
    with pytest.raises(ValueError, match="grouped = true needs person"):
        tiny(simulation={"grouped": True, "person": None})


# Studies that are not yes or no, one row a person.


def study(fedseal: Fedseal, folder: Path, *changes: tuple[str, str, str]) -> Path:
    """What `fedseal new` writes, with some texts replaced: file, before, after."""
    assert fedseal("new", "mine").returncode == 0
    for file, before, after in changes:
        path = folder / "mine" / file
        text = path.read_text(encoding="utf-8")
        assert before in text, before
        path.write_text(text.replace(before, after), encoding="utf-8")
    return folder / "mine"


LOSS = 'nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")'
PLAIN = ("pyproject.toml", 'plan = "local"', 'plan = "none" ')
DECLARED = ("pyproject.toml", "rounds = 15\n", "rounds = 15\nbatch_level = true\n")
SMALL_STEPS = ("pyproject.toml", "learning_rate = 1.0", "learning_rate = 0.1")
RANKING = (
    "self.ranking(model(features).squeeze(1), labels)\n\n"
    "    def ranking(self, scores: Tensor, labels: Tensor) -> Tensor:\n"
    '        """Pairs of one readmitted and one not; one number for the batch."""\n'
    "        pairs = torch.relu(1 - (scores[labels == 1][:, None] - scores[labels == 0][None, :]))\n"
    "        return pairs.sum() / max(pairs.numel(), 1)"
)
ROWS = (
    "self.ranking(model(features).squeeze(1), labels)\n\n"
    "    def ranking(self, scores: Tensor, labels: Tensor) -> Tensor:\n"
    '        """The same by person."""\n'
    "        apart = labels[:, None] * (1 - labels[None, :])\n"
    "        return (torch.relu(1 - (scores[:, None] - scores[None, :])) * apart).mean(dim=1)"
)


def simulated(fedseal: Fedseal, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return fedseal("simulate", "mine", "--rounds", "4", "--no-baselines", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [RANKING, ROWS], ids=["one number", "by person"])
def test_a_ranking_trains_where_it_is_declared_without_a_plan(loss: str, fedseal: Fedseal, tmp_path: Path) -> None:
    study(fedseal, tmp_path, ("task.py", LOSS, loss), PLAIN, DECLARED)
    done = simulated(fedseal)
    assert done.returncode == ExitCode.OK, done.stderr
    found = outcome(tmp_path)
    assert found.final.global_.auc is not None and found.final.global_.auc > 0.6
    assert all(r.sealed is not None and r.sealed.loss is not None for r in found.rounds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "plan", "says"),
    [
        (ROWS, (), "couples the persons of a batch"),
        (ROWS, (PLAIN,), "couples the persons of a batch"),
        (RANKING, (), "loss() returned shape ()"),
        (RANKING, (PLAIN,), "loss() returned shape ()"),
        (ROWS, (DECLARED,), "batch_level goes with plans none and client"),
    ],
    ids=["private", "undeclared", "number-private", "number-undeclared", "declared-private"],
)
def test_a_ranking_is_refused_elsewhere(
    loss: str, plan: tuple[tuple[str, str, str], ...], says: str, fedseal: Fedseal, tmp_path: Path
) -> None:
    study(fedseal, tmp_path, ("task.py", LOSS, loss), *plan)
    done = simulated(fedseal)
    assert done.returncode == ExitCode.CONFIG, done
    assert says in " ".join(done.stderr.split())
    assert "batch_level" in done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
def test_an_option_does_not_turn_a_declared_coupling_private(fedseal: Fedseal, tmp_path: Path) -> None:
    study(fedseal, tmp_path, ("task.py", LOSS, RANKING), PLAIN, DECLARED)
    done = simulated(fedseal, "--epsilon", "3")
    assert done.returncode == ExitCode.CONFIG
    assert "batch_level goes with plans none and client" in " ".join(done.stderr.split())


COUNTS = (
    "task.py",
    "(rng.random(count) < 1 / (1 + np.exp(-score))).astype(int)",
    "rng.poisson(np.exp(score.clip(-3, 1)))",
)
NO_LABEL = ("pyproject.toml", 'label = "readmitted"\n', "")
NUMBER = (
    ("task.py", "accuracy, auc", "mean_absolute_error"),
    ("task.py", "[accuracy(), auc()]", "[mean_absolute_error(20)]"),
)


@pytest.mark.slow
def test_counts_with_their_own_loss_are_compared_with_the_best_constant(fedseal: Fedseal, tmp_path: Path) -> None:
    """The best constant of a Poisson loss is the logarithm of the mean, not the mean."""
    loss = 'nn.functional.poisson_nll_loss(model(features).squeeze(1), labels, reduction="none")'
    study(fedseal, tmp_path, ("task.py", LOSS, loss), COUNTS, NO_LABEL, SMALL_STEPS, *NUMBER)
    done = fedseal("simulate", "mine", "--rounds", "4")
    assert done.returncode == ExitCode.OK, done.stderr
    found = outcome(tmp_path)
    assert found.baselines is not None and found.baselines.majority is not None
    constant, pooled = found.baselines.majority.global_.loss, found.baselines.pooled.global_.loss
    assert constant is not None and pooled is not None
    assert pooled < constant < pooled + 1
    assert found.final.global_.further["mean_absolute_error"] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("age", "column 'age' has missing values"),
        ("readmitted", "training persons of hospital-1 next: The target that data() returns has missing values"),
    ],
)
def test_a_missing_value_is_told_by_place(column: str, says: str, fedseal: Fedseal, tmp_path: Path) -> None:
    missing = f'    table.loc[::9, "{column}"] = np.nan\n    return table\n'
    study(fedseal, tmp_path, ("task.py", "    return table\n", missing), NO_LABEL)
    done = simulated(fedseal)
    assert done.returncode == ExitCode.DATA, done
    assert says in " ".join(done.stderr.split())


@pytest.mark.slow
def test_more_items_than_persons_are_refused(fedseal: Fedseal, tmp_path: Path) -> None:
    """A study that says it groups, and does not."""
    twice = ("task.py", "    return table\n", "    return pd.concat([table, table], ignore_index=True)\n")
    grouped = ("pyproject.toml", 'person = "patient"\n', 'person = "patient"\ngrouped = true\n')
    # What a split by persons refuses at once, this study hides from it.
    hidden = (
        "task.py",
        'by_hash(columns(table, [PERSON])[PERSON], study="mine")',
        'by_hash(columns(table, [PERSON])[PERSON], study="mine", records=True)',
    )
    study(fedseal, tmp_path, twice, grouped, hidden)
    done = simulated(fedseal)
    assert done.returncode == ExitCode.CONFIG
    said = " ".join(done.stderr.split())
    assert re.search(r"data\(\) for hospital-1 made \d+ items of \d+ persons", said)
    assert "person_items()" in said
