"""A changed policy becomes the site's: in its store, and committed to in both logs."""

from datetime import datetime

from fedseal.compliance.events.bodies import PolicySet
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.policy import SitePolicy, policy_text, read_policy
from fedseal.privacy.store import SiteStore


def adopt_policy(store: SiteStore, policy: SitePolicy, now: datetime) -> bool:
    """Let a site answer by this policy from its next message on; False if it does already.

    Args:
        store: the site's. Open it again to see the new policy in its identity.
        policy: as it was read.
        now: in UTC.
    """
    if read_policy(store.identity.policy) == policy:
        return False
    text = policy_text(policy)
    with store.transaction() as transaction:
        transaction.put_policy(text)
        journal = SiteJournal(transaction.connection, store.identity, now)
        body = PolicySet(policy=journal.commitment("policy", text.encode("utf-8")))
        journal.record(body)
        journal.share(body)
    return True
