"""A site's part in the logs while it answers messages: what it is shown, what it signs, what it says back.

The log's part of a message is heard before anything else and answered whatever becomes of the rest: also a refusal
carries the cosignature, and a site that has stopped still says that it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedseal.compliance.data.code import code_digest
from fedseal.compliance.data.registry import DatasetVersion
from fedseal.compliance.events.bodies import (
    Access,
    Anchor,
    BudgetSet,
    Charged,
    Contributed,
    Joined,
    RunAccepted,
    RunRefused,
)
from fedseal.compliance.events.fields import RefusedRule, ReleaseName, decimal, public_name
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.journal.announcements import label_set_of, publish
from fedseal.compliance.journal.attachment import OK, LogReply, read_request
from fedseal.compliance.journal.site import SiteJournal, stopped
from fedseal.compliance.policy import SitePolicy
from fedseal.errors import PeerError
from fedseal.privacy.ledger import Terms
from fedseal.privacy.plan import PrivacyPlan, decode_plan
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Masked, Signed
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import Transaction
from fedseal.wire import decode, encode

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a site computes from: its registered data and labels, by commitment, and the code it runs, by digest."""

    dataset: str | None = None
    label_set: str | None = None
    code: str | None = None


class Logbook:
    """One site's journal while it answers one message.

    Args:
        store: the site's store.
        policy: the site's rules.
        code: the folder of the study's code; None where the node names none.
        clock: the time.
    """

    def __init__(self, store: SiteStore, policy: SitePolicy, code: Path | None, clock: Clock = utc_now) -> None:
        self._store = store
        self._policy = policy
        self._code = code
        self._lineage = Lineage()
        self._clock = clock
        self._heard: LogReply | None = None
        self._answer: LogReply | None = None

    def hear(self, raw: bytes | None) -> None:
        """Look at what a message shows of the federation's log.

        Raises:
            PeerError: it cannot be read, or this site has stopped because of what it was shown.
        """
        if raw is None:
            return
        request = read_request(raw)
        with self._store.transaction() as transaction:
            journal = self._journal(transaction)
            self._heard = journal.hear(request)
            evidence = journal.halted
        if evidence is not None:
            raise stopped(evidence)

    def computes_from(self, transaction: Transaction, dataset: DatasetVersion | None) -> None:
        """Say what there is on record about data and labels, and remember what this message is answered from.

        Args:
            dataset: the registered version that the data folder holds; None at a site that has registered none.

        Raises:
            LogContradicted: this site has stopped because of what it was shown.
        """
        data = None if dataset is None else "hmac:" + dataset.facts.dsv_id
        journal = self._journal(transaction)
        if (evidence := journal.halted) is not None:
            raise stopped(evidence)
        publish(transaction.connection, journal)
        labels = label_set_of(transaction.connection, data)
        code = None if self._code is None else "sha256:" + code_digest(self._code).hex()
        self._lineage = Lineage(data, labels, code)

    def check_witnessed(self) -> None:
        """That the message that opens a round brought a checkpoint this site could cosign.

        Raises:
            PeerError: it did not, and the site's policy asks for it.
        """
        if self._policy.log.required and (self._heard is None or self._heard.status != OK):
            raise PeerError(
                "a round without a checkpoint that this site can cosign",
                peer="server",
                next_step="Let the server keep a log, or set log.required = false in the site's policy.",
            )

    def now(self) -> datetime:
        """The time by this site's clock."""
        return self._clock()

    def speak(self) -> bytes | None:
        """What the answer says about the log; None if nothing was asked and nothing new was signed."""
        said = self._answer or self._heard
        return None if said is None else encode(said)

    def _say(self, journal: SiteJournal) -> None:
        """Let the answer bring the events that were signed in this transaction."""
        self._answer = journal.reply(self._heard)

    # What a site signs

    def joined(self, transaction: Transaction) -> None:
        """Say once for each roster that this site takes part."""
        identity = self._store.identity
        body = Joined(
            site=identity.number,
            name=public_name(identity.name),
            key=identity.key.public.hex(),
            roster="sha256:" + identity.roster.digest().hex(),
        )
        journal = self._journal(transaction)
        if journal.last_said(Joined) != body:
            journal.share(body)
            self._say(journal)

    def accepted(self, transaction: Transaction, header: Header, population: str) -> None:
        """Say once for each run that this site takes part in it, with what and by which rules."""
        journal = self._journal(transaction)
        if journal.has_shared(RunAccepted, header.run):
            return
        journal.share(
            RunAccepted(
                code=self._lineage.code,
                policy=journal.commitment("policy", self._store.identity.policy.encode("utf-8")),
                population=journal.commitment("population", population.encode("utf-8")),
                dataset=self._lineage.dataset,
                label_set=self._lineage.label_set,
            ),
            run=header.run,
        )
        self._say(journal)

    def refused(self, transaction: Transaction, header: Header, rule: RefusedRule) -> None:
        """Say once for each rule and release of a run that this site refused, in both logs."""
        journal = self._journal(transaction)
        body = RunRefused(
            rule=rule,
            release=ReleaseName(header.release_name),
            round=header.fl_round,
            sequence=header.release_seq,
            attempt=header.attempt,
            header="sha256:" + header.digest().hex(),
        )
        before = journal.said_of_run(RunRefused, header.run)
        if all((said.rule, said.release) != (body.rule, body.release) for said in before):
            journal.record(body, run=header.run)
            journal.share(body, run=header.run)
        self._say(journal)

    def charged(self, transaction: Transaction, header: Header, terms: Terms) -> None:
        """Say what was charged to whose budget, in the transaction of the charge."""
        journal = self._journal(transaction)
        journal.record(
            Access(
                release=ReleaseName(header.release_name),
                sequence=header.release_seq,
                attempt=header.attempt,
                dataset=self._lineage.dataset,
                label_set=self._lineage.label_set,
                code=self._lineage.code,
            ),
            run=header.run,
        )
        self._share_charge(journal, header, terms, decode_plan(header.plan))

    def charged_besides(self, transaction: Transaction, header: Header, terms: Terms, plan: PrivacyPlan) -> None:
        """Say what was charged for the same release to another population, under a plan of its own."""
        self._share_charge(self._journal(transaction), header, terms, plan)

    def _share_charge(self, journal: SiteJournal, header: Header, terms: Terms, plan: PrivacyPlan) -> None:
        population = journal.commitment("population", terms.population.encode("utf-8"))
        self._share_promise(journal, population, terms)
        journal.share(
            Charged(
                release=ReleaseName(header.release_name),
                sequence=header.release_seq,
                attempt=header.attempt,
                population=population,
                plan=plan_facts(plan),
                delta=decimal(terms.delta),
                alpha=decimal(terms.order),
            ),
            run=header.run,
        )
        self._say(journal)

    @staticmethod
    def _share_promise(journal: SiteJournal, population: str, terms: Terms) -> None:
        """Say once, before the first charge to a population, what its ledger was opened with."""
        if journal.published(population):
            return
        epsilon, delta, order = map(decimal, (terms.epsilon, terms.delta, terms.order))
        journal.share(BudgetSet(population=population, epsilon=epsilon, delta=delta, alpha=order))
        journal.put_published(population, 1)

    def contributed(self, transaction: Transaction, header: Header, masked: Signed) -> None:
        """Say that the masked vector is on its way, and where this site's own log stands."""
        journal = self._journal(transaction)
        own = journal.own
        journal.share(
            Contributed(
                release=ReleaseName(header.release_name),
                round=header.fl_round,
                sequence=header.release_seq,
                attempt=header.attempt,
                header="sha256:" + header.digest().hex(),
                update="sha256:" + decode(masked.payload, Masked).vector_digest.hex(),
                dataset=self._lineage.dataset,
                label_set=self._lineage.label_set,
                code=self._lineage.code,
                anchor=Anchor(size=own.size, root="sha256:" + own.root().hex()),
            ),
            run=header.run,
        )
        self._say(journal)

    def _journal(self, transaction: Transaction) -> SiteJournal:
        return SiteJournal(transaction.connection, self._store.identity, self._clock())
