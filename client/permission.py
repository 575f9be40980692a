"""What the site's policy says to a round: asked when it opens, and again before the site's data is touched.

Every rule is a function of `compliance.site_rules`; here is only what each of them has to know.
"""

from collections.abc import Mapping
from pathlib import Path

from fedseal.client.logbook import Clock, Logbook
from fedseal.compliance.data.registry import DatasetVersion
from fedseal.compliance.events.fields import Decision, RefusedRule, ReleaseName, sha256
from fedseal.compliance.journal.announcements import labels_in_use
from fedseal.compliance.policy import SitePolicy, check_header, range_of
from fedseal.compliance.site_rules.held import HeldRelease, decision_on, hold, release_key
from fedseal.compliance.site_rules.hours import check_hours
from fedseal.compliance.site_rules.period import check_period
from fedseal.compliance.site_rules.refused import Refused
from fedseal.compliance.site_rules.study import InUse, check_data, check_study, study_facts
from fedseal.errors import BudgetExceeded, PolicyRefused
from fedseal.inputs import Setting
from fedseal.privacy.dates import charges_since
from fedseal.privacy.ledger import Terms, cost
from fedseal.privacy.plan import PlanKind, PrivacyPlan, decode_plan
from fedseal.privacy.releases import REGISTRY, ReleaseKind, terms_digest
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import Transaction


class Permission:
    """A site's rules while it answers one message.

    Args:
        store: the site's store.
        policy: its rules.
        code: the folder of the study's code; None where the node names none.
        run_config: what the run says of itself.
        clock: the time.
    """

    def __init__(
        self, store: SiteStore, policy: SitePolicy, code: Path | None, run_config: Mapping[str, Setting], clock: Clock
    ) -> None:
        self._store = store
        self._policy = policy
        self._code = code
        self._run_config = run_config
        self._clock = clock

    def check_opening(self, transaction: Transaction, header: Header, dataset: DatasetVersion | None) -> None:
        """Whether this site takes part in a round that begins; before anything is reserved.

        Raises:
            Refused: it does not; says which rule and what would change it.
        """
        self._check(transaction, header, dataset)
        check_hours(self._policy.hours, self._clock())

    def check_use(self, transaction: Transaction, header: Header, dataset: DatasetVersion | None) -> None:
        """Whether the data may still be used for a round that has begun; before anything is charged.

        The hours are those at which it began.

        Raises:
            Refused: it may not; nothing was charged for it.
        """
        self._check(transaction, header, dataset)
        self.check_outbox(transaction, header)

    def _check(self, transaction: Transaction, header: Header, dataset: DatasetVersion | None) -> None:
        kind, plan = REGISTRY[header.release_name], decode_plan(header.plan)
        check_header(self._policy, header, kind, plan)
        if self._policy.study.asks:
            check_study(self._policy.study, study_facts(self._code, self._run_config))
        if self._policy.data.asks:
            check_data(self._policy.data, in_use(transaction, dataset))
        self.check_period(transaction, kind.population.value, plan)

    def check_period(self, transaction: Transaction, population: str, plan: PrivacyPlan) -> None:
        """Whether a population's budget for the period affords one more release.

        Raises:
            Refused: it does not.
        """
        rule = self._policy.periods.of(population)
        if rule is not None:
            past = charges_since(transaction.connection, population, rule.begins(self._clock()))
            check_period(rule, population, transaction.terms(population).delta, past, plan)

    def check_outbox(self, transaction: Transaction, header: Header) -> None:
        """Whether a release that every other rule allows may leave without a person, or a person has let it.

        Raises:
            Refused: it waits for a person, or was denied.
        """
        kind, plan = REGISTRY[header.release_name], decode_plan(header.plan)
        said = decision_on(transaction.connection, header.run, _key(header))
        then = self._policy.outbox.verdict(kind.name, plan.kind.label, len(header.cohort))
        if then == "deny" or said is Decision.DENIED:
            raise Refused(
                RefusedRule.DENIED,
                f"release {kind.name!r} of round {header.fl_round}, which "
                + ("a rule of this site's outbox denies" if then == "deny" else "a person at this site has denied"),
                next_step="See fedseal site outbox list --all, and outbox in the site's policy.",
            )
        if then == "hold" and said is None:
            raise Refused(
                RefusedRule.WAITING,
                f"release {kind.name!r} of round {header.fl_round} waits for a person at this site",
                next_step="Look at it and decide: fedseal site outbox list, then approve or deny.",
            )

    def note(self, error: PolicyRefused | BudgetExceeded, header: Header, logbook: Logbook) -> None:
        """Write down that a round was refused: in the outbox if it waits, and for both logs, by the rule's name."""
        rule = error.rule if isinstance(error, Refused) else RefusedRule.DATA
        if isinstance(error, BudgetExceeded):
            rule = RefusedRule.LEDGER
        with self._store.transaction() as transaction:
            if rule is RefusedRule.WAITING:
                kind = REGISTRY[header.release_name]
                asked = held_release(header, kind, transaction.terms(kind.population.value))
                hold(transaction.connection, _key(header), header.run, asked, int(self._clock().timestamp()))
            logbook.refused(transaction, header, rule)


def in_use(transaction: Transaction, dataset: DatasetVersion | None) -> InUse:
    """What is on record about the data that a node's folder holds, and about its labels."""
    commitment = None if dataset is None else "hmac:" + dataset.facts.dsv_id
    labels = labels_in_use(transaction.connection, commitment)
    names = frozenset() if labels is None else frozenset({labels.id, labels.guideline})
    if dataset is None:
        return InUse(None, None, names)
    return InUse(dataset.facts.name, dataset.number, names)


def held_release(header: Header, kind: ReleaseKind, terms: Terms) -> HeldRelease:
    """What a person is told of a release that waits."""
    plan = decode_plan(header.plan)
    counted = plan.kind is not PlanKind.NONE
    return HeldRelease(
        run=header.run.hex(),
        release=ReleaseName(kind.name),
        round=header.fl_round,
        population=kind.population.value,
        plan=plan.kind.label,
        plan_digest=sha256(header.plan),
        share=round(100 * cost(plan, terms.order) / terms.budget, 4) if counted else 0.0,
        largest=range_of(header, plan),
        input="sha256:" + header.input_digest.hex(),
        cohort=header.cohort,
        minimum=header.minimum,
        threshold=header.threshold,
        colluders=header.colluders,
    )


def _key(header: Header) -> bytes:
    return release_key(header, terms_digest(header.layout, header.plan))
