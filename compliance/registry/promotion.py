"""What can be done to models, each as events of the federation's log: register, approve, promote, roll back, suspend.

A promotion moves an alias; so does a rollback, and that is all it does: bundles stay where they are, by digest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from fedseal.compliance.events.bodies import Charged
from fedseal.compliance.events.fields import Alias, Meaning, ModelKind, Role, RollbackReason, decimal
from fedseal.compliance.events.leaf import TIME_FORMAT, read_event
from fedseal.compliance.events.registry import EVENTS
from fedseal.compliance.events.subjects import (
    Evaluated,
    Measure,
    ModelRegistered,
    ModelStatus,
    Promoted,
    RolledBack,
    Signature,
)
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.registry.aliases import RETIRED, SUSPENDED, TYPES, Binding, Registration, State, Status, replay
from fedseal.compliance.registry.approvals import (
    Counted,
    Request,
    check_counts,
    check_signature,
    count,
    request,
    sign,
    signer,
)
from fedseal.compliance.registry.bundle import Bundle, BundleStore, short
from fedseal.compliance.registry.entries import Entries, names_of
from fedseal.compliance.registry.gates import Finality, Found, check_gates, evaluations_of, largest_epsilon
from fedseal.compliance.registry.mlflow import Tags
from fedseal.compliance.registry.people import Parties, Person
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.errors import ConfigError, PolicyRefused
from fedseal.privacy.secagg.keys import SigningKey

# So many measures fit the 16 KiB of an entry, however long their names are.
MEASURES_AN_ENTRY = 40


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a bundle's model comes from: the run, its last round, and the model that the run began with."""

    run: bytes | None
    round: int
    parent: str | None
    kind: ModelKind = ModelKind.GLOBAL


@dataclass(frozen=True, slots=True)
class Aim:
    """What a signature is for: an alias, with a meaning, in a role."""

    alias: Alias
    meaning: Meaning
    role: Role


