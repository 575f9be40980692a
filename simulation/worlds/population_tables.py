"""The tables that say where rows come from and how they are spread over sites."""

from typing import Literal

from pydantic import Field, model_validator

from fedseal.simulation.worlds.keys import Features, KeyedTable

SKLEARN = ("digits", "breast_cancer", "wine")
GENERATORS = ("sea", "hyperplane", "rbf", "agrawal", "stagger", "sine", "gaussians", "synthetic")
SOURCES = ("csv", "tables", "heart", *(f"sklearn:{n}" for n in SKLEARN), *(f"generator:{n}" for n in GENERATORS))


class PopulationTable(KeyedTable):
    """Where rows come from, how many sites there are and how many rows each gets a step.

    ``source`` is a file (``csv`` with ``path``), a folder with one CSV a site (``tables`` with ``path``), the four
    hospitals of the UCI heart disease data (``heart``: needs the folder of its files), a data set that ships with
    scikit-learn (``sklearn:digits``, ``sklearn:breast_cancer``, ``sklearn:wine``), or a generator
    (``generator:sea``, ``hyperplane``, ``rbf``, ``agrawal``, ``stagger``, ``sine``, ``gaussians``, ``synthetic``).

    A file has so many rows and no more: each site's are spread over the steps without repeating one, evenly, or at most
    ``rows_per_step`` a step. With ``resample`` every step draws ``rows_per_step`` of the site's rows with
    replacement instead. ``test_share`` of each site's rows are held out for its test draws. A generator never runs out.

    Of a file, ``label`` is the column that is predicted, ``person`` one whose equal values are one person, and
    ``columns`` the features (every other column of numbers if it is not set). With ``threshold`` the label is a grade,
    and the two classes are below it and from it on, so that a drift can move it. Heart's grade is 0 to 4, its
    threshold 1.

    Of a generator, ``dimensions`` and ``classes`` are the numbers of features and classes where it leaves them open,
    ``noise`` is the share of labels that its concept gets wrong, ``separation`` the distance of two class means in
    deviations (gaussians), ``centroids`` their number (rbf); ``alpha`` and ``beta`` say how much the sites' models and
    features differ (synthetic; Li et al. 2020).
    """

    source: str
    path: str | None = None
    label: str | None = None
    person: str | None = None
    columns: tuple[str, ...] = ()
    threshold: float | None = None
    sites: int | None = Field(default=None, ge=1, le=1_000_000)
    rows_per_step: int | None = Field(default=None, ge=1, le=1_000_000)
    resample: bool = False
    test_share: float = Field(default=0.2, ge=0.05, le=0.8)
    dimensions: int = Field(default=10, ge=2, le=10_000)
    classes: int = Field(default=2, ge=2, le=1000)
    noise: float = Field(default=0.0, ge=0, le=0.5)
    separation: float = Field(default=2.0, gt=0, le=100)
    centroids: int = Field(default=50, ge=2, le=10_000)
    alpha: float = Field(default=0.5, ge=0, le=100)
    beta: float = Field(default=0.5, ge=0, le=100)

    @model_validator(mode="after")
    def _source(self) -> "PopulationTable":
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is unknown; known are {', '.join(SOURCES)}")
        kind, _, name = self.source.partition(":")
        finite = ("source", "rows_per_step", "resample", "test_share")
        extra: tuple[str, ...]
        if kind == "generator":
            keys: dict[str, tuple[str, ...]] = {
                "hyperplane": ("dimensions",),
                "rbf": ("dimensions", "classes", "centroids"),
                "gaussians": ("dimensions", "classes", "separation"),
                "synthetic": ("dimensions", "classes", "alpha", "beta"),
            }
            own = keys.get(name, ())
            self.check_keys("source", self.source, needed=("sites", "rows_per_step"), allowed=("source", "noise", *own))
        elif kind == "csv":
            extra = ("sites", "person", "columns", "threshold")
            self.check_keys("source", self.source, needed=("path", "label"), allowed=(*finite, *extra))
        elif kind == "tables":
            extra = ("person", "columns", "threshold")
            self.check_keys("source", self.source, needed=("path", "label"), allowed=(*finite, *extra))
        else:
            extra = ("threshold",) if kind == "heart" else ()
            self.check_keys("source", self.source, needed=(), allowed=("sites", *finite, *extra))
        if self.resample and self.rows_per_step is None:
            raise ValueError("resample draws rows_per_step rows a step: say how many")
        return self

    @property
    def generated(self) -> bool:
        """Whether rows come from a generator."""
        return self.source.startswith("generator:")


