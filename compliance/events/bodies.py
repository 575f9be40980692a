"""The bodies of events about the log, its parties, and what runs in a federation.

Each is a closed form: an unknown field, a float or a text of another shape cannot be read, and so cannot be logged.
What the names mean stands in docs/events.md; JSON Schemas in docs/schemas/events/.
"""

from typing import Literal

from fedseal.compliance.data.occurrences import ErasureReason
from fedseal.compliance.events.fields import (
    AbortReason,
    Actor,
    CodeKind,
    Commitment,
    Count,
    Day,
    Decimal,
    Decision,
    DecisionScope,
    Digest,
    DropReason,
    DropStage,
    Hex,
    Name,
    Origin,
    PublicKey,
    RefusedRule,
    ReleaseName,
    Role,
    Version,
)
from fedseal.config import Frozen

# The log and its parties


class Genesis(Frozen):
    """``log.genesis``, the first entry: whose log this is.

    ``faulty``: how many witnesses may be faulty; ``quorum``: how many cosignatures make a checkpoint final. Of a site's
    own log both are 0: it is witnessed by being named in the federation's.
    """

    federation: Name
    roster: Digest
    simulated: bool
    faulty: Count
    quorum: Count


class PolicyChanged(Frozen):
    """``log.policy_changed``: another roster or quorum from here on."""

    roster: Digest
    faulty: Count
    quorum: Count


class Successor(Frozen):
    """``log.successor``: this log goes on where another ended."""

    old_origin: Origin
    old_size: Count
    old_root: Digest


class Joined(Frozen):
    """``party.joined``: a site says that it takes part, under which number and key."""

    site: Count
    name: Name
    key: PublicKey
    roster: Digest


class Left(Frozen):
    """``party.left``: a site says that it takes part no more."""

    site: Count


class PersonAdded(Frozen):
    """``actor.added``: an organisation gives a person a key and roles. Who it is stands in its own directory."""

    person: Actor
    key: PublicKey
    roles: tuple[Role, ...]


class PersonRemoved(Frozen):
    """``actor.removed``: the person signs no more."""

    person: Actor


class ForeignAnchor(Frozen):
    """``anchor.foreign``: this log has seen that one at this size with this root."""

    origin: Origin
    size: Count
    root: Digest


# What runs


class CodeRegistered(Frozen):
    """``code.registered``: a folder of code by the digest of its files."""

    code: Digest
    kind: CodeKind


class Package(Frozen):
    """One package of an environment."""

    name: Name
    version: Version


class EnvironmentRecorded(Frozen):
    """``env.recorded``: what a run's server ran on. The digest is over the packages and Python's version."""

    environment: Digest
    python: Version
    packages: tuple[Package, ...]


class PlanValue(Frozen):
    """One number of a privacy plan."""

    name: Name
    value: Decimal


class PlanFacts(Frozen):
    """A privacy plan: its canonical bytes, and the same in words. A reader refuses the pair if they differ."""

    kind: Literal["none", "local", "distributed", "client", "histogram"]
    encoded: Hex
    values: tuple[PlanValue, ...]


class RunCreated(Frozen):
    """``run.created``: what will run, on which code, from which model, under which plan.

    ``rounds`` is 0, ``code`` and ``model_in`` None where the server was not told: a sealed app of another making.
    ``selected_with``: datasets and models that only guided a choice (early stopping, hyper-parameters): they influence
    the run too.
    """

    study: Name
    contract: Digest
    code: Digest | None
    environment: Digest
    model_in: Digest | None
    strategy: Name
    rounds: Count
    sites: tuple[Count, ...]
    plan: PlanFacts
    selected_with: tuple[Digest | Commitment, ...] = ()


class RunAccepted(Frozen):
    """``run.accepted``: a site takes part, with which data and labels, running which code, by which of its rules.

    ``dataset`` is None where the site has not registered one.
    """

    code: Digest | None
    policy: Commitment
    population: Commitment
    dataset: Commitment | None
    label_set: Commitment | None


class PolicySet(Frozen):
    """``policy.set``: by these rules a site answers from here on; the commitment is that of ``run.accepted``."""

    policy: Commitment


class RunRefused(Frozen):
    """``run.refused``: a site did not take part in a round, by this rule. Once for a rule and release of a run.

    ``header`` is the digest of the signed header that asked. The reason in words stays at the site.
    """

    rule: RefusedRule
    release: ReleaseName
    round: Count
    sequence: Count
    attempt: Count
    header: Digest


class OutboxDecided(Frozen):
    """``outbox.decided``, in a site's own log: what became of releases that waited for a person.

    ``request`` names the release, None where the decision is about a whole run; ``by`` is the person, where one is
    named.
    """

    decision: Decision
    scope: DecisionScope
    request: Digest | None
    by: Actor | None


class Charged(Frozen):
    """``dp.spent``: a site charged a release to a population's budget, before it computed anything for it."""

    release: ReleaseName
    sequence: Count
    attempt: Count
    population: Commitment
    plan: PlanFacts
    delta: Decimal
    alpha: Decimal


class Anchor(Frozen):
    """A checkpoint of a site's own log."""

    size: Count
    root: Digest


class Contributed(Frozen):
    """``round.contributed``: a site sent its masked vector for this round, and its own log stood there.

    ``header`` is the digest of the signed header, ``update`` that of the masked vector.
    """

    release: ReleaseName
    round: Count
    sequence: Count
    attempt: Count
    header: Digest
    update: Digest
    dataset: Commitment | None
    label_set: Commitment | None
    code: Digest | None
    anchor: Anchor


class Dropped(Frozen):
    """``round.dropped``: a site did not take part to the end."""

    release: ReleaseName
    round: Count
    sequence: Count
    attempt: Count
    site: Count
    stage: DropStage
    reason: DropReason


class Aggregated(Frozen):
    """``round.aggregated``: a sum over these sites was unmasked.

    ``aggregate`` is the digest of the sum's integers, ``model_in`` the model that the sites were sent. The model that
    the sum leads to is the ``model_in`` of the run's next update, or the one that the run finished with.
    """

    release: ReleaseName
    round: Count
    sequence: Count
    attempt: Count
    header: Digest
    sites: tuple[Count, ...]
    threshold: Count
    colluders: Count
    aggregate: Digest
    model_in: Digest | None


class RunFinished(Frozen):
    """``run.finished``: the last round is over. ``model`` is None where the app did not say what came of it."""

    rounds: Count
    model: Digest | None


class RunAborted(Frozen):
    """``run.aborted``: the run ended early."""

    rounds: Count
    reason: AbortReason


class BudgetSet(Frozen):
    """``dp.budget_set``: the promise to a population: epsilon and delta over everything that will ever be charged."""

    population: Commitment
    epsilon: Decimal
    delta: Decimal
    alpha: Decimal
    until: Day | None = None


class Shredded(Frozen):
    """``data.shredded``, in a site's own log: sealed fields whose key was destroyed, by the commitments that stay."""

    sealed: tuple[Commitment, ...]
    reason: ErasureReason


class Access(Frozen):
    """``data.accessed``, in a site's own log: for this release data was read, by this code."""

    release: ReleaseName
    sequence: Count
    attempt: Count
    dataset: Commitment | None
    label_set: Commitment | None
    code: Digest | None
