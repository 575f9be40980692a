"""A malicious server and the sites that work with it, against honest sites: who shared, who survived, who is told."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from adversary.attack import Attack, Fault, Level
from adversary.attacks_sites import ALL, BY_SERVER, CHECKS, CLIENT, LEARN_1, Refusals, round_of
from adversary.field import Field, Sites, field
from adversary.mole import altered
from adversary.removal import Check

from fedseal.privacy.secagg.messages import MaskRequest, Signed
from fedseal.privacy.secagg.sharing import deliveries


def told_of_few(padding: Callable[[Field], Sites]) -> Callable[[Refusals], bool]:
    """Site 1 masks with the colluding site only; the others believe that all did with all, and open its own mask."""

    def play(refusals: Refusals) -> bool:
        f = field(refusals, 5, m=1)
        f.advertise()
        f.share()
        f.mask(lambda s: padding(f) if s == 1 else ALL)
        return opened_by_others(f)

    return play


def opened_by_others(f: Field) -> bool:
    """The other sites see an ordinary round in which site 1 has survived."""
    f.confirm(lambda _: ALL, (2, 3, 4))
    f.unmask(lambda _: ALL, (2, 3, 4))
    return f.has_sum_over((1,))


def listed_twice(refusals: Refusals) -> bool:
    """Two sites, named so often that they are enough."""
    f = field(refusals, 5, m=1)
    f.advertise()
    f.share()
    told = f.told[1]
    told.partners = (5,)
    mine = [d for d in deliveries(f.dealt_to(1, 5)) if d.entry.receiver == 1]
    request = replace(MaskRequest(f.digest, (1, 5), tuple(mine)))
    object.__setattr__(request, "contributors", (1, 1, 5, 5))
    told.vector = f.ask(1, request).vector
    f.mask(sites=(2, 3, 4))
    return opened_by_others(f)


def fewer_than_asked_for(refusals: Refusals) -> bool:
    """Three sites of five, in a round that says it is over five."""
    f = field(refusals, 5)
    f.use(altered(f.header, site_minimum=5))
    few = (1, 2, 3)
    f.advertise()
    f.sites = few
    f.share(lambda _: {s: f.adverts[s] for s in few})
    f.mask()
    f.confirm(lambda _: few)
    f.unmask(lambda _: few)
    return f.has_sum_over(few)


# Survivor sets. Ten sites, none of which colludes: t is 6, and so is the smallest sum. Every site is told of another
# set of six, such that six sites take each of 5 to 10 for dead: the sum over the four others comes out.

TEN, LIVING = tuple(range(1, 11)), (1, 2, 3, 4)


def patchwork() -> Mapping[int, Sites]:
    """What each of ten sites is told: never that itself is dead, and never of more than four that are."""
    told: dict[int, set[int]] = {s: set() for s in TEN}
    for dead in TEN[4:]:
        for site in sorted((s for s in TEN if s != dead), key=lambda s: (len(told[s]), s))[:6]:
            told[site].add(dead)
    return {site: tuple(s for s in TEN if s not in without) for site, without in told.items()}


def different_sets(shown: Callable[[Field, int], tuple[Signed, ...]], *, again: bool = False) -> Callable[..., bool]:
    """Every site signs its own set; each is then shown some signatures of others."""

    def play(refusals: Refusals) -> bool:
        f, views = field(refusals, 10), patchwork()
        round_of(f)
        for other in TEN if again else ():
            f.confirm(lambda _: views[other], views[other])  # noqa: B023 - used at once
        f.confirm(lambda s: views[s])
        f.unmask(lambda s: views[s], confirmations=lambda s: shown(f, s))
        return f.has_sum_over(LIVING)

    return play


def own_only(f: Field, site: int) -> tuple[Signed, ...]:
    return tuple(c for c in f.signed if c.site == site)


def whatever_they_signed(f: Field, site: int) -> tuple[Signed, ...]:
    return tuple(c for c in f.signed if c.site in patchwork()[site])


def of_this_set(f: Field, site: int) -> tuple[Signed, ...]:
    return f.confirmations(f.told[site].session, patchwork()[site])


def opened_twice(refusals: Refusals) -> bool:
    """After the round is over: the same once more, with one survivor less."""
    f = field(refusals, 5, m=1)
    round_of(f)
    f.confirm(lambda _: ALL)
    f.unmask(lambda _: ALL)
    rest = (2, 3, 4)
    f.confirm(lambda _: ALL[1:], rest)
    f.unmask(lambda _: ALL[1:], rest)
    return f.has_sum_over((1,))


SECOND_SET = Check(CLIENT + "TRANSITIONS", "(Confirmed, ConsistencyRequest)", "Transition(_confirm, Confirmed)")
ENOUGH_OF_A_SET = Check(CHECKS + "check_subset", "len(subset) < minimum")
HOLDERS_LEFT = Check(CLIENT + "_receive_shares", "graph.left_alone([site.number], event.contributors)")

ATTACKS = (
    Attack(
        "Site 1 is told that only the colluding site shared with it, all others that everybody did",
        LEARN_1,
        Level.SITE,
        ENOUGH_OF_A_SET,
        told_of_few(lambda _: (1, 5)),
        BY_SERVER,
        "at least 4 are needed",
        (HOLDERS_LEFT,),
    ),
    Attack(
        "The same, with sites that do not exist to make up the number",
        LEARN_1,
        Level.SITE,
        Check(CHECKS + "check_subset", "not set(subset) <= set(whole)"),
        told_of_few(lambda _: (1, 5, 97, 98)),
        BY_SERVER,
        "did not take part before",
    ),
    Attack(
        "The same, with two sites named twice to make up the number",
        LEARN_1,
        Level.SITE,
        Check("privacy.secagg.messages._increasing", "list(numbers) != sorted(set(numbers))"),
        listed_twice,
        BY_SERVER,
        "not in strictly increasing order",
        (HOLDERS_LEFT,),
    ),
    Attack(
        "Three sites instead of the five that the header promises",
        "a sum over three",
        Level.SITE,
        Check(CHECKS + "check_enough", "advertised < header.minimum"),
        fewer_than_asked_for,
        BY_SERVER,
        "3 sites advertised, at least 5",
        (ENOUGH_OF_A_SET,),
    ),
    Attack(
        "Ten survivor sets for ten sites, each opened on its own signature",
        "a sum over four where at least six were promised",
        Level.SITE,
        Check(
            CLIENT + "_open_shares",
            "len({c.site for c in event.confirmations}.intersection(state.witnesses)) < state.needed",
        ),
        different_sets(own_only),
        BY_SERVER,
        "fewer than 6 confirmations",
    ),
    Attack(
        "Ten survivor sets for ten sites, with signatures on other sets to make up the number",
        "a sum over four where at least six were promised",
        Level.SITE,
        Check(CLIENT + "_open_shares", "confirmation.payload != expected"),
        different_sets(whatever_they_signed),
        BY_SERVER,
        "another survivor set",
    ),
    Attack(
        "Each site is asked to sign several survivor sets, one after the other",
        "a sum over four where at least six were promised",
        Level.SITE,
        SECOND_SET,
        different_sets(of_this_set, again=True),
        BY_SERVER,
        "ConsistencyRequest cannot follow in state Confirmed",
    ),
    Attack(
        "Shares are asked for a second time, with site 1 dead that was alive",
        LEARN_1,
        Level.SITE,
        Check(CLIENT + "_open_shares", "Step(Done(state.session), message)", "Step(state, message)"),
        opened_twice,
        Fault("site 2", peer="server"),
        "cannot follow in state Done",
        (SECOND_SET,),
    ),
)
