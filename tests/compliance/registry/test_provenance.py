"""A bundle may be used by what a cosigned log says, and by nothing less: each missing or changed part is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from support.keys import make_roster
from support.registry import bundle
from support.serving import RULES, Permitted

from fedseal.compliance.audit.evidence import proof_of
from fedseal.compliance.audit.source import LogCopy, open_log
from fedseal.compliance.events.fields import Alias, RollbackReason
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.export import export
from fedseal.compliance.log.proof import parse_proof
from fedseal.compliance.log.quorum import Policy
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.registry.provenance import Standing, standing_by_proof, standing_in
from fedseal.errors import FedsealError, PeerError, PolicyRefused

FIRST, SECOND = bundle(1), bundle(2)
POLICY = policy_of(make_roster(3, simulated=True), 0)


@pytest.fixture
def world(tmp_path: Path) -> Permitted:
    made = Permitted(tmp_path)
    made.permit(FIRST)
    return made


def standing(world: Permitted, digest: str = FIRST.digest, alias: Alias = Alias.PRODUCTION) -> Standing:
    with open_log(world.store, policy=POLICY) as copy:
        return standing_in(copy, digest, alias)


def evidence(world: Permitted) -> tuple[bytes, bytes]:
    """The proof of the promotion, and its entry."""
    index = standing(world).index
    with open_log(world.store, policy=POLICY) as copy:
        return str(proof_of(copy, index)).encode(), copy.log.leaf(index)


def test_what_a_quorum_has_cosigned_permits_use(world: Permitted) -> None:
    found = standing(world)
    assert (found.alias, found.model, found.simulated) == (Alias.PRODUCTION, FIRST.model_digest, True)
    assert len(found.cosigned) == 3
    assert found.read is not None and found.index < found.size <= found.read
    # The receipt's proof is one that stands alone.
    proof, leaf = evidence(world)
    assert parse_proof(found.proof).index == found.index
    alone = standing_by_proof(found.proof.encode(), leaf, POLICY, FIRST.digest, Alias.PRODUCTION)
    assert (alone.model, alone.index, alone.read) == (found.model, found.index, None)
    assert parse_proof(proof).path == parse_proof(found.proof).path


def refused(world: Permitted, says: str, digest: str = FIRST.digest, alias: Alias = Alias.PRODUCTION) -> None:
    with pytest.raises(PolicyRefused, match=says):
        standing(world, digest, alias)


def test_another_bundle_or_alias_is_refused(world: Permitted) -> None:
    refused(world, "not registered", SECOND.digest)
    refused(world, "points to no bundle", alias=Alias.CANARY)
    world.register(SECOND)
    world.witness()
    refused(world, f"not to bundle {SECOND.digest[7:19]}", SECOND.digest)
    standing(world)


def test_what_is_newer_than_the_quorum_takes_away_and_never_gives(world: Permitted) -> None:
    world.register(SECOND)
    world.witness()
    world.promote(SECOND, text=RULES)
    # Promoted, and cosigned by nobody: neither of the two may be used.
    refused(world, "points to bundle", SECOND.digest)
    refused(world, "since the checkpoint")
    world.witness()
    standing(world, SECOND.digest)
    refused(world, "points to bundle")
    world.registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT)
    refused(world, "since the checkpoint", SECOND.digest)
    world.witness()
    standing(world)
    registration = world.registry.find(FIRST.digest, world.registry.state())
    world.registry.suspend(registration, RollbackReason.INCIDENT)
    refused(world, "suspended, since the checkpoint")
    world.witness()
    refused(world, "suspended")
    world.registry.retire(registration, RollbackReason.INCIDENT)
    world.witness()
    refused(world, "retired")


def test_without_a_quorum_nothing_is_permitted(tmp_path: Path) -> None:
    world = Permitted(tmp_path)
    world.register(FIRST)
    with pytest.raises(PeerError, match="no quorum"):
        standing(world)
    world.witness()
    world.promote(FIRST, text=RULES)
    world.witness((1,))
    refused(world, "points to no bundle")
    world.witness((2, 3))
    standing(world)


def test_a_mirror_takes_its_quorum_from_a_proof(world: Permitted, tmp_path: Path) -> None:
    """A site's mirror has the entries and no other site's cosignature."""
    proof, _ = evidence(world)
    with open_log(world.store, policy=POLICY) as copy:
        bare = replace(copy, log=cast(ReadableLog, _Uncosigned(copy)))
        with pytest.raises(PeerError, match="no quorum"):
            standing_in(bare, FIRST.digest, Alias.PRODUCTION)
        found = standing_in(bare, FIRST.digest, Alias.PRODUCTION, proof)
    assert len(found.cosigned) == 3


class _Uncosigned:
    """A log without the cosignatures of its checkpoints."""

    def __init__(self, copy: LogCopy) -> None:
        self._log = copy.log

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def checkpoint(self, size: int | None = None) -> str | None:
        note = self._log.checkpoint(size)
        head, _, signatures = (note or "").partition("\n\n")
        return f"{head}\n\n{signatures.splitlines()[0]}\n"

    def latest_final(self, policy: Policy) -> int | None:
        return None


def test_every_changed_byte_of_a_proof_or_its_entry_is_refused(world: Permitted) -> None:
    proof, leaf = evidence(world)

    def permitted(changed: bytes, entry: bytes) -> bool:
        try:
            standing_by_proof(changed, entry, POLICY, FIRST.digest, Alias.PRODUCTION)
        except FedsealError:
            return False
        return True

    assert permitted(proof, leaf)
    lines = proof.split(b"\n")
    # A cosignature that is damaged, or gone, leaves a proof without it: of three witnesses two are a quorum here.
    needed = len(b"\n".join(lines[:-4]))
    for place in range(0, needed, 3):
        assert not permitted(proof[:place] + bytes([proof[place] ^ 1]) + proof[place + 1 :], leaf), place
    for place in range(0, len(leaf), 5):
        assert not permitted(proof, leaf[:place] + bytes([leaf[place] ^ 1]) + leaf[place + 1 :]), place
    assert not permitted(b"\n".join([*lines[:-3], b""]), leaf)


def test_a_proof_of_something_else_is_refused(world: Permitted) -> None:
    with open_log(world.store, policy=POLICY) as copy:
        other = str(proof_of(copy, 0)).encode()
        first = copy.log.leaf(0)
    with pytest.raises(PolicyRefused, match="another entry"):
        standing_by_proof(other, first, POLICY, FIRST.digest, Alias.PRODUCTION)
    proof, leaf = evidence(world)
    with pytest.raises(PolicyRefused, match="another entry"):
        standing_by_proof(proof, leaf, POLICY, SECOND.digest, Alias.PRODUCTION)
    with pytest.raises(PolicyRefused, match="another entry"):
        standing_by_proof(proof, leaf, POLICY, FIRST.digest, Alias.CANARY)
    with pytest.raises(PeerError, match="cannot be read"):
        standing_by_proof(b"no proof", leaf, POLICY, FIRST.digest, Alias.PRODUCTION)


def test_another_federations_keys_permit_nothing(world: Permitted) -> None:
    stranger = policy_of(make_roster(7, simulated=True), 0)
    with open_log(world.store, policy=stranger) as copy, pytest.raises(PeerError, match="quorum"):
        standing_in(copy, FIRST.digest, Alias.PRODUCTION)


def _flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(bytes(raw))


CHANGES: dict[str, Callable[[Path], None]] = {
    "an entry": lambda folder: _flip(next((folder / "tile/entries").rglob("*.p/*")), 400),
    "a hash": lambda folder: _flip(next((folder / "tile/0").rglob("*.p/*")), 40),
    "the checkpoint's root": lambda folder: _flip(folder / "checkpoint", 24),
    "a signature": lambda folder: _flip(folder / "checkpoint", 100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_the_log_is_refused(world: Permitted, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "log"
    with open_log(world.store, policy=POLICY) as copy:
        export(copy.log, folder, POLICY)
    with open_log(folder, policy=POLICY) as copy:
        standing_in(copy, FIRST.digest, Alias.PRODUCTION)
    CHANGES[change](folder)
    with pytest.raises(FedsealError), open_log(folder, policy=POLICY) as copy:
        standing_in(copy, FIRST.digest, Alias.PRODUCTION)
