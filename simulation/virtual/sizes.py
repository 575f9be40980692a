"""How many bytes the five exchanges move: by the protocol's formula, or as a real round has measured them.

By formula they are those of `engine.traffic`, a site's share of them. What an exchange shows of the log is left out;
it depends on the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import REGISTRY, UPDATE, release_layout
from fedseal.privacy.secagg.header import (
    AES_256_CTR,
    COMPLETE_GRAPH,
    HARARY_GRAPH,
    PROTOCOL,
    Header,
    sparse_for,
)
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.parameters import threshold
from fedseal.server.rounds import RoundRecord
from fedseal.simulation.engine.traffic import Turnout, attempt_traffic


class Sizes(Protocol):
    """Bytes of one exchange with one site, on average over the sites."""

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """Bytes to and from one site.

        Args:
            stage: the exchange.
            left: how many sites are left so far: asked, advertised, shared, and so on, up to those asked now.
        """


@dataclass(frozen=True, slots=True)
class Measured:
    """The same bytes for every site in every round, as measured once."""

    down: Mapping[Stage, float]
    up: Mapping[Stage, float]

    @classmethod
    def of(cls, record: RoundRecord, asked: int) -> "Measured":
        """What a finished round moved a site, if all of ``asked`` sites answered throughout at the first attempt."""
        costs = {stage: record.stages[stage.label] for stage in Stage}
        down = {stage: cost.bytes_down / asked for stage, cost in costs.items()}
        return cls(down, {stage: cost.bytes_up / asked for stage, cost in costs.items()})

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """As `Sizes` says."""
        return self.down[stage], self.up[stage]


@dataclass(frozen=True, slots=True)
class ByFormula:
    """The bytes that the protocol's messages have. ``task``: bytes of what is sent beside MASK's request (the model).

    A site's are the mean over the sites. Who fell silent is taken to be those of the highest numbers, which makes a
    difference of a hash or two a share.
    """

    header: Header
    task: int

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """As `Sizes` says."""
        cohort = self.header.cohort
        # All who are asked answer: it is one site's answer that is looked for. At UNMASK all survivors are asked.
        asked = cohort[: left[min(int(stage), 3)]]
        counts = (*left[1 : int(stage) + 1], len(asked), 0, 0, 0, 0)
        u1, u2, u3, u4, u5 = (cohort[:count] for count in counts[:5])
        turnout = Turnout(cohort, u1, u2, u3, u4, u5, reached=stage)
        traffic = attempt_traffic(self.header, turnout, self.task)[stage]
        return traffic.down / max(len(asked), 1), traffic.up / max(len(asked), 1)


def sizes_for(
    cohort: int,
    values: int,
    *,
    colluders: int = 0,
    minimum: int = 3,
    dropouts: float = 0.1,
    ring_bits: int = 32,
    task: int | None = None,
) -> ByFormula:
    """The bytes of an update of so many numbers over a cohort of so many sites.

    Args:
        cohort: how many sites are asked.
        values: how many numbers the model has.
        colluders, minimum, dropouts: the cohort's rules, see `server.sealing.CohortRules`.
        ring_bits: of one number of the sum.
        task: bytes of the model that is sent along; 4 a number if not given.
    """
    sparse = sparse_for(cohort, colluders, dropouts)
    header = Header(
        protocol=PROTOCOL,
        federation="simulated",
        roster_hash=bytes(32),
        run=bytes(16),
        fl_round=1,
        release_seq=1,
        attempt=0,
        release_name=UPDATE,
        cohort=tuple(range(1, cohort + 1)),
        threshold=threshold(cohort, colluders),
        colluders=colluders,
        site_minimum=minimum,
        noise_minimum=0,
        mask_generator=AES_256_CTR,
        graph=COMPLETE_GRAPH if sparse is None else HARARY_GRAPH,
        layout=release_layout(
            REGISTRY[UPDATE],
            values=values,
            value_range=100.0,
            weight_key="num-examples",
            largest_weight=1000,
            metrics={},
            sites=cohort,
            ring_bits=64 if cohort > 2047 else ring_bits,
            rounding=Rounding.STOCHASTIC,
        ),
        shapes_hash=bytes(32),
        plan=encode_plan(NoPrivacy(releases=1, retries=0)),
        input_digest=bytes(32),
        sparse=sparse,
    )
    return ByFormula(header, 4 * values if task is None else task)
