"""`fedseal monitor plan`: the same shift seen through different releases."""

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from fedseal.errors import ConfigError
from fedseal.privacy.inference.drift.difference import effective_rows
from fedseal.privacy.inference.drift.multiplicity import Levels, expected_warnings
from fedseal.privacy.inference.drift.power import (
    Design,
    Release,
    Shift,
    ShiftKind,
    epsilon_needed,
    power,
    rows_needed,
    smallest_shift,
)
from fedseal.privacy.secagg.parameters import minimum_sites, threshold

# One person changes V = c - n q by at most 2 (its own cell, and the n of all), a histogram by 1.
STRATIFIED_SENSITIVITY = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; ``weights_part`` is W's share of epsilon."""

    sites: int
    rows: int
    reference_rows: int
    epsilon: float
    features: int
    bins: int
    shift: Shift
    power: float
    windows: float
    levels: Levels
    colluders: int
    weights_part: float

    @property
    def honest(self) -> int:
        """How many honest shares of noise the protocol counts on: its threshold without the colluders."""
        if self.colluders > self.sites - 2:
            raise ConfigError(
                f"{self.sites} sites cannot withstand {self.colluders} colluders",
                next_step="Plan with more sites, or with fewer colluders.",
            )
        least = minimum_sites(threshold(self.sites, self.colluders), 3, self.colluders, 0)
        return least - self.colluders

    @property
    def cells(self) -> int:
        """Of one table."""
        return 2 if self.shift.kind is ShiftKind.RATE else self.bins


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to release, and how many tests share the level of its windows."""

    name: str
    design: Design
    release: Release | None
    tests: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What one variant sees.

    Attributes:
        deviation: standard deviation of the noise in a cell, in persons.
        rows: how many rows without noise would tell as much.
        alarm, warning: probability of an alarm in one window after the shift, and of a warning within three.
        smallest: the smallest shift that one window alarms on with the power asked for; None if none is.
        rows_needed, epsilon_needed: for the shift asked for, with everything else as it is; None if none is enough.
    """

    name: str
    deviation: float
    rows: float
    alarm: float
    warning: float
    smallest: float | None
    rows_needed: int | None
    epsilon_needed: float | None


def parse_shift(text: str) -> Shift:
    """``mean:0.12``, ``scale:1.1``, ``tail:0.02`` or ``rate:0.2+0.08``.

    Raises:
        ConfigError: none of these, or a size that makes no sense.
    """
    kind, _, size = text.partition(":")
    try:
        if kind == ShiftKind.RATE:
            base, _, rise = size.partition("+")
            return Shift(ShiftKind.RATE, float(rise), float(base))
        return Shift(ShiftKind(kind), float(size))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a shift", next_step="Write mean:0.12, scale:1.1, tail:0.02 or rate:0.2+0.08."
        ) from error


def variants(asked: Asked) -> tuple[Variant, ...]:
    """The ways to release that are compared; the first is the one that is planned for."""
    sealed = {"shares": asked.sites, "honest": asked.honest}
    part = 1 - asked.weights_part
    one = Release(asked.epsilon, 1, STRATIFIED_SENSITIVITY, part, **sealed)
    found = [
        _stratified("one table, sites against their own past", asked, one, 1),
        _stratified(
            "the same, all shares counted on", asked, Release(asked.epsilon, 1, STRATIFIED_SENSITIVITY, part), 1
        ),
    ]
    if asked.features > 1:
        joint = Release(asked.epsilon, asked.features, STRATIFIED_SENSITIVITY, part, **sealed)
        found.append(_stratified(f"{asked.features} tables in one window", asked, joint, asked.features))
    pooled, alone = Release(asked.epsilon, **sealed), Release(asked.epsilon, shares=asked.sites)
    found += [
        _pooled("one pooled histogram (alarms on another mix of sites)", asked, pooled),
        _pooled("the same without secure aggregation", asked, alone),
        Variant("no privacy", Design(asked.rows, asked.reference_rows, bins=asked.bins), None, 1),
    ]
    return tuple(found)


def _stratified(name: str, asked: Asked, release: Release, tests: int) -> Variant:
    weights_noise = 0.0
    if asked.weights_part:
        # One person changes W by 1 + (2 n1 + 1) / n0 at most.
        far = 1 + (2 * asked.rows + asked.sites) / asked.reference_rows
        weights_noise = Release(
            asked.epsilon, release.tables, far, asked.weights_part, release.shares, release.honest
        ).noise
    design = Design(asked.rows, asked.reference_rows, release.noise, weights_noise, asked.bins)
    return Variant(name, design, release, tests)


