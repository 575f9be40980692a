"""A study: a folder with a `pyproject.toml` (a Flower app's, plus a `[tool.fedseal]` contract) and a `task.py`.

The contract says what will run and under which plan, before anything runs; it is what sites are shown and what a
report repeats.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedseal.config import Frozen, read_toml, validate
from fedseal.errors import ConfigError
from fedseal.study_code import REFERENCE

Strategy = Literal[
    "fedavg",
    "fedprox",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "scaffold",
    "fednova",
    "ditto",
    "fedrep",
    "fedbn",
    "clustered",
]

# What a study is for, in the words of compliance.data.facts.Purpose, which a data contract has too.
Purpose = Literal[
    "research",
    "care-quality",
    "diagnosis-support",
    "risk-model",
    "fraud-detection",
    "operations",
    "safety-monitoring",
]

# Of these the server has no whole model, or several.
WITHOUT_ONE_MODEL = ("fedrep", "fedbn", "clustered")


class Training(Frozen):
    """What sites do in a round, and what the server does with the mean.

    ``update_range`` bounds the L2 norm of one site's update; a longer one is scaled down. ``word_bits`` is how many
    bits a number of the sealed sum has: fewer make a smaller upload and a coarser sum. Under plan ``local``,
    ``sample_rate`` is the probability with which a person is drawn into a step, and ``local_steps`` the number of
    noisy steps a round. Under plan ``none`` ``batch_size`` may replace the draws: batches of so many persons, in a
    fresh order for each pass over them. ``batch_level`` declares that the loss couples the persons of a batch, as a
    ranking or a partial likelihood does; it goes with plan ``none`` only, as nothing of one person can be clipped.
    ``local_epochs`` replaces ``local_steps`` by so many passes over a site's persons, in batches of ``batch_size``:
    sites of different size then take different numbers of steps, which FedNova (Wang et al. 2020) makes up for.

    Ditto (Li et al. 2021) trains beside the federation's model one that each site keeps: ``personal_steps`` steps a
    round (``local_steps``, if not set) of ``personal_learning_rate`` (``learning_rate``), held to the federation's by
    ``ditto_lambda``.

    FedRep (Collins et al. 2021) trains together all but ``personal_layers``, which stay at the sites: each trains those
    for ``head_steps`` steps (``local_steps``, if not set) and then the rest for ``local_steps``; with 0 both together,
    which is FedPer. FedBN (Li et al. 2021) leaves normalisation layers at the sites.

    ``clustered`` (IFCA, Ghosh et al. 2020) trains ``clusters`` models, each by the sites that it fits best; no sum of a
    model's updates is over fewer than ``cluster_minimum`` sites.

    With ``personalise = "finetune"`` every site takes ``personal_steps`` steps of ``personal_learning_rate`` from the
    final model and keeps what comes of it; the server learns the mean of the metrics on the sites' test persons.

    ``proximal_mu`` is FedProx's mu (Li et al. 2020), ``server_momentum`` FedAvgM's beta (Hsu et al. 2019);
    ``beta_1``, ``beta_2`` and ``tau`` are those of FedAdam and FedYogi (Reddi et al. 2021, whose defaults they have),
    and ``tau`` FedAdagrad's, whose ``beta_1`` is 0 if it is not set. ``bias_correction`` is Flower's addition to
    FedAdam, which the paper does not have. ``server_learning_rate`` is eta of the last three, the server's step size
    of FedAvgM and eta_g of Scaffold (Karimireddy et al. 2020); what a strategy does not know it does not use.
    """

    rounds: int = Field(ge=1, le=10_000)
    local_steps: int = Field(default=5, ge=1, le=100_000)
    sample_rate: float = Field(default=0.1, ge=1e-6, le=1)
    batch_size: int | None = Field(default=None, ge=1, le=10_000_000)
    batch_level: bool = False
    learning_rate: float = Field(gt=0)
    local_epochs: int | None = Field(default=None, ge=1, le=100_000)
    strategy: Strategy = "fedavg"
    proximal_mu: float = Field(default=0.01, ge=0)
    server_learning_rate: float | None = Field(default=None, gt=0)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    beta_1: float | None = Field(default=None, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0)
    bias_correction: bool = True
    ditto_lambda: float = Field(default=0.1, ge=0)
    personal_steps: int | None = Field(default=None, ge=1, le=100_000)
    personal_learning_rate: float | None = Field(default=None, gt=0)
    personal_layers: tuple[str, ...] = ()
    head_steps: int | None = Field(default=None, ge=0, le=100_000)
    personalise: Literal["none", "finetune"] = "none"
    clusters: int = Field(default=2, ge=2, le=4)
    cluster_minimum: int = Field(default=3, ge=2, le=2000)
    # One unit of a 32-bit sum is sites * range / 2^31: with a wider range updates would be rounded away unseen.
    update_range: float = Field(default=100.0, ge=1e-6, le=1e6)
    word_bits: int = Field(default=32, ge=12, le=32)

    @model_validator(mode="after")
    def _passes(self) -> "Training":
        if self.local_epochs is not None and self.batch_size is None:
            raise ValueError("local_epochs counts passes in batches: it needs batch_size")
        if self.local_epochs is not None and self.strategy == "scaffold":
            raise ValueError("scaffold needs as many steps at every site: use local_steps, not local_epochs")
        if (self.strategy == "fedrep") != bool(self.personal_layers):
            raise ValueError(
                "fedrep needs personal_layers, the names of layers that stay at the sites; others have none"
            )
        return self

    def steps_over(self, persons: int | None) -> int:
        """The local steps of a round at a site of so many persons.

        Raises:
            ConfigError: they are counted in passes, and the number of persons is not known.
        """
        if self.local_epochs is None or self.batch_size is None:
            return self.local_steps
        if persons is None:
            raise ConfigError("local_epochs counts steps by a site's persons, and nobody says how many there are")
        return self.local_epochs * max(1, -(-persons // self.batch_size))

    @property
    def in_halves(self) -> bool:
        """Whether a part of the model stays at the sites, so that the server never has a whole one."""
        return self.strategy in ("fedrep", "fedbn")

    @property
    def has_one_model(self) -> bool:
        """Whether the server has one whole model."""
        return self.strategy not in WITHOUT_ONE_MODEL

    @property
    def server_rate(self) -> float:
        """``server_learning_rate``, or if it is not set 0.1 for strategies with a second moment and 1 for others."""
        if self.server_learning_rate is not None:
            return self.server_learning_rate
        return 0.1 if self.strategy in ("fedadam", "fedyogi", "fedadagrad") else 1.0

    @property
    def momentum(self) -> float:
        """``beta_1``, or if it is not set 0 for FedAdagrad and 0.9 for FedAdam and FedYogi."""
        if self.beta_1 is not None:
            return self.beta_1
        return 0.0 if self.strategy == "fedadagrad" else 0.9


class AdaptiveClip(Frozen):
    """A clip norm that follows the ``quantile`` of the norms that are clipped (Andrew, Thakkar, McMahan and Ramaswamy
    2021): after each round it moves towards it by a factor of at most exp(``learning_rate``).

    It begins with the promise's ``clip_norm`` and stays from ``lowest`` to ``highest``. ``budget_share`` is the part of
    the update's cost that counting who was not clipped takes: more makes the count exacter and the update noisier.
    """

    quantile: float = Field(default=0.5, ge=0.01, le=0.99)
    learning_rate: float = Field(default=0.2, ge=1e-3, le=2)
    lowest: float = Field(default=1e-3, ge=1e-6, le=1e6)
    highest: float = Field(default=1e3, ge=1e-6, le=1e6)
    budget_share: float = Field(default=0.05, ge=1e-3, le=0.5)


class Privacy(Frozen):
    """The promise to every person whose data is trained on.

    ``delta`` is the chance that the promise of ``epsilon`` does not hold: publishing every person with that chance
    keeps it, so it has to be far below one over the number of persons.

    Under plan ``local`` noise is added at each site. Under ``distributed`` a round is one step along the sum of all
    persons' clipped gradients, with noise that the sites share (``local_steps`` and ``sample_rate`` are not used);
    under ``client`` sites train as without a plan, and what is clipped and covered by shared noise is a site's whole
    update. Under these two the clip norm may adapt: ``adaptive_clip``.
    """

    plan: Literal["none", "local", "distributed", "client"] = "local"
    epsilon: float = Field(default=3.0, gt=0, le=1000)
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    clip_norm: float = Field(default=1.0, ge=1e-6, le=1e6)
    retries: int = Field(default=1, ge=0, le=1000)
    adaptive_clip: AdaptiveClip | None = None

    @model_validator(mode="after")
    def _interval(self) -> "Privacy":
        adaptive = self.adaptive_clip
        if adaptive is not None and not adaptive.lowest <= self.clip_norm <= adaptive.highest:
            raise ValueError("clip_norm is where adaptive_clip begins: it has to be from its lowest to its highest")
        return self


class Cohort(Frozen):
    """Who takes part.

    ``colluders`` is how many sites may work with the server without learning anything; ``minimum`` how many sites a
    sum is over at least; ``largest_site`` a public upper bound on the number of training persons of one site.
    ``wait_hours`` is how long a release waits for sites that say "later": outside their hours, or until a person there
    has looked at it.
    """

    minimum: int = Field(default=3, ge=2, le=2000)
    colluders: int = Field(default=0, ge=0, le=254)
    largest_site: int = Field(default=1_000_000, ge=1)
    wait_hours: float = Field(default=24.0, ge=0, le=720)


class Normalisation(Frozen):
    """How features are brought to one scale: by the task itself, or by the federation's own mean and deviation.

    ``low`` and ``high`` are public ranges, one pair for each feature; ``budget_share`` is the part of the privacy
    budget that the mean and deviation may cost, ``clip_norm`` the bound on one person's row of scaled values and
    their squares.
    """

    kind: Literal["task", "federated"] = "task"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    budget_share: float = Field(default=0.15, ge=1e-3, le=0.999)
    clip_norm: float | None = Field(default=None, ge=1e-6, le=1e6)

    @model_validator(mode="after")
    def _ranges(self) -> "Normalisation":
        if self.kind == "federated" and (not self.low or len(self.low) != len(self.high)):
            raise ValueError("federated normalisation needs low and high, one number for each feature")
        if any(a >= b for a, b in zip(self.low, self.high, strict=False)):
            raise ValueError("each low has to be below its high")
        return self


class Evaluation(Frozen):
    """One private evaluation of the final model on the sites' test persons; none without an ``epsilon``.

    ``epsilon`` is the whole promise to test persons, whose ledger is not that of the training persons. What is
    released are ``tables`` of counts under plan histogram: ``score`` is a histogram of ``bins`` scores by label, for
    two classes; ``right`` whether the model is right, by label, for ``classes`` classes; ``loss`` a histogram of
    ``bins`` losses from ``low`` to ``high``, a public range. A person is in one cell of each: two tables have twice the
    noise of one. A retry halves what one attempt may cost, so there are none unless stated.

    ``bins = "auto"`` takes ``persons`` * epsilon / 60 bins, from 8 to 64: fewer where noise would hide them;
    ``persons`` is a public guess of how many test persons there are, never their true number. ``subgroup`` names a
    column that data() hands out for test persons, with codes 0, 1, ... of the ``groups``: the table ``score`` is then
    counted for each group, and as a person is in one group this costs no more. A group of fewer than
    ``smallest_group`` persons is hidden. ``coverage`` is that of the threshold below which a model should abstain.
    """

    epsilon: float | None = Field(default=None, gt=0, le=64)
    retries: int = Field(default=0, ge=0, le=1000)
    tables: tuple[Literal["score", "right", "loss"], ...] = ("score",)
    bins: Literal["auto"] | Annotated[int, Field(ge=2, le=1000)] = 20
    persons: int | None = Field(default=None, ge=1, le=10**9)
    classes: int = Field(default=2, ge=2, le=1000)
    low: float = 0.0
    high: float = 4.0
    subgroup: str | None = Field(default=None, min_length=1)
    groups: tuple[str, ...] = ()
    smallest_group: int = Field(default=50, ge=1)
    coverage: float = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _tables(self) -> "Evaluation":
        if not self.tables or len(set(self.tables)) != len(self.tables):
            raise ValueError("evaluation needs tables, each once")
        if not self.low < self.high:
            raise ValueError("low has to be below high")
        if self.bins == "auto" and self.persons is None:
            raise ValueError('bins = "auto" needs persons, a public guess of how many test persons there are')
        return self

    @model_validator(mode="after")
    def _groups(self) -> "Evaluation":
        if (self.subgroup is None) != (not self.groups):
            raise ValueError("subgroup, a column of data(), and groups, the names of its codes, go together")
        if self.groups and (len(set(self.groups)) < len(self.groups) or not 2 <= len(self.groups) <= 100):
            raise ValueError("groups needs 2 to 100 names, each once")
        if self.groups and "score" not in self.tables:
            raise ValueError('subgroups are of the table "score"')
        return self

    @property
    def bin_count(self) -> int:
        """How many bins there are: where they adapt, one for 60 / epsilon persons, from 8 to 64."""
        if self.bins != "auto":
            return self.bins
        wanted = (self.persons or 0) * (self.epsilon or 0.0) / 60
        # Even: no bin then lies on both sides of a half, and accuracy has no bin error.
        return 2 * round(min(max(wanted, 8.0), 64.0) / 2)


class SimulationDefaults(Frozen):
    """How a simulation spreads a population over sites. Ignored everywhere else.

    ``population`` names a function of task.py that returns one table; ``natural`` one that reads the folder of --data
    and returns a table for each site by name, where files are not one CSV a site; ``label`` is the column of classes;
    ``label_skew`` is the concentration of the Dirichlet distribution over classes (small is skewed),
    ``quantity_skew`` that over sizes. ``grouped`` says that a person may have several rows, which the task makes one
    item of; they stay at one site.
    """

    population: str | None = None
    natural: str | None = None
    sites: int = Field(default=8, ge=2, le=2000)
    seed: int = Field(default=1, ge=0, lt=2**63)
    label: str | None = None
    person: str | None = None
    grouped: bool = False
    label_skew: float = Field(default=1.0, gt=0)
    quantity_skew: float = Field(default=10.0, gt=0)
    smallest_site: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _grouping(self) -> "SimulationDefaults":
        if self.grouped and self.person is None:
            raise ValueError("grouped = true needs person, the column that says whose a row is")
        return self


class Contract(Frozen):
    """The table `[tool.fedseal]`. ``purpose`` is what the study is for; a site may answer some purposes only."""

    version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    title: str = ""
    purpose: Purpose | None = None
    task: str = Field(default="task:Task", pattern=f"^{REFERENCE}$")
    training: Training
    privacy: Privacy = Privacy()
    cohort: Cohort = Cohort()
    normalisation: Normalisation = Normalisation()
    evaluation: Evaluation = Evaluation()
    simulation: SimulationDefaults = SimulationDefaults()

    @model_validator(mode="after")
    def _evaluated(self) -> "Contract":
        if self.evaluation.epsilon is not None and self.cohort.colluders < 1:
            raise ValueError("a private evaluation needs cohort.colluders of at least 1: a site knows its noise share")
        return self

    @model_validator(mode="after")
    def _sampling(self) -> "Contract":
        # The ledger's accountant assumes independent draws, and with them pays for far less than for a pass.
        private = self.privacy.plan in ("local", "distributed")
        clustered = self.training.strategy == "clustered"
        if private and self.training.batch_size is not None:
            raise ValueError("batch_size goes with plans none and client; others draw persons, or take everyone")
        if private and self.training.batch_level:
            raise ValueError("batch_level goes with plans none and client; others clip each person's own gradient")
        if self.privacy.plan == "local" and self.privacy.adaptive_clip is not None:
            raise ValueError("adaptive_clip goes with plans distributed and client, whose counts get shared noise")
        if self.privacy.plan in ("distributed", "client"):
            if self.cohort.colluders < 1:
                raise ValueError(
                    f"plan {self.privacy.plan} needs cohort.colluders of at least 1: a site knows its own noise share"
                )
            if self.training.word_bits != 32:
                raise ValueError(f"plan {self.privacy.plan} sets the size of words by its noise: leave word_bits out")
            if self.training.strategy == "scaffold":
                raise ValueError(f"scaffold corrects local steps, which plan {self.privacy.plan} does not go with")
        if self.privacy.plan == "distributed" and self.training.strategy == "fednova":
            raise ValueError("fednova evens out local steps, and plan distributed has none")
        if self.training.personalise != "none":
            check_personalised(self.training, self.privacy.plan)
        if clustered and self.privacy.plan != "none":
            raise ValueError("which cluster a site belongs to says something of its persons that no plan covers")
        fewest = max(self.cohort.minimum, self.cohort.colluders + 2)
        if clustered and self.training.cluster_minimum < fewest:
            raise ValueError(f"cluster_minimum has to be at least {fewest}, what the cohort asks of every sum")
        if private and self.training.in_halves:
            raise ValueError(
                f"{self.training.strategy} goes with plans none and client: through what stays at a site, which has no "
                "noise, one person moves everybody's gradients"
            )
        if self.evaluation.epsilon is not None and (self.training.in_halves or clustered):
            raise ValueError(f"{self.training.strategy} leaves no one model that a private evaluation could be of")
        return self


def check_personalised(training: Training, plan: str) -> None:
    """Whether fine-tuning goes with a strategy and a plan; ValueError if not."""
    if not training.has_one_model or training.strategy == "ditto":
        raise ValueError(f"personalise fine-tunes one model of all, and {training.strategy} has others")
    if plan != "none":
        raise ValueError("personalise goes with plan none: its metrics are of models that no noise covers")


def private_by(contract: Contract, epsilon: float | None) -> Literal["local"] | None:
    """The plan that asking for an epsilon turns on: local where there is none, otherwise the study's own stays."""
    return "local" if epsilon is not None and contract.privacy.plan == "none" else None


@dataclass(frozen=True, slots=True)
class Study:
    """A study's folder and contract."""

    folder: Path
    contract: Contract


def load_study(folder: Path) -> Study:
    """Read a study's contract.

    Raises:
        ConfigError: the folder, its pyproject.toml or the contract is missing or wrong; says what and where.
    """
    path = folder / "pyproject.toml"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", next_step="Make a study with: fedseal new MY-STUDY")
    tables, text = read_toml(path)
    tool = tables.get("tool")
    contract = tool.get("fedseal") if isinstance(tool, dict) else None
    if contract is None:
        raise ConfigError(f"{path} has no table [tool.fedseal]", next_step="Make a study with: fedseal new MY-STUDY")
    return Study(folder, validate(Contract, contract, text=text, source=str(path), where=("tool", "fedseal")))
