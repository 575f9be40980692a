"""Where a log is read from: the same log from a server's store, a mirror, exported files and a run's folder."""

import shutil
from pathlib import Path

import pytest
from support.federated import run
from support.flower import Federation, make_federation
from support.keys import SERVER, key

from fedseal.compliance.audit.reconcile import reconcile
from fedseal.compliance.audit.site_side import site_side
from fedseal.compliance.audit.source import LogCopy, open_log, read_policy
from fedseal.compliance.audit.verify import AuditCode
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.events.registry import Book
from fedseal.compliance.log.checkpoint import Checkpoint, site_origin
from fedseal.compliance.log.export import export
from fedseal.compliance.log.quorum import evaluate, format_policy
from fedseal.compliance.log.tiles import bundles_of
from fedseal.errors import ConfigError, PeerError
from fedseal.privacy.store import SiteStore


def state(copy: LogCopy) -> tuple[str, int, bytes, list[bytes]]:
    return copy.log.origin, copy.log.size, copy.log.root(), list(copy.leaves())


@pytest.fixture
def exported(honest: Federation, tmp_path: Path) -> Path:
    with open_log(honest.server) as copy:
        export(copy.log, tmp_path / "log", copy.policy)
    return tmp_path / "log"


def test_every_copy_is_the_same_log(honest: Federation, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "server").mkdir(parents=True)
    shutil.copy(honest.server, tmp_path / "run" / "server" / "server.sqlite")
    with open_log(honest.server) as server:
        expected, policy = state(server), server.policy
        assert server.book is Book.FEDERATION
        for place in (exported, exported.parent, tmp_path / "run", str(honest.server), honest.sites[2]):
            with open_log(place) as copy:
                assert state(copy) == expected, place
                assert (copy.policy, copy.own_word) == (policy, True)


def test_an_exported_log_reads_like_a_stored_one(honest: Federation, exported: Path) -> None:
    with open_log(honest.server) as server, open_log(exported) as files:
        size = server.log.size
        for index in (0, size // 2, size - 1):
            assert files.log.inclusion(index, size) == server.log.inclusion(index, size)
            assert files.log.leaf(index) == server.log.leaf(index)
        for old in (1, 3, size):
            assert files.log.consistency(old, size) == server.log.consistency(old, size)
        assert files.log.root(5) == server.log.root(5)
        assert files.log.hashes(0, 3, 7) == server.log.hashes(0, 3, 7)
        assert files.log.find(server.log.hashes(0, 4, 5)[0]) == 4
        assert files.log.find(bytes(32)) is None
        assert files.log.checkpoint(size) == server.log.checkpoint()
        assert files.log.checkpoint(size - 1) is None
        for wrong in (-1, size):
            with pytest.raises(IndexError):
                files.log.leaf(wrong)
        with pytest.raises(IndexError):
            files.log.root(size + 1)


def test_a_site_holds_a_log_of_its_own(honest: Federation) -> None:
    with open_log(honest.sites[1], own=True) as copy:
        assert copy.book is Book.SITE
        assert copy.log.origin == "test/site/site-1"
        # What the federation's log says about it: once for each round.
        assert len(copy.seen) == 2
        assert all(copy.log.root(seen.size) == seen.root for seen in copy.seen)
        assert verify_copy(copy).code is AuditCode.OK
    with pytest.raises(ConfigError, match="own"), open_log(honest.server, own=True):
        pass


def test_a_policy_can_be_brought(honest: Federation, tmp_path: Path) -> None:
    with open_log(honest.server) as copy:
        (tmp_path / "policy.txt").write_text(format_policy(copy.policy), encoding="utf-8")
    policy = read_policy(tmp_path / "policy.txt")
    with open_log(honest.server, policy=policy) as copy:
        assert (copy.policy, copy.own_word) == (policy, False)
    (tmp_path / "policy.txt").write_text("nonsense", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1"):
        read_policy(tmp_path / "policy.txt")


def test_what_is_no_log_is_refused(honest: Federation, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database", encoding="utf-8")
    (exported / "policy.txt").unlink()
    never = make_federation(tmp_path, 2)
    for place in (tmp_path / "missing", tmp_path / "text", exported, never.server, never.sites[1], "mysql://x/y"):
        with pytest.raises(ConfigError), open_log(place):
            pass
    with pytest.raises(ConfigError, match="network"), open_log("postgresql://x/y", offline=True):
        pass


def test_a_damaged_export_is_found_out(exported: Path) -> None:
    with open_log(exported) as copy:
        (bundle,) = bundles_of(copy.log.size)
    path = exported / bundle.path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with open_log(exported) as copy:
        assert verify_copy(copy).code is AuditCode.TAMPERED
        with pytest.raises(PeerError):
            copy.log.leaf(0)
    path.unlink()
    with open_log(exported) as copy:
        assert verify_copy(copy).code is AuditCode.TAMPERED


def test_the_checkpoint_that_covers_an_entry_is_the_newest_with_a_quorum(honest: Federation) -> None:
    with open_log(honest.server) as copy:
        final = copy.log.latest_final(copy.policy)
        assert final is not None
        covering = copy.covering(final - 1)
        assert covering is not None
        assert covering.size == final
        note = copy.log.checkpoint(covering.size)
        assert note is not None
        assert evaluate(copy.policy, note).final
        assert copy.cosigned_by(site_origin("test", "site-1")) > 0
        assert copy.cosigned_by(site_origin("test", "nobody")) == 0


def test_honest_sides_agree_also_where_answers_were_lost(honest: Federation, tmp_path: Path) -> None:
    losing = make_federation(tmp_path, 3, epsilon=50.0)
    # Of the site's answers in the first round: the masked vector's; in the second: the first.
    run(losing, lost=(3, 6))
    # And in a second run everything from the masked vector of its second round on.
    run(losing, lost=range(8, 99))
    waiting = []
    for federation in (honest, losing):
        for number, path in federation.sites.items():
            with open_log(federation.server) as copy, SiteStore.open(path, reading=True).transaction() as transaction:
                side = site_side(transaction, federation.site(number).identity)
                answered = copy.cosigned_by(site_origin("test", f"site-{number}"))
                result = reconcile(copy.leaves(), side, answered=answered)
                assert result.found == [], (number, result)
                waiting.append(result.waiting)
    assert sum(waiting[:3]) == 0
    assert sum(waiting[3:]) > 0


def test_a_site_that_has_seen_more_finds_a_log_rolled_back(honest: Federation) -> None:
    with open_log(honest.sites[1]) as mirror, open_log(honest.server) as server:
        (seen,) = mirror.seen
        assert seen == Checkpoint(seen.origin, server.log.size, server.log.root())
        shorter = LogCopy(server.log, server.book, server.policy, False, (Checkpoint(seen.origin, 999, seen.root),))
        assert verify_copy(shorter).code is AuditCode.ROLLED_BACK
        other = LogCopy(server.log, server.book, server.policy, False, (Checkpoint(seen.origin, 3, seen.root),))
        assert verify_copy(other).code is AuditCode.TAMPERED


def test_the_keys_of_the_test_are_those_of_the_policy(honest: Federation) -> None:
    with open_log(honest.server) as copy:
        assert copy.policy.logs[0].key.public == SERVER.public
        assert {w.key.public for w in copy.policy.witnesses} == {key(f"site-{n}").public for n in (1, 2, 3)}
