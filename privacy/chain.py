"""Replaying a ledger: whether its entries follow from one another, and where they lead. Pure."""

from collections.abc import Iterable
from itertools import pairwise

from fedseal.errors import LocalError
from fedseal.privacy.ledger import DAMAGED, Entry, EntryKind, Ledger, Reservation, Terms, open_ledger


def reservations(entries: Iterable[Entry]) -> dict[Reservation, int]:
    """What is still set aside after these entries, by run and plan.

    Raises:
        LocalError: a run set the same plan's cost aside twice, was charged more than it had set aside, or an entry's
            own account of what is left is another.
    """
    left: dict[Reservation, int] = {}
    for entry in entries:
        key, held = (entry.run, entry.plan), left.get((entry.run, entry.plan))
        match entry.kind:
            case EntryKind.RESERVE if held is None:
                left[key] = entry.amount
            case EntryKind.CHARGE if held is not None and held >= entry.amount:
                left[key] = held - entry.amount
            case EntryKind.RELEASE if held == entry.amount:
                del left[key]
            case EntryKind.OPEN:
                continue
            case _:
                raise LocalError(f"ledger entry {entry.counter} moves what its run does not have", next_step=DAMAGED)
        if entry.left != left.get(key, 0):
            raise LocalError(f"ledger entry {entry.counter} states a wrong remainder", next_step=DAMAGED)
    return left


def check_chain(terms: Terms, entries: list[Entry]) -> Ledger:
    """Replay a whole ledger from its first entry and return where it stands.

    Raises:
        LocalError: an entry is missing, altered or out of order, or the totals do not add up.
    """
    _, first = open_ledger(terms)
    if not entries or entries[0] != first:
        raise LocalError("the ledger does not begin with its opening entry")
    for before, entry in pairwise(entries):
        # What each kind of entry adds to the totals (charged, reserved), in units of its amount.
        moves = {int(EntryKind.RESERVE): (0, 1), int(EntryKind.CHARGE): (1, -1), int(EntryKind.RELEASE): (0, -1)}
        charged, reserved = moves.get(entry.kind, (0, 0))
        consistent = (
            entry.counter == before.counter + 1
            and entry.previous == before.digest()
            and entry.terms == first.terms
            and entry.kind in moves
            and entry.charged == before.charged + charged * entry.amount
            and entry.reserved == before.reserved + reserved * entry.amount
            and entry.charged + entry.reserved <= terms.budget
        )
        if not consistent:
            raise LocalError(f"ledger entry {entry.counter} does not follow from the one before", next_step=DAMAGED)
    return Ledger(terms, entries[-1], reservations(entries))
