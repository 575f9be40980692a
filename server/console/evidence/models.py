"""Models as pages: aliases and bundles, and one bundle with its figures, gates, signatures and history.

What gates and signatures come to is computed here from the log, by the code that decides about promotions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from fedseal.compliance.events.fields import Alias
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.subjects import ModelStatus, Promoted, RolledBack
from fedseal.compliance.registry.aliases import RETIRED, SUSPENDED, Registration, State, Status
from fedseal.compliance.registry.approvals import count
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.compliance.registry.entries import names_of
from fedseal.compliance.registry.gates import evaluations_of
from fedseal.compliance.registry.recheck import recheck
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.errors import ConfigError
from fedseal.server.console.evidence.gating import Standing, WayLine, rules_for, way_of
from fedseal.server.console.evidence.place import Evidence, View
from fedseal.server.console.evidence.words import digits

# Fewer digits of a digest name nothing.
SHORTEST = 6
# How wide an interval from 0 to 1 is drawn.
SCALE = 200
_MOVES = (*names_of(Promoted, RolledBack), SUSPENDED, RETIRED)


@dataclass(frozen=True, slots=True)
class AliasLine:
    """An alias: the bundle it points to since an entry, None where it points to none. ``open``: there are rules for it.

    ``usable``: whether it gives its model out, which it does not while that is suspended or retired.
    """

    alias: str
    bundle: str | None
    model: str | None
    since: int | None
    time: str
    open: bool
    usable: bool


@dataclass(frozen=True, slots=True)
class BundleLine:
    """A registered bundle in a list. ``stands`` are the aliases that point to it, ``stood`` those that did."""

    bundle: str
    model: str
    run: str | None
    round: int
    kind: str
    status: str
    stands: tuple[str, ...]
    stood: tuple[str, ...]
    index: int
    time: str


@dataclass(frozen=True, slots=True)
class VoidLine:
    """An entry that counts for nothing, and why."""

    index: int
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelsPage:
    """All that is registered. ``rules``: whether the console knows what aliases ask for."""

    aliases: tuple[AliasLine, ...]
    bundles: tuple[BundleLine, ...]
    void: tuple[VoidLine, ...]
    simulated: bool
    rules: bool


@dataclass(frozen=True, slots=True)
class MeasureLine:
    """A figure with the interval that noise leaves it: value less and plus margin. The same name may stand twice.

    ``drawn``: the ends and the value on a scale of `SCALE` from 0 to 1; None for a measure that leaves it.
    """

    name: str
    value: str
    margin: str
    low: str
    high: str
    simulated: bool
    by: str
    index: int
    drawn: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """A person's signature. ``counts``: for the alias it is for, by today's rules; None where there are none."""

    actor: str
    person: str
    org: str
    role: str
    meaning: str
    alias: str
    time: str
    index: int
    counts: bool | None


@dataclass(frozen=True, slots=True)
class MoveLine:
    """Something that happened to the bundle's model. ``promotion``: it is one by today's rules, and was made again;
    then ``problems`` is what is wrong with it.
    """

    index: int
    time: str
    said: str
    promotion: bool
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileLine:
    """A file of a bundle, by its manifest."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class BundlePage:
    """One bundle. ``wanting``: what is wrong with its files, empty where they hold; ``files`` are those."""

    line: BundleLine
    parent: str | None
    measures: tuple[MeasureLine, ...]
    signatures: tuple[SignatureLine, ...]
    ways: tuple[WayLine, ...]
    moves: tuple[MoveLine, ...]
    files: tuple[FileLine, ...]
    wanting: str
    output: str
    thresholds: tuple[str, ...]
    rules: bool


def read_models(view: View, rules: RegistryRules | None) -> ModelsPage:
    """All aliases and bundles, newest bundle first."""
    state = view.state()
    aliases = tuple(_alias(view, state, alias, rules) for alias in Alias)
    bundles = tuple(_bundle(view, state, one) for one in reversed(list(state.registered.values())))
    void = tuple(VoidLine(one.index, one.type.partition("/")[0], one.reason) for one in state.refused)
    return ModelsPage(aliases, bundles, void, state.simulated, rules is not None)


def find_bundle(state: State, name: str) -> Registration:
    """The bundle whose digest begins so; ConfigError if there is none, or several."""
    wanted = name.removeprefix("sha256:")
    found = [r for r in state.registered.values() if r.bundle.removeprefix("sha256:").startswith(wanted)]
    if len(wanted) < SHORTEST or len(found) != 1:
        raise ConfigError(
            "several bundles begin so" if len(found) > 1 and len(wanted) >= SHORTEST else "there is no such bundle",
            next_step="The page of models lists all of them.",
        )
    return found[0]


def read_bundle_page(
    evidence: Evidence, view: View, name: str, rules: RegistryRules | None, names: Mapping[str, str]
) -> BundlePage:
    """One bundle.

    Args:
        evidence: where its files are.
        view: the log.
        name: its digest, or the beginning of it.
        rules: what aliases ask for, as far as that is known.
        names: persons by pseudonym, for whoever may know them.

    Raises:
        ConfigError: there is no such bundle, or several.
    """
    standing = Standing.of(view)
    state = standing.state
    registration = find_bundle(state, name)
    asked = (
        [] if rules is None else [(alias, found) for alias in Alias if (found := rules_for(rules, alias)) is not None]
    )
    files, wanting, output, thresholds = _files(evidence, registration)
    return BundlePage(
        line=_bundle(view, state, registration),
        parent=registration.body.parent,
        measures=tuple(measures_of(state, registration.model)),
        signatures=tuple(_signatures(state, registration, rules, names)),
        ways=tuple(way_of(standing, registration, alias, found) for alias, found in asked),
        moves=tuple(_moves(view, registration, rules)),
        files=files,
        wanting=wanting,
        output=output,
        thresholds=thresholds,
        rules=rules is not None,
    )


