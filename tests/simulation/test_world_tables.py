"""What the tables of a world may say, and the one sentence that is said where they may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedseal.config import parse_toml, validate
from fedseal.errors import ConfigError
from fedseal.simulation.worlds.schedule import parse_when
from fedseal.simulation.worlds.tables import (
    OPS,
    ConsentTable,
    DriftTable,
    LabelNoiseTable,
    LabelsTable,
    MissingTable,
    PartitionTable,
    PopulationTable,
    WorldTables,
)

WHOLE = """
[population]
source = "heart"
sites = 4
rows_per_step = 40
[partition]
kind = "natural"
column = "hospital"
[[drift]]
kind = "covariate"
feature = "age"
op = "shift"
by = 0.5
when = "sudden@4"
where = ["va", "hungarian"]
[[drift]]
kind = "label"
shares = { disease = 0.8 }
when = "gradual@2..5"
where = "staggered=2"
[[label_noise]]
where = "fraction=.25"
kind = "pair"
rate = 0.1
when = "sudden@6"
[[missing]]
where = ["switzerland"]
feature = "cholesterol"
mechanism = "mnar"
rate = 0.9
[labels]
delay_steps = 2
annotators = 3
accuracy = [0.95, 0.9, 0.7]
[[consent]]
share = 0.1
at = 5
"""


def test_a_whole_world_is_read() -> None:
    world = validate(WorldTables, parse_toml(WHOLE, "s.toml"), text=WHOLE, source="s.toml")
    assert world.drift[0].feature == ("age",)
    assert world.drift[0].places.named == ("va", "hungarian")
    assert world.drift[1].operation == "prevalence"
    assert world.drift[1].places.staggered == 2
    assert world.label_noise[0].places.fraction == 0.25


REFUSED: list[tuple[type[Any], dict[str, Any], str]] = [
    (PopulationTable, {"source": "digits"}, "source 'digits' is unknown; known are csv"),
    (PopulationTable, {"source": "csv", "path": "a.csv"}, "source = \"csv\" needs 'label'"),
    (PopulationTable, {"source": "generator:sea", "sites": 3}, "source = \"generator:sea\" needs 'rows_per_step'"),
    (
        PopulationTable,
        {"source": "generator:sea", "sites": 3, "rows_per_step": 9, "dimensions": 4},
        "source = \"generator:sea\" does not use 'dimensions'",
    ),
    (PopulationTable, {"source": "sklearn:digits", "sites": 3, "resample": True}, "say how many"),
    (PartitionTable, {"kind": "label_dirichlet"}, "kind = \"label_dirichlet\" needs 'alpha'"),
    (PartitionTable, {"kind": "iid", "alpha": 1.0}, "kind = \"iid\" does not use 'alpha'"),
    (PartitionTable, {"kind": "quantity", "rule": "explicit"}, "sizes go with"),
    (PartitionTable, {"kind": "quantity", "rule": "explicit", "sizes": [3, 0]}, "every size"),
    (PartitionTable, {"kind": "continuous", "feature": ["a", "b"]}, "goes by one feature"),
    (PartitionTable, {"kind": "concept"}, "needs either concepts"),
    (PartitionTable, {"kind": "concept", "concepts": [-1]}, "counted from 0"),
    (PartitionTable, {"kind": "missing", "feature": "a", "mechanism": "mar", "rate": 0.1}, "driver"),
    (DriftTable, {"kind": "concept", "when": "sudden@1"}, 'kind = "concept" needs an op: relabel, threshold, concept'),
    (DriftTable, {"kind": "label", "op": "shift", "when": "sudden@1"}, 'op = "shift" is of another kind'),
    (DriftTable, {"kind": "covariate", "op": "shift", "when": "sudden@1", "by": 1}, "op = \"shift\" needs 'feature'"),
    (
        DriftTable,
        {"kind": "covariate", "op": "mix", "when": "sudden@1", "by": 0.5, "feature": "a"},
        "op = \"mix\" does not use 'feature'",
    ),
    (
        DriftTable,
        {"kind": "covariate", "op": "swap", "when": "incremental@1..3", "feature": "a", "other": "b"},
        "use gradual instead",
    ),
    (DriftTable, {"kind": "concept", "op": "concept", "when": "sudden@1"}, "to says which concept"),
    (DriftTable, {"kind": "concept", "op": "concept", "when": "matrix=a.cp", "to": 1}, "to says which concept"),
    (DriftTable, {"kind": "concept", "op": "concept", "when": "matrix=a.cp", "where": ["s"]}, "leave where out"),
    (DriftTable, {"kind": "covariate", "op": "mix", "when": "sudden@1", "by": 1.5}, "a mix is a share"),
    (DriftTable, {"kind": "label", "when": "sudden@1", "shares": {"a": 0.9, "b": 0.2}}, "together at most 1"),
    (DriftTable, {"kind": "participation", "when": "sudden", "by": 2}, "says no time; it may be always"),
    (DriftTable, {"kind": "participation", "when": "gradual@4..4", "by": 2}, "has to end after it begins"),
    (DriftTable, {"kind": "participation", "when": "recurring@4/1/.5", "by": 2}, "at least 2 steps"),
    (DriftTable, {"kind": "participation", "when": "recurring@4/6/1", "by": 2}, "above 0 and below 1"),
    (DriftTable, {"kind": "participation", "when": "sudden@1", "by": 2, "where": "some"}, "says no place"),
    (DriftTable, {"kind": "participation", "when": "sudden@1", "by": 2, "where": []}, "means no site"),
    (DriftTable, {"kind": "participation", "when": "sudden@1", "by": 2, "where": 3}, "where is all"),
    (LabelNoiseTable, {"rate": 0.1, "when": "matrix=a.cp"}, "a matrix is for"),
    (MissingTable, {"feature": "a"}, "needs a rate"),
    (MissingTable, {"feature": "a", "mechanism": "absent", "rate": 1.0}, "needs a rate"),
    (LabelsTable, {"annotators": 2, "accuracy": [0.9]}, "one number for each"),
    (ConsentTable, {"share": 0.1, "at": 3, "where": "staggered=2"}, "cannot be staggered"),
]


@pytest.mark.parametrize(("table", "values", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    table: type[Any], values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(table, values, text="", source="s.toml")
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message


def test_a_misspelt_key_finds_its_neighbour() -> None:
    text = '[population]\nsource = "heart"\nsite = 4\n'
    with pytest.raises(ConfigError, match=r"s.toml:3: unknown key 'population.site'") as caught:
        validate(WorldTables, parse_toml(text, "s.toml"), text=text, source="s.toml")
    assert caught.value.next_step == "Did you mean 'sites'?"


def test_every_op_says_what_it_needs() -> None:
    for op, (kind, needed, _, _) in OPS.items():
        if needed:
            with pytest.raises(ValidationError, match=f"needs '{needed[0]}'"):
                DriftTable.model_validate({"kind": kind, "op": op, "when": "sudden@1"})


# Of step 0 to 9.
LEVELS = {
    "always": [1] * 10,
    "sudden@4": [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
    "gradual@4..7": [0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1],
    "incremental@0..1": [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    "recurring@1/4/.5": [0, 1, 1, 0, 0, 1, 1, 0, 0, 1],
    "recurring@0/3/.34": [1, 0, 0, 1, 0, 0, 1, 0, 0, 1],
}


@pytest.mark.parametrize("text", LEVELS)
def test_a_schedule_has_its_level_at_every_step(text: str) -> None:
    schedule = parse_when(text)
    assert [schedule.level(step) for step in range(10)] == LEVELS[text]
    assert [schedule.level(step, delay=2) for step in range(2, 12)] == LEVELS[text]


def test_the_published_schema_knows_the_keys_of_when_and_where() -> None:
    schema = DriftTable.model_json_schema()
    assert "sudden@t" in schema["properties"]["when"]["description"]
    assert "staggered=k" in schema["properties"]["where"]["description"]
