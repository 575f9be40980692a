"""What the questions are answered with. Every ``idx`` is the index of the entry that says so: `compliance.log.proof`
shows that it stands in the log.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass


@dataclass(frozen=True, slots=True)
class Thing:
    """A node: what it is, and the entry that named it first."""

    kind: str
    digest: str
    label: str
    idx: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What was said of a dataset or a label set later: withdrawn, superseded or corrected, and by which."""

    notice: str
    reason: str | None
    by: str | None
    idx: int


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a model was made of.

    ``rounds``: how many rounds it went into itself, statistics and evaluations included. ``chosen``: it guided a
    choice, and had no other influence. ``sites``: whose it is, for data.
    """

    thing: Thing
    rounds: int
    chosen: bool
    sites: tuple[str, ...]
    notices: tuple[Notice, ...]
    idx: int


@dataclass(frozen=True, slots=True)
class RunPart:
    """A run on the way to a model. ``rounds`` counts its updates that led to the model, ``plans`` the kinds of plan."""

    run: str
    study: str
    plan: str
    rounds: int
    statistics: int
    evaluations: int
    sites: tuple[str, ...]
    idx: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A person's signature under a model."""

    alias: str
    meaning: str
    role: str
    actor: str
    org: str
    time: str
    idx: int


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that was checked for a model."""

    alias: str
    gate: str
    name: str | None
    limit: str | None
    found: str | None
    passed: bool
    idx: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """A model's way into use or out of it.

    ``missing``: indices that the entry names as approvals or gates and that are none of this model's in this log.
    """

    action: str
    alias: str | None
    replaces: str | None
    reason: str | None
    approvals: tuple[int, ...]
    gates: tuple[int, ...]
    missing: tuple[int, ...]
    time: str
    idx: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of an evaluation."""

    name: str
    value: str
    margin: str
    simulated: bool
    org: str
    idx: int


@dataclass(frozen=True, slots=True)
class Approvals:
    """Who said yes to a model, what it passed, where it went. ``aliases``: those that point to it now."""

    model: Thing
    aliases: tuple[str, ...]
    signatures: tuple[Signed, ...]
    gates: tuple[Gate, ...]
    promotions: tuple[Promotion, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model was made of. ``runs``, ``models`` and ``parts`` by the entry that names them first.

    ``models``: the registered models that it descends from. ``unsigned``: how often the server counted a site in
    without that site's own word for it in the log. ``corrected``: entries of this answer that a later one calls wrong.
    """

    model: Thing
    models: tuple[Thing, ...]
    runs: tuple[RunPart, ...]
    parts: tuple[Part, ...]
    figures: tuple[Figure, ...]
    approvals: Approvals
    unsigned: int
    corrected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """What can be learned at most of one person of a population, from a model: epsilon at ``delta``.

    By privacy loss distributions, and by Renyi accounting (``second``; None where the first is that already). Infinite
    where a round was charged with no protection, or where ``uncharged`` rounds were not charged at all.
    """

    population: str
    delta: float
    epsilon: float
    second: float | None
    charges: int
    uncharged: int


@dataclass(frozen=True, slots=True)
class Influenced:
    """A model that something has reached.

    Args:
        model: which; named first by ``idx`` in it.
        registered: as what; None for a model between two rounds.
        aliases: that point to it now.
        was: aliases that pointed to it before.
        run: the run that made it, up to the release ``sequence``.
        direct_rounds: rounds of that run, up to the model, that computed with the thing itself.
        inherited: none did: the influence came with the model that the run began with, or through a choice.
        chosen: the influence is through choices only (early stopping, hyper-parameters).
        clean: the newest model that this one descends from and that nothing of it has reached; None if there is none.
        bounds: one for each population whose persons are concerned, for models that are registered or in use.
    """

    model: Thing
    registered: str | None
    aliases: tuple[str, ...]
    was: tuple[str, ...]
    run: str | None
    sequence: int | None
    direct_rounds: int
    inherited: bool
    chosen: bool
    clean: Thing | None
    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Impact:
    """What a thing has reached. ``models`` by the entry that named them first; ``populations`` whose data it is."""

    thing: Thing
    populations: tuple[str, ...]
    notices: tuple[Notice, ...]
    models: tuple[Influenced, ...]


@dataclass(frozen=True, slots=True)
class Spent:
    """What a population was charged over all runs. ``promised``: by the newest entry that sets its budget.

    ``idx`` is the newest charge's entry, ``promise_idx`` that of the promise; None where there is none.
    """

    population: str
    delta: float
    epsilon: float
    second: float | None
    charges: int
    runs: int
    promised: float | None
    promise_idx: int | None
    idx: int | None


@dataclass(frozen=True, slots=True)
class Epsilon:
    """What a site's populations were charged."""

    site: Thing
    populations: tuple[Spent, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models by what they were made of. ``common``: the newest model that both descend from."""

    first: Thing
    second: Thing
    common: Thing | None
    only_first: tuple[Part, ...]
    only_second: tuple[Part, ...]
    both: tuple[tuple[Part, Part], ...]
    runs_only_first: tuple[RunPart, ...]
    runs_only_second: tuple[RunPart, ...]


def indices(answer: object) -> Iterator[int]:
    """Every index of an entry that an answer rests on, as often as it names it."""
    if isinstance(answer, tuple):
        for one in answer:
            yield from indices(one)
    elif is_dataclass(answer):
        for field in fields(answer):
            value = getattr(answer, field.name)
            if field.name in ("idx", "promise_idx") and value is not None:
                yield value
            else:
                yield from indices(value)
