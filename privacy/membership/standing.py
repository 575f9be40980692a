"""Whether an epoch holds now, and how long it still will. Pure: whoever asks says what time it is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import Epoch
from fedseal.privacy.membership.tls import check_server_certificate, host_of, not_after

GRACE = timedelta(days=30)
SITE_MOVES = "fedseal site join BUNDLE"
SERVER_MOVES = "fedseal server adopt BUNDLE"


@dataclass(frozen=True, slots=True)
class Standing:
    """How an epoch stands: until when it holds, and the whole days that are left of it."""

    epoch: int
    until: datetime
    days: int

    @property
    def warning(self) -> str | None:
        """What to say at a start when the end is near; None before that."""
        if self.days >= GRACE.days:
            return None
        return (
            f"the membership of epoch {self.epoch} ends on {said(self.until)}, in {self.days} days: ask the "
            "federation's root for the next bundle"
        )


def standing(epoch: Epoch, now: datetime, *, moves: str) -> Standing:
    """How an epoch stands.

    Args:
        epoch: the one that was adopted.
        now: in UTC.
        moves: the command that takes the next bundle.

    Raises:
        ConfigError: it does not hold yet, or no longer.
    """
    membership = epoch.membership
    begin, end = _date(membership.valid_from), min(_date(membership.valid_until), not_after(epoch.bundle.certificate))
    what = f"the membership of federation {membership.federation!r}, epoch {membership.epoch},"
    if now < begin:
        raise ConfigError(
            f"{what} holds from {said(begin)} on, and this machine's clock says {said(now)}",
            next_step="Set the clock. If it is right, ask the federation's root for another bundle.",
        )
    if now >= end:
        raise ConfigError(
            f"{what} ended on {said(end)}",
            next_step=f"Ask the federation's root for the next bundle (fedseal federation admit), then: {moves}",
        )
    return Standing(membership.epoch, end, (end - now).days)


def check_certificate(epoch: Epoch, now: datetime) -> None:
    """That the server's certificate is good for the address of the epoch; ConfigError if it is not, now."""
    bundle = epoch.bundle
    check_server_certificate(bundle.authority, bundle.certificate, host_of(epoch.membership.address), now)


def warning_at_start(epoch: Epoch | None, now: datetime, *, moves: str) -> str | None:
    """What a program says when it starts, if there is anything; ConfigError if the epoch does not hold now.

    Args:
        epoch: the one that was adopted; None where there is none, and nothing to say.
        now: in UTC.
        moves: the command that takes the next bundle.
    """
    if epoch is None:
        return None
    check_certificate(epoch, now)
    return standing(epoch, now, moves=moves).warning


def said(time: datetime) -> str:
    """A time as messages have it."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _date(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
