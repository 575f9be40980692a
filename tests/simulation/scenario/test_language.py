"""A scenario's file: what is wrong is named with its line and the nearest right word, and what is read is written."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenarios import SMALL, small

from fedseal.config import parse_toml
from fedseal.errors import ConfigError
from fedseal.simulation.scenario.files import as_toml, find, is_scenario, library, load, parse, toml_text
from fedseal.simulation.scenario.language import STRATEGIES, Changes, Scenario, changed, scenario_digest
from fedseal.simulation.scenario.metrics import METRICS
from fedseal.simulation.scenario.sweep import cells

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "scenario-1.json").read_text(encoding="utf-8"))


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "mine.toml")
    return caught.value


@pytest.mark.parametrize(
    ("before", "after", "message", "advice"),
    [
        ("when = ", "wen = ", "mine.toml:16: unknown key 'drift.0.wen'", "Did you mean 'when'?"),
        ("[population]", "[populaton]", "mine.toml:7: unknown key 'populaton'", "Did you mean 'population'?"),
        ("rounds = 3", "round = 3", "mine.toml:19: unknown key 'run.round'", "Did you mean 'rounds'?"),
        ("sudden@2", "suden@2", "mine.toml:16: 'drift.0.when': 'suden@2' says no time", ""),
        ("accuracy.global", "acuracy.global", "mine.toml:25: 'gate.0.metric': no metric is called", ""),
        ("accuracy.global", "acuracy.global", "did you mean 'accuracy.global'?", ""),
        ("value = 0.5", 'value = 0.5\nat = 9', "a gate is at step 9, and steps are 0 to 3", ""),
        ("value = 0.5", "value = 0.5\nconfidence = 0.9", "a gate with confidence needs several seeds", ""),
        ("value = 0.5", 'value = 0.5\nbaseline = "local"', "drop<= and rise<= go with a baseline", ""),
        ("rounds = 3", 'rounds = 3\nprivacy = { plan = "locl" }', "'run.privacy.plan'", ""),
        ("steps = 4", "steps = 0", "mine.toml:5: 'scenario.steps': input should be greater than or equal to 1", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(before: str, after: str, message: str, advice: str) -> None:
    error = refused(SMALL.replace(before, after, 1))
    assert message in error.message
    assert advice in error.next_step


def test_faults_of_the_protocol_itself_need_the_real_one() -> None:
    assert parse(SMALL + '\n[[fault]]\nstage = "unmask"\ncount = 1\n', "mine.toml").fault
    fault = '\n[[fault]]\nkind = "byzantine"\nattack = "sign_flip"\ncount = 1\n'
    assert 'secagg = "real"' in refused(SMALL + fault).message
    assert parse(SMALL.replace("rounds = 3", 'rounds = 3\nsecagg = "real"') + fault, "mine.toml").fault


def test_a_written_scenario_reads_as_the_same() -> None:
    for name in library():
        read = load(name)
        again = parse(as_toml(read), name)
        assert again == read
        assert as_toml(again) == as_toml(read)
        assert scenario_digest(again) == scenario_digest(read)


def test_every_scenario_of_the_library_keeps_the_published_schema() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for name, path in library().items():
        tables = parse_toml(path.read_text(encoding="utf-8"), name)
        assert not [error.message for error in validator.iter_errors(tables)], name
    assert list(validator.iter_errors({"scenario": {"name": "x"}, "population": {"source": "heart"}, "drif": []}))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
LEAF = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), TEXT)
TABLE = st.dictionaries(TEXT, st.one_of(LEAF, st.lists(LEAF, max_size=3)), max_size=4)


@given(st.dictionaries(TEXT, st.one_of(LEAF, TABLE, st.lists(TABLE, min_size=1, max_size=3)), max_size=4))
def test_toml_is_written_so_that_it_reads_the_same(tables: dict[str, object]) -> None:
    assert parse_toml(toml_text(tables), "made") == tables


def test_a_name_is_found_in_the_library_and_a_file_by_its_path(tmp_path: Path) -> None:
    assert find("sudden-global") == library()["sudden-global"]
    mine = tmp_path / "mine.toml"
    mine.write_text(SMALL, encoding="utf-8")
    assert load(str(mine)) == small()
    assert is_scenario("sudden-global")
    assert is_scenario(str(mine))
    assert not is_scenario(str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        find("suden-global")
    assert caught.value.next_step == "Did you mean 'sudden-global'?"


def test_changes_from_outside() -> None:
    swept = small('\n[sweep]\nseed = [1, 2]\nstrategy = ["fedavg", "fedadam"]\n')
    one = changed(swept, Changes(seed=7, epsilon=2.0, rounds=9))
    assert (one.scenario.seed, one.run.rounds, one.run.privacy.plan, one.run.privacy.epsilon) == (7, 9, "local", 2.0)
    assert one.sweep.seed == ()
    assert one.sweep.strategy == ("fedavg", "fedadam")
    assert changed(one, Changes(epsilon=0)).run.privacy.plan == "none"
    with pytest.raises(ConfigError, match=r"run\.strategy"):
        changed(swept, Changes(strategy="fedmagic"))


def test_the_cells_of_a_sweep() -> None:
    swept = small('\n[sweep]\nseed = [1, 2]\nepsilon = [0, 3]\nstrategy = ["fedavg", "fedadam"]\n')
    found = cells(swept)
    assert len({cell.name for cell in found}) == len(found) == 8
    assert found[0].name == "fedavg-epsnone-seed1"
    assert all(not cell.scenario.swept for cell in found)
    assert [cell.scenario.run.privacy.plan for cell in found[:4]] == ["none", "none", "local", "local"]
    assert len(cells(small())) == 1
    for text in ("strategy = ['fedmagic']", "seed = [1, 1]", "epsilon = [-1]"):
        with pytest.raises(ConfigError):
            small(f"\n[sweep]\n{text}\n")


def test_strategies_are_those_of_a_study() -> None:
    assert "fedavg" in STRATEGIES
    assert len(STRATEGIES) >= 7
    assert Scenario.model_fields.keys() >= {"population", "partition", "drift", "devices", "fault", "run", "monitor"}


def test_the_documents_scenario_and_metrics_are_right() -> None:
    page = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert parse(blocks[0], "scenarios.md").gate
    assert parse(blocks[0] + "\n[sweep]\nseed = [1, 2]\n" + blocks[1], "scenarios.md").gate
    documented = dict(re.findall(r"^\| `([a-z_.0-9]+)` \| [a-z ]+ \| (.*?) \|", page, re.MULTILINE))
    assert {m.name: m.text for m in METRICS}.items() <= documented.items()
