"""The sites of a scenario as witnesses of its log: what each has cosigned so far, in memory.

A site of a study's run keeps a store with a mirror of the log. A scenario's sites live as long as the process does, so
each remembers only what a witness has to: size and root of what it cosigned last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fedseal.compliance.journal.attachment import OK, LogReply
from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log import checkpoint, witness
from fedseal.errors import LocalError
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg.keys import SigningKey


@dataclass(frozen=True, slots=True)
class Witnesses:
    """All sites of a simulated federation.

    Args:
        roster: the federation's.
        keys: the sites' signing keys, by name.
    """

    roster: Roster
    keys: Mapping[str, SigningKey]
    _seen: dict[int, witness.WitnessState] = field(default_factory=dict)

    def cosign(self, journal: FederationJournal) -> int:
        """Show the log to every site, as the messages of a run would, and write down their cosignatures.

        Returns:
            The size that is final then.

        Raises:
            LocalError: a site refuses. A simulation has no liars: this is a bug.
        """
        log = checkpoint.log_key(journal.origin, self.roster.server_key)
        for site in self.roster.sites:
            cosigner = checkpoint.Cosigner(
                checkpoint.site_origin(self.roster.federation, site.name), self.keys[site.name]
            )
            state = self._seen.get(site.site, witness.WitnessState(journal.origin))
            while state.size != journal.size:
                body = journal.request_for(site.site).body
                state, said = witness.answer(state, body, log, cosigner, int(datetime.now(UTC).timestamp()))
                if said.status != OK:
                    raise LocalError(f"the site {site.name} does not cosign the run's log: {said.outcome.value}")
                journal.take(site.site, LogReply(OK, state.size, said.body, ()))
            self._seen[site.site] = state
        journal.commit()
        return journal.final_size()
