"""The rounds that there are transcripts of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# name, length, low, high, scale, weighted, headroom, ball
SegmentFields = tuple[str, int, float, float, float, bool, int, bool]
Stages = Mapping[str, tuple[int, ...]]
ONE: tuple[SegmentFields, ...] = (("values", 3, -1000.0, 1000.0, 4096.0, False, 0, False),)
MANY: tuple[SegmentFields, ...] = (
    ("weight:rows", 1, 0.0, 1.0, 65536.0, True, 0, False),
    ("layer.weight", 5, -2.5, 2.5, 3000.0, True, 0, False),
    ("layer.ball", 4, -1.0, 1.0, 1024.0, False, 70000, True),
    ("counts", 2, 0.0, 1000.0, 1.0, False, 0, False),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One round. `silent` are the sites that get a stage's request and answer neither it nor any later one; `lost` are
    those whose answer at that stage does not arrive, and who go on. `dropouts` is the header's, None on the complete
    graph. `shown` are the sites whose messages stand in the file in full.
    """

    name: str
    about: str
    cohort: tuple[int, ...]
    colluders: int = 0
    ring_bits: int = 32
    rounding: int = 0
    segments: tuple[SegmentFields, ...] = ONE
    dropouts: int | None = None
    silent: Stages = field(default_factory=dict)
    lost: Stages = field(default_factory=dict)
    site_minimum: int = 2
    noise_minimum: int = 0
    shown: tuple[int, ...] = ()
    slow: bool = False

    def is_silent(self, label: str, site: int) -> bool:
        order = ("advertise", "share", "mask", "consistency", "unmask")
        return any(site in self.silent.get(earlier, ()) for earlier in order[: order.index(label) + 1])

    @staticmethod
    def listed(stages: Stages) -> dict[str, list[int]]:
        return {label: list(sites) for label, sites in stages.items()}


def first(n: int) -> tuple[int, ...]:
    return tuple(range(1, n + 1))


# Numbers that leave gaps and need all four bytes, in places where their order is not that of their decimal digits.
SPREAD = (2, 9, 10, 11, 100, 255, 256, 257, 65535, 65536, 70000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)

SPREAD_300 = tuple(3 * i * i + 1 for i in range(300))

