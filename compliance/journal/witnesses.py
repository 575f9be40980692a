"""Who witnesses a federation's log, and how many of them have to."""

from fedseal.compliance.events.bodies import Genesis
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.log import checkpoint, quorum
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.roster import Roster


def policy_of(roster: Roster, faulty: int) -> quorum.Policy:
    """Who has to cosign: so many of the roster's sites that any two quorums share an honest one.

    The roster alone yields every key: a site cosigns with the one that the roster names.

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
    return quorum.federation_policy(checkpoint.log_key(name, roster.server_key), witnesses, faulty)


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
