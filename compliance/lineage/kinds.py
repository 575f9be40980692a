"""What stands in a lineage's graph, and what its edges mean. Numbers and names are stored: they do not change."""

from enum import IntEnum, StrEnum


class NodeKind(StrEnum):
    """Things, what happened to them, and who holds them.

    A node's digest is that of its thing. A run's is its id, a round's and an aggregate's its run and sequence, a
    site's and an alias' its name, an evaluation's the index of its entry.
    """

    MODEL = "model"
    DATASET = "dataset"
    LABEL_SET = "label_set"
    GUIDELINE = "guideline"
    CODE = "code"
    ENVIRONMENT = "environment"
    CONFIG = "config"
    POPULATION = "population"
    SITE = "site"
    RUN = "run"
    ROUND = "round"
    AGGREGATE = "aggregate"
    EVALUATION = "evaluation"
    ALIAS = "alias"
    BUNDLE = "bundle"


class EdgeKind(IntEnum):
    """``source`` influenced ``target``, up to `LAST_INFLUENCE`; what lies beyond is only noted, and not followed."""

    DATA = 1  # dataset, or a population whose dataset is not registered -> round
    LABELS = 2  # label set -> round
    CODE = 3  # code -> run, round
    SETTING = 4  # config, environment -> run
    ROUND_OF = 5  # run -> round
    START = 6  # model -> run
    INPUT = 7  # model -> round
    SUM = 8  # round -> aggregate
    RESULT = 9  # aggregate -> model
    STATISTICS = 10  # aggregate -> every later round of its run
    SELECTED_WITH = 11  # dataset, model -> run; aggregate of an evaluation -> model
    GUIDELINE = 12  # guideline -> label set
    LABELLED = 13  # dataset -> label set
    DERIVED = 14  # dataset -> dataset, label set -> label set
    PREPROCESSING = 15  # code -> dataset
    HOLDS = 16  # site -> population -> dataset
    PARENT = 17  # model -> model
    # A version that takes another's place is not influenced by it, unless it names it as a parent.
    REPLACED = 32  # dataset, label set, guideline, round -> what stands in its place
    EVALUATED = 33  # model -> evaluation
    ALIAS = 34  # model -> alias
    BUNDLE = 35  # model -> bundle


LAST_INFLUENCE = EdgeKind.PARENT
# What leads from a thing to data and labels that hold it.
AMONG_DATA = (EdgeKind.GUIDELINE, EdgeKind.LABELLED, EdgeKind.DERIVED, EdgeKind.PREPROCESSING, EdgeKind.HOLDS)
# What leads from a thing to the rounds that computed with it, before any sum was made.
TOWARDS_ROUNDS = (
    EdgeKind.DATA,
    EdgeKind.LABELS,
    EdgeKind.CODE,
    EdgeKind.SETTING,
    EdgeKind.ROUND_OF,
    *AMONG_DATA,
)


class Taking(StrEnum):
    """How a site took part in an attempt at a round."""

    CONTRIBUTED = "contributed"  # it signed that its vector is on the way; no sum is known to hold it
    SUMMED = "summed"  # and the server says that it is in the sum
    UNSIGNED = "unsigned"  # the server says that it is in the sum, and no entry of the site says so yet
    DROPPED = "dropped"  # the server says that it fell out, and no vector of it is known
