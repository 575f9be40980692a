"""A site notices at its next message whatever a server changes below what the site has cosigned."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Connection
from support.journals import Town
from support.tampering import TAMPERINGS, Shown, Tampering, honest, swap_key, truncate

from fedseal.compliance.journal.attachment import OK, LogReply
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.log import witness
from fedseal.compliance.log.store import Log
from fedseal.privacy.store import SiteStore

ROUNDS = 6
by_name = pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda t: t.__name__)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """Three sites after some rounds, all of which have cosigned everything."""
    town = Town.of(tmp_path_factory.mktemp("town"), 3)
    server = town.server()
    town.join(server, (1, 2, 3))
    for number in range(1, ROUNDS + 1):
        town.round(server, number, (1, 2, 3) if number % 2 else (1, 3))
    town.exchange(server, (1, 2, 3))
    server.commit()
    return town


class Undone(Exception):  # noqa: N818 - not an error
    """Ends a transaction so that nothing of it stays."""


class Trial:
    """One site, shown one history after another; each time as it stood before."""

    def __init__(self, town: Town, site: int) -> None:
        self._town = town
        self._store: SiteStore = town.federation.site(site)
        self.leaves = town.at_site(site, lambda j: j.mirror.leaves(0, j.mirror.size))

    def shown(self, shown: Shown) -> tuple[LogReply, bool, bool]:
        """The answer, whether the site has stopped, and whether its mirror is another than before."""
        found: list[tuple[LogReply, bool, bool]] = []
        try:
            with self._store.transaction() as transaction:
                journal = self._journal(transaction.connection)
                before = journal.mirror.size, journal.mirror.root()
                reply = journal.hear(shown.request(journal.server_origin))
                mirror = Log(transaction.connection, journal.server_origin)
                found.append((reply, journal.halted is not None, (mirror.size, mirror.root()) != before))
                raise Undone
        except Undone:
            return found[0]

    def _journal(self, connection: Connection) -> SiteJournal:
        return SiteJournal(connection, self._store.identity, self._town.clock())


def unseen(trial: Trial, tampering: Tampering, seeds: range) -> list[int]:
    """The draws that the site cosigned, took into its mirror, or did not stop at though they were signed."""
    missed = []
    for seed in seeds:
        shown = tampering(list(trial.leaves), random.Random(f"{tampering.__name__}-{seed}"))
        reply, stopped, changed = trial.shown(shown)
        # A shorter history, and one that the log has not signed, are refused; anyone could send the latter.
        alarmed = stopped or tampering in (truncate, swap_key)
        if reply.status == OK or changed or not alarmed:
            missed.append(seed)
    return missed


@by_name
@pytest.mark.parametrize("site", [1, 2])
def test_any_single_site_notices(town: Town, tampering: Tampering, site: int) -> None:
    assert unseen(Trial(town, site), tampering, range(12)) == []


def test_what_is_true_is_cosigned(town: Town) -> None:
    trial = Trial(town, 1)
    for seed in range(12):
        reply, stopped, _ = trial.shown(honest(list(trial.leaves), random.Random(seed)))
        assert (reply.status, stopped) == (OK, False)


@contextmanager
def without_history() -> Iterator[None]:
    """A site that takes any signed checkpoint: neither proof, nor size, nor the mirror's root is looked at."""

    def judge(state: witness.WitnessState, request: witness.Request, log: object) -> None:
        return None

    def takes(self: SiteJournal, request: object, following: object) -> bool:
        return True

    with patch.object(witness, "_judge", judge), patch.object(SiteJournal, "_takes", takes), without_shrinking():
        yield


@contextmanager
def without_shrinking() -> Iterator[None]:
    """A site that forgets what it had cosigned when it is shown less."""

    def put(self: Log, old: object, new: object) -> None:
        return None

    with patch.object(Log, "put_witness_state", put):
        yield


@contextmanager
def without_signature() -> Iterator[None]:
    """A site that does not look who has signed."""

    def everyone(note: object, keys: list[object]) -> list[object]:
        return list(keys)

    with patch.object(witness, "signers", everyone):
        yield


def check_of(tampering: Tampering) -> AbstractContextManager[None]:
    """The build without the check that a tampering is up against."""
    return without_signature() if tampering is swap_key else without_history()


@by_name
def test_without_its_check_each_goes_unseen(town: Town, tampering: Tampering) -> None:
    trial = Trial(town, 1)
    with check_of(tampering):
        for seed in range(4):
            reply, stopped, _ = trial.shown(tampering(list(trial.leaves), random.Random(seed)))
            assert (reply.status, stopped) == (OK, False)


@pytest.mark.slow
def test_ten_thousand_tamperings(town: Town) -> None:
    """Half of them at each of two sites, and as many true histories as there are of each kind."""
    count = -(-10_000 // (2 * len(TAMPERINGS)))
    for site in (1, 2):
        trial = Trial(town, site)
        for tampering in TAMPERINGS:
            assert unseen(trial, tampering, range(count)) == []


@pytest.mark.slow
def test_ten_thousand_honest_rounds_with_dropouts(tmp_path: Path) -> None:
    """No false alarm, every checkpoint final in the end, every event of every site in the log."""
    draw = random.Random(5)
    town = Town.of(tmp_path, 4)
    server = town.server()
    town.join(server, (1, 2, 3, 4))
    for number in range(1, 10_001):
        if draw.random() < 0.002:
            server = town.server()
        present = tuple(site for site in (1, 2, 3, 4) if draw.random() > 0.3)
        town.round(server, number, present)
    for _ in range(40):
        town.exchange(server, (1, 2, 3, 4))
        server.commit()
    assert server.final_size() == server.size
    for site in (1, 2, 3, 4):
        assert town.at_site(site, lambda j: (j.halted, j.unlogged())) == (None, 0)
