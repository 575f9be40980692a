"""Moving from epoch to epoch: who may, what refuses and by which words, and that a refusal changes nothing."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from support.enrolled import NOW, Seats, settled

from fedseal.client.enrolment import join
from fedseal.client.membership import check_membership
from fedseal.client.site_config import read_site
from fedseal.compliance.enrolment.files import load_node_key, read_bundle
from fedseal.errors import ConfigError, PolicyRefused
from fedseal.privacy.membership.documents import Reason
from fedseal.privacy.membership.tls import openssh_line
from fedseal.server.enrolment import adopt
from fedseal.server.server_config import read_server


def states(seats: Seats) -> list[bytes]:
    """Everything that a refusal must not change."""
    files = [p for p in sorted(seats.folder.rglob("*")) if p.is_file() and p.suffix in (".key", ".pem", ".toml")]
    kept = [path.read_bytes() for path in files]
    server, sites = seats.server.identity, [seats.site(name).identity for name in seats.names]
    kept += [server.roster.digest(), server.key.public]
    return kept + [part for site in sites for part in (site.roster.digest(), site.key.public)]


@pytest.fixture
def town(tmp_path: Path) -> Seats:
    seats = settled(tmp_path / "town", "north", "south", "east")
    seats.names = ["north", "south", "east"]
    return seats


def refused(seats: Seats, bundle: Path, name: str, message: str, *, later: timedelta = timedelta()) -> None:
    """A site, or for ``server`` the server, refuses a bundle by these words, and nothing changes."""
    before, epoch = states(seats), read_bundle(bundle)
    with pytest.raises(ConfigError, match=message) as caught:
        if name == "server":
            adopt(seats.server_folder, epoch, NOW + later)
        else:
            join(seats.site_folder(name), epoch, NOW + later)
    assert caught.value.next_step
    assert states(seats) == before


def test_all_follow_to_the_next_epoch_and_never_back(town: Seats) -> None:
    epoch = town.take(town.admit(), *town.names)
    assert epoch.number == 2
    for name in ("server", *town.names):
        refused(town, town.root.bundle(1), name, "of epoch 1, and this has adopted epoch 2 already")
    # The same once more is no refusal.
    town.take(town.root.bundle(2), *town.names)


def test_bundles_of_others_are_refused(town: Seats, tmp_path: Path) -> None:
    other = settled(tmp_path / "other", "north")
    namesake = settled(tmp_path / "village" / "x", "north")
    village = Seats(tmp_path / "village" / "y", name="village")
    theirs = village.admit([village.begin(), village.apply("north")])
    for name in ("server", "north"):
        refused(town, theirs, name, "of federation 'village', and this is a member of 'town'")
        refused(town, other.root.bundle(1), name, "signed by another root key than the one that was pinned")
        refused(town, namesake.root.bundle(1), name, "signed by another root key")


def test_what_does_not_hold_now_is_refused(town: Seats) -> None:
    bundle = town.admit()
    for name in ("server", "north"):
        refused(town, bundle, name, "the server's certificate expired on", later=timedelta(days=366))
        refused(town, bundle, name, "TLS authority is not valid before", later=timedelta(days=-1))


def test_an_epoch_with_other_keys_is_not_this_sites(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    bundle = read_bundle(seats.admit([seats.begin(), seats.apply("north")]))
    seats.apply("south")
    with pytest.raises(ConfigError, match=r"lists no site with the key .*south/next/signing\.key"):
        join(seats.site_folder("south"), bundle, NOW)
    stranger = seats.apply("west", federation="village").parent
    with pytest.raises(ConfigError, match="of federation 'town', and this site has asked 'village'"):
        join(stranger, bundle, NOW)
    next_keys = seats.site_folder("north") / "next"
    (next_keys / "node.key").write_bytes((seats.site_folder("south") / "next" / "node.key").read_bytes())
    with pytest.raises(ConfigError, match="has another node key for this site than"):
        join(seats.site_folder("north"), bundle, NOW)
    assert not (seats.site_folder("north") / "site.sqlite").exists()
    thief = Seats(tmp_path / "thief")
    thief.begin()
    (seats.server_folder / "next" / "tls.key").replace(thief.server_folder / "next" / "tls.key")
    with pytest.raises(ConfigError, match=r"names another server key than .*next/signing\.key"):
        adopt(thief.server_folder, bundle, NOW)
    shutil.copy(thief.server_folder / "next" / "signing.key", seats.server_folder / "next" / "tls.key")
    with pytest.raises(ConfigError, match="holds no private key on P-256"):
        adopt(seats.server_folder, bundle, NOW)


def test_a_certificate_for_another_tls_key_is_refused(town: Seats, tmp_path: Path) -> None:
    other = settled(tmp_path / "other", "north")
    key = town.server_folder / "superlink.key"
    key.write_bytes((other.server_folder / "superlink.key").read_bytes())
    refused(town, town.admit(), "server", r"is for another TLS key than .*superlink\.key")


def test_new_keys_of_a_site_count_from_the_epoch_that_names_them(town: Seats) -> None:
    folder, old = town.site_folder("north"), town.site("north").identity
    old_node = load_node_key(folder / "node.key")
    request = town.rotate("north")
    with pytest.raises(ConfigError, match="holds keys that were asked for"):
        town.rotate("north")
    # An epoch that does not have them yet leaves them waiting.
    town.take(town.admit(), "north")
    assert town.site("north").identity.key.public == old.key.public
    epoch = town.take(town.admit([request]), "north")
    new = town.site("north").identity
    assert new.number == old.number
    assert new.key.public == epoch.roster.sites[0].signing_key != old.key.public
    assert openssh_line(load_node_key(folder / "node.key").public_key()) == epoch.membership.node_key(1)
    assert load_node_key(folder / "node.key") != old_node
    assert {Reason(f.reason) for f in epoch.membership.former if f.site == 1} == {Reason.ROTATED}
    assert not (folder / "next").exists()
    # The ledger's entries were signed with the old key, those from now on are with the new one.
    town.site("north").verify_ledgers()
    assert read_site(folder / "site.toml").epoch == epoch


def test_a_join_that_was_interrupted_is_completed(town: Seats) -> None:
    request = town.rotate("north")
    waiting = town.site_folder("north") / "next"
    shutil.copytree(waiting, town.folder / "copy")
    node = (town.site_folder("north") / "node.key").read_bytes()
    bundle = town.admit([request])
    town.take(bundle, "north")
    # As if it had ended after the store was written.
    shutil.copytree(town.folder / "copy", waiting)
    (town.site_folder("north") / "node.key").write_bytes(node)
    with pytest.raises(ConfigError, match="is not this site's node key in epoch 2"):
        read_site(town.site_folder("north") / "site.toml")
    town.take(bundle, "north")
    assert read_site(town.site_folder("north") / "site.toml").epoch == read_bundle(bundle)
    assert not waiting.exists()


def test_new_keys_of_the_server_count_from_the_epoch_that_names_them(town: Seats) -> None:
    old, key = town.server.identity, (town.server_folder / "superlink.key").read_bytes()
    epoch = town.take(town.admit([town.rotate()]), *town.names)
    new = town.server.identity
    assert new.key.public == epoch.roster.server_key != old.key.public
    assert (town.server_folder / "superlink.key").read_bytes() != key
    assert epoch.membership.signing_keys(0) == (old.key.public,)
    assert read_server(town.server_folder / "server.toml").epoch == epoch


def test_a_site_that_left_is_told_so(town: Seats) -> None:
    refused(town, town.remove("south", Reason.REVOKED), "south", r"'south' is not in epoch 2 .* \(revoked\)")
    town.take(town.root.bundle(2), "north", "east")
    assert sorted(read_server(town.server_folder / "server.toml").nodes) == ["east", "north"]


def test_at_its_end_an_epoch_is_refused_everywhere_and_before_that_warned_of(town: Seats) -> None:
    server, site = read_server(town.server_folder / "server.toml"), read_site(town.site_folder("north") / "site.toml")
    identity = town.site("north").identity
    for found in (server, site):
        assert found.check_now(NOW) is None
        warning = found.check_now(NOW + timedelta(days=336))
        assert warning is not None
        assert "ends on" in warning
        with pytest.raises(ConfigError, match="expired on"):
            found.check_now(NOW + timedelta(days=366))
    check_membership(identity, NOW)
    with pytest.raises(PolicyRefused, match="epoch 1, ended on"):
        check_membership(identity, NOW + timedelta(days=366))


def test_files_from_before_an_epoch_are_seen(town: Seats) -> None:
    certificate = town.server_folder / "superlink.pem"
    old = certificate.read_bytes()
    town.take(town.admit())
    certificate.write_bytes(old)
    with pytest.raises(ConfigError, match=r"superlink\.pem is not the server's certificate of epoch 2"):
        read_server(town.server_folder / "server.toml")
