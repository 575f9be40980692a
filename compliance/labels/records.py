"""Facts about label sets as JSON without floats, and back."""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any

from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.facts import (
    AgreementFact,
    Corrections,
    GoldFact,
    LabelSetFacts,
    NoiseFact,
    Reason,
    SharedLabelSet,
)
from fedseal.compliance.labels.quality import NoiseMethod
from fedseal.compliance.labels.scale import Level


def record(facts: LabelSetFacts | SharedLabelSet) -> dict[str, Any]:
    """The facts as what `json.dumps` takes: objects, lists, text, whole numbers and null."""
    return {field.name: _plain(getattr(facts, field.name)) for field in dataclasses.fields(facts)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return value.value if isinstance(value, Enum) else value


def facts_from_record(stored: Mapping[str, Any]) -> LabelSetFacts:
    """The facts that `record` wrote down."""
    found, gold, noise = stored["agreement"], stored["gold"], stored["noise"]
    return LabelSetFacts(
        dataset_version=stored["dataset_version"],
        guideline_version=stored["guideline_version"],
        label_schema=stored["label_schema"],
        n_items=stored["n_items"],
        n_multi_annotated=stored["n_multi_annotated"],
        annotators=stored["annotators"],
        adjudication=Adjudication(stored["adjudication"]),
        agreement=found
        and AgreementFact(Coefficient(found["coefficient"]), Level(found["level"]), found["value"], _pair(found["ci"])),
        gold=gold and GoldFact(gold["digest"], gold["accuracy"], gold["n"]),
        noise=noise and NoiseFact(NoiseMethod(noise["method"]), noise["estimate"], _pair(noise["ci"])),
        corrections=tuple(Corrections(c["count"], Reason(c["reason_code"])) for c in stored["corrections"]),
        parents=tuple(stored["parents"]),
    )


def _pair(values: list[str]) -> tuple[str, str]:
    low, high = values
    return low, high
