"""What holds for a log in any database. Each database's test inherits it and says how to open one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import DBAPIError
from support.keys import SERVER, key
from support.logs import LOG, ORIGIN, TIME, hashes, leaves, reader, witness

from fedseal import merkle
from fedseal.compliance.log import tree
from fedseal.compliance.log.canonical import MAX_BYTES
from fedseal.compliance.log.check import check_log
from fedseal.compliance.log.checkpoint import Checkpoint, cosign, read_checkpoint, sign_checkpoint
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Note, signers
from fedseal.compliance.log.quorum import federation_policy
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import CHECKPOINTS, HEADS, LEAVES, TILES
from fedseal.compliance.log.witness import Outcome, WitnessState, answer, cosignatures, encode_request
from fedseal.errors import LocalError, PeerError

SITES = [witness(i) for i in range(3)]
POLICY = federation_policy(LOG, [site.vkey for site in SITES], 0)


class Undo(Exception):  # noqa: N818 - no error
    """Ends a transaction without its changes."""


class LogContract:
    """Inherit it, and give `url`."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str | Path:
        """Where an empty database is."""
        raise NotImplementedError

    @pytest.fixture
    def engine(self, url: str | Path) -> Iterator[Engine]:
        """That database, open."""
        engine = open_database(url)
        yield engine
        engine.dispose()

    def test_an_empty_log(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            assert (log.size, log.root(), log.checkpoint()) == (0, tree.EMPTY_ROOT, None)
            assert log.append([]) == range(0)
            assert (log.leaves(0, 10), log.find(bytes(32)), log.latest_final(POLICY)) == ([], None, None)
            with pytest.raises(IndexError):
                log.leaf(0)

    @pytest.mark.parametrize("steps", [[1] * 12, [5, 251, 1, 255, 256, 257], [700, 3]])
    def test_it_grows_as_the_tree_does(self, engine: Engine, steps: list[int]) -> None:
        entries, size = hashes(sum(steps)), 0
        for step in steps:
            with transaction(engine, ORIGIN) as log:
                assert log.append(leaves(size, size + step)) == range(size, size + step)
                size += step
                assert (log.size, log.root()) == (size, merkle.root(entries[:size]))
        with transaction(engine, ORIGIN) as log:
            assert log.leaves(0, size) == leaves(0, size)
            for place in {0, 1, size // 2, 255 % size, 256 % size, size - 1}:
                assert log.leaf(place) == leaves(place, place + 1)[0]
                assert log.find(entries[place]) == place
                assert log.inclusion(place, size) == merkle.inclusion_path(entries, place)
                assert log.root(place) == merkle.root(entries[:place])
                assert log.consistency(place, size) == tree.consistency_proof(place, size, reader(entries))
            assert log.find(bytes(32)) is None
            assert log.find(entries[0][:8]) is None

    def test_many_levels(self, engine: Engine) -> None:
        """66 000 leaves: three levels of tiles, in one transaction."""
        entries = hashes(66_000)
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 65_000))
            log.append(leaves(65_000, 66_000))
            assert log.root() == merkle.root(entries)
            assert log.root(65_537) == merkle.root(entries[:65_537])
            proof = log.consistency(65_000, 66_000)
            old, new = log.root(65_000), log.root()
            assert tree.verify_consistency(65_000, 66_000, old, new, proof)
            assert merkle.verify_inclusion(entries[300], 300, 66_000, log.inclusion(300, 66_000), new)
            assert log.find(entries[65_700]) == 65_700
            assert log.hashes(2, 0, 1) == [merkle.root(entries[:65_536])]

    def test_beyond_its_end_there_is_nothing(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            assert log.leaves(-3, 99) == leaves(0, 5)
            assert log.leaves(4, 2) == []
            for wrong in (-1, 5):
                with pytest.raises(IndexError):
                    log.leaf(wrong)
            for index, size in ((5, 5), (0, 6), (-1, 5)):
                with pytest.raises(IndexError):
                    log.inclusion(index, size)
            for old, new in ((6, 6), (3, 2), (-1, 5), (1, 6)):
                with pytest.raises(IndexError):
                    log.consistency(old, new)
            with pytest.raises(IndexError):
                log.root(6)

    def test_logs_stand_beside_each_other(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            other = Log(log._connection, "another/log")
            log.append(leaves(0, 5))
            other.append(leaves(5, 8))
            log.append(leaves(8, 9))
            assert (log.size, other.size) == (6, 3)
            assert log.leaves(0, 9) == [*leaves(0, 5), *leaves(8, 9)]
            assert other.leaves(0, 9) == leaves(5, 8)
            assert other.find(merkle.leaf_hash(leaves(0, 1)[0])) is None
            log.sign_checkpoint(SERVER)
            assert other.checkpoint() is None
            assert other.witness_state() == WitnessState("another/log")

    def test_two_objects_of_one_log_see_each_other(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            other = Log(log._connection, ORIGIN)
            assert log.append(leaves(0, 3)) == range(3)
            assert other.append(leaves(3, 5)) == range(3, 5)
            assert log.append(leaves(5, 6)) == range(5, 6)
            assert log.root() == other.root() == merkle.root(hashes(6))

    def test_a_transaction_is_all_or_nothing(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 300))
        with pytest.raises(Undo), transaction(engine, ORIGIN) as log:
            log.append(leaves(300, 900))
            log.sign_checkpoint(SERVER)
            log.put_witness_state(WitnessState(ORIGIN), WitnessState(ORIGIN, 900, log.root()))
            raise Undo
        with transaction(engine, ORIGIN) as log:
            assert (log.size, log.root(), log.checkpoint()) == (300, merkle.root(hashes(300)), None)
            assert log.witness_state() == WitnessState(ORIGIN)
            assert log.append(leaves(300, 301)) == range(300, 301)

    def test_a_leaf_that_is_too_long_changes_nothing(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            with pytest.raises(LocalError):
                log.append([b"a", bytes(MAX_BYTES + 1)])
            assert log.size == 0
            log.append([bytes(MAX_BYTES), b""])
            assert log.leaf(1) == b""

    def test_a_checkpoint_is_signed_once_a_size(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            first = log.sign_checkpoint(SERVER)
            assert log.sign_checkpoint(SERVER) == first == log.checkpoint()
            checkpoint, note = read_checkpoint(first)
            assert checkpoint == Checkpoint(ORIGIN, 5, merkle.root(hashes(5)))
            assert signers(note, [LOG]) == (LOG,)
            with pytest.raises(LocalError):
                log.sign_checkpoint(key("another"))
            log.append(leaves(5, 6))
            second = log.sign_checkpoint(SERVER)
            assert (log.checkpoint(), log.checkpoint(6), log.checkpoint(5)) == (second, second, first)
            assert log.checkpoint(4) is None

    def test_two_roots_of_one_size_are_never_signed(self, engine: Engine) -> None:
        """What a restored database would lead to: other leaves up to a size that was signed before."""
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            log.sign_checkpoint(SERVER)
            forged = tree.EMPTY.extend([*hashes(4), merkle.leaf_hash(b"another")])[0]
            log._connection.execute(update(HEADS).values(frontier=b"".join(forged.hashes)))
            with pytest.raises(LocalError):
                log.sign_checkpoint(SERVER)

    def test_cosignatures_gather_until_there_is_a_quorum(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            note = log.sign_checkpoint(SERVER)
            lines = [cosign(read_checkpoint(note)[0], site, TIME) for site in SITES]
            for count, line in enumerate(lines[:2]):
                assert log.latest_final(POLICY) is None
                assert len(log.cosigned(5)) == count
                log.add_cosignature(5, line.line + "\n")
            assert log.latest_final(POLICY) == 5
            again = cosign(read_checkpoint(note)[0], SITES[0], TIME + 9)
            log.add_cosignature(5, again.line)
            assert log.cosigned(5) == tuple(lines[:2])
            assert read_checkpoint(log.checkpoint() or "")[1].signatures[1:] == tuple(lines[:2])
            log.append(leaves(5, 9))
            assert log.latest_final(POLICY) == 5
            log.sign_checkpoint(SERVER)
            assert log.latest_final(POLICY) == 5
            assert log.cosigned(9) == ()
            assert log.sign_checkpoint(SERVER) == log.checkpoint()

    def test_a_cosignature_needs_a_checkpoint(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            line = cosign(Checkpoint(ORIGIN, 5, log.root()), SITES[0], TIME).line
            with pytest.raises(LocalError):
                log.add_cosignature(5, line)
            log.sign_checkpoint(SERVER)
            with pytest.raises(MalformedError):
                log.add_cosignature(5, "no line")
            log.add_cosignature(5, line)

    def test_a_mirror_keeps_what_its_leaves_bear_out(self, engine: Engine) -> None:
        entries = hashes(9)
        checkpoint = Checkpoint(ORIGIN, 7, merkle.root(entries[:7]))
        signed = sign_checkpoint(checkpoint, SERVER)
        full = str(Note(signed.text, (*signed.signatures, *(cosign(checkpoint, site, TIME) for site in SITES))))
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 6))
            with pytest.raises(PeerError):
                log.put_checkpoint(full)
            log.append(leaves(6, 9))
            log.put_checkpoint(full)
            log.put_checkpoint(full)
            assert log.checkpoint() == full
            assert log.latest_final(POLICY) == 7
            for wrong in (
                Checkpoint(ORIGIN, 8, checkpoint.root),
                Checkpoint("another/log", 7, checkpoint.root),
                Checkpoint(ORIGIN, 10, checkpoint.root),
            ):
                with pytest.raises(PeerError):
                    log.put_checkpoint(str(sign_checkpoint(wrong, SERVER)))
            with pytest.raises(PeerError):
                log.put_checkpoint(str(Note(signed.text, (cosign(checkpoint, SITES[0], TIME),))))
            assert log.checkpoint() == full

    def test_a_witness_s_state_moves_by_compare_and_set(self, engine: Engine) -> None:
        one, two = WitnessState(ORIGIN, 5, bytes(32)), WitnessState(ORIGIN, 6, bytes(32))
        with transaction(engine, ORIGIN) as log:
            start = log.witness_state()
            assert start == WitnessState(ORIGIN)
            log.put_witness_state(start, one)
        with transaction(engine, ORIGIN) as log:
            assert log.witness_state() == one
            other = WitnessState(ORIGIN, 5, b"\1" * 32)
            strange = WitnessState("another/log", 9)
            for old, new in ((start, two), (two, two), (one, start), (one, other), (one, strange)):
                with pytest.raises(LocalError):
                    log.put_witness_state(old, new)
            assert log.witness_state() == one
            log.put_witness_state(one, two)
            assert (log.witness_state(), log.size) == (two, 0)

    def test_a_log_and_its_witnesses(self, engine: Engine) -> None:
        """Ten rounds, with witnesses that now and then miss one; then a second history of the same log."""
        states = {site.name: WitnessState(ORIGIN) for site in SITES}
        for step in range(1, 11):
            with transaction(engine, ORIGIN) as log:
                log.append(leaves(7 * (step - 1), 7 * step))
                note = log.sign_checkpoint(SERVER)
                for number, site in enumerate(SITES):
                    if (step + number) % 4 == 0:
                        continue
                    old = states[site.name].size
                    raw = encode_request(old, log.consistency(old, log.size), note)
                    states[site.name], response = answer(states[site.name], raw, LOG, site, TIME)
                    for line in cosignatures(response, note, [site.vkey]):
                        log.add_cosignature(log.size, line.line)
                assert log.latest_final(POLICY) == log.size
        forged = [*hashes(69), merkle.leaf_hash(b"another"), *hashes(75)[70:]]
        for site in SITES:
            seen = states[site.name]
            proof = tree.consistency_proof(seen.size, 75, reader(forged))
            note = str(sign_checkpoint(Checkpoint(ORIGIN, 75, merkle.root(forged)), SERVER))
            outcome = answer(seen, encode_request(seen.size, proof, note), LOG, site, TIME)[1].outcome
            assert outcome is (Outcome.INCONSISTENT if seen.size == 70 else Outcome.COSIGNED)

    def test_what_is_damaged_is_noticed(self, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 300))
        for change in (
            LEAVES.delete().where(LEAVES.c.leaf == leaves(7, 8)[0]),
            TILES.delete().where(TILES.c.level == 0, TILES.c.tile == 1),
            update(HEADS).values(size=301),
        ):
            with pytest.raises(LocalError), transaction(engine, ORIGIN) as log:
                log._connection.execute(change)
                log.leaves(0, 300)
                log.inclusion(299, 300)
        with pytest.raises(LocalError), transaction(engine, ORIGIN) as log:
            log._connection.execute(TILES.delete().where(TILES.c.level == 0, TILES.c.tile == 1))
            log.append(leaves(300, 301))

    def test_everything_that_is_stored_is_checked_against_the_leaves(self, engine: Engine) -> None:
        size = 700
        with transaction(engine, ORIGIN) as log:
            log.sign_checkpoint(SERVER)
            log.append(leaves(0, 300))
            log.sign_checkpoint(SERVER)
            log.append(leaves(300, size))
            assert check_log(log) == Checkpoint(ORIGIN, size, merkle.root(hashes(size)))
            assert check_log(Log(log._connection, "another/log")).size == 0
        frontier = tree.EMPTY.extend(hashes(size))[0]
        tile = update(TILES).where(TILES.c.level == 0, TILES.c.tile == 1)
        note = sign_checkpoint(Checkpoint(ORIGIN, 300, bytes(32)), SERVER)
        empty = sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), SERVER)
        for change in (
            update(LEAVES).where(LEAVES.c.leaf == leaves(7, 8)[0]).values(leaf=b"leaf 7?"),
            LEAVES.delete().where(LEAVES.c.leaf == leaves(size - 1, size)[0]),
            tile.values(hashes=b"".join([*hashes(512)[256:511], bytes(32)])),
            tile.values(hashes=b"".join(hashes(512)[256:511])),
            update(TILES).where(TILES.c.level == 1).values(hashes=bytes(64)),
            update(HEADS).values(frontier=b"".join([*frontier.hashes[:-1], bytes(32)])),
            update(HEADS).values(size=size - 4),
            update(HEADS).values(size=size - 1),
            update(CHECKPOINTS).where(CHECKPOINTS.c.size == 300).values(note=str(note)),
            update(CHECKPOINTS).where(CHECKPOINTS.c.size == 0).values(note=str(empty)),
            update(CHECKPOINTS).where(CHECKPOINTS.c.size == 300).values(size=301),
            update(CHECKPOINTS).where(CHECKPOINTS.c.size == 300).values(size=size + 1),
            update(CHECKPOINTS).where(CHECKPOINTS.c.size == 300).values(note="no note"),
        ):
            with pytest.raises(LocalError), transaction(engine, ORIGIN) as log:
                log._connection.execute(change)
                check_log(log)
        with transaction(engine, ORIGIN) as log:
            check_log(log)

    def test_names_that_are_no_origin_are_refused(self, engine: Engine) -> None:
        for origin in ("", "a b", "a+b", "cosignature/v1", "fedseal/sa1/x"):
            with pytest.raises(LocalError), transaction(engine, origin):
                raise AssertionError

    def test_opening_again_finds_the_log(self, url: str | Path, engine: Engine) -> None:
        with transaction(engine, ORIGIN) as log:
            log.append(leaves(0, 5))
            log.sign_checkpoint(SERVER)
        for reading in (False, True):
            again = open_database(url, reading=reading)
            with again.begin() as connection:
                log = Log(connection, ORIGIN)
                assert (log.size, log.root()) == (5, merkle.root(hashes(5)))
                assert log.checkpoint() is not None
                assert connection.execute(select(func.count()).select_from(CHECKPOINTS)).scalar_one() == 1
            if reading:
                with pytest.raises(DBAPIError), transaction(again, ORIGIN) as log:
                    log.append([b"written"])
            again.dispose()
        with transaction(engine, ORIGIN) as log:
            assert log.size == 5
