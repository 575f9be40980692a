"""Builds with a defect in how they meet faults: the real code with one check gone. They exist in tests only."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy import runs
from fedseal.privacy.ledger import Ledger
from fedseal.privacy.plan import encode_plan
from fedseal.privacy.quantize import IntegerSum
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg import checks, client, masks, server, sharing, unmasking
from fedseal.privacy.secagg import header as header_module
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.server_states import Confirming, MaskedReply, Masking, Unmasking
from fedseal.privacy.secagg.shamir import combine
from fedseal.simulation.faults import memory, world
from fedseal.simulation.faults.memory import MemorySite
from fedseal.simulation.faults.world import World

Twin = Callable[[], AbstractContextManager[None]]


@contextmanager
def every_sum_passes() -> Iterator[None]:
    """No range check of the unmasked sum, which finds most garbage by itself."""
    with patch.object(unmasking, "check_sum", IntegerSum):
        yield


@contextmanager
def _with(*patches: Any) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(every_sum_passes())
        for one in patches:
            stack.enter_context(one)
        yield


def dropouts_masks_left_in() -> AbstractContextManager[None]:
    """Only the survivors' own masks are taken off."""
    real = unmasking._mask_keys

    def survivors_only(masking: Masking, rebuilt: dict[int, bytes | None]) -> tuple[list[bytes], list[bytes]]:
        return [], real(
            replace(masking, shares={s: masking.shares[s] for s in masking.survivors}), _of(masking, rebuilt)
        )[1]

    return _with(patch.object(unmasking, "_mask_keys", survivors_only))


def _of(masking: Masking, rebuilt: Mapping[int, bytes | None]) -> dict[int, bytes | None]:
    return {site: rebuilt[site] for site in masking.survivors}


def two_sites_are_enough() -> AbstractContextManager[None]:
    """A threshold of two shares, whatever the cohort."""
    return _with(
        patch.object(header_module, "threshold", lambda n, m: 2), patch.object(world, "threshold", lambda n, m: 2)
    )


def lost_vectors_count_as_there() -> AbstractContextManager[None]:
    """The server takes all who dealt shares for survivors."""
    closing = server.CLOSES[Masking]

    def close(state: Masking) -> server.Step:
        state.total._count = len(state.contributors)
        return closing.apply(replace(state, survivors=state.contributors))

    return _with(patch.dict(server.CLOSES, {Masking: replace(closing, apply=close)}))


def late_vectors_are_added() -> AbstractContextManager[None]:
    """A vector that comes after the survivors are fixed goes into the sum all the same."""

    def take(state: Confirming, site: int, reply: MaskedReply) -> Confirming:
        count = state.masking.total.count
        state.masking.total.add(reply.vector)
        state.masking.total._count = count
        return state

    return _with(patch.dict(server.RECEIVES, {(Confirming, MaskedReply): take}))


def any_vector_is_taken() -> AbstractContextManager[None]:
    """Vectors of other rounds and sessions are as good as this one's."""

    def take(state: Masking, site: int, reply: MaskedReply) -> Masking:
        state.total.add(reply.vector)
        return replace(state, survivors=tuple(sorted((*state.survivors, site))))

    return _with(patch.dict(server.RECEIVES, {(Masking, MaskedReply): take}))


def any_secret_is_true() -> AbstractContextManager[None]:
    """Rebuilt secrets are not held against what their dealers committed to."""
    return _with(patch.object(unmasking, "_rebuilt_truly", lambda masking, dealer, secret: True))


def any_share_is_true() -> AbstractContextManager[None]:
    """Opened shares are not held against their commitments either."""
    return _with(
        patch.object(sharing, "opens", lambda opening, entry, session, site: True),
        patch.object(unmasking, "_rebuilt_truly", lambda masking, dealer, secret: True),
        patch.object(unmasking, "combine", _combined_anyhow(combine)),
    )


def _combined_anyhow(real: Callable[..., bytes | None]) -> Callable[..., bytes]:
    def anyhow(shares: Any, weights: Any) -> bytes:
        return real(shares, weights) or bytes(32)

    return anyhow


def bounded_by_coordinate() -> AbstractContextManager[None]:
    """Each coordinate is bounded, the norm is not."""

    def brought_within(flat: NDArray[np.float64], limit: float) -> float:
        flat[...] = np.clip(np.nan_to_num(flat), -limit, limit)
        return 1.0

    return _with(patch.object(memory, "brought_within", brought_within))


def not_bounded() -> AbstractContextManager[None]:
    """Whatever a site has trained goes on to the quantiser."""
    return _with(patch.object(memory, "brought_within", lambda flat, limit: 1.0))


def turned_round_behind_the_bound() -> AbstractContextManager[None]:
    """Sites turn their bounded vectors round before they mask them."""

    def apply_masks(vector: Any, add: Any, subtract: Any) -> None:
        vector *= vector.dtype.type((1 << 8 * vector.dtype.itemsize) - 1)
        masks.apply_masks(vector, add, subtract)

    return _with(patch.object(client, "apply_masks", apply_masks))


def forgetful_after_a_crash() -> AbstractContextManager[None]:
    """The server takes a number twice, and sites know neither what they have answered nor how far a run is."""

    def admit(record: Any, header: Any) -> Any:
        return runs.admit(replace(record, release_seq=0, attempt=0), header)

    def same(_: World) -> int:
        return 2

    def nothing(site: MemorySite, digest: bytes, stage: Stage, raw: bytes) -> None:
        return None

    return _with(
        patch.object(world.World, "_next", same),
        patch.object(memory, "admit", admit),
        patch.object(MemorySite, "answered", nothing),
    )


def peers_remember_nothing() -> AbstractContextManager[None]:
    """Sites do not look at how often the others were charged."""

    def check(roster: Any, header: Any, advertisements: Any, known_counters: Any) -> Any:
        return checks.check_advertisements(roster, header, advertisements, {})

    return _with(patch.object(client, "check_advertisements", check))


def nothing_is_charged() -> AbstractContextManager[None]:
    """A charge changes nothing."""

    def charge(ledger: Ledger, release: Any, plan: Any) -> tuple[Ledger, Any, Receipt]:
        return ledger, ledger.last, Receipt(release.session, encode_plan(plan), ledger.counter)

    return _with(patch.object(Ledger, "charge", charge))


def the_first_is_always_blamed() -> AbstractContextManager[None]:
    """A secret of the lowest number never rebuilds."""
    real = unmasking._rebuilt_truly

    def rebuilt(masking: Masking, dealer: int, secret: bytes | None) -> bool:
        return dealer != masking.contributors[0] and real(masking, dealer, secret)

    return _with(patch.object(unmasking, "_rebuilt_truly", rebuilt))


def unmasking_fails() -> AbstractContextManager[None]:
    """An error of our own in the last step."""

    def fail(state: Unmasking) -> None:
        raise LocalError("broken")

    return _with(patch.object(server, "unmask", fail))
