"""A malicious server and the sites that work with it, against honest sites: parameters of a round, and keys."""

from collections.abc import Callable
from typing import Any

from adversary.attack import Attack, Fault, Level, Refusal
from adversary.field import Field, Sites, field
from adversary.mole import altered, moles, opening, strangers
from adversary.removal import Check
from support.keys import key
from support.rounds import make_cohort

from fedseal.privacy.secagg.keys import envelope_key, self_mask_key, unseal
from fedseal.privacy.secagg.masks import apply_masks
from fedseal.privacy.secagg.messages import Advertisement, SealedShares, SecretKind
from fedseal.privacy.secagg.sharing import HeldShares, opens
from fedseal.privacy.secret import Secret
from fedseal.wire import decode

Refusals = list[Refusal]
CHECKS, CLIENT = "privacy.secagg.checks.", "privacy.secagg.client."
ALL = (1, 2, 3, 4, 5)
BY_SERVER = Fault("site 1", peer="server")


def round_of(f: Field) -> None:
    """An honest round, up to the masked vectors."""
    f.advertise()
    f.share()
    f.mask()


def halves(f: Field, alive: Sites, dead: Sites, everyone: Sites, victim: int) -> bool:
    """One half of the sites is told that the victim has survived, the other half that it has not."""

    def view(site: int) -> Sites:
        return everyone if site in alive else tuple(s for s in everyone if s != victim)

    f.confirm(view, (*alive, *dead))
    f.unmask(view, (*alive, *dead))
    return f.has_sum_over((victim,))


# Parameters


def stranger_as_server(refusals: Refusals) -> bool:
    f = field(refusals, 5)
    f.advertise(opening(f.header, key("mallory")))
    f.share()
    f.mask()
    f.confirm(lambda _: ALL)
    f.unmask(lambda _: ALL)
    return f.has_sum_over(ALL)


def other_terms(**changes: Any) -> Callable[[Refusals], bool]:
    """A whole round under a header that no site of this federation should answer."""

    def play(refusals: Refusals) -> bool:
        f = field(refusals, 5)
        f.use(altered(f.header, **changes))
        round_of(f)
        f.confirm(lambda _: ALL)
        f.unmask(lambda _: ALL)
        return f.has_sum_over(ALL)

    return play


def threshold_of_one(refusals: Refusals) -> bool:
    f = field(refusals, 5, m=1)
    f.use(altered(f.header, threshold=1))
    round_of(f)
    return f.has_sum_over((1,))


def outside_its_cohort(refusals: Refusals) -> bool:
    """The threshold is for four sites of which one colludes; a fifth takes part."""
    f = field(refusals, 5, m=1)
    f.use(altered(f.header, cohort=(2, 3, 4, 5), threshold=3))
    round_of(f)
    return halves(f, (1, 2), (3, 4), ALL, 1)


def uninvited_colluder(refusals: Refusals) -> bool:
    """Site 6 stands in the roster and not in the cohort: one colluder more than the threshold is for."""
    f = field(refusals, 5, m=1, others=1, colluding=moles(5, 6))
    round_of(f)
    return halves(f, (1, 2), (3, 4), (*ALL, 6), 1)


def invented_sites(refusals: Refusals) -> bool:
    f = Field(refusals, make_cohort(3, 6), strangers(97, 98))
    f.use(altered(f.header, cohort=(1, 97, 98)))
    f.sites = (1,)
    round_of(f)
    return f.has_sum_over((1,))


def cohort_of_one(refusals: Refusals) -> bool:
    f = field(refusals, 2, colluding=moles(2))
    f.use(altered(f.header, cohort=(1,), threshold=1, site_minimum=1))
    f.moles.clear()
    round_of(f)
    f.confirm(lambda _: (1,))
    f.unmask(lambda _: (1,))
    return f.has_sum_over((1,))


# Keys


def in_the_middle(refusals: Refusals) -> bool:
    """The victim is shown keys of the server's under the names of all others."""
    f = field(refusals, 5, colluding=strangers(2, 3, 4, 5))
    round_of(f)
    return f.has_sum_over((1,))


def copied_key(twisted: bool) -> Callable[[Refusals], bool]:
    """Site 3 advertises the mask key of site 1. Between them stands site 2, which adds one mask and takes the other
    away.
    """

    def play(refusals: Refusals) -> bool:
        f = field(refusals, 3, m=1)
        f.advertise()
        stolen = bytearray(decode(f.adverts[1].payload, Advertisement).mask_key)
        stolen[31] |= 128 if twisted else 0
        f.adverts[3] = f.moles[3].advertise(f.digest, mask_key=bytes(stolen))
        f.share()
        f.mask()
        f.confirm(lambda _: (1, 2, 3))
        f.unmask(lambda _: (1, 2, 3))
        f.open_envelopes()
        told, own = f.told[2], f.secret(2, SecretKind.SELF)
        if told.vector is None or own is None:
            return False
        vector = told.vector.copy()
        apply_masks(vector, [], [self_mask_key(Secret(own), told.session, 2)])
        return f.is_sum(vector, (2,))

    return play


