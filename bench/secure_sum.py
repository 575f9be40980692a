"""That the secure sum is the clear integer sum, bit for bit, whoever drops out, and that below the threshold there is
none.

Every case is a whole round in memory with values as large as the ring allows. Sites go silent at one of the five
stages: each number of them that the threshold allows must leave the exact sum of those whose vectors arrived, and one
more must end the round with too few opened shares to rebuild anything. Exit code 1 if a case is wrong.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedseal.privacy.secagg.client_states import Done
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.parameters import threshold
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished

# The driver of a whole round in memory is the tests' own; nothing of it is written again here.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.rounds import Cohort, clear_sum, make_cohort, signed_sum

COLLUDERS = {2: 0, 3: 0, 5: 1, 10: 3, 50: 10}
MILLION = 10**6


@dataclass(frozen=True)
class Case:
    """A cohort of n sites of which ``gone`` fall silent at ``stage``; nobody where there is no stage."""

    n: int
    d: int
    stage: Stage | None
    gone: int

    @property
    def spare(self) -> int:
        """How many sites may be lost."""
        return self.n - threshold(self.n, COLLUDERS[self.n])

    def cohort(self) -> Cohort:
        """The round, before it runs. Who falls silent is drawn anew for each case, but the same in every run."""
        seed = [self.n, self.d, -1 if self.stage is None else int(self.stage), self.gone]
        drawn = np.random.default_rng([s + 1 for s in seed]).permutation(self.n)[: self.gone]
        silent = {} if self.stage is None else {self.stage: {int(i) + 1 for i in drawn}}
        cohort = make_cohort(self.n, self.d, m=COLLUDERS[self.n], seed=sum(seed), silent=silent)
        if self.d > 1:
            # The sums farthest from zero, where a ring that was too small would wrap around.
            top = int(cohort.header.layout.segments[0].high)
            for values in cohort.values.values():
                values[0], values[-1] = top, -top
        return cohort


@dataclass
class Row:
    """The cases of one n and one d."""

    n: int
    t: int
    d: int
    cases: int = 0
    exact: int = 0
    aborted: int = 0
    wrong: int = 0
    seconds: float = 0.0

    def print(self) -> None:
        """One line of the table."""
        print(
            f"{self.n:4} {self.t:4} {self.d:9} {self.cases:7} {self.exact:7} {self.aborted:10} {self.wrong:7} "
            f"{self.seconds:9.1f}",
            flush=True,
        )


HEADING = f"{'n':>4} {'t':>4} {'d':>9} {'cases':>7} {'exact':>7} {'aborted as':>10} {'wrong':>7} {'seconds':>9}"
SECOND_LINE = f"{'':34}{'they must':>10}"


def cases(n: int, d: int) -> Iterator[Case]:
    """Nobody lost, every number of lost sites at every stage, and one more. Fewer of them where they take long."""
    spare = Case(n, d, None, 0).spare
    yield Case(n, d, None, 0)
    for stage in Stage:
        counts = set(range(1, spare + 1)) if n <= 10 else {1, spare // 2, spare}
        if n > 10 and d == MILLION:
            counts = {spare} if stage in (Stage.MASK, Stage.UNMASK) else set()
        for gone in sorted(counts):
            yield Case(n, d, stage, gone)
        yield Case(n, d, stage, spare + 1)


def is_exact(case: Case, cohort: Cohort, end: object) -> bool:
    """Whether the round gave the clear sum over exactly the sites whose vectors arrived."""
    if not isinstance(end, Finished):
        return False
    silent = set() if case.stage is None or case.stage > Stage.MASK else cohort.silent[case.stage]
    arrived = tuple(i for i in cohort.header.cohort if i not in silent)
    return end.survivors == arrived and np.array_equal(signed_sum(end), clear_sum(cohort, arrived))


def released_nothing(case: Case, cohort: Cohort, end: object) -> bool:
    """Whether the round ended at its stage for want of sites, with fewer than t sites having opened their shares."""
    opened = sum(isinstance(state, Done) for state in cohort.states.values())
    return (
        isinstance(end, Aborted)
        and end.reason is AbortReason.TOO_FEW
        and end.stage is case.stage
        and opened < cohort.header.threshold
        and not any(isinstance(getattr(end, name), np.ndarray | Finished) for name in end.__slots__)
    )


def run_cases(n: int, d: int) -> Row:
    """All cases of one n and one d; those that are wrong are named on standard error."""
    row, start = Row(n, threshold(n, COLLUDERS[n]), d), time.perf_counter()
    for case in cases(n, d):
        cohort = case.cohort()
        end = cohort.run()
        row.cases += 1
        if case.gone <= case.spare and is_exact(case, cohort, end):
            row.exact += 1
        elif case.gone > case.spare and released_nothing(case, cohort, end):
            row.aborted += 1
        else:
            row.wrong += 1
            print(f"wrong: {case}, ended as {type(end).__name__}", file=sys.stderr)
    row.seconds = time.perf_counter() - start
    return row


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="the secure sum against the clear sum, with and without dropouts")
    parser.add_argument("--quick", action="store_true", help="leave out vectors of a million coordinates")
    parser.add_argument("--out", type=Path, help="write the table to this JSON file")
    options = parser.parse_args()
    print(HEADING, SECOND_LINE, sep="\n")
    rows = []
    for n in COLLUDERS:
        for d in (1, 1000) if options.quick else (1, 1000, MILLION):
            rows.append(run_cases(n, d))
            rows[-1].print()
    wrong = sum(row.wrong for row in rows)
    print(f"{sum(row.cases for row in rows)} cases, {wrong} wrong")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