CASES = (
    Case("n2", "Two sites, nobody missing.", first(2), shown=first(2)),
    Case("n3", "Three sites of which one may collude: everyone is needed.", first(3), 1, 64, shown=first(3)),
    Case("n3-mask", "One of three falls silent at MASK.", first(3), silent={"mask": (2,)}, shown=first(3)),
    Case(
        "n5-segments",
        "Several segments, weighted and with a ball, stochastic rounding, 64-bit ring.",
        first(5),
        1,
        64,
        1,
        MANY,
        shown=first(5),
    ),
    Case("n5-share", "One of five falls silent at SHARE.", first(5), 1, silent={"share": (1,)}, shown=first(5)),
    Case("n10", "Ten sites, nobody missing.", first(10), 3),
    Case(
        "n10-three",
        "One site less after each of ADVERTISE, SHARE and UNMASK.",
        first(10),
        3,
        silent={"advertise": (4,), "share": (10,), "unmask": (1,)},
        shown=(2,),
    ),
    Case(
        "n10-late",
        "One falls silent at MASK, two at CONSISTENCY.",
        first(10),
        2,
        64,
        silent={"mask": (10,), "consistency": (3, 7)},
    ),
    Case(
        "n8-lost",
        "Answers that do not arrive: a vector, and a confirmation whose author opens shares all the same.",
        first(8),
        1,
        lost={"mask": (6,), "consistency": (2,), "unmask": (5,)},
        shown=(2,),
    ),
    Case(
        "n8-minimum",
        "Seven have to be in the sum; six confirmations, of which five are needed, are enough.",
        first(8),
        site_minimum=7,
        silent={"mask": (8,), "consistency": (1,), "unmask": (2,)},
    ),
    Case("n15-spread", "Site numbers with gaps, up to 2^32 - 1.", SPREAD, 4, silent={"mask": (255,)}, shown=(256,)),
    Case("n20", "Twenty sites, nobody missing, several segments.", first(20), 6, segments=MANY),
    Case(
        "n20-every-stage",
        "Losses at every stage, down to exactly t openers.",
        first(20),
        2,
        silent={"advertise": (5,), "share": (6, 20), "mask": (1, 11), "consistency": (12, 13), "unmask": (19,)},
    ),
    Case("n50", "Fifty sites, nobody missing.", first(50), 10, slow=True),
    Case(
        "n50-mask",
        "Fifty sites of which nine fall silent at MASK, 64-bit ring.",
        first(50),
        5,
        64,
        silent={"share": (50,), "mask": tuple(range(3, 48, 5))},
        slow=True,
    ),
    Case("n100", "A hundred sites, nobody missing.", first(100), 20, slow=True),
    Case("n256", "The largest complete graph.", first(256), 50, slow=True),
    Case(
        "n8-ends-advertise",
        "Four of eight advertise, five are needed: the round ends.",
        first(8),
        silent={"advertise": (1, 2, 3, 8)},
    ),
    Case(
        "n8-ends-share",
        "Too few deal shares: the round ends.",
        first(8),
        2,
        silent={"advertise": (1,), "share": (2, 3)},
    ),
    Case(
        "n8-ends-mask",
        "Six vectors where the noise needs seven: the round ends.",
        first(8),
        1,
        noise_minimum=7,
        silent={"mask": (4, 5)},
    ),
    Case(
        "n8-ends-consistency",
        "Five confirmations where six are needed: the round ends.",
        first(8),
        2,
        silent={"mask": (1, 2), "consistency": (3,)},
    ),
    Case(
        "n8-ends-unmask",
        "Five open shares where six are needed: the round ends.",
        first(8),
        2,
        silent={"mask": (8,), "unmask": (1, 7)},
    ),
    Case(
        "ring257-pairs",
        "The smallest ring: no colluders, no dropouts, two neighbours.",
        first(257),
        dropouts=0,
        shown=(1,),
    ),
    Case(
        "ring257-few",
        "A ring with a loss at ADVERTISE, MASK and UNMASK, 64-bit ring.",
        first(257),
        0,
        64,
        dropouts=3,
        silent={"advertise": (77,), "mask": (200,), "unmask": (13,)},
        shown=(76,),
    ),
    Case(
        "ring257",
        "A ring that loses sites at every stage, and answers on the way.",
        first(257),
        5,
        dropouts=12,
        silent={"advertise": (7,), "share": (8, 108), "mask": (9, 200, 257), "consistency": (10, 11), "unmask": (12,)},
        lost={"mask": (20,), "consistency": (21,), "unmask": (22,)},
        slow=True,
    ),
    Case("ring300", "Three hundred sites, nobody missing; numbers with gaps.", SPREAD_300, 3, dropouts=6, slow=True),
    Case(
        "ring300-segments",
        "Several segments in the 64-bit ring, sites lost at SHARE and MASK.",
        first(300),
        15,
        64,
        1,
        MANY,
        15,
        silent={"share": (1, 2, 3, 150), "mask": (4, 299, 300)},
        slow=True,
    ),
    Case(
        "ring300-tenth",
        "A tenth may collude, a tenth may fall silent, and thirteen do.",
        first(300),
        30,
        dropouts=30,
        silent={"share": (30, 60, 90), "mask": tuple(range(100, 200, 10))},
        slow=True,
    ),
    Case(
        "ring257-ends-advertise",
        "So few advertise that no ring withstands the colluders: the round ends.",
        first(257),
        120,
        dropouts=15,
        silent={"advertise": tuple(range(190, 258))},
    ),
    Case(
        "ring257-ends-mask",
        "Somebody's neighbour sends no vector, and both are needed: the round ends.",
        first(257),
        dropouts=0,
        silent={"mask": (100,)},
    ),
    Case(
        "ring257-ends-consistency",
        "One of two witnesses does not confirm: the round ends.",
        first(257),
        dropouts=0,
        silent={"consistency": (209,)},
    ),
)
