"""A malicious server and the sites that work with it, against honest sites on the sparse graph.

The graphs are small and made for few bits of secrecy, so that what would take 2^40 tries on a real one takes a few
hundred. A ring is tried by changing one colluding site's advertisement, which costs the attacker a hash.
"""

import hmac
from collections.abc import Callable

from adversary.attack import Attack, Fault, Level, Refusal
from adversary.attacks_sets import HOLDERS_LEFT
from adversary.field import Field, Sites, field
from adversary.mole import altered, moles
from adversary.removal import Check
from support.rounds import make_cohort

from fedseal.privacy.secagg.graph import RING_LABEL, Graph
from fedseal.privacy.secagg.header import HARARY_GRAPH, Sparse
from fedseal.privacy.secagg.parameters import MAX_COMPLETE, GraphRules

Refusals = list[Refusal]
TRIES = 1000
BY_SERVER = Fault("site 1", peer="server")


def ring_of(f: Field) -> Graph:
    """The ring that the advertisements make."""
    return f.request(f.sites[0], dict(sorted(f.adverts.items())))[1]


def grind(f: Field, wanted: Callable[[Graph], Sites | None]) -> Sites | None:
    """Try rings until one comes out as wanted."""
    last = max(f.moles)
    for attempt in range(TRIES):
        f.adverts[last] = f.moles[last].advertise(f.digest, self_commitment=attempt.to_bytes(32, "big"))
        if (found := wanted(ring_of(f))) is not None:
            return found
    return None


def surrounded(f: Field) -> Callable[[Graph], Sites | None]:
    """An honest site so many of whose holders collude that they need nobody else's shares."""

    def wanted(graph: Graph) -> Sites | None:
        for site in f.sites:
            near = graph.neighbours(site)
            if set(near) <= f.moles.keys() and len(near) >= graph.threshold:
                return (site,)
        return None

    return wanted


def read_alone(f: Field, victims: Sites | None) -> bool:
    """The vector of a surrounded site, from its own answers only."""
    if victims is None:
        return False
    f.sites = victims
    f.share()
    f.mask()
    return f.has_sum_over(victims)


def weaker_graph(rules: GraphRules) -> Callable[[Refusals], bool]:
    """A header for the sparse graph with one bit of secrecy, at sites that insist on something else."""

    def play(refusals: Refusals) -> bool:
        f = field(refusals, 16, m=4, dropouts=0, rules=rules)
        f.use(altered(f.header, graph=HARARY_GRAPH, sparse=Sparse(0, 1, 0)))
        f.advertise()
        return read_alone(f, grind(f, surrounded(f)))

    return play


def between_two(refusals: Refusals) -> bool:
    f = field(refusals, 14, m=3, dropouts=0, rules=GraphRules(2, sigma=4, eta=0))
    f.advertise()
    return read_alone(f, grind(f, surrounded(f)))


def cut_out(refusals: Refusals) -> bool:
    """A few honest sites between two runs of colluding ones: no mask leads from them to the others."""
    f = field(refusals, 14, m=4, dropouts=0, rules=GraphRules(2, sigma=4, eta=0))

    def wanted(graph: Graph) -> Sites | None:
        size, half = len(graph.order), graph.degree // 2
        for start in range(size):
            for length in range(1, 4):
                around = [graph.order[(start + i) % size] for i in range(length + 2 * half)]
                if [s in f.moles for s in around] == [True] * half + [False] * length + [True] * half:
                    return tuple(around[half:-half])
        return None

    f.advertise()
    region = grind(f, wanted)
    if region is None:
        return False
    everyone = f.header.cohort
    f.share()
    f.mask()
    f.confirm(lambda _: everyone)
    f.unmask(lambda _: everyone)
    return f.has_sum_over(region)


