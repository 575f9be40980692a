"""Every promotion of a log made again, from the entries before it: for whoever trusts neither the server nor its gates.

A server signs what its gates found. It may sign what they did not find; here that shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedseal.compliance.events.bodies import Charged
from fedseal.compliance.events.fields import Alias
from fedseal.compliance.events.subjects import Promoted
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.quorum import Policy
from fedseal.compliance.registry.aliases import TYPES, replay
from fedseal.compliance.registry.approvals import count
from fedseal.compliance.registry.entries import Entries, Entry, names_of
from fedseal.compliance.registry.gates import Finality, check_gates, evaluations_of
from fedseal.compliance.registry.people import Parties
from fedseal.compliance.registry.rules import RegistryRules
from fedseal.errors import PolicyRefused


@dataclass(frozen=True, slots=True)
class Rechecked:
    """A promotion, and what is wrong with it; nothing if ``problems`` is empty."""

    index: int
    alias: Alias
    bundle: str | None
    problems: tuple[str, ...]


def recheck(
    entries: Entries, parties: Parties, policy: Policy, rules: Sequence[RegistryRules]
) -> tuple[Rechecked, ...]:
    """Make every promotion again.

    Args:
        entries: the log's.
        parties: whose signatures count.
        policy: who has to have cosigned.
        rules: what aliases ask for, now and before. A promotion names the rules that it was made by.
    """
    known = {one.digest: one for one in rules}
    found, charges = entries.of(TYPES), entries.of(names_of(Charged))
    refused = {one.index: one.reason for one in replay(found, parties).refused}
    promotions = [(e.index, e.event.body) for e in found if isinstance(e.event.body, Promoted)]
    return tuple(
        Rechecked(
            index,
            body.alias,
            body.bundle,
            (refused[index],) if index in refused else _problems(body, found, charges, entries, parties, policy, known),
        )
        for index, body in promotions
    )


def _problems(
    body: Promoted,
    found: Sequence[Entry],
    charges: Sequence[Entry],
    entries: Entries,
    parties: Parties,
    policy: Policy,
    known: Mapping[str, RegistryRules],
) -> tuple[str, ...]:
    """What is wrong with a promotion that fits the log."""
    rules = known.get(body.rules or "")
    if rules is None:
        return ("made by other rules than the ones given: it cannot be made again without them",)
    first = min(body.gates)
    state = replay([entry for entry in found if entry.index < first], parties)
    try:
        asked = rules.of(body.alias)
    except PolicyRefused as error:
        return (error.message,)
    registration = state.registered[body.bundle or ""]
    counted = count(state, asked, registration, body.alias)
    problems = list(counted.missing)
    if {approval.index for approval in counted.approvals} != set(body.approvals):
        problems.append("it names other signatures than those that count")
    evaluations = evaluations_of(state, body.model)
    indices = [registration.index, *(a.index for a in counted.approvals), *(e.index for e in evaluations)]
    if not _is_final(entries, body.final_size, policy):
        problems.append(f"no quorum has cosigned the checkpoint of {body.final_size} entries that it names")
    finality = Finality(body.final_size, max(indices) + 1, entries.included(indices, body.final_size))
    made = check_gates(asked, evaluations, [entry for entry in charges if entry.index < first], finality)
    problems += [one.reason for one in made if not one.passed]
    if [one.fact(registration, body.alias) for one in made] != _said(body, found):
        problems.append("the gates that it names say something else than the log before them")
    return tuple(problems)


def _said(body: Promoted, found: Sequence[Entry]) -> list[object]:
    by_index = {entry.index: entry.event.body for entry in found}
    return [by_index.get(index) for index in body.gates]


def _is_final(entries: Entries, size: int, policy: Policy) -> bool:
    try:
        return entries.is_final(size, policy)
    except SignatureError:
        return False
