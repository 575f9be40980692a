"""The sites of a modelled federation: who they are and what they remember, without a store for each.

What a site computes it computes with the functions of `client.app` and `client.release`, from the streams that its
store would have given it. So the vector it would have masked is the same to the last bit.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from fedseal.client.task import Split, Task
from fedseal.client.work import SiteWork
from fedseal.privacy.roster import Roster, RosterEntry, public_persons
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.store import Identity
from fedseal.privacy.transaction import PERSONAL
from fedseal.simulation.engine.splits import training_sizes
from fedseal.simulation.federation import new_key

# How many sites' models and data are kept ready at a time; the others are built when they are asked.
WARM_SITES = 1024


@dataclass(slots=True)
class Kept:
    """One memory of one site, as `Transaction.remember` and `Transaction.recall` keep it."""

    settled: bytes | None = None
    pending: bytes | None = None
    pending_round: int | None = None


@dataclass(slots=True)
class Memory:
    """What a site remembers of the one run it is in, by name."""

    kept: dict[str, Kept] = field(default_factory=dict)

    def remember(self, run: bytes, name: str, value: bytes, fl_round: int) -> None:
        """Keep, pending until it is known how the round ended."""
        found = self.kept.setdefault(name, Kept())
        found.pending, found.pending_round = value, fl_round

    def recall(self, run: bytes, name: str, *, counted: int) -> bytes | None:
        """What was kept in the last round whose sum this site was in; settles what is pending."""
        found = self.kept.get(name)
        if found is None:
            return None
        settled = found.pending if found.pending_round == counted else found.settled
        found.settled, found.pending, found.pending_round = (settled if counted else None), None, None
        return found.settled

    def newest(self, name: str) -> bytes | None:
        """What was kept last, as `Transaction.kept` gives it."""
        found = self.kept.get(name)
        if found is None:
            return None
        return found.settled if found.pending is None else found.pending

    def close(self) -> None:
        """Forget what does not outlive the run."""
        self.kept = {name: found for name, found in self.kept.items() if name.startswith(PERSONAL)}


@dataclass(frozen=True, slots=True)
class ModelledSite:
    """What `client.app` asks of a site's store."""

    identity: Identity
    memory: Memory

    @contextmanager
    def transaction(self) -> Iterator[Memory]:
        """The memory; what is written counts once the release is computed."""
        yield self.memory


class Sites:
    """All sites of a modelled federation, numbered from 1 in the order of their splits.

    Args:
        name: the study's.
        task: what every site runs.
        splits: every site's persons by name; may build them when they are asked for.
        seed: the simulation's.
    """

    def __init__(self, name: str, task: Task, splits: Mapping[str, Split], seed: int) -> None:
        self.task = task
        self.splits = splits
        self.seed = seed
        self.names = tuple(splits)
        # Nothing is signed, so one key will do for all; rosters want different ones, and say here who is who.
        self._key: SigningKey = new_key()
        entries = tuple(
            RosterEntry(number, site, site, number.to_bytes(32, "big"), public_persons(count))
            for number, (site, count) in enumerate(training_sizes(splits).items(), start=1)
        )
        self.roster = Roster(f"simulated-{name}", 1, True, self._key.public, self._key.public, entries)
        self._works: OrderedDict[int, SiteWork] = OrderedDict()

    def split(self, number: int) -> Split:
        """A site's persons."""
        return self.splits[self.names[number - 1]]

    def public_persons(self, number: int) -> int:
        """The roster's number of persons."""
        return self.roster.sites[number - 1].persons

    def site(self, number: int, memory: Memory) -> ModelledSite:
        """A site with what it remembers."""
        name = self.names[number - 1]
        return ModelledSite(Identity(number, name, self._key, self.roster, "", self.seed), memory)

    def work(self, number: int) -> SiteWork:
        """A site's trainer and data, of which the last used are kept."""
        if number not in self._works:
            self._works[number] = SiteWork(self.task, self.split(number), self.public_persons(number))
            if len(self._works) > WARM_SITES:
                self._works.popitem(last=False)
        self._works.move_to_end(number)
        return self._works[number]