PARTITION_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "iid": ((), ()),
    "label_dirichlet": (("alpha",), ("min_rows", "self_balancing")),
    "labels_per_site": (("labels",), ()),
    "quantity": (("rule",), ("alpha", "sizes", "min_rows")),
    "feature_noise": (("sigma",), ()),
    "feature_cells": (("feature",), ("bins",)),
    "natural": (("column",), ()),
    "continuous": (("feature",), ("strictness",)),
    "concept": ((), ("concepts", "maps")),
    "label_noise": (("noise", "rate"), ()),
    "missing": (("feature", "mechanism", "rate"), ("driver",)),
}


class PartitionTable(KeyedTable):
    """How rows are spread over sites, and how sites differ from the start.

    * ``iid``: at random, in equal parts.
    * ``label_dirichlet``: each class is spread by Dirichlet(``alpha``), at least ``min_rows`` a site;
      ``self_balancing`` gives nothing more to a site that has its share.
    * ``labels_per_site``: each site has ``labels`` of the classes.
    * ``quantity``: sizes by ``rule``: dirichlet (``alpha``), linear, square, exponential, lognormal, or explicit
      (``sizes``).
    * ``feature_noise``: site i of n adds noise of deviation ``sigma`` * i/n, in deviations of the feature.
    * ``feature_cells``: the features are cut into ``bins`` each; opposite cells go to one site.
    * ``natural``: by the values of ``column``; with fewer sites than values, values are gathered.
    * ``continuous``: in the order of one feature, the stricter the closer ``strictness`` is to 1.
    * ``concept``: same features, other labels: site i has concept ``concepts[i]`` of a generator, or relabels by
      ``maps[i]``; a shorter list is repeated.
    * ``label_noise``: site i of n records labels with ``noise`` symmetric, pair or instance at ``rate`` * i/n.
    * ``missing``: site i of n lacks values of the features at ``rate`` * i/n by mechanism mcar, mar or mnar.
    """

    kind: Literal[
        "iid",
        "label_dirichlet",
        "labels_per_site",
        "quantity",
        "feature_noise",
        "feature_cells",
        "natural",
        "continuous",
        "concept",
        "label_noise",
        "missing",
    ] = "iid"
    alpha: float = Field(default=0.5, gt=0, le=1e6)
    min_rows: int = Field(default=10, ge=1)
    self_balancing: bool = False
    labels: int = Field(default=2, ge=1)
    rule: Literal["dirichlet", "linear", "square", "exponential", "lognormal", "explicit"] = "dirichlet"
    sizes: tuple[int, ...] = ()
    sigma: float = Field(default=0.1, ge=0, le=100)
    feature: Features = ()
    bins: int = Field(default=2, ge=2, le=100)
    column: str | None = None
    strictness: float = Field(default=1.0, ge=0, le=1)
    concepts: tuple[int, ...] = ()
    maps: tuple[dict[str, str], ...] = ()
    noise: Literal["symmetric", "pair", "instance"] = "symmetric"
    rate: float = Field(default=0.0, ge=0, le=1)
    mechanism: Literal["mcar", "mar", "mnar"] = "mcar"
    driver: str | None = None

    @model_validator(mode="after")
    def _kind(self) -> "PartitionTable":
        needed, allowed = PARTITION_KEYS[self.kind]
        self.check_keys("kind", self.kind, needed=needed, allowed=("kind", *allowed))
        if self.kind == "quantity":
            if (self.rule == "explicit") != bool(self.sizes):
                raise ValueError('sizes go with rule = "explicit", and that needs them')
            if any(size < 1 for size in self.sizes):
                raise ValueError("every size has to be at least 1")
        if self.kind == "continuous" and (len(self.feature) != 1 or self.feature == ("all",)):
            raise ValueError("a continuous partition goes by one feature")
        if self.kind == "concept" and bool(self.concepts) == bool(self.maps):
            raise ValueError('kind = "concept" needs either concepts, for a generator, or maps of labels')
        if any(concept < 0 for concept in self.concepts):
            raise ValueError("concepts are counted from 0")
        if self.kind == "missing" and (self.mechanism == "mar") != (self.driver is not None):
            raise ValueError('driver, the feature that values go missing by, goes with mechanism = "mar"')
        return self