@dataclass(frozen=True, slots=True)
class Checked:
    """What a bundle has and lacks for an alias. ``gates`` are the indices at which the log says what was found."""

    registration: Registration
    counted: Counted
    found: tuple[Found, ...]
    final_size: int
    gates: tuple[int, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Everything that stands in the way."""
        return (*self.counted.missing, *(found.reason for found in self.found if not found.passed))


class Registry:
    """A federation's models.

    Args:
        journal: its log, which says everything there is to say about them.
        engine: the log's database.
        bundles: where their files are.
    """

    def __init__(self, journal: FederationJournal, engine: Engine, bundles: BundleStore) -> None:
        self._journal = journal
        self._entries = Entries(engine, journal.origin)
        self.bundles = bundles
        self.parties = Parties.of(journal.roster, journal.former)

    @property
    def entries(self) -> Entries:
        """The log's entries."""
        return self._entries

    def tags(self, registration: Registration) -> Tags:
        """Where a bundle stands in the log, as far as a quorum has cosigned that; else as far as it goes."""
        final = self._journal.final_size()
        size = final if final > registration.index else self._journal.size
        epsilon = largest_epsilon(self._entries.of(names_of(Charged)))
        shown = None if epsilon is None or math.isinf(epsilon) else decimal(math.ceil(epsilon * 1e6) / 1e6)
        root = "sha256:" + self._entries.root(size).hex()
        return Tags(self._journal.origin, registration.index, size, root, shown)

    def state(self) -> State:
        """What the log says now."""
        return replay(self._entries.of(TYPES), self.parties)

    def find(self, name: str, state: State) -> Registration:
        """A registered bundle by its digest or its model's, or enough of its first digits, or by an alias.

        Raises:
            ConfigError: there is none, or several.
        """
        if name in tuple(Alias):
            binding = state.aliases.get(Alias(name))
            if binding is None:
                raise ConfigError(f"{name} points to no model", next_step="See `fedseal model list`.")
            return state.registered[binding.bundle]
        digits = name.removeprefix("sha256:")
        by_bundle = [r for r in state.registered.values() if r.bundle.removeprefix("sha256:").startswith(digits)]
        by_model = [r for r in state.registered.values() if r.model.removeprefix("sha256:").startswith(digits)]
        found = {r.bundle: r for r in by_bundle + by_model} if len(digits) >= 6 else {}
        if len(found) != 1:
            several = "several bundles are" if found else "no bundle is"
            raise ConfigError(
                f"{several} called {name!r}", next_step="Give at least six digits of a digest of `fedseal model list`."
            )
        return next(iter(found.values()))

    # Registering and signing

    def register(self, bundle: Bundle, origin: Origin) -> int:
        """Keep a bundle and write that there is one; the index.

        Raises:
            ConfigError: it is registered already, or cannot be kept.
        """
        known = self.state().registered.get(bundle.digest)
        if known is not None:
            raise ConfigError(f"this bundle is registered already, in entry {known.index}")
        self.bundles.add(bundle)
        body = ModelRegistered(
            model=bundle.model_digest,
            parent=origin.parent,
            kind=origin.kind,
            round=origin.round,
            bundle=bundle.digest,
        )
        return self._journal.commit([Fact(body, origin.run)]) - 1

    def evaluate(
        self, model: str, measures: Sequence[Measure], *, simulated: bool, report: str | None, run: bytes | None = None
    ) -> None:
        """Write down how good a model is, in as many entries as it takes."""
        parts = [measures[i : i + MEASURES_AN_ENTRY] for i in range(0, len(measures), MEASURES_AN_ENTRY)]
        bodies = [Evaluated(model=model, measures=tuple(p), simulated=simulated, report=report) for p in parts]
        self._journal.commit([Fact(body, run) for body in bodies])

    def ask(self, person: Person, registration: Registration, aim: Aim) -> Request:
        """What a person would sign, for whoever signs elsewhere.

        Raises:
            PolicyRefused: the person may not sign this.
        """
        body = Signature(
            model=registration.model,
            alias=aim.alias,
            meaning=aim.meaning,
            role=aim.role,
            bundle=registration.bundle,
        )
        return request(self.state(), person, body, self._journal.place_of(person.key))

    def submit(self, leaf: bytes, rules: RegistryRules | None = None) -> int:
        """Append a signature that was made elsewhere; the index.

        Args:
            leaf: the event, as its person signed it.
            rules: what aliases ask for, where a signature that does not count by them is to be refused.

        Raises:
            PolicyRefused: it is no signature under a bundle, of nobody who may sign so, or counts for nothing.
            PeerError: it cannot be read, or its author has signed something else since it was asked for.
        """
        event, state = read_event(leaf, "a signer"), self.state()
        approval = check_signature(state, event)
        if rules is not None:
            self._usable(state, approval.model)
            check_counts(state, rules.of(approval.alias), approval)
        return self._journal.append_signed(leaf, state.persons[approval.actor].key)

    def approve(self, registration: Registration, aim: Aim, key: SigningKey, now: datetime) -> int:
        """Append a person's signature under a bundle; the index.

        Raises:
            PolicyRefused: nobody signs with this key, or may not sign this.
        """
        asked = self.ask(signer(self.state(), key.public), registration, aim)
        return self.submit(sign(asked, key, now.strftime(TIME_FORMAT)))

    # Moving aliases

    def check(self, registration: Registration, alias: Alias, rules: RegistryRules) -> Checked:
        """Count signatures, go through all gates, and write down what each found.

        Raises:
            PolicyRefused: the alias is closed.
            ConfigError: the bundle's files are not there, or were changed.
        """
        asked = rules.of(alias)
        state = self.state()
        self.bundles.get(registration.bundle)
        counted = count(state, asked, registration, alias)
        evaluations = evaluations_of(state, registration.model)
        indices = [registration.index, *(a.index for a in counted.approvals), *(e.index for e in evaluations)]
        final_size, needed = self._journal.final_size(), max(indices) + 1
        included = final_size >= needed and self._entries.included(indices, final_size)
        charges = self._entries.of(names_of(Charged))
        found = check_gates(asked, evaluations, charges, Finality(final_size, needed, included))
        size = self._journal.commit([Fact(one.fact(registration, alias)) for one in found])
        return Checked(registration, counted, found, final_size, tuple(range(size - len(found), size)))

    def promote(self, registration: Registration, alias: Alias, rules: RegistryRules) -> Checked:
        """Point an alias to a bundle, if nothing stands in the way.

        Raises:
            PolicyRefused: with everything that does; the log then says which gates were not passed.
            ConfigError: the bundle's files are not there, or were changed.
        """
        rules.of(alias)
        self._usable(self.state(), registration.model)
        checked = self.check(registration, alias, rules)
        if checked.reasons:
            raise PolicyRefused(
                f"bundle {short(registration.bundle)} cannot become {alias.value}: " + "; ".join(checked.reasons),
                next_step="Each reason has to go: collect signatures with `fedseal model approve`, record evaluations, "
                "and let the sites cosign the log (with the next run's messages).",
            )
        before = self.state().aliases.get(alias)
        promoted = Promoted(
            model=registration.model,
            alias=alias,
            replaces=None if before is None else before.model,
            approvals=tuple(a.index for a in checked.counted.approvals),
            gates=checked.gates,
            final_size=checked.final_size,
            bundle=registration.bundle,
            rules=rules.digest,
        )
        self._move(alias, Fact(promoted))
        return checked

    def rollback(self, alias: Alias, reason: RollbackReason, to: str | None = None) -> Binding:
        """Point an alias to the bundle it pointed to before, or to a named one that it ever pointed to.

        The bundle's files are read and checked first: model, recipe and schema come back together.

        Raises:
            PolicyRefused: there is nothing to go back to, or it was suspended or retired.
            ConfigError: its files are not there, or were changed.
        """
        state = self.state()
        current = state.aliases.get(alias)
        if current is None:
            raise PolicyRefused(f"{alias.value} points to no model")
        if to is None:
            before = [b for b in state.stacks[alias] if b.bundle != current.bundle]
        else:
            bundle = self.find(to, state).bundle
            before = [b for b in state.held[alias] if b.bundle == bundle and b.bundle != current.bundle]
        if not before:
            raise PolicyRefused(
                f"{alias.value} has no {'earlier bundle' if to is None else 'other bundle of this name'} to go back to",
                next_step="A bundle that the alias never pointed to has to be promoted.",
            )
        target = before[-1]
        self._usable(state, target.model)
        self.bundles.get(target.bundle)
        body = RolledBack(model=target.model, alias=alias, replaces=current.model, reason=reason, bundle=target.bundle)
        return self._move(alias, Fact(body))

    def resolve(self, alias: Alias) -> Bundle:
        """The bundle that an alias points to, for whoever uses the model.

        Raises:
            PolicyRefused: it points to none, or to a model that was suspended or retired.
            ConfigError: its files are not there, or were changed.
        """
        state = self.state()
        binding = state.aliases.get(alias)
        if binding is None:
            raise PolicyRefused(f"{alias.value} points to no model")
        self._usable(state, binding.model)
        return self.bundles.get(binding.bundle)

    def suspend(self, registration: Registration, reason: RollbackReason) -> int:
        """Say that a model may not be used for now, under whatever alias; the index."""
        return self._end(SUSPENDED, registration, reason)

    def retire(self, registration: Registration, reason: RollbackReason) -> int:
        """Say that a model is never used again; the index."""
        return self._end(RETIRED, registration, reason)

    def _end(self, name: str, registration: Registration, reason: RollbackReason) -> int:
        status = self.state().status(registration.model)
        if status is Status.RETIRED or (status is Status.SUSPENDED and name == SUSPENDED):
            raise PolicyRefused(f"this model is {status.value} already")
        body = ModelStatus(model=registration.model, reason=reason)
        return self._journal.commit([Fact(body, kind=EVENTS[name])]) - 1

    def _usable(self, state: State, model: str) -> None:
        status = state.status(model)
        if status is not Status.ACTIVE:
            raise PolicyRefused(
                f"model {short(model)} is {status.value}",
                next_step="Name another one: `fedseal model list` shows what each alias pointed to.",
            )

    def _move(self, alias: Alias, fact: Fact) -> Binding:
        """Write what moves an alias, and see that it did: by the log alone, as everyone else will."""
        index = self._journal.commit([fact]) - 1
        moved = [binding for binding in self.state().held.get(alias, ()) if binding.index == index]
        if not moved:
            raise PolicyRefused(
                "the registry has changed meanwhile, and the alias was not moved",
                next_step="Look at `fedseal model list`, and decide again.",
            )
        return moved[0]