def weak_key(refusals: Refusals) -> bool:
    """Site 5 advertises a point of low order: whoever looks on, without any key, can open what is sealed for it."""
    f = field(refusals, 5, m=1)
    f.advertise()
    f.adverts[5] = f.moles[5].advertise(f.digest, channel_key=bytes(32))
    f.share()
    entry, session = f.told[1].reply.entries[4], f.told[1].session
    plain = unseal(envelope_key(bytes(32), session, 1, 5), entry.ciphertext, session, 1, 5)
    if plain is None:
        return False
    read = decode(plain, SealedShares)
    held = HeldShares(1, read.self_share, read.self_salt, read.seed_share, read.seed_salt)
    return all(opens(held.opening(kind), entry, session, 5) for kind in SecretKind)


PAIR_IDS = Check(
    "privacy.secagg.keys.pair_mask_key",
    "derive(shared, session, 'pair', min(u, v), max(u, v), stream)",
    "derive(shared, session, 'pair', stream)",
)
SIGNATURE = Check(CHECKS + "check_envelope", "not message.valid(entry.signing_key)")
INVITED = Check(CHECKS + "check_keys", "message.site not in cohort")
HEADER = "privacy.secagg.header.Header.__post_init__"
LEARN_1 = "the vector of site 1"

ATTACKS = (
    Attack(
        "A header that somebody else than the server has signed",
        "a sum, without the server's key",
        Level.SITE,
        Check(CHECKS + "open_header", "not header_signed_by(request, roster.server_key)"),
        stranger_as_server,
        BY_SERVER,
        "not signed by the roster's server",
    ),
    Attack(
        "A header for another federation",
        "a sum over sites of this federation in the name of another",
        Level.SITE,
        Check(CHECKS + "open_header", "header.federation != roster.federation"),
        other_terms(federation="elsewhere"),
        BY_SERVER,
        "another federation or another roster",
    ),
    Attack(
        "A header for a roster that the site has not pinned",
        "a sum over sites that pinned another roster",
        Level.SITE,
        Check(CHECKS + "open_header", "header.roster_hash != roster.digest()"),
        other_terms(roster_hash=b"\x07" * 32),
        BY_SERVER,
        "another federation or another roster",
    ),
    Attack(
        "Threshold 1: one share is the secret",
        LEARN_1,
        Level.SITE,
        Check(HEADER, "self.threshold != threshold(len(self.cohort), self.colluders)"),
        threshold_of_one,
        BY_SERVER,
        "threshold is not",
    ),
    Attack(
        "A cohort of one",
        LEARN_1,
        Level.SITE,
        Check(HEADER, "not 2 <= len(self.cohort) <= largest"),
        cohort_of_one,
        BY_SERVER,
        "expected a cohort of 2",
        (
            Check(HEADER, "not 0 <= self.colluders <= len(self.cohort) - 2"),
            Check("privacy.secagg.parameters.threshold", "not 2 <= cohort <= MAX_COHORT"),
            Check("privacy.secagg.parameters.threshold", "not 0 <= colluders <= cohort - 2"),
            Check(
                "privacy.secagg.parameters.minimum_sites",
                "max(threshold_, site_minimum, colluders + 2, noise_minimum)",
                "max(threshold_, site_minimum, noise_minimum)",
            ),
        ),
    ),
    Attack(
        "A cohort without the site that is asked: one participant more than the threshold is for",
        LEARN_1,
        Level.SITE,
        Check(CHECKS + "open_header", "site not in header.cohort"),
        outside_its_cohort,
        BY_SERVER,
        "lacks this site",
        (INVITED,),
    ),
    Attack(
        "A colluding site of the roster that was not invited takes part",
        LEARN_1,
        Level.SITE,
        INVITED,
        uninvited_colluder,
        BY_SERVER,
        "outside the cohort",
    ),
    Attack(
        "Sites that do not exist fill the cohort",
        LEARN_1,
        Level.SITE,
        Check(CHECKS + "open_header", "not listed.issuperset(header.cohort)"),
        invented_sites,
        BY_SERVER,
        "not in the roster",
        (Check(CHECKS + "check_envelope", "entry is None"), SIGNATURE),
    ),
    Attack(
        "Keys swapped in the middle: the victim is shown the server's keys under all other names",
        LEARN_1,
        Level.SITE,
        SIGNATURE,
        in_the_middle,
        BY_SERVER,
        "signature of site 2 does not hold",
    ),
    Attack(
        "A colluding site advertises the mask key of an honest one, so that two masks cancel",
        "the vector of site 2",
        Level.SITE,
        Check(CHECKS + "check_keys", "len(set(public)) != len(public)"),
        copied_key(twisted=False),
        BY_SERVER,
        "the same key",
        (PAIR_IDS,),
    ),
    Attack(
        "The same with the copied key in its other encoding",
        "the vector of site 2",
        Level.SITE,
        Check(
            CHECKS + "check_keys",
            "not (is_canonical(advertised.mask_key) and is_canonical(advertised.channel_key))",
        ),
        copied_key(twisted=True),
        Fault("site 1", peer="server", blamed=3),
        "two encodings",
        (PAIR_IDS,),
    ),
    Attack(
        "A colluding site advertises a point of low order",
        "whoever looks on, without any key, opens the shares that site 1 sealed for it",
        Level.SITE,
        Check(
            "privacy.secagg.keys.Agreement.shared",
            "raise KeyAgreementError('a public key of low order') from None",
            "return bytes(32)",
        ),
        weak_key,
        Fault("site 1", peer="server", blamed=5),
        "low order",
    ),
)
