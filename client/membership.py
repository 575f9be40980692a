"""Whether a site answers a run's first message: only while its epoch of the federation holds, and by its own roster."""

from datetime import datetime

from fedseal.errors import ConfigError, PeerError, PolicyRefused
from fedseal.privacy.membership.standing import SITE_MOVES, standing
from fedseal.privacy.store import Identity


def check_membership(identity: Identity, now: datetime) -> None:
    """Whether what the site has adopted of its federation holds.

    Raises:
        PolicyRefused: it does not hold yet, or no longer.
    """
    if identity.epoch is None:
        return
    try:
        standing(identity.epoch, now, moves=SITE_MOVES)
    except ConfigError as error:
        raise PolicyRefused(error.message, next_step=error.next_step) from None


def other_roster(number: int) -> PeerError:
    """The server asks in the name of another roster than that of this site's epoch."""
    return PeerError(
        f"a HELLO by another roster than that of epoch {number}, which this site has joined",
        peer="server",
        next_step="Server and sites have to be at the same epoch: compare `fedseal federation status` of both stores, "
        "and let whoever is behind take the newest bundle.",
    )
