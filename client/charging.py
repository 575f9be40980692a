"""What a site charges for a release: in one transaction with the entry's date and the event that says so."""

from fedseal.client.logbook import Clock, Logbook
from fedseal.client.monitoring.reference import reference_key
from fedseal.client.permission import Permission
from fedseal.client.records import watch_in
from fedseal.client.requests import Task
from fedseal.privacy.dates import date_charge
from fedseal.privacy.ledger import Entry, Ledger, Release
from fedseal.privacy.plan import PrivacyPlan, decode_plan, encode_plan
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.releases import REGISTRY, Population
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.transaction import Transaction
from fedseal.privacy.watch import reference_plan


class Charging:
    """A site's ledgers while it answers one message.

    Args:
        logbook: where a charge is written down.
        permission: whether the period affords it.
        clock: the time.
    """

    def __init__(self, logbook: Logbook, permission: Permission, clock: Clock) -> None:
        self._logbook = logbook
        self._permission = permission
        self._clock = clock

    def reserve(self, transaction: Transaction, header: Header) -> None:
        """Set aside what a run's plan costs with all attempts, once, and see that one more can be charged.

        Raises:
            BudgetExceeded: it cannot. Nothing is kept: a round that could not be charged at MASK is refused before
                anyone works for it.
        """
        population, plan = REGISTRY[header.release_name].population.value, decode_plan(header.plan)
        ledger = transaction.ledger(population, header.run, header.plan)
        if (header.run, header.plan) not in ledger.reservations:
            ledger, entry = ledger.reserve(header.run, plan)
            transaction.append(population, entry)
        ledger.charge(release_of(header), plan)

    def charge(self, transaction: Transaction, header: Header) -> Receipt:
        """The receipt for this session: charged now, or before a crash or an interruption.

        Raises:
            BudgetExceeded, Refused: the budget, or the period's, is used up.
        """
        population, session = REGISTRY[header.release_name].population.value, header.digest()
        if (receipt := transaction.receipt(population, session)) is not None:
            return receipt
        plan = decode_plan(header.plan)
        ledger = transaction.ledger(population, header.run, header.plan)
        receipt = self._spend(transaction, population, ledger, release_of(header), plan)
        self._logbook.charged(transaction, header, transaction.terms(population))
        return receipt

    def charge_reference(self, transaction: Transaction, header: Header, task: Task) -> None:
        """Before a site's past is looked at for the first time under a model: its training persons pay for that.

        Raises:
            BudgetExceeded, Refused: the budget, or the period's, is used up.
        """
        plan, population = reference_plan(watch_in(task.records)), Population.TRAIN.value
        if plan is None or transaction.reference(reference_key(task.records)) is not None:
            return
        if transaction.receipt(population, header.digest()) is not None:
            return
        ledger = transaction.ledger(population, header.run, encode_plan(plan))
        if (header.run, encode_plan(plan)) in ledger.reservations:
            # That of another model of this run, used up.
            ledger, entry = ledger.release(header.run, plan)
            transaction.append(population, entry)
        ledger, entry = ledger.reserve(header.run, plan)
        transaction.append(population, entry)
        self._spend(transaction, population, ledger, release_of(header), plan)
        self._logbook.charged_besides(transaction, header, transaction.terms(population), plan)

    def _spend(
        self, transaction: Transaction, population: str, ledger: Ledger, release: Release, plan: PrivacyPlan
    ) -> Receipt:
        self._permission.check_period(transaction, population, plan)
        entry: Entry
        _, entry, receipt = ledger.charge(release, plan)
        transaction.append(population, entry)
        date_charge(transaction.connection, population, entry, int(self._clock().timestamp()))
        return receipt


def release_of(header: Header) -> Release:
    """Which release a header asks for."""
    return Release(header.run, header.release_name, header.release_seq, header.attempt, header.digest())
