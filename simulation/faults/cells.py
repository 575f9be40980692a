"""The cells of the matrix, and what must become of each: worked out on sets of sites, with no protocol at all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product

from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.simulation.faults.attacks import EXCHANGES, Attack, Lie
from fedseal.simulation.faults.tables import FaultStage

SITE_MINIMUM = 2
POINTS: tuple[FaultStage, ...] = tuple(EXCHANGES)
# The exchanges alone: "before_round" and "after_train" say how a site or a server falls silent, not what is answered.
AT_EXCHANGES: tuple[FaultStage, ...] = ("advertise", "share_keys", "masked_input", "consistency", "unmask")


class Fault(Enum):
    """What strikes ``count`` sites (or, as a crash, the server so many times) at ``stage``."""

    DROPOUT = "dropout"
    LOST = "lost"
    SLOW = "slow"
    RESTORED = "restored_backup"
    CRASH = "server_crash"


@dataclass(frozen=True, slots=True)
class Shape:
    """How many sites, and against how many colluders."""

    sites: int
    colluders: int

    @property
    def everyone(self) -> frozenset[int]:
        """The sites, numbered from 1."""
        return frozenset(range(1, self.sites + 1))

    @property
    def threshold(self) -> int:
        """How many shares open a secret."""
        return threshold(self.sites, self.colluders)


SHAPES = (Shape(6, 1), Shape(5, 0))


@dataclass(frozen=True, slots=True)
class Cell:
    """One case: a fault at a stage in so many places, with one site that lies or none.

    Those struck are the sites from number 1 on, the liar is the last one; with as many struck as there are sites it is
    among them.
    """

    shape: Shape
    fault: Fault
    stage: FaultStage
    count: int
    lie: Attack | None = None

    @property
    def struck(self) -> frozenset[int]:
        """Whom the fault strikes."""
        return frozenset(range(1, self.count + 1))

    @property
    def liars(self) -> frozenset[int]:
        """Who lies."""
        return frozenset() if self.lie is None else frozenset({self.shape.sites})

    @property
    def retries(self) -> int:
        """A restored store costs an attempt for each site that has one."""
        return 1 if self.fault is not Fault.RESTORED else self.count + 1

    def __str__(self) -> str:
        lie = "" if self.lie is None else f", {self.lie.lie.value}@{self.lie.stage.label}"
        factor = f":{self.lie.factor:g}" if self.lie is not None and self.lie.lie is Lie.SCALE else ""
        shape = f"{self.shape.sites} sites, m={self.shape.colluders}"
        return f"{self.fault.value}@{self.stage} x{self.count}{lie}{factor} ({shape})"


LIES: tuple[Attack, ...] = (
    Attack(Lie.SIGN_FLIP),
    Attack(Lie.LABEL_FLIP),
    Attack(Lie.SCALE, factor=10.0),
    Attack(Lie.SCALE, factor=-1e6),
    Attack(Lie.NAN),
    Attack(Lie.REPLAY, Stage.ADVERTISE),
    Attack(Lie.REPLAY, Stage.SHARE),
    Attack(Lie.REPLAY, Stage.MASK),
    Attack(Lie.REPLAY, Stage.CONSISTENCY),
    Attack(Lie.REPLAY, Stage.UNMASK),
    Attack(Lie.WRONG_SHARE, Stage.SHARE),
    Attack(Lie.WRONG_SHARE, Stage.UNMASK),
)


def all_cells(shapes: tuple[Shape, ...] = SHAPES) -> Iterator[Cell]:
    """Every stage, kind and count from 0 to threshold + 1; and every lie beside every dropout.

    Without a lie, only the first of the cells of count 0 is given: they are one and the same honest round.
    """
    for shape in shapes:
        counts = range(shape.threshold + 2)
        yield Cell(shape, Fault.DROPOUT, POINTS[0], 0)
        for stage, count in product(POINTS, counts[1:]):
            yield Cell(shape, Fault.DROPOUT, stage, count)
            yield Cell(shape, Fault.CRASH, stage, count)
        for stage, count in product(AT_EXCHANGES, counts[1:]):
            yield Cell(shape, Fault.LOST, stage, count)
            yield Cell(shape, Fault.SLOW, stage, count)
            yield Cell(shape, Fault.RESTORED, stage, count)
        for lie in LIES:
            yield Cell(shape, Fault.DROPOUT, POINTS[0], 0, lie)
            for stage, count in product(AT_EXCHANGES, counts[1:]):
                yield Cell(shape, Fault.DROPOUT, stage, count, lie)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What must become of a release: over whom its sum is, or nobody where it must abort; how many attempts it takes,
    and who is rightly named as a cheat.

    ``unpaid``: survivors whose ledgers are behind, which nobody who took part could know.
    """

    survivors: frozenset[int] = frozenset()
    attempts: int = 0
    convicted: frozenset[int] = frozenset()
    unpaid: frozenset[int] = frozenset()


