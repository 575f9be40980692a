"""What kind of drift one window shows, from what its tests say.

| moved | kind |
|---|---|
| missing values, values out of range, unseen categories | schema |
| features or scores, and labels given scores did not | covariate |
| labels, and scores given labels did not | label |
| labels given scores did; or errors did and nothing else explains them | concept |

A shift of features moves labels too where features tell of labels, and the other way round; which of both it was is
said by the two conditional tests (`conditional`). Without them both are named. More errors after a covariate or label
shift need no concept drift, so with a conditional test that did not move errors alone do not make one.

A window with too few sites or rows is *not evaluable*, which is not "no drift".
"""

from dataclasses import dataclass
from enum import StrEnum


class DriftKind(StrEnum):
    """What changed."""

    COVARIATE = "covariate"
    LABEL = "label"
    CONCEPT = "concept"
    SCHEMA = "schema"


class Reason(StrEnum):
    """Why a kind is named."""

    MISSING = "missing values"
    OUT_OF_RANGE = "values out of range"
    UNSEEN = "unseen categories"
    FEATURES = "features moved"
    SCORES = "scores moved"
    LABELS = "labels moved"
    LABEL_GIVEN_SCORE = "labels moved for equal scores"
    SCORE_GIVEN_LABEL = "scores moved for equal labels"
    ERRORS = "errors rose"


class Obstacle(StrEnum):
    """Why a window says nothing."""

    TOO_FEW_SITES = "too few sites"
    TOO_FEW_ROWS = "too few rows"
    NOTHING_TESTED = "nothing was tested"


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """What the tests of one window found, after correction for their number. None: not tested.

    Attributes:
        sites, rows: how many took part; rows may be a noisy sum.
        missing, out_of_range, unseen: of the schema.
        features, scores: without labels.
        labels: class counts.
        label_given_score, score_given_label: the conditional tests.
        errors: more of them, by test or by chart.
    """

    sites: int
    rows: float
    missing: bool | None = None
    out_of_range: bool | None = None
    unseen: bool | None = None
    features: bool | None = None
    scores: bool | None = None
    labels: bool | None = None
    label_given_score: bool | None = None
    score_given_label: bool | None = None
    errors: bool | None = None

    @property
    def tested(self) -> bool:
        """Whether anything was."""
        return any(
            found is not None
            for found in (
                self.missing,
                self.out_of_range,
                self.unseen,
                self.features,
                self.scores,
                self.labels,
                self.label_given_score,
                self.score_given_label,
                self.errors,
            )
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A kind of drift and what speaks for it."""

    kind: DriftKind
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The kinds a window shows, in the order of `DriftKind`; or the obstacle that kept it from being judged."""

    named: tuple[Named, ...] = ()
    obstacle: Obstacle | None = None

    @property
    def evaluable(self) -> bool:
        """Whether no kind means no drift."""
        return self.obstacle is None

    @property
    def kinds(self) -> frozenset[DriftKind]:
        """The kinds alone."""
        return frozenset(named.kind for named in self.named)


def classify(evidence: WindowEvidence, *, min_sites: int, min_rows: float) -> Classification:
    """The kinds of drift of a window; see the table above."""
    if evidence.sites < min_sites:
        return Classification(obstacle=Obstacle.TOO_FEW_SITES)
    if evidence.rows < min_rows:
        return Classification(obstacle=Obstacle.TOO_FEW_ROWS)
    if not evidence.tested:
        return Classification(obstacle=Obstacle.NOTHING_TESTED)
    found = (
        Named(DriftKind.COVARIATE, _covariate(evidence)),
        Named(DriftKind.LABEL, _label(evidence)),
        Named(DriftKind.CONCEPT, _concept(evidence)),
        Named(DriftKind.SCHEMA, _schema(evidence)),
    )
    return Classification(tuple(named for named in found if named.reasons))


def _covariate(evidence: WindowEvidence) -> tuple[Reason, ...]:
    moved = _true((evidence.features, Reason.FEATURES), (evidence.scores, Reason.SCORES))
    # Scores that moved only because labels did are a label shift's own; so are the features behind them.
    return () if evidence.labels and evidence.score_given_label is False else moved


def _label(evidence: WindowEvidence) -> tuple[Reason, ...]:
    moved = _true((evidence.labels, Reason.LABELS))
    follows = (evidence.features or evidence.scores) and evidence.label_given_score is False
    # Labels that moved as much as scores promised are a covariate shift's own, unless scores of a label stayed too.
    return () if follows and evidence.score_given_label is not False else moved


def _concept(evidence: WindowEvidence) -> tuple[Reason, ...]:
    given = evidence.label_given_score
    if evidence.labels and evidence.score_given_label is False:
        # Another prevalence moves labels for equal scores by Bayes' rule.
        return ()
    if given is False:
        return ()
    found = _true((given, Reason.LABEL_GIVEN_SCORE), (evidence.errors, Reason.ERRORS))
    if found and given and evidence.score_given_label:
        return (*found, Reason.SCORE_GIVEN_LABEL)
    return found


def _schema(evidence: WindowEvidence) -> tuple[Reason, ...]:
    return _true(
        (evidence.missing, Reason.MISSING),
        (evidence.out_of_range, Reason.OUT_OF_RANGE),
        (evidence.unseen, Reason.UNSEEN),
    )


def _true(*pairs: tuple[bool | None, Reason]) -> tuple[Reason, ...]:
    return tuple(reason for found, reason in pairs if found)
