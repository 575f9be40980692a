"""What is written down about a label set: all of it in the site's own log, hardly any of it in the federation's."""

from dataclasses import dataclass
from enum import StrEnum

from fedseal.compliance.labels.agreement import Agreement
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.content import LabelKeys
from fedseal.compliance.labels.formats import Format
from fedseal.compliance.labels.quality import Noise, NoiseMethod
from fedseal.compliance.labels.scale import Level


class Reason(StrEnum):
    """Why an annotation was corrected."""

    MISTAKE = "mistake"
    REVISED = "annotator-revised"
    GUIDELINE = "guideline-changed"
    WRONG_ITEM = "wrong-item"
    WITHDRAWN = "withdrawn"


class Tool(StrEnum):
    """With what labels were made, as far as their files say."""

    TABLE = "table"
    LABEL_STUDIO = "label-studio"
    DOCCANO = "doccano"
    SEVERAL = "several"


def tool_of(formats: set[Format]) -> Tool:
    """The tool behind the formats that annotations came in."""
    tools = {{Format.LABEL_STUDIO: Tool.LABEL_STUDIO, Format.DOCCANO: Tool.DOCCANO}.get(f, Tool.TABLE) for f in formats}
    return tools.pop() if len(tools) == 1 else Tool.SEVERAL


def decimal(value: float) -> str:
    """A number with six places, as text: logs hold no floats."""
    return f"{value + 0.0:.6f}"


@dataclass(frozen=True, slots=True)
class AgreementFact:
    """A coefficient with its 95 % interval; numbers as `decimal` writes them."""

    coefficient: Coefficient
    level: Level
    value: str
    ci: tuple[str, str]


@dataclass(frozen=True, slots=True)
class GoldFact:
    """How many of the gold items' labels are right. ``digest`` is a Merkle root of keyed leaves."""

    digest: str
    accuracy: str
    n: int


@dataclass(frozen=True, slots=True)
class NoiseFact:
    """The estimated share of wrong labels with its 95 % interval."""

    method: NoiseMethod
    estimate: str
    ci: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Corrections:
    """How many annotations were corrected for one reason since the parent."""

    count: int
    reason_code: Reason


@dataclass(frozen=True, slots=True)
class LabelSetFacts:
    """A label set in the site's own log. It has exact sizes and scores and never leaves the site.

    ``n_items`` counts items with a decided label; digests are ``sha256:`` and hexadecimal digits.
    """

    dataset_version: str
    guideline_version: str
    label_schema: str
    n_items: int
    n_multi_annotated: int
    annotators: int
    adjudication: Adjudication
    agreement: AgreementFact | None
    gold: GoldFact | None
    noise: NoiseFact | None
    corrections: tuple[Corrections, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedLabelSet:
    """A label set in the federation's log: no count, size or score, and no hash of anything guessable.

    ``label_set`` and ``parents`` are keyed commitments; guideline and schema are documents that the federation shares.
    """

    label_set: str
    guideline_version: str
    label_schema: str
    adjudication: Adjudication
    tool: Tool
    parents: tuple[str, ...]


def agreement_fact(found: Agreement) -> AgreementFact:
    """A coefficient as it is written down."""
    return AgreementFact(
        found.coefficient, found.level, decimal(found.value), (decimal(found.low), decimal(found.high))
    )


def noise_fact(found: Noise) -> NoiseFact:
    """An estimate as it is written down."""
    return NoiseFact(found.method, decimal(found.estimate), (decimal(found.low), decimal(found.high)))


def shared_facts(label_set: str, facts: LabelSetFacts, tool: Tool, keys: LabelKeys) -> SharedLabelSet:
    """What others may know of a label set.

    Args:
        label_set: its id.
        facts: what the site's own log says.
        tool: with what it was made.
        keys: the site's.
    """
    return SharedLabelSet(
        label_set=keys.commitment(label_set),
        guideline_version=facts.guideline_version,
        label_schema=facts.label_schema,
        adjudication=facts.adjudication,
        tool=tool,
        parents=tuple(keys.commitment(parent) for parent in facts.parents),
    )