def _pooled(name: str, asked: Asked, release: Release) -> Variant:
    design = Design(asked.rows, asked.reference_rows, release.noise, release.noise, asked.bins, over_strata=False)
    return Variant(name, design, release, 1)


def sight(asked: Asked, variant: Variant) -> Sight:
    """What a variant sees, its tests corrected for their number as if only one had anything to see."""
    alarm, warning = asked.levels.alarm / variant.tests, asked.levels.warning / variant.tests
    design, release, shift = variant.design, variant.release, asked.shift
    suspicious = power(design, shift, warning)
    return Sight(
        name=variant.name,
        deviation=design.noise**0.5,
        rows=float(effective_rows(design.rows, asked.cells, design.noise)),
        alarm=power(design, shift, alarm),
        warning=suspicious**2 * (3 - 2 * suspicious),
        smallest=smallest_shift(design, shift, alarm, asked.power).size,
        rows_needed=rows_needed(design, shift, alarm, asked.power),
        epsilon_needed=None if release is None else epsilon_needed(design, release, shift, alarm, asked.power),
    )


def run_plan(asked: Asked, *, as_json: bool) -> None:
    """Print what a monitor will see.

    Raises:
        ConfigError: more colluders than the sites withstand.
    """
    seen = [sight(asked, variant) for variant in variants(asked)]
    warnings = expected_warnings(asked.levels.warning, asked.windows)
    if as_json:
        numbers = {
            "shift": asdict(asked.shift),
            "epsilon": asked.epsilon,
            "honest_shares": asked.honest,
            "levels": asdict(asked.levels),
            "false_alarms_a_year": asked.levels.alarm * asked.windows,
            "false_warnings_a_year": warnings,
            "power_asked": asked.power,
            "releases": [asdict(one) for one in seen],
        }
        Console(soft_wrap=True).print_json(json.dumps(numbers))
        return
    _show(Console(highlight=False), asked, seen, warnings)


def _show(console: Console, asked: Asked, seen: list[Sight], warnings: float) -> None:
    first = seen[0]
    console.print(
        f"With {asked.sites} sites, {asked.rows:,} rows a window and epsilon {asked.epsilon:g}, one window alarms on "
        f"{_shift(asked.shift)} with {_percent(first.alarm)} power; three windows warn of it with "
        f"{_percent(first.warning)}."
    )
    smallest = "none" if first.smallest is None else _size(asked.shift.kind, first.smallest)
    console.print(f"Smallest shift that one window shows with {asked.power:.0%}: {smallest}.")
    console.print(
        f"False alarms a year: at most {asked.levels.alarm * asked.windows:.2g}; windows with a false warning: at most "
        f"{warnings:.2g}. Noise counts on {asked.honest} honest sites of {asked.sites}."
    )
    table = Table(title="The same shift through other releases", title_justify="left")
    table.add_column("release")
    for name in ("noise", "worth rows", "alarm", "warning", "smallest", "rows needed", "epsilon needed"):
        table.add_column(name, justify="right")
    for one in seen:
        table.add_row(
            one.name,
            f"{one.deviation:.1f}",
            f"{one.rows:,.0f}",
            _percent(one.alarm),
            _percent(one.warning),
            "none" if one.smallest is None else f"{one.smallest:.3g}",
            "none" if one.rows_needed is None else f"{one.rows_needed:,}",
            _epsilon(one),
        )
    console.print(table)
    console.print("Noise is the standard deviation in a cell, in persons. What the tests are: docs/monitoring.md.")


def _percent(probability: float) -> str:
    """Nothing is certain, and little is impossible."""
    if probability >= 0.995:
        return "over 99%"
    return "under 1%" if probability < 0.005 else f"{probability:.0%}"


def _epsilon(one: Sight) -> str:
    if one.epsilon_needed is not None:
        return f"{one.epsilon_needed:.2f}"
    return "none" if one.deviation else "-"


def _shift(shift: Shift) -> str:
    return {
        ShiftKind.MEAN: f"a mean shift of {shift.size:g} sd",
        ShiftKind.SCALE: f"a scale of {shift.size:g} times",
        ShiftKind.TAIL: f"{shift.size:.2%} of the rows in the tail",
        ShiftKind.RATE: f"a rate that goes from {shift.base:g} to {shift.base + shift.size:g}",
    }[shift.kind]


def _size(kind: ShiftKind, size: float) -> str:
    return {
        ShiftKind.MEAN: f"{size:.3f} sd",
        ShiftKind.SCALE: f"{size:.3f} times",
        ShiftKind.TAIL: f"{size:.2%} of the rows",
        ShiftKind.RATE: f"a rise by {size:.3f}",
    }[kind]
