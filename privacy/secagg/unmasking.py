"""The server's last step: rebuild the survivors' own masks and the pairwise masks of those who dropped out, and take
them off the sum.
"""

from fedseal.errors import LocalError
from fedseal.privacy.quantize import SumRangeError, check_sum
from fedseal.privacy.secagg.assurance import assurance
from fedseal.privacy.secagg.checks import self_commitment
from fedseal.privacy.secagg.keys import Agreement, mask_private_key, pair_mask_key, self_mask_key, x25519_public
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished, Masking, Unmasking
from fedseal.privacy.secagg.shamir import combine, lagrange_at_zero
from fedseal.privacy.secret import Secret


def unmask(state: Unmasking) -> Finished | Aborted:
    """Finish a round in which at least t sites opened their shares.

    Every opened share matches its dealer's commitment by now, so a secret that does not rebuild names its dealer,
    with the dealer's signature as proof.
    """
    masking = state.masking
    header = masking.round.header
    if masking.total.count != len(masking.survivors):
        raise LocalError("the masked sum was added to after its survivors were fixed")
    rebuilt = _rebuild(state)
    blamed = tuple(dealer for dealer in masking.contributors if not _rebuilt_truly(masking, dealer, rebuilt[dealer]))
    if blamed:
        remaining = len(state.openings)
        return Aborted(masking.round, Stage.UNMASK, AbortReason.WRONG_SHARES, remaining, blamed, state.refused)
    add, subtract = _mask_keys(masking, rebuilt)
    vector = masking.total.unmask(add, subtract, workers=masking.round.workers)
    try:
        total = check_sum(header.layout, len(masking.survivors), vector)
    except SumRangeError:
        remaining = len(state.openings)
        return Aborted(masking.round, Stage.UNMASK, AbortReason.OUT_OF_RANGE, remaining, (), state.refused)
    return Finished(
        masking.round,
        masking.session,
        total,
        masking.contributors,
        masking.survivors,
        state.refused,
        assurance(header, len(masking.keys)),
    )


def _rebuild(state: Unmasking) -> dict[int, bytes | None]:
    """Per contributor its self seed or its mask seed, whichever was opened, from the first t who hold its shares."""
    graph = state.masking.graph
    opened = {site: {o.dealer: o.share for o in answer.openings} for site, answer in state.openings.items()}
    # With few dropouts most dealers' first t holders stand at the same positions.
    weights: dict[tuple[int, ...], dict[int, int]] = {}
    rebuilt: dict[int, bytes | None] = {}
    for dealer in state.masking.contributors:
        holders = [(x, site) for x, site in enumerate(graph.holders(dealer), start=1) if site in opened]
        used = holders[: graph.threshold]
        positions = tuple(x for x, _ in used)
        if positions not in weights:
            weights[positions] = lagrange_at_zero(positions)
        rebuilt[dealer] = combine({x: opened[site][dealer] for x, site in used}, weights[positions])
    return rebuilt


def _rebuilt_truly(masking: Masking, dealer: int, secret: bytes | None) -> bool:
    """Whether a rebuilt secret is the one its dealer committed to when it advertised."""
    if secret is None:
        return False
    advertised, digest = masking.keys[dealer], masking.round.digest
    if dealer in masking.survivors:
        return self_commitment(digest, dealer, secret) == advertised.self_commitment
    return x25519_public(mask_private_key(Secret(secret), digest)) == advertised.mask_key


def _mask_keys(masking: Masking, rebuilt: dict[int, bytes | None]) -> tuple[list[bytes], list[bytes]]:
    """The masks still in the sum, as keys to add and keys to subtract.

    Each survivor added its own mask. With a contributor that dropped out it added their common mask if its number was
    the smaller one and subtracted it otherwise; the other half never arrived.
    """
    session, digest, survivors = masking.session, masking.round.digest, set(masking.survivors)
    add: list[bytes] = []
    subtract: list[bytes] = []
    for dealer, secret in rebuilt.items():
        if secret is None:
            raise LocalError("a secret that could not be rebuilt got past its check")
        if dealer in survivors:
            subtract.append(self_mask_key(Secret(secret), session, dealer))
            continue
        agreement = Agreement(mask_private_key(Secret(secret), digest))
        for survivor in survivors.intersection(masking.graph.neighbours(dealer)):
            shared = agreement.shared(masking.keys[survivor].mask_key)
            key = pair_mask_key(shared, session, survivor, dealer)
            (subtract if survivor < dealer else add).append(key)
    return add, subtract