def known_order(refusals: Refusals) -> bool:
    """The sites that would stand around site 1, were the order known before there are any keys, are won over."""
    n, m = 40, 6
    cohort = make_cohort(n, 6, m=m, dropouts=0, rules=GraphRules(2, sigma=6, eta=0))
    order = sorted(range(1, n + 1), key=lambda s: hmac.digest(b"", RING_LABEL + s.to_bytes(4, "big"), "sha256"))
    place = order.index(1)
    around = [order[(place + step) % n] for step in range(-m // 2, m // 2 + 1) if step]
    f = Field(refusals, cohort, moles(*around))
    f.advertise()
    return read_alone(f, surrounded(f)(ring_of(f)))


def told_of_strangers(refusals: Refusals) -> bool:
    """Site 1 is told that everybody shared but its neighbours: enough sites, and no mask in common with any of them."""
    f = field(refusals, 13, dropouts=0, rules=GraphRules(2, sigma=1, eta=0))
    f.advertise()
    f.share()
    everyone, graph = f.header.cohort, f.told[1].graph
    far = tuple(s for s in everyone if s not in graph.neighbours(1))
    f.mask(lambda s: far if s == 1 else everyone)
    others = everyone[1:]
    f.confirm(lambda _: everyone, others)
    f.unmask(lambda _: everyone, others)
    return f.has_sum_over((1,))


def two_rings(refusals: Refusals) -> bool:
    """One header, and two halves of the cohort that do not know of each other."""
    f = field(refusals, 14, dropouts=0, rules=GraphRules(2, sigma=1, eta=0))
    f.advertise()
    cohort = f.header.cohort
    halves = (cohort[:7], cohort[7:])

    def own_half(site: int) -> Sites:
        return halves[site > 7]

    f.share(lambda s: {v: f.adverts[v] for v in own_half(s)})
    f.mask(own_half)
    f.confirm(own_half)
    f.unmask(own_half)
    return all(f.has_sum_over(half) for half in halves)


FOLLOWS = "privacy.secagg.header.Header.follows"
THRESHOLD = "privacy.secagg.degree._threshold"
NO_CUT = Check(
    THRESHOLD, "max(lowest, k // 2 + smallest_rare(Urn(n, colluders, k // 2), _root(half / pairs)))", "lowest"
)

ATTACKS = (
    Attack(
        "A sparse graph with less secrecy than the site insists on; then rings are tried until a site is surrounded",
        "the vector of a surrounded site",
        Level.SITE,
        Check(FOLLOWS, "self.sparse.sigma == rules.sigma", "True"),
        weaker_graph(GraphRules(2, sigma=20, eta=0)),
        BY_SERVER,
        "another graph than the one",
    ),
    Attack(
        "A sparse graph for a cohort that is small enough for the complete one; then the same",
        "the vector of a surrounded site",
        Level.SITE,
        Check(FOLLOWS, "len(self.cohort) > rules.complete_up_to"),
        weaker_graph(GraphRules(MAX_COMPLETE, sigma=1, eta=0)),
        BY_SERVER,
        "another graph than the one",
    ),
    Attack(
        "Rings are tried until an honest site stands between colluding ones",
        "the vector of that site",
        Level.SITE,
        Check(THRESHOLD, "(k + lowest - 1) // 2 + 1", "2"),
        between_two,
        None,
        also=(NO_CUT,),
    ),
    Attack(
        "Rings are tried until a few honest sites stand between two runs of colluding ones",
        "the sum over those few",
        Level.SITE,
        NO_CUT,
        cut_out,
        None,
    ),
    Attack(
        "The sites next to the victim are won over before the round",
        "the vector of site 1",
        Level.SITE,
        Check("privacy.secagg.graph.ring_place", "session", "b''"),
        known_order,
        None,
    ),
    Attack(
        "Site 1 is told that none of its neighbours shared",
        "the vector of site 1",
        Level.SITE,
        HOLDERS_LEFT,
        told_of_strangers,
        BY_SERVER,
        "too few of this site's neighbours",
    ),
    Attack(
        "Two halves of the cohort are shown two rings under one header",
        "two sums over seven where each site was promised eight",
        Level.SITE,
        Check(
            "privacy.secagg.parameters.minimum_sites",
            "max(threshold_, site_minimum, colluders + 2, noise_minimum)",
            "max(site_minimum, colluders + 2, noise_minimum)",
        ),
        two_rings,
        BY_SERVER,
        "7 sites advertised, at least 8",
    ),
)