class Oracle:
    """Follows a cell on sets of sites and counts of charges.

    It begins after one honest round: each site was charged once, and all remember it of all.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        everyone = cell.shape.everyone
        self._charges = dict.fromkeys(everyone, 1)
        self._updates = dict.fromkeys(everyone, 1)
        self._remembered = {site: dict.fromkeys(everyone, 1) for site in everyone}
        self._unpaid = frozenset[int]()

    def disturbed(self) -> Foreseen:
        """What must become of the release that the cell disturbs."""
        if self._cell.fault is Fault.CRASH and self._cell.stage != "before_round":
            for _ in range(self._cell.count):
                self._crashed()
        return self._release(disturbed=True)

    def afterwards(self) -> Foreseen:
        """What must become of the next one."""
        return self._release(disturbed=False)

    def _release(self, *, disturbed: bool) -> Foreseen:
        cohort, convicted, attempts = self._cell.shape.everyone, frozenset[int](), 0
        for attempt in range(self._cell.retries + 1):
            if len(cohort) < max(SITE_MINIMUM, self._cell.shape.colluders + 2):
                break
            attempts += 1
            missed = _missed(self._cell, attempt) if disturbed else {}
            survivors, named = self._attempt(cohort, missed, disturbed and attempt == 0, disturbed)
            if survivors:
                return Foreseen(survivors, attempts, convicted, survivors & self._unpaid)
            convicted |= named
            cohort -= named
        return Foreseen(frozenset(), attempts, convicted)

    def _attempt(
        self, cohort: frozenset[int], missed: Mapping[Stage, frozenset[int]], first: bool, disturbed: bool
    ) -> tuple[frozenset[int], frozenset[int]]:
        """One attempt: over whom its sum is, nobody if there is none, and who is named."""
        cell, nobody = self._cell, frozenset[int]()
        t, m = threshold(len(cohort), cell.shape.colluders), cell.shape.colluders
        least = minimum_sites(t, SITE_MINIMUM, m, 0)
        if first:
            self._restore(Stage.ADVERTISE)
        members = cohort - missed.get(Stage.ADVERTISE, nobody)
        if len(members) < least:
            return nobody, nobody
        advertised = {site: self._charges[site] for site in members}
        if first:
            self._restore(Stage.SHARE)
        sharing = members - missed.get(Stage.SHARE, nobody)
        behind = {site: [o for o in sorted(members) if advertised[o] < self._remembered[site][o]] for site in members}
        refusing = {site: others[0] for site, others in behind.items() if others and site in sharing}
        for site in members - frozenset(refusing) - self._deaf(missed, Stage.SHARE):
            self._hears(site, advertised)
        contributors = sharing - frozenset(refusing)
        if len(contributors) < least:
            accused = set(refusing.values())
            return nobody, frozenset(a for a in accused if sum(o == a for o in refusing.values()) > m)
        if first:
            self._restore(Stage.MASK)
        for site in contributors - self._deaf(missed, Stage.MASK):
            self._charges[site] += 1
            self._updates[site] += 1
        self._unpaid = frozenset(s for s in contributors if self._charges[s] < self._updates[s])
        survivors = contributors - missed.get(Stage.MASK, nobody)
        if len(survivors) < least:
            return nobody, nobody
        if first:
            self._restore(Stage.CONSISTENCY)
        confirmed = survivors - missed.get(Stage.CONSISTENCY, nobody)
        if len(confirmed) < t:
            return nobody, nobody
        if first:
            self._restore(Stage.UNMASK)
        # Whose confirmation was refused or lost has signed all the same, and is asked to open.
        opening = survivors - self._deaf(missed, Stage.CONSISTENCY) - self._deaf(missed, Stage.UNMASK)
        for site in opening:
            self._hears(site, {o: advertised[o] + 1 for o in confirmed})
        if len(opening - missed.get(Stage.UNMASK, nobody)) < t:
            return nobody, nobody
        dealt_wrong = cell.lie is not None and cell.lie.lie is Lie.WRONG_SHARE and cell.lie.stage is Stage.SHARE
        if disturbed and dealt_wrong and cell.liars & survivors:
            return nobody, cell.liars
        return survivors, nobody

    def _deaf(self, missed: Mapping[Stage, frozenset[int]], stage: Stage) -> frozenset[int]:
        """Of those whose answer does not count, the ones that did not even take the request in."""
        cell = self._cell
        hears = cell.fault in (Fault.LOST, Fault.SLOW) or (cell.fault is Fault.DROPOUT and cell.stage == "after_train")
        if hears or cell.fault is Fault.CRASH:
            return frozenset()
        return missed.get(stage, frozenset()) & cell.struck

    def _hears(self, site: int, counters: Mapping[int, int]) -> None:
        """A site remembers what it has been shown of others' charges."""
        own = self._remembered[site]
        for other, counter in counters.items():
            own[other] = max(own[other], counter)

    def _restore(self, stage: Stage) -> None:
        """Stores put back to what they were before anyone was ever charged."""
        if self._cell.fault is Fault.RESTORED and EXCHANGES[self._cell.stage] is stage:
            for site in self._cell.struck:
                self._charges[site] = 0
                self._remembered[site] = dict.fromkeys(self._cell.shape.everyone, 0)

    def _crashed(self) -> None:
        """A round that ends with the server's process: who had been asked for an update was charged for it."""
        stage, everyone = EXCHANGES[self._cell.stage], sorted(self._cell.shape.everyone)
        asked = everyone if self._cell.stage == "after_train" or stage > Stage.MASK else everyone[: len(everyone) // 2]
        if stage >= Stage.MASK:
            for site in asked:
                self._charges[site] += 1
                self._updates[site] += 1


def _missed(cell: Cell, attempt: int) -> Mapping[Stage, frozenset[int]]:
    """Whose answer to an exchange does not count, by exchange."""
    missed: dict[Stage, frozenset[int]] = {}
    at = EXCHANGES[cell.stage]
    match cell.fault:
        case Fault.DROPOUT:
            missed |= {stage: cell.struck for stage in Stage if stage >= at}
        case Fault.LOST | Fault.SLOW if attempt == 0:
            missed[at] = cell.struck
        case Fault.RESTORED if attempt == 0 and at is not Stage.ADVERTISE:
            # Its store knows nothing of the round that is under way, then or later.
            missed |= {stage: cell.struck for stage in Stage if stage >= at}
        case _:
            pass
    lie = cell.lie
    if lie is not None and (lie.lie is Lie.REPLAY or (lie.lie is Lie.WRONG_SHARE and lie.stage is Stage.UNMASK)):
        missed[lie.stage] = missed.get(lie.stage, frozenset()) | cell.liars
    return missed
