"""What a bundle's recipe and schema ask of a table: which column becomes which of the model's numbers."""

import math
from dataclasses import dataclass

from fedseal.compliance.registry.recipe import Column, Feature, InputSchema, Recipe
from fedseal.errors import ConfigError

AGAIN = "Register it with --describe FILE, and say so in that file: columns, features, output. See docs/predict.md."


@dataclass(frozen=True, slots=True)
class Input:
    """One number of the model's, and the column it is made of."""

    feature: Feature
    column: Column


def inputs_of(recipe: Recipe, schema: InputSchema) -> tuple[Input, ...]:
    """The model's inputs in their order.

    Raises:
        ConfigError: the bundle does not say how a table becomes the model's input, or contradicts itself.
    """
    columns = {column.name: column for column in schema.columns}
    if not columns:
        raise ConfigError("the bundle does not say which columns the model reads", next_step=AGAIN)
    if len(columns) != len(schema.columns):
        raise ConfigError("the bundle names a column twice", next_step=AGAIN)
    features = recipe.features or tuple(Feature(column=name) for name in columns)
    found = []
    for feature in features:
        column = columns.get(feature.column)
        if column is None:
            raise ConfigError(f"the bundle's recipe reads {feature.column!r}, of which its schema says nothing")
        _check(feature, column)
        found.append(Input(feature, column))
    if schema.shape is not None and tuple(schema.shape) != (len(found),):
        raise ConfigError(
            f"the model takes items of shape {tuple(schema.shape)}, and the bundle makes {len(found)} numbers of a row",
            next_step=AGAIN,
        )
    scaled = recipe.normalisation
    if scaled is not None and len(scaled.mean) != len(found):
        raise ConfigError(f"the bundle normalises {len(scaled.mean)} features, and makes {len(found)}", next_step=AGAIN)
    return tuple(found)


def _check(feature: Feature, column: Column) -> None:
    """That a column can become this number."""
    name = repr(column.name)
    if column.type == "text" or (column.type == "category") != (feature.category is not None):
        raise ConfigError(f"the bundle's recipe does not say which number the {column.type} {name} is", next_step=AGAIN)
    if feature.category is not None and feature.category not in column.categories:
        raise ConfigError(f"the bundle's recipe asks for a category of {name} that its schema does not have")
    low = -math.inf if column.low is None else column.low
    high = math.inf if column.high is None else column.high
    if low > high:
        raise ConfigError(f"the bundle's range of {name} is empty", next_step=AGAIN)
    if feature.clip and (column.low is None or column.high is None):
        raise ConfigError(f"the bundle's recipe clips {name} to a range that its schema does not have", next_step=AGAIN)
    if (feature.function == "log" and low <= 0) or (feature.function == "sqrt" and low < 0):
        raise ConfigError(f"the bundle takes the {feature.function} of {name}, whose range does not allow it")
