"""Who witnesses a federation's log, and how many of them have to."""

from collections.abc import Sequence
from dataclasses import replace

from fedseal.compliance.events.bodies import Genesis
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.log import checkpoint, quorum
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.membership.documents import SERVER, FormerKey, KeyKind
from fedseal.privacy.roster import Roster


def policy_of(roster: Roster, faulty: int, former: Sequence[FormerKey] = ()) -> quorum.Policy:
    """Who has to cosign: so many of the roster's sites that any two quorums share an honest one.

    A site cosigns with the key that the roster names. Keys that counted before stay in the policy, for what they have
    signed: a site's as that of a witness whom no group counts, the server's as one more of the log. A checkpoint that
    only a former key of the server has signed gets no quorum, because sites cosign none that the present key has not.

    Raises:
        ConfigError: so many faulty sites leave no quorum.
    """
    if not 0 <= faulty < len(roster.sites):
        raise ConfigError(
            f"of {len(roster.sites)} witnesses {faulty} may be faulty: no quorum outvotes them",
            next_step="Name fewer sites that may work with the server, or invite an outside witness.",
        )
    name = checkpoint.server_origin(roster.federation)
    witnesses = [
        checkpoint.witness_key(checkpoint.site_origin(roster.federation, site.name), site.signing_key)
        for site in roster.sites
    ]
    policy = quorum.federation_policy(checkpoint.log_key(name, roster.server_key), witnesses, faulty)
    signed = [key for key in former if key.kind == KeyKind.SIGNING]
    logs = [quorum.LogEntry(checkpoint.log_key(name, key.public)) for key in signed if key.site == SERVER]
    authors = [_former(roster.federation, key) for key in signed if key.site != SERVER]
    return replace(policy, logs=(*policy.logs, *logs), witnesses=(*policy.witnesses, *authors))


def _former(federation: str, key: FormerKey) -> quorum.Witness:
    name = checkpoint.site_origin(federation, key.name)
    return quorum.Witness(f"{name}/{quorum.FORMER}/{key.epoch}", checkpoint.witness_key(name, key.public))


def behind(site: int, seen: int, size: int) -> LocalError:
    """The log is shorter than what a witness has cosigned."""
    return LocalError(
        f"this log has {size} entries, and site {site} has cosigned {seen}: it was rolled back",
        next_step="Nothing was written. Every site holds a mirror: `fedseal audit recover` takes the missing entries "
        "from one, after checking them against the cosigned checkpoint.",
    )


def server_genesis(roster: Roster, faulty: int) -> Genesis:
    """The first entry of a federation's log."""
    return _genesis(roster, faulty, quorum.quorum_size(len(roster.sites), faulty))


def site_genesis(roster: Roster) -> Genesis:
    """The first entry of a site's own log, which has no quorum to reach."""
    return _genesis(roster, 0, 0)


def _genesis(roster: Roster, faulty: int, needed: int) -> Genesis:
    return Genesis(
        federation=public_name(roster.federation),
        roster="sha256:" + roster.digest().hex(),
        simulated=roster.simulated,
        faulty=faulty,
        quorum=needed,
    )
