"""Which faults strike which site in a round. Pure: every toss is keyed by fault, site and round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.faults.attacks import EXCHANGES, Attack, parsed
from fedseal.simulation.faults.tables import Fault, FaultStage
from fedseal.simulation.virtual.rounds import Disturbance

COMPONENT = "faults"


@dataclass(frozen=True, slots=True)
class RoundFaults:
    """What goes wrong in one round; sites by number from 0.

    ``silent``: from that exchange on; ``lost``, and in the first attempt ``lost_once`` and ``delays``: answers to one
    exchange; ``attacks``: what a site does
    on purpose; ``restored``: before which exchange its store is put back; ``crash``: where the server's process ends.
    """

    silent: Mapping[int, Stage] = field(default_factory=dict)
    lost: frozenset[tuple[int, Stage]] = frozenset()
    lost_once: frozenset[tuple[int, Stage]] = frozenset()
    delays: Mapping[tuple[int, Stage], float] = field(default_factory=dict)
    attacks: Mapping[int, tuple[Attack, ...]] = field(default_factory=dict)
    restored: Mapping[int, Stage] = field(default_factory=dict)
    crash: FaultStage | None = None

    def disturbance(self) -> Disturbance:
        """The same for a round in virtual time.

        An answer that the server must refuse (a replay, an opened share that was not dealt) is as good as lost. What
        comes of dealt shares of another secret, of a restored store and of a crash takes the real protocol.
        """
        refused = {(site, a.stage) for site, own in self.attacks.items() for a in own if a.refused_at_once}
        return Disturbance(self.silent, self.lost | refused, self.lost_once, self.delays)


QUIET = RoundFaults()


def faults_of_round(faults: Sequence[Fault], names: Sequence[str], fl_round: int, seed: int) -> RoundFaults:
    """What goes wrong in a round.

    Args:
        faults: the scenario's.
        names: of all sites; a site's number is its place here.
        fl_round: the round, from 1.
        seed: the scenario's.

    Raises:
        ConfigError: a fault names a site that does not exist.
    """
    silent: dict[int, Stage] = {}
    lost: set[tuple[int, Stage]] = set()
    lost_once: set[tuple[int, Stage]] = set()
    delays: dict[tuple[int, Stage], float] = {}
    attacks: dict[int, tuple[Attack, ...]] = {}
    restored: dict[int, Stage] = {}
    crash: FaultStage | None = None
    for index, fault in enumerate(faults):
        first, last = fault.rounds
        if fl_round < first or (last is not None and fl_round > last):
            continue
        where: FaultStage = fault.stage or "masked_input"
        stage = EXCHANGES[where]
        if fault.kind == "server_crash":
            crash = fault.stage or "before_round"
            continue
        for site in struck(fault, index, names, fl_round, seed):
            match fault.kind:
                case "dropout" if where == "after_train":
                    lost.add((site, Stage.MASK))
                    silent.setdefault(site, Stage.CONSISTENCY)
                case "dropout":
                    silent[site] = min(stage, silent.get(site, stage))
                case "lost":
                    lost_once.add((site, stage))
                case "slow":
                    delays[site, stage] = delays.get((site, stage), 0.0) + (fault.seconds or 0.0)
                case "byzantine":
                    attacks[site] = (*attacks.get(site, ()), parsed(fault.attack or "", fault.stage))
                case "restored_backup" if fl_round == first:
                    restored[site] = EXCHANGES[fault.stage or "before_round"]
                case _:
                    pass
    return RoundFaults(silent, frozenset(lost), frozenset(lost_once), delays, attacks, restored, crash)


def struck(fault: Fault, index: int, names: Sequence[str], fl_round: int, seed: int) -> list[int]:
    """The numbers of the sites that a fault strikes in a round, in increasing order.

    Raises:
        ConfigError: the fault names a site that does not exist.
    """
    unknown = sorted(set(fault.where or ()) - set(names))
    if unknown:
        raise ConfigError(
            f"fault {index + 1} names site {unknown[0]!r}, which does not exist",
            next_step=f"The sites are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}.",
        )
    candidates = [i for i, name in enumerate(names) if fault.where is None or name in fault.where]
    if fault.prob is None and fault.count is None:
        return candidates
    randomness = KeyedRandomness(seed, COMPONENT)
    tosses = np.array([randomness.stream(index, names[i], fl_round).uniform53(1)[0] for i in candidates])
    if fault.prob is not None:
        return [site for site, toss in zip(candidates, tosses, strict=True) if toss <= fault.prob]
    lowest = np.argsort(tosses, kind="stable")[: fault.count]
    return sorted(candidates[int(i)] for i in lowest)
