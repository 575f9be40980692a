"""What truly changed, and whether alarms followed: delay, misses and false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedseal.simulation.scenario.outcome import StepRow
from fedseal.simulation.worlds.window import ActiveDrift
from fedseal.simulation.worlds.world import World


@dataclass(frozen=True, slots=True)
class Detection:
    """How well a monitor followed the truth; None where there was nothing to follow.

    ``delay`` in steps, the longest of the changes that were noticed; ``false`` alarms of ``quiet`` steps watched in
    which nothing had changed.
    """

    delay: int | None
    missed: int
    false: int
    quiet: int

    @property
    def false_per_100(self) -> float | None:
        """False alarms for a hundred quiet steps."""
        return 100.0 * self.false / self.quiet if self.quiet else None


def detection(steps: Sequence[StepRow], changes: Sequence[int], moved: Sequence[bool]) -> Detection:
    """Compare alarms with the truth.

    A change counts as noticed by the first alarm from its step on; one alarm may notice several changes.

    Args:
        steps: all steps.
        changes: the steps at which a declared change began or ended, in increasing order.
        moved: for every step, whether the world is another one than when the monitor's reference was made.
    """
    alarms = [row.step for row in steps if row.alarm == "alarm"]
    delays = [next((alarm - change for alarm in alarms if alarm >= change), None) for change in changes]
    quiet = [row for row, other in zip(steps, moved, strict=True) if row.alarm is not None and not other]
    noticed = [d for d in delays if d is not None]
    return Detection(
        delay=max(noticed, default=None),
        missed=len(delays) - len(noticed),
        false=sum(row.alarm == "alarm" for row in quiet),
        quiet=len(quiet),
    )


def in_force(world: World, step: int) -> tuple[ActiveDrift, ...]:
    """The declared changes that hold at a step, as far as they are changes inside a site: who takes part is none."""
    return tuple(drift for drift in world.truth(step) if drift.kind != "participation")


def began_or_ended(world: World, step: int) -> bool:
    """Whether a declared change began somewhere at a step, or ended."""
    now, before = ({(d.table, d.number, d.sites) for d in in_force(world, s)} for s in (step, step - 1))
    return now != before


def label(world: World, drift: ActiveDrift) -> str:
    """A change in words: ``concept (threshold) at 2 sites``."""
    where = "" if len(drift.sites) == len(world.sites) else f" at {len(drift.sites)} site{'s' * (len(drift.sites) > 1)}"
    level = min(drift.levels)
    return f"{drift.kind} ({drift.op}){where}" + (f", {100 * level:.0f} %" if level < 1 else "")