def measures_of(state: State, model: str) -> Iterator[MeasureLine]:
    """The figures of a model that count."""
    for evaluation in evaluations_of(state, model):
        for m in evaluation.body.measures:
            value, margin = Decimal(m.value), abs(Decimal(m.margin))
            by = "server" if evaluation.by_server else "site"
            low, high = f"{value - margin:f}", f"{value + margin:f}"
            fits = 0 <= value <= 1
            places = (max(value - margin, Decimal(0)), value, min(value + margin, Decimal(1)))
            drawn = (_scaled(places[0]), _scaled(places[1]), _scaled(places[2])) if fits else None
            said = (m.name, m.value, m.margin, low, high, evaluation.body.simulated, by, evaluation.index)
            yield MeasureLine(*said, drawn)


def _scaled(value: Decimal) -> float:
    return round(float(value) * SCALE, 1)


def _alias(view: View, state: State, alias: Alias, rules: RegistryRules | None) -> AliasLine:
    binding = state.aliases.get(alias)
    is_open = rules is not None and rules_for(rules, alias) is not None
    if binding is None:
        return AliasLine(alias.value, None, None, None, "", is_open, usable=False)
    usable = state.status(binding.model) is Status.ACTIVE
    return AliasLine(
        alias.value, binding.bundle, binding.model, binding.index, _time(view, binding.index), is_open, usable
    )


def _bundle(view: View, state: State, one: Registration) -> BundleLine:
    stands = tuple(alias.value for alias, b in state.aliases.items() if b.bundle == one.bundle)
    stood = tuple(
        alias.value
        for alias, held in state.held.items()
        if alias.value not in stands and any(b.bundle == one.bundle for b in held)
    )
    return BundleLine(
        one.bundle,
        one.model,
        one.run,
        one.body.round,
        one.body.kind.value,
        state.status(one.model).value,
        stands,
        stood,
        one.index,
        _time(view, one.index),
    )


def _signatures(
    state: State, registration: Registration, rules: RegistryRules | None, names: Mapping[str, str]
) -> Iterator[SignatureLine]:
    counting: dict[Alias, frozenset[int]] = {}
    for alias in Alias if rules is not None else ():
        asked = None if rules is None else rules_for(rules, alias)
        counted = () if asked is None else count(state, asked, registration, alias).approvals
        counting[alias] = frozenset(approval.index for approval in counted)
    for a in state.approvals:
        if a.bundle == registration.bundle:
            counts = None if rules is None else a.index in counting[a.alias]
            person = names.get(a.actor, digits(a.actor))
            said = (a.role.value, a.meaning.value, a.alias.value, a.time, a.index)
            yield SignatureLine(a.actor, person, a.org, *said, counts=counts)


def _moves(view: View, registration: Registration, rules: RegistryRules | None) -> Iterator[MoveLine]:
    known = [] if rules is None else [rules]
    again = {one.index: one.problems for one in recheck(view.entries, view.parties, view.policy, known)}
    for entry in view.entries.of(_MOVES):
        body, time = entry.event.body, entry.event.time
        match body:
            case Promoted() if body.bundle == registration.bundle:
                # Without the rules that it was made by it cannot be made again.
                same = rules is not None and body.rules == rules.digest
                said = f"became {body.alias.value}" + ("" if same or rules is None else ", by other rules than today's")
                yield MoveLine(entry.index, time, said, same, again.get(entry.index, ()) if same else ())
            case RolledBack() if body.bundle == registration.bundle:
                yield MoveLine(entry.index, time, f"became {body.alias.value} again: {body.reason.value}", False, ())
            case Promoted() | RolledBack() if body.replaces == registration.model and body.model != registration.model:
                yield MoveLine(entry.index, time, f"was replaced as {body.alias.value}", False, ())
            case ModelStatus() if body.model == registration.model:
                how = "suspended" if entry.event.kind.name == SUSPENDED else "retired"
                yield MoveLine(entry.index, time, f"{how}: {body.reason.value}", False, ())


def _files(evidence: Evidence, registration: Registration) -> tuple[tuple[FileLine, ...], str, str, tuple[str, ...]]:
    try:
        bundle = BundleStore(evidence.bundles).get(registration.bundle)
    except ConfigError:
        # Its message names a place of the server's disk.
        return (), "Its files are not kept at this server, or are not those that the log names.", "", ()
    files = tuple(FileLine(f.name, f.bytes, f.sha256) for f in bundle.manifest.files)
    output = bundle.recipe.output
    said = f"{output.kind} {', '.join(output.classes)}".strip()
    thresholds = tuple(f"{name} {value:g}" for name, value in sorted(bundle.recipe.thresholds.items()))
    return files, "", said, thresholds


def _time(view: View, index: int) -> str:
    """When the author of an entry says that it was made."""
    return read_event(view.log.leaf(index)).time
