"""When something declared holds, and at which sites.

A schedule gives every step a level from 0, not begun, to 1, complete. What a level means in between differs: in a
*gradual* change it is the share of rows that come from the new regime, in an *incremental* one how far the regime has
moved (Gama, Zliobaite, Bifet, Pechenizkiy and Bouchachia 2014, figure 2).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness

FORMS = "always, sudden@t, gradual@t..u, incremental@t..u, recurring@t/period/duty or matrix=file.cp"
PLACES = "all, a list of names, fraction=f with f above 0 and at most 1, or staggered=k with k at least 1"
_NUMBER = r"\d*\.?\d+"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One declared course of time.

    Args:
        form: how the change comes.
        start: the first step at which the level is above 0.
        end: the first step at which it is 1, for gradual and incremental changes.
        period: steps from one onset to the next, for recurring changes.
        duty: the share of a period for which a recurring change is on, above 0 and below 1; to the nearest step, one at
            least.
        matrix: the file of a change-point matrix, whose entries say which concept a site has at a step.
    """

    form: Literal["sudden", "gradual", "incremental", "recurring", "matrix"]
    start: int = 0
    end: int = 0
    period: int = 1
    duty: float = 1.0
    matrix: str = ""

    def level(self, step: int, delay: int = 0) -> float:
        """How far the change is at a step, from 0 to 1, at a site where it comes ``delay`` steps later.

        A matrix has no level of its own: its entries are looked up by site.
        """
        past = step - self.start - delay
        if past < 0:
            return 0.0
        if self.form in ("gradual", "incremental"):
            # The first step of the change already has some of it, and step `end` is the first with all of it.
            return min(1.0, (past + 1) / (self.end - self.start + 1))
        if self.form == "recurring":
            return float(past % self.period < max(1, round(self.duty * self.period)))
        return 1.0


def parse_when(text: str) -> Schedule:
    """The schedule of a text such as ``"gradual@4..8"``.

    Raises:
        ValueError: it has none of the known forms; the message is one sentence that lists them.
    """
    if text == "always":
        return Schedule("sudden")
    if found := re.fullmatch(r"sudden@(\d+)", text):
        return Schedule("sudden", start=int(found[1]))
    if found := re.fullmatch(r"(gradual|incremental)@(\d+)\.\.(\d+)", text):
        start, end = int(found[2]), int(found[3])
        if end <= start:
            raise ValueError(f"a {found[1]} change has to end after it begins, and {text!r} does not")
        return Schedule("gradual" if found[1] == "gradual" else "incremental", start=start, end=end)
    if found := re.fullmatch(rf"recurring@(\d+)/(\d+)/({_NUMBER})", text):
        start, period, duty = int(found[1]), int(found[2]), float(found[3])
        if period < 2:
            raise ValueError("the period of a recurring change has to be at least 2 steps")
        if not 0 < duty < 1:
            raise ValueError("the duty of a recurring change is the share of the period it is on: above 0 and below 1")
        return Schedule("recurring", start=start, period=period, duty=duty)
    if found := re.fullmatch(r"matrix=(\S+\.cp)", text):
        return Schedule("matrix", matrix=found[1])
    raise ValueError(f"{text!r} says no time; it may be {FORMS}")


@dataclass(frozen=True, slots=True)
class Places:
    """Which sites: those ``named``, or a ``fraction`` of all, or all, ``staggered`` so many a step."""

    named: tuple[str, ...] = ()
    fraction: float = 1.0
    staggered: int = 0

    def delays(self, sites: Sequence[str], randomness: KeyedRandomness, *purpose: str | int) -> dict[int, int]:
        """For each site that is meant, its number and how many steps later than the schedule says it begins.

        A fraction is a systematic sample (Madow and Madow 1944): its size is the fraction of the sites, rounded up or
        down, and a site's membership does not change when sites are added behind it.

        Raises:
            ConfigError: a name that no site has.
        """
        if self.named:
            for name in self.named:
                if name not in sites:
                    known = ", ".join(sites[:8]) + (", ..." if len(sites) > 8 else "")
                    raise ConfigError(f"where names {name!r}, which is no site", next_step=f"Sites: {known}.")
            return {sites.index(name): 0 for name in self.named}
        if self.staggered:
            return {site: site // self.staggered for site in range(len(sites))}
        offset = float(randomness.stream("where", *purpose).uniform53(1)[0])
        return {
            site: 0
            for site in range(len(sites))
            if math.floor((site + 1) * self.fraction + offset) > math.floor(site * self.fraction + offset)
        }


def parse_where(value: str | tuple[str, ...]) -> Places:
    """The places of a list of names or of a text such as ``"fraction=.5"``.

    Raises:
        ValueError: it has none of the known forms.
    """
    if not isinstance(value, str):
        if not value:
            raise ValueError("an empty list means no site; leave it out to mean all")
        if len(set(value)) < len(value):
            raise ValueError("a site is named twice")
        return Places(named=value)
    if value == "all":
        return Places()
    if (found := re.fullmatch(rf"fraction=({_NUMBER})", value)) and 0 < float(found[1]) <= 1:
        return Places(fraction=float(found[1]))
    if (found := re.fullmatch(r"staggered=(\d+)", value)) and int(found[1]) >= 1:
        return Places(staggered=int(found[1]))
    raise ValueError(f"{value!r} says no place; it may be {PLACES}")
