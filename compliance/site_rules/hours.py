"""When a site answers: weekdays and hours by a clock on its own wall."""

from datetime import datetime, time
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field, model_validator

from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.site_rules.refused import Refused
from fedseal.config import Frozen

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = len(available_timezones())
        raise ValueError(f"no time zone of that name among the {known} known here, as Europe/Berlin or UTC") from None
    return name


class HourRules(Frozen):
    """On which days, and from when to when, a round may begin: from ``begin`` up to, and not including, ``end``.

    Where ``end`` is not after ``begin`` the hours go over midnight and count as those of the day on which they begin.
    ``zone`` is a name of the IANA time zone database.
    """

    days: tuple[Weekday, ...] = Field(default=WEEK, min_length=1)
    begin: time = time(0, 0)
    end: time = time(0, 0)
    zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"

    @model_validator(mode="after")
    def _plain(self) -> "HourRules":
        if self.begin.tzinfo is not None or self.end.tzinfo is not None:
            raise ValueError("begin and end are times of the day, as 08:00; the zone is stated once, by zone")
        return self

    def open_at(self, now: datetime) -> bool:
        """Whether a round may begin.

        Args:
            now: with its time zone.
        """
        local = now.astimezone(ZoneInfo(self.zone))
        today, clock = WEEK[local.weekday()], local.time().replace(tzinfo=None)
        if self.begin < self.end:
            return today in self.days and self.begin <= clock < self.end
        yesterday = WEEK[local.weekday() - 1]
        return (today in self.days and clock >= self.begin) or (yesterday in self.days and clock < self.end)


def check_hours(rules: HourRules | None, now: datetime) -> None:
    """Whether a round may begin now.

    Raises:
        Refused: the site is closed; the server is told to try later.
    """
    if rules is not None and not rules.open_at(now):
        days = ", ".join(rules.days)
        raise Refused(
            RefusedRule.HOURS,
            f"a round at {now:%Y-%m-%d %H:%M} UTC; this site begins rounds on {days}, {rules.begin:%H:%M} to "
            f"{rules.end:%H:%M} {rules.zone}",
            next_step="The server tries again. The data owner may change hours in the site's policy.",
        )
